"""Clients without the key: each part of a request has a deadline, and an operator always gets a place."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import h11
import pytest

from reactor.admin import connections
from reactor.gateway.tls import TlsLayer
from reactor.server.metrics import NodeCollector
from reactor.server.node import Node
from tests.support.certificates import write_certificate
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.system.admin.serving import BEARER, KEY, admin_client, admin_served, ok

PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_TIMEOUT", "BODY_TIMEOUT", "WRITE_TIMEOUT"):
        monkeypatch.setattr(connections, name, 0.3)


@asynccontextmanager
async def connected(
    node: Node, number: int = 0, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection from one of many addresses."""
    source = f"127.1.{number >> 8}.{number & 255}" if number else "127.0.0.1"
    port = node.settings.admin_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> None:
    with anyio.fail_after(PATIENCE):
        try:
            await reader.read()
        except ConnectionResetError:
            return


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b""], id="nothing"),
        pytest.param([b"G"], id="half a head"),
        pytest.param([PROBE, b"G"], id="half of the second head"),
        pytest.param([PROBE[:-2] + b"Content-Length: 9\r\n\r\n", b"1"], id="a body that nothing reads"),
        pytest.param([PROBE[:-2] + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"], id="no body"),
    ],
)
async def test_a_request_that_does_not_arrive_closes_its_connection(
    bundled_server: Server, parts: list[bytes]
) -> None:
    async with admin_served(bundled_server) as (node, admin), connected(node) as (reader, writer):
        for part in parts[:-1]:
            writer.write(part)
            assert b" 200 " in await reader.readline()
        writer.write(parts[-1])
        await ended(reader)
        assert node.admin_connections_cut == {"late": 1}
        await ok(admin, "/v1/rooms")


async def test_a_client_that_does_not_read_its_responses_is_closed(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin), connected(node) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(PROBE.replace(b"healthz", b"openapi.json") * 1000)
        await until(lambda: node.admin_connections_cut == {"late": 1})
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await ended(reader)
        await ok(admin, "/v1/rooms")


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(
            b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\na\r\n" * 40_000,
            id="chunks of one byte",
        ),
        pytest.param(PROBE * 10_000, id="pipelined requests"),
    ],
)
async def test_clients_without_the_key_hold_up_no_one(
    bundled_server: Server, flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT", 60.0)
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 60.0)
    async with AsyncExitStack() as stack:
        node, admin = await stack.enter_async_context(admin_served(bundled_server))
        client = await stack.enter_async_context(RawClient.connect(node))
        await client.join("lobby", "ann")
        parsed = count_parsed_bytes(monkeypatch)
        for number in range(8):
            _, writer = await stack.enter_async_context(connected(node, number + 1))
            writer.write(flood)
        await until(lambda: parsed[0] > 0)
        for _ in range(3):
            await client.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
            await ok(admin, "/v1/node")
            async with admin_client(node) as another:
                await ok(another, "/v1/node")
        # Until now little of the flood was parsed: it takes turns with others.
        assert parsed[0] < len(flood) * 8 / 4


def count_parsed_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list with how many bytes the admin port has parsed, from now on."""
    parsed, receive = [0], h11.Connection.receive_data

    def counted(self: h11.Connection, data: bytes) -> None:
        parsed[0] += len(data)
        receive(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", counted)
    return parsed


async def test_a_body_that_is_larger_than_a_part_arrives_whole(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _), RawClient.connect(node) as client:
        await client.join("lobby", "ann")
        for number, data in enumerate(("x" * 30_000, "y" * 50_000)):
            async with admin_client(node) as admin:
                for part in (data, data[1:]):
                    reply = await admin.post("/v1/rooms/lobby/messages", json={"data": part}, headers=BEARER)
                    assert reply.status_code == 200, reply.text
            await client.until(lambda: len(client.of("room:message")) == 2 * number + 2)  # noqa: B023
            assert [len(each["data"]) for each in client.of("room:message")][-2:] == [
                len(data),
                len(data) - 1,
            ]


async def test_a_request_with_two_lengths_is_refused_and_nothing_behind_it_is_read(
    bundled_server: Server,
) -> None:
    async with admin_served(bundled_server) as (node, _), connected(node) as (reader, writer):
        lengths = b"Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        writer.write(PROBE.replace(b"Host: x\r\n\r\n", lengths) + PROBE)
        with anyio.fail_after(PATIENCE):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"Transfer-Encoding." in answer


async def test_pipelined_requests_are_answered_in_their_order(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _), connected(node) as (reader, writer):
        paths = [b"healthz", b"nothing", b"openapi.json"] * 20
        writer.write(b"".join(PROBE.replace(b"healthz", path) for path in paths))
        for path in paths:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404" if path == b"nothing" else b"HTTP/1.1 200"), path
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)


async def test_requests_that_are_answered_have_no_common_deadline(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 2.0)
    async with admin_served(bundled_server) as (node, _), connected(node) as (reader, writer):
        for _ in range(30):
            writer.write(PROBE)
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.1)  # in all longer than the deadline
        assert node.admin_connections_cut == {}


@pytest.mark.parametrize("addresses", [1, 300])
async def test_clients_without_the_key_that_hold_every_place_keep_no_operator_out(
    bundled_server: Server, addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 60.0)
    async with admin_served(bundled_server) as (node, admin):
        await ok(admin, "/v1/rooms")  # this connection has shown the key: it stays
        (kept,) = admin._transport._pool._connections  # type: ignore[attr-defined]
        others = []
        for number in range(300):
            source = f"127.1.{(number % addresses) >> 8}.{(number % addresses) & 255 or 1}"
            others.append(
                await asyncio.open_connection("127.0.0.1", node.settings.admin_port, local_addr=(source, 0))
            )
            others[-1][1].write(PROBE + b"G")
        most = connections.MAX_PER_ADDRESS if addresses == 1 else connections.MAX_CONNECTIONS - 1
        reason = "address" if addresses == 1 else "full"
        await until(lambda: node.admin_connections_cut[reason] >= 300 - most)
        await ok(admin, "/v1/rooms")
        assert admin._transport._pool._connections == [kept]  # type: ignore[attr-defined]
        async with admin_client(node) as another:
            await ok(another, "/v1/rooms")
        for _, writer in others:
            writer.transport.abort()


async def test_connections_with_the_key_are_refused_beyond_the_limit_only(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 60.0)
    with_key = f"GET /v1/rooms HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode()
    async with admin_served(bundled_server) as (node, _):
        opened = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.settings.admin_port)
            writer.write(with_key)
            assert b" 200 " in await reader.readline()
            opened.append((reader, writer))
        async with connected(node), connected(node) as (reader, writer):
            writer.write(PROBE)
            assert b" 200 " in await reader.readline()
        assert node.admin_connections_cut == {"full": 1}
        for _, writer in opened:
            writer.transport.abort()


async def test_an_unfinished_tls_handshake_has_the_deadline_too(
    bundled_server: Server, tmp_path: Path
) -> None:
    cert, key = write_certificate(tmp_path, "one")
    options: dict[str, Any] = {"admin_host": "0.0.0.0", "tls_cert": cert, "tls_key": key}
    async with admin_served(bundled_server, **options) as (node, _):
        async with connected(node) as (reader, writer):
            writer.write(b"\x16\x03\x01")
            await ended(reader)
        trust = ssl.create_default_context(cafile=str(cert))
        trust.check_hostname = False
        async with connected(node, ssl=trust) as (reader, writer):
            writer.write(PROBE + b"G")
            assert b" 200 " in await reader.readline()
            await ended(reader)
        assert node.admin_connections_cut == {"late": 2}


async def test_tls_handshakes_take_a_share_of_the_time(
    bundled_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 60.0)
    cert, key = write_certificate(tmp_path, "one")
    hello, begun, handshake = client_hello(), list[float](), TlsLayer.data_received

    def slow(self: TlsLayer, data: bytes) -> None:
        if data == hello:
            begun.append(time.monotonic())
            time.sleep(0.02)  # as many of a millisecond take
        handshake(self, data)

    monkeypatch.setattr(TlsLayer, "data_received", slow)
    options: dict[str, Any] = {"admin_host": "0.0.0.0", "tls_cert": cert, "tls_key": key}
    async with AsyncExitStack() as stack:
        node, _ = await stack.enter_async_context(admin_served(bundled_server, **options))
        writers = [(await stack.enter_async_context(connected(node, number + 1)))[1] for number in range(15)]
        for writer in writers:
            writer.write(hello)
        await until(lambda: len(begun) == 15)
    assert begun[-1] - begun[0] > 14 * 0.02 * 2


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x").do_handshake()
    return outgoing.read()


async def test_who_has_most_connections_makes_room_for_others(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 60.0)
    async with AsyncExitStack() as stack:
        node, _ = await stack.enter_async_context(admin_served(bundled_server))
        reader, writer = await stack.enter_async_context(connected(node, 1))
        for _ in range(8):
            await stack.enter_async_context(connected(node, 2))
        await until(lambda: node.admin_connections_cut == {"full": 4})
        writer.write(PROBE)  # the oldest is open
        assert b" 200 " in await reader.readline()


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry for each time that the metrics were collected."""
    collected: list[None] = []
    collect = NodeCollector.collect

    def counting(self: NodeCollector) -> Any:
        collected.append(None)
        return collect(self)

    monkeypatch.setattr(NodeCollector, "collect", counting)
    return collected


async def test_metrics_are_built_once_a_second_however_often_they_are_requested(
    bundled_server: Server, collections: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.server.metrics.PAGE_MAX_AGE", 60.0)
    async with admin_served(bundled_server) as (node, admin):
        collections.clear()

        async def ask(accept: str) -> None:
            answer = await admin.get("/metrics", headers={"Accept": accept})
            assert "reactor_connections" in answer.text

        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(ask, f"application/openmetrics-text; version={number + 1}.0.0")
                tasks.start_soon(ask, f"text/plain; version={number}.0.0")
        assert len(collections) == 2  # one for each of the two formats
        async with admin_client(node, headers=BEARER) as another:
            await another.get("/metrics")
        assert len(collections) == 2


async def test_a_socket_that_resets_at_once_leaves_no_place_taken(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin):
        for _ in range(2 * connections.MAX_PER_ADDRESS):
            with socket.create_connection(("127.0.0.1", node.settings.admin_port or 0)):
                pass
        await ok(admin, "/v1/rooms")
        assert node.admin_connections_cut["full"] == 0
