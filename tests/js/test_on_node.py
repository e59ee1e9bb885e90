"""The JavaScript client on Node.js: its modules with a fake clock and socket, then on a real server."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from reactor import __version__
from reactor.gateway.bundle import bundle, pack
from reactor.settings.rooms import read_rules
from tests.js.tools import HERE, PACKAGE, installed, npm_command, run_node
from tests.support.nodes import served
from tests.support.servers import Server

CORE = (
    "client", "connection", "deferred", "emitter", "error", "index", "network",
    "reported-room", "room", "view",
)  # fmt: skip
MAX_SIZE = 5 * 1024
"""Bytes that the core may add to a page: bundled and minified (without comments), and gzipped."""


@pytest.mark.parametrize("name", ["view", "client", "room", "stay", "token"])
async def test_the_modules(name: str):
    await run_node("--test", "--test-reporter=spec", f"{name}.test.mjs")


@pytest.mark.parametrize("name", ["client", "room", "stay", "token"])
async def test_the_bundle_that_the_server_serves(name: str, tmp_path: Path):
    served_file = tmp_path / "client.mjs"
    served_file.write_text(bundle(PACKAGE), encoding="utf-8")
    await run_node("--test", f"{name}.test.mjs", REACTOR_CLIENT=str(served_file))


@pytest.mark.parametrize("own", [False, True], ids=["ws", "Node.js's own WebSocket"])
async def test_on_a_server(bundled_server: Server, own: bool):
    installed()
    flags = ["--experimental-websocket"] if own else []
    rules = read_rules({"brief-*": {"ttl": "1s", "message": "Too long."}}, "test")
    async with served(bundled_server, grace=5, rooms=rules) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        await run_node(*flags, "--test", "--test-reporter=spec", "server.test.mjs", REACTOR_URL=url)


async def test_a_program_exits_after_closing_its_client(bundled_server: Server):
    installed()
    async with served(bundled_server) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        assert await run_node("exits.mjs", seconds=20, REACTOR_URL=url) == "closed idle\n"


async def test_the_code_matches_its_type_declarations():
    await run_node(installed() / "typescript" / "bin" / "tsc", "-p", "types")


async def test_the_minified_size_is_limited():
    installed()
    assert int(await run_node("size.mjs", PACKAGE / "index.js")) < MAX_SIZE


def test_it_has_no_dependencies_and_uses_only_universal_platform_features():
    for name in CORE:
        whole = (PACKAGE / f"{name}.js").read_text(encoding="utf-8")
        code = re.sub(r"^\s*(\*|//|/\*).*", "", whole, flags=re.MULTILINE)
        imported = re.findall(r'(?:from|import) "([^"]+)"', code)
        assert all(path.startswith("./") and path[2:-3] in CORE for path in imported), (name, imported)
        for word in (
            "EventTarget",
            "CustomEvent",
            "structuredClone",
            "AbortSignal.",
            "process.",
            "Object.groupBy",
        ):
            assert word not in code, (name, word)


def test_the_published_files_are_those_of_the_package(tmp_path: Path):
    done = subprocess.run(
        npm_command("pack", "--dry-run", "--json", f"--cache={tmp_path}"),
        cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    said = json.loads(done.stdout)
    (packed,) = said.values() if isinstance(said, dict) else said
    names = {entry["path"] for entry in packed["files"]}
    manifest = json.loads((PACKAGE / "package.json").read_text())
    assert names == {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert not [name for name in names if "test" in name or "/" in name]
    assert {f"{name}.js" for name in CORE} | {"index.d.ts", "README.md", "LICENSE"} <= names
    assert manifest["version"] == __version__
    assert manifest["sideEffects"] is False
    assert "dependencies" not in manifest
    assert set(manifest["peerDependencies"]) == set(manifest["peerDependenciesMeta"])
    for entry in manifest["exports"].values():
        if isinstance(entry, dict):
            assert list(entry) == ["types", "default"]


async def test_publint_finds_no_fault(tmp_path: Path):
    tarball = tmp_path / "client.tgz"
    tarball.write_bytes(pack(PACKAGE))
    said = await run_node(installed() / "publint" / "src" / "cli.js", tarball, "--strict")
    assert "All good!" in said


def test_the_lock_file_contains_no_registry_url():
    text = (HERE / "package-lock.json").read_text()
    assert '"resolved": "http' not in text
    assert text.count('"integrity": "sha512-') > 20
