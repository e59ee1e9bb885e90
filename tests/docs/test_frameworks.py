"""The documents' examples for frameworks, each as it stands there, and the sizes that they state."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from reactor.settings.rooms import read_rules
from tests.browser.page.browser import launched
from tests.browser.serving import build, files_of
from tests.docs.documents import example, section
from tests.js.tools import HERE, LINKED, NEWEST_NODE, PACKAGE, installed, node_program, run_node
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port

MAIN = {
    "react": """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import App from "./App.tsx";

createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
""",
    "vue": """
import { createApp } from "vue";
import App from "./App.vue";

createApp(App).mount("#root");
""",
    "svelte": """
import { mount } from "svelte";
import App from "./App.svelte";

mount(App, { target: document.getElementById("root") });
""",
}
SUFFIX = {"react": "tsx", "vue": "vue", "svelte": "svelte"}
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


@pytest.mark.parametrize("framework", ["react", "vue", "svelte"])
async def test_an_app_shows_who_is_in_the_room(bundled_server: Server, folder: Path, framework: str):
    block = example(framework, SUFFIX[framework])
    assert len(block.splitlines()) <= 20
    async with served(bundled_server) as node, launched() as browser:
        (folder / "src" / f"App.{SUFFIX[framework]}").write_text(
            block.replace("127.0.0.1:8765", f"127.0.0.1:{node.gateway.port}")
        )
        (folder / "src" / "main.jsx").write_text(MAIN[framework])
        (folder / "index.html").write_text(PAGE)
        with files_of(await build(folder / "dist", folder)) as address:
            ann, bob = await browser.new_page(), await browser.new_page()
            await ann.goto(f"{address}/?user=ann")
            await expect(ann.locator("li")).to_have_text(["ann"])
            await bob.goto(f"{address}/?user=bob")
            for page in (ann, bob):
                await expect(page.locator("li")).to_have_text(["ann", "bob"])
            await bob.close()


async def test_the_react_app_has_the_right_types(folder: Path):
    (folder / "src" / "App.tsx").write_text(example("react", "tsx"))
    options = TYPES | {"noUnusedLocals": True, "verbatimModuleSyntax": True, "erasableSyntaxOnly": True}
    options |= {"exactOptionalPropertyTypes": True, "lib": ["es2023", "dom"]}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["src"]}))
    await run_node(installed() / "typescript" / "bin" / "tsc", "-p", folder)


async def test_each_entry_is_as_small_as_the_document_says():
    installed()
    stated = re.findall(
        r"^\| `reactor-presence/?(.*)` \| (\d+) KB \|$",
        section("reactor/js/README.md", "## Sizes"),
        re.MULTILINE,
    )
    manifest = json.loads((PACKAGE / "package.json").read_text())
    assert {f"./{name}".removesuffix("/") for name, _ in stated} == set(manifest["exports"]) - {
        "./package.json"
    }
    for name, limit in stated:
        size = int(await run_node("size.mjs", PACKAGE / f"{name or 'index'}.js"))
        assert int(limit) - 2 < size / 1024 < int(limit), name


async def test_the_parts_of_the_core_are_as_large_as_the_document_says():
    installed()
    stated = re.findall(
        r"^\| [^|`]+ \| (`[^|]+`) \| (\d\.\d) \|$", section("reactor/js/README.md", "## Sizes"), re.MULTILINE
    )
    found = json.loads(await run_node("size.mjs", PACKAGE / "index.js", "--parts"))
    named = [name for modules, _ in stated for name in re.findall(r"`([\w-]+)`", modules)]
    assert sorted([*named, "index"]) == sorted(found)
    for modules, size in stated:
        total = sum(found[name] for name in re.findall(r"`([\w-]+)`", modules)) / 1024
        assert abs(total - float(size)) < 0.15, (modules, total)


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


@contextmanager
def app_folder(parent: Path) -> Iterator[Path]:
    """A folder beside the packages of a framework's tests, since bundlers refuse links out of their root."""
    installed(parent)
    with TemporaryDirectory(prefix=".app-", dir=parent) as name:
        shutil.copytree(PACKAGE, Path(name) / "node_modules" / "reactor-presence")
        (Path(name) / "package.json").write_text('{"private": true}')
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_metro_bundles_the_screen_of_react_native_and_its_real_types_fit():
    with app_folder(HERE / "native") as app:
        (app / "ChatScreen.tsx").write_text(example("react-native", "tsx"))
        (app / "index.js").write_text(
            'import { AppRegistry } from "react-native";\nimport { ChatScreen } from "./ChatScreen";\n'
            'AppRegistry.registerComponent("chat", () => ChatScreen);\n'
        )
        shutil.copytree(HERE / "stubs" / "expo-router", app / "node_modules" / "expo-router")
        options = TYPES | {"noEmit": True, "skipLibCheck": True, "rootDir": "..", "lib": ["es2023"]}
        (app / "tsconfig.json").write_text(
            json.dumps({"compilerOptions": options, "files": ["ChatScreen.tsx"]})
        )
        await run_node(installed() / "typescript" / "bin" / "tsc", "-p", app, seconds=100)
        await run_node(HERE / "native" / "bundle.mjs", app, seconds=280, program=NEWEST_NODE)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_the_app_of_next_is_rendered_empty_on_the_server_and_joins_in_the_browser(
    bundled_server: Server,
):
    async with served(bundled_server) as node, launched() as browser:
        with app_folder(HERE / "next") as app:
            (app / "app").mkdir()
            for name in ("room", "page"):
                block = example(f"next-{name}", "jsx")
                (app / "app" / f"{name}.jsx").write_text(
                    block.replace("127.0.0.1:8765", f"127.0.0.1:{node.gateway.port}")
                )
            (app / "app" / "layout.jsx").write_text(
                'export default ({ children }) => <html lang="en"><body>{children}</body></html>;'
            )
            async with next_serving(app) as address, httpx.AsyncClient() as client:
                assert "0<!-- --> here: " in (await client.get(address)).text
                page = await browser.new_page()
                problems: list[str] = []
                page.on("pageerror", lambda error: problems.append(str(error)))
                await page.goto(address)
                await expect(page.locator("p")).to_have_text("1 here: ann")
                assert not problems


@asynccontextmanager
async def next_serving(app: Path) -> AsyncIterator[str]:
    """Build an app of Next.js and serve it; gives the address."""
    command = HERE / "next" / "node_modules" / "next" / "dist" / "bin" / "next"
    await run_node(command, "build", app, seconds=280, NEXT_TELEMETRY_DISABLED="1")
    port = str(free_port())
    process = await asyncio.create_subprocess_exec(
        node_program(), command, "start", app, "-H", "127.0.0.1", "-p", port, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            async for line in process.stdout:
                if b"Ready" in line:
                    break
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        await process.wait()


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
