"""The app in development and as a production build."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.app_users import place, watching
from tests.browser.serving import APP, build, files_of
from tests.js.tools import HERE, installed, node_program
from tests.support.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@asynccontextmanager
async def development(root: Path) -> AsyncIterator[str]:
    """Vite's development server, which sends each edit to the open pages."""
    vite = installed() / "vite" / "bin" / "vite.js"
    process = await asyncio.create_subprocess_exec(
        node_program(), vite, root, "--config", APP / "vite.config.js", "--host", "127.0.0.1", "--port", "0",
        cwd=HERE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            async for line in process.stdout:
                if b"Local:" in line:
                    break
        reading = asyncio.create_task(process.stdout.read())
        yield line.decode().split()[-1].rstrip("/")
        reading.cancel()
    finally:
        process.terminate()
        await process.wait()


async def test_hot_reloading_does_not_leave_the_room(
    browser: Browser, bundled_server: Server, tmp_path: Path
):
    shutil.copytree(APP / "src", tmp_path / "src")
    shutil.copy(APP / "index.html", tmp_path)
    (tmp_path / "node_modules").symlink_to(installed())
    screen = tmp_path / "src" / "ChatScreen.jsx"
    async with (
        development(tmp_path) as address,
        place(browser, address, bundled_server) as here,
        watching(here, "lobby") as bob,
    ):
        ann = await (await here.open_app("ann")).enter("lobby")
        await ann.sees("bob", "annyou")
        await ann.page.get_by_label("Message").fill("Hello")
        await ann.sees("bob", "annyou · typing")
        for before, after in (("{roomId}</h1>", "{roomId}!</h1>"), ("!</h1>", "?</h1>")):
            screen.write_text(screen.read_text().replace(before, after))
            await expect(ann.page.locator("h1")).to_have_text(f"lobby{after[-6]}")
        # The input is kept: the components were preserved, only their effects ran again.
        await expect(ann.page.get_by_label("Message")).to_have_value("Hello")
        assert await bob.all() == ["joined ann", "updated ann 1"]


async def test_the_production_build_works_the_same(browser: Browser, bundled_server: Server, tmp_path: Path):
    with files_of(await build(tmp_path, mode="production")) as address:
        async with place(browser, address, bundled_server) as here, watching(here, "lobby") as bob:
            ann = await (await here.open_app("ann")).enter("lobby")
            await ann.sees("bob", "annyou")
            await ann.page.reload()
            await ann.is_in()
            await ann.page.get_by_role("button", name="Back").click()
            await bob.sees("joined ann", "left ann left")
