"""The JavaScript client on Node.js: its modules with a fake clock and socket, then on a real server."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from reactor import __version__
from reactor.gateway.bundle import bundle, bundle_addition, pack
from reactor.settings.rooms import read_rules
from tests.js.tools import HERE, PACKAGE, installed, npm_command, run_node
from tests.support.nodes import served
from tests.support.servers import Server

CORE = (
    "client", "connection", "deferred", "emitter", "error", "index", "network",
    "reported-room", "room", "view", "clock", "encode", "open-requests", "outgoing", "own-member",
    "patch", "probe", "followed-room", "watched-room", "watched-rooms", "people",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["view", "client", "room", "stay", "return", "messages", "token", "encode", "watch", "people"]
)
async def test_the_modules(name: str):
    await run_node("--test", "--test-reporter=spec", f"{name}.test.mjs")


async def test_random_histories_hold_to_one_model():
    await run_node("--test", "histories.test.mjs", HISTORIES="40")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_many_random_histories_hold_to_one_model():
    await run_node("--test", "histories.test.mjs", seconds=850, HISTORIES="2000", SEED="10000")


@pytest.mark.parametrize("name", ["client", "room", "stay", "return", "token"])
async def test_the_bundle_that_the_server_serves(name: str, tmp_path: Path):
    served_file = tmp_path / "client.mjs"
    served_file.write_text(bundle(PACKAGE), encoding="utf-8")
    await run_node("--test", f"{name}.test.mjs", REACTOR_CLIENT=str(served_file))


async def test_the_second_bundle_uses_the_first(tmp_path: Path):
    client, people = tmp_path / "client.js", tmp_path / "people.js"
    client.write_text(bundle(PACKAGE, additions=["people.js"]), encoding="utf-8")
    people.write_text(bundle_addition(PACKAGE, "people.js"), encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    await run_node("--test", "people.test.mjs", REACTOR_CLIENT=str(client), REACTOR_PEOPLE=str(people))


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
    compiler = installed() / "typescript" / "bin" / "tsc"
    await run_node(compiler, "-p", "types")
    await run_node(compiler, "-p", "types/registered.json")


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


@pytest.mark.parametrize("folder", [".", "next", "native"])
def test_a_lock_file_contains_no_registry_url(folder: str):
    text = (HERE / folder / "package-lock.json").read_text()
    assert '"resolved": "http' not in text
    assert text.count('"integrity": "sha512-') > 20
