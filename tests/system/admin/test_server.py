"""The admin port as a server: timeouts, TLS, shutdown, signals, and a port for each worker."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from reactor.admin import parameters
from reactor.server.process import serve_node
from reactor.settings import Settings
from tests.support.certificates import trusting, write_certificate
from tests.support.nodes import NodeProcess
from tests.support.raw_client import RawClient
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE, until
from tests.system.admin.serving import BEARER, KEY, admin_served, ok


async def answer_to(port: int | None, *parts: bytes) -> bytes:
    """Send bytes; all that the server sends until it closes the connection."""
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with anyio.fail_after(PATIENCE):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def test_a_body_that_does_not_arrive_is_answered_with_408(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "BODY_TIMEOUT", 0.2)
    async with admin_served(bundled_server) as (node, _):
        head = (
            f"POST /v1/rooms/x/messages HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 9\r\n\r\n"
        )
        answer = await answer_to(node.settings.admin_port, head.encode(), b"{")
        assert b"408" in answer.partition(b"\r\n")[0]
        assert b"too_slow" in answer


@pytest.mark.parametrize(
    "bytes_sent",
    [b"\x00" * 100 + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000],
)
async def test_invalid_http_closes_only_its_own_connection(bundled_server: Server, bytes_sent: bytes) -> None:
    async with admin_served(bundled_server) as (node, admin):
        assert b" 400 " in (await answer_to(node.settings.admin_port, bytes_sent)).partition(b"\r\n")[0]
        await ok(admin, "/v1/rooms")


async def test_it_answers_while_the_node_drains(bundled_server: Server) -> None:
    seen: list[tuple[int, str]] = []
    async with (
        httpx.AsyncClient(headers=BEARER) as client,
        anyio.create_task_group() as tasks,
    ):
        async with admin_served(bundled_server, drain_seconds=1) as (node, _):
            url = f"http://127.0.0.1:{node.settings.admin_port}"
            socket = RawClient.connect(node)
            ann = await socket.__aenter__()
            await ann.join("lobby", "ann")

            async def look() -> None:
                await ann.closed()
                answer = await client.get(f"{url}/metrics")
                seen.append((answer.status_code, answer.text))

            tasks.start_soon(look)
        await socket.__aexit__(None, None, None)
    ((status, text),) = seen
    assert status == 200
    assert "reactor_connections 0.0" in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")  # noqa: ASYNC210


async def test_beyond_loopback_it_uses_tls_with_the_reloaded_certificate(
    bundled_server: Server, tmp_path: Path
) -> None:
    cert, key = write_certificate(tmp_path, "one")
    first = trusting(cert)
    options: dict[str, Any] = {"admin_host": "0.0.0.0", "tls_cert": cert, "tls_key": key}
    async with admin_served(bundled_server, **options) as (node, plain):
        url = f"https://127.0.0.1:{node.settings.admin_port}/v1/rooms"
        async with httpx.AsyncClient(headers=BEARER, verify=first) as client:
            assert await ok(client, url) == {"rooms": [], "cursor": None}
        with pytest.raises(httpx.RemoteProtocolError):
            await plain.get("/healthz")
        write_certificate(tmp_path, "two")
        node.gateway.reload()
        async with httpx.AsyncClient(headers=BEARER, verify=trusting(cert)) as client:
            await ok(client, url)
        async with httpx.AsyncClient(headers=BEARER, verify=first) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
    async with admin_served(bundled_server, tls_cert=cert, tls_key=key) as (_, plain):
        await ok(plain, "/v1/rooms")  # on loopback


async def test_each_worker_has_a_port_and_each_answers_for_the_fleet(bundled_server: Server) -> None:
    port = free_port()
    options: dict[str, Any] = {"workers": 2, "admin_port": port, "admin_key": KEY}
    async with (
        NodeProcess.start(bundled_server, **options) as process,
        httpx.AsyncClient(headers=BEARER) as client,
    ):
        first, second = (f"http://127.0.0.1:{port + number}" for number in range(2))
        for url in (first, second):
            assert (await client.get(f"{url}/healthz")).text == "ok"
            assert "reactor_ready 1.0" in (await client.get(f"{url}/metrics")).text
        async with RawClient.connect(process) as ann:
            await ann.join("lobby", "ann")
            for url in (first, second):
                assert (await ok(client, f"{url}/v1/rooms/lobby"))["count"] == 1

            await anyio.sleep(1)  # a page is up to a second old
            counted = [
                "reactor_connections 1.0" in (await client.get(f"{url}/metrics")).text
                for url in (first, second)
            ]
            assert sorted(counted) == [False, True]
            await until(lambda: len(bundled_server.control.keys("{reactor:fleet}:report:*")) == 2)
            overview = await ok(client, f"{first}/v1/overview")
            assert sum(one["report"]["connections"] for one in overview["nodes"]) >= 0
        assert await process.stop() == 0


async def test_signals_are_left_to_the_node(bundled_server: Server) -> None:
    options: dict[str, Any] = {"admin_port": free_port(), "admin_key": KEY}
    async with NodeProcess.start(bundled_server, **options) as process:
        assert await process.stop() == 0
    async with NodeProcess.start(bundled_server, **options) as process:
        process.send(signal.SIGINT)
        assert await process.stop() == 0


async def test_an_admin_port_needs_the_callable_that_serves_it() -> None:
    with pytest.raises(TypeError, match="admin_port"):
        async with serve_node(Settings(admin_port=9000, admin_key=KEY.encode())):
            pass
