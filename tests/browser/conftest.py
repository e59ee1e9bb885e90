"""One browser, and one build of the example app, for all tests here."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.page.browser import launched
from tests.browser.serving import build, files_of


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A running Chromium."""
    async with launched() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of the app, as built for development."""
    with files_of(await build(tmp_path_factory.mktemp("app"))) as address:
        yield address
