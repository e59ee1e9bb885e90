"""The load balancer configurations of scripts/deploy/README.md, during a deploy of two servers."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from reactor.gateway.proxy_notices import NOTICE_AFTER
from scripts.benchmarks.fleet.clients import Crowd, crowd
from tests.support import redis_state
from tests.support.gateway import request
from tests.support.nodes import NodeProcess, serving
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE

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
async def balancing(
    name: str, folder: Path, one: int, two: int, changes: tuple[str, str] = ("", "")
) -> AsyncIterator[int]:
    """Run this load balancer in front of two ports; its own port, once it serves.

    changes: a line of its configuration as written, and what stands in its place.
    """
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    block = block_of(name, {"8080": port, "8765": one, "8766": two})
    assert changes[0] in block
    block = block.replace(*changes) if changes[0] else block
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
        process.wait(PATIENCE)


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


@asynccontextmanager
async def handshakes(port: int) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """A function that opens a WebSocket from an address, keeps it open, and returns the HTTP status."""
    opened: list[asyncio.StreamWriter] = []

    async def open_from(address: str, **headers: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        opened.append(writer)
        writer.write(request(**headers))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        return int(head.split()[1])

    try:
        yield open_from
    finally:
        for writer in opened:
            writer.transport.abort()


async def test_nginx_sends_all_clients_to_a_server_that_was_down_before(
    bundled_server: Server, tmp_path: Path
) -> None:
    """A server that failed would get one client a second, until one of its WebSockets ends."""
    async with (
        NodeProcess.start(bundled_server, **OPTIONS) as one,
        NodeProcess.start(bundled_server, **OPTIONS) as two,
        balancing("nginx", tmp_path, one.port, two.port) as port,
        handshakes(port) as open_from,
    ):
        assert await two.stop() == 0
        assert [await open_from(f"127.3.0.{number}") for number in range(1, 5)] == [101] * 4
        async with NodeProcess.start(bundled_server, port=two.port, **OPTIONS):
            assert await open_from("127.3.0.9") == 101
            assert await one.stop() == 0
            statuses = await asyncio.gather(*(open_from(f"127.3.1.{number}") for number in range(1, 20)))
            assert statuses == [101] * len(statuses)


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_a_load_balancer_names_each_client_and_a_client_cannot_name_another(
    name: str, bundled_server: Server, tmp_path: Path
) -> None:
    limits: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "max_per_address": 3, "new_per_second": 0}
    async with (
        NodeProcess.start(bundled_server, **limits) as node,
        balancing(name, tmp_path, node.port, node.port) as port,
        handshakes(port) as open_from,
    ):
        assert [await open_from("127.3.0.1") for _ in range(4)] == [101, 101, 101, 429]
        assert await open_from("127.3.0.2") == 101
        for header in ({"X_Forwarded_For": "192.0.2.7"}, {"X_Forwarded_For": "192.0.2.7, 127.3.0.2"}):
            assert await open_from("127.3.0.1", **header) == 429
        assert await open_from("127.3.0.2", X_Forwarded_For="127.3.0.1") == 101


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_pings_keep_an_idle_connection_open_through_a_load_balancer(
    name: str, bundled_server: Server, tmp_path: Path
) -> None:
    written = {"haproxy": "timeout tunnel 1h", "nginx": "proxy_read_timeout 1h"}[name]
    async with (
        NodeProcess.start(bundled_server, ping_interval=0.5) as node,
        balancing(name, tmp_path, node.port, node.port, (written, written[:-2] + "2s")) as port,
        RawClient.connect(SimpleNamespace(gateway=SimpleNamespace(port=port))) as client,  # type: ignore[arg-type]
    ):
        await client.join("lobby", "ann")
        await asyncio.sleep(4)
        assert (await client.answer("room:count", roomId="lobby"))["count"] == 1


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_a_load_balancer_that_is_not_trusted_is_logged_with_the_remedy(
    name: str, bundled_server: Server, tmp_path: Path
) -> None:
    with serving(
        "--redis-url", bundled_server.socket_url, "--log-format", "json", "--trusted-proxies", "none",
        "--new-per-second", "0",
    ) as process:  # fmt: skip
        node = int(process.socket.rpartition(":")[2].removesuffix("/ws"))
        async with balancing(name, tmp_path, node, node) as port, handshakes(port) as open_from:
            for number in range(NOTICE_AFTER):
                assert await open_from(f"127.3.0.{number + 1}") == 101
        process.process.send_signal(signal.SIGTERM)
        assert process.process.stderr is not None
        lines = [json.loads(line) for line in process.process.stderr.read().splitlines()]
    (warning,) = [line for line in lines if line["event"] == "proxy_not_trusted"]
    assert "set trusted_proxies to 127.0.0.1" in warning["remedy"]
