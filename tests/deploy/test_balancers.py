"""The load balancer configurations of scripts/deploy/README.md, during a deploy of two servers."""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from scripts.benchmarks.fleet.clients import Crowd, crowd
from tests.support import redis_state
from tests.support.nodes import NodeProcess
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port

DOCUMENT = (Path(__file__).parents[2] / "scripts/deploy/README.md").read_text(encoding="utf-8")
# All clients come from one address here.
OPTIONS: dict[str, Any] = {"drain_seconds": 0.5, "grace": 10, "max_per_address": 0, "new_per_second": 0}
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {block}
}}
"""


def block_of(language: str, ports: dict[str, int]) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    text = found[1]
    for written, port in ports.items():
        assert written in text
        text = text.replace(written, str(port))
    return text


@asynccontextmanager
async def balancing(name: str, folder: Path, one: int, two: int) -> AsyncIterator[int]:
    """Run this load balancer in front of two ports; its own port, once it serves."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    block = block_of(name, {"8080": port, "8765": one, "8766": two})
    file = folder / f"{name}.conf"
    file.write_text(NGINX.format(folder=folder, block=block) if name == "nginx" else block)
    flags = ["-c", str(file), "-p", str(folder)] if name == "nginx" else ["-db", "-f", str(file)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *flags], stdout=log, stderr=log)
    try:
        async with httpx.AsyncClient() as http:

            async def serves() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    return (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                except httpx.HTTPError:
                    return False

            while not await serves():
                pass
            assert "<!doctype html>" in (await http.get(f"http://127.0.0.1:{port}/")).text.lower()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def nodes_in_use(server: Server, clients: Crowd) -> set[str]:
    """The nodes that have connected members."""
    fields: list[str] = []
    for client in clients.clients:
        found: Any = server.control.hkeys(redis_state.shadow_key(client.room_id, client.user_id))
        fields += found
    return {field.partition(".")[0] for field in fields if "." in field}


async def node_behind(port: int) -> str:
    """The node to which a new client is connected."""
    async with RawClient.connect(SimpleNamespace(gateway=SimpleNamespace(port=port))) as probe:  # type: ignore[arg-type]
        return str((await probe.join("elsewhere", "probe"))["socketId"]).partition(".")[0]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_behind_a_load_balancer_no_member_sees_a_deploy_of_both_servers(
    name: str, bundled_server: Server, tmp_path: Path
) -> None:
    async with (
        NodeProcess.start(bundled_server, **OPTIONS) as one,
        NodeProcess.start(bundled_server, **OPTIONS) as two,
        balancing(name, tmp_path, one.port, two.port) as port,
        crowd([port], 20, 10) as clients,
    ):
        assert len(nodes_in_use(bundled_server, clients)) == 2
        assert await one.stop() == 0
        assert await clients.converged(10) < 10
        assert len(nodes_in_use(bundled_server, clients)) == 1
        (old,) = nodes_in_use(bundled_server, clients)
        async with NodeProcess.start(bundled_server, port=one.port, **OPTIONS):
            while await node_behind(port) == old:
                pass
            assert await two.stop() == 0
            assert await clients.converged(10) < 10
            summary = clients.summary()
            assert (summary["leaves_seen"], summary["joins_seen"]) == (0, 0), summary["examples"]
            assert set(summary["closings"]) == {1012}
            assert len(nodes_in_use(bundled_server, clients)) == 1
