"""The package as the server serves it to npm."""

import asyncio
import json
import subprocess
from pathlib import Path

from reactor.gateway.bundle import pack
from tests.js.tools import PACKAGE, npm_command
from tests.support.nodes import served
from tests.support.servers import Server


def test_the_tarball_is_reproducible():
    assert pack(PACKAGE) == pack(PACKAGE)


async def test_npm_installs_it_from_the_server(bundled_server: Server, tmp_path: Path):
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    async with served(bundled_server) as node:
        address = f"http://127.0.0.1:{node.gateway.port}/client.tgz"
        done = await asyncio.to_thread(
            subprocess.run,
            npm_command("install", "--no-audit", f"--cache={tmp_path / 'cache'}", address),
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    installed = tmp_path / "node_modules" / "reactor-presence"
    expected = {path.name: path.read_bytes() for path in PACKAGE.iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in installed.iterdir()} == expected
    manifest = json.loads((tmp_path / "package.json").read_text())
    assert manifest["dependencies"] == {"reactor-presence": address}
