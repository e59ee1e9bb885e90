"""What every test shares: uvloop, as the server runs on it, and the two kinds of server."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
