"""A plugin for pytest: the fixture `reactor_server` is a server for the tests of an application.

pytest loads it where this package is installed; `-p no:reactor` switches it off.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reactor.running import RunningServer


@pytest.fixture(scope="session")
def reactor_settings() -> dict[str, Any]:
    """Return the settings of `reactor_server` by name; override this fixture to choose others."""
    return {}


@pytest.fixture(scope="session")
def reactor_server(reactor_settings: dict[str, Any]) -> "Iterator[RunningServer]":
    """Yield a server with a Valkey of its own, for all tests of this run.

    It runs in a thread, so that tests may be asynchronous or not. Its `presence` belongs to that thread: open
    one by `Presence.open(reactor_server.redis_url)`. Members of other tests are kept apart by room ids.
    """
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - most runs do not use the fixture

    from reactor.running import serving  # noqa: PLC0415 - the same

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(**reactor_settings)) as server,
    ):
        yield server
