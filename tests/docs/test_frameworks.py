"""The README's examples of React, React Native and FastAPI, each as it stands there."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from reactor.settings.rooms import read_rules
from tests.browser.page.browser import launched
from tests.browser.serving import build, files_of
from tests.docs.documents import example
from tests.js.tools import HERE, LINKED, installed, run_node
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

MAIN = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import App from "./App.jsx";

createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
"""
PAGE = """<!doctype html><link rel="icon" href="data:,"><div id="root"></div>
<script type="module" src="/src/main.jsx"></script>"""
TYPES = {
    "strict": True,
    "jsx": "react-jsx",
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "preserveSymlinks": True,
    "types": [],
    "rootDir": "src",
    "outDir": "made",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app's folder, with its packages."""
    (tmp_path / "node_modules").symlink_to(installed())
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    (tmp_path / "src").mkdir()
    return tmp_path


async def test_the_react_app_shows_who_is_in_the_room(bundled_server: Server, folder: Path):
    block = example("react", "jsx")
    assert len(block.splitlines()) <= 15
    async with served(bundled_server) as node, launched() as browser:
        (folder / "src" / "App.jsx").write_text(
            block.replace("127.0.0.1:8765", f"127.0.0.1:{node.gateway.port}")
        )
        (folder / "src" / "main.jsx").write_text(MAIN)
        (folder / "index.html").write_text(PAGE)
        with files_of(await build(folder / "dist", folder)) as address:
            ann, bob = await browser.new_page(), await browser.new_page()
            await ann.goto(f"{address}/?user=ann")
            await expect(ann.locator("li")).to_have_text(["ann"])
            await bob.goto(f"{address}/?user=bob")
            for page in (ann, bob):
                await expect(page.locator("li")).to_have_text(["ann", "bob"])
            await bob.close()


async def test_the_screen_of_react_native_has_the_right_types_alerts_and_goes_back(
    bundled_server: Server, folder: Path
):
    (folder / "src" / "ChatScreen.tsx").write_text(example("react-native", "tsx"))
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": TYPES, "include": ["src"]}))
    await run_node(installed() / "typescript" / "bin" / "tsc", "-p", folder)
    for name in ("dom", "members", "screen"):
        shutil.copy(HERE / "react" / f"{name}.mjs", folder / "made")
    rules = read_rules({"brief-*": {"ttl": "1s", "message": "You were away too long."}}, "test")
    async with served(bundled_server, rooms=rules) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        await run_node(*LINKED, folder / "made" / "screen.mjs", REACTOR_URL=url)


async def test_the_back_end_of_fastapi_says_who_is_in_a_room(bundled_server: Server):
    names: dict[str, Any] = {}
    exec(example("fastapi").replace("redis://localhost:6379", bundled_server.url), names)
    app = names["app"]
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        assert (await client.get("/rooms/lobby")).json() == {"count": 0, "names": []}
        await ann.join("lobby", "42", username="Ann")
        assert (await client.get("/rooms/lobby")).json() == {"count": 1, "names": ["Ann"]}
