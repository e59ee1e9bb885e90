"""The opening handshake: the negotiated codec, and the responses to invalid handshakes."""

import asyncio
import re
import ssl
import time

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.frames import Opcode
from websockets.typing import Subprotocol

from reactor.gateway.connection import Connection
from tests.support.gateway import (
    BELOW_DEFAULT,
    HEARTBEAT,
    Raw,
    bystander,
    client_frame,
    request,
    serving,
    text,
)
from tests.support.waiting import PATIENCE


async def response(client: Raw) -> bytes:
    async with asyncio.timeout(PATIENCE):
        try:
            return await client.reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    ("offered", "negotiated"),
    [
        (None, None),
        ("reactor.json", "reactor.json"),
        ("reactor.msgpack", "reactor.msgpack"),
        ("reactor.msgpack, reactor.json", "reactor.msgpack"),
        ("chat, reactor.json", "reactor.json"),
        ("chat", None),
    ],
)
async def test_the_codec_is_the_clients_first_known_choice(offered, negotiated):
    async with serving() as served:
        headers = {"Sec_WebSocket_Protocol": offered} if offered else {}
        async with await served.raw(handshake=False) as client:
            head = (await client.shake_hands(**headers)).decode()
            subprotocols = re.findall(r"^Sec-WebSocket-Protocol: (.*)\r$", head, re.MULTILINE)
            assert subprotocols == ([negotiated] if negotiated else [])
            await served.handler.until(lambda: len(served.handler.opened_) == 1)
            assert served.handler.opened_[0].codec.name == (negotiated or "reactor.json").removeprefix(
                "reactor."
            )


async def test_messagepack_uses_binary_frames_in_both_directions():
    async with (
        serving() as served,
        connect(served.url, subprotocols=[Subprotocol("reactor.msgpack")]) as socket,
    ):
        await socket.send(msgspec.msgpack.encode(HEARTBEAT))
        reply = await socket.recv()
        assert isinstance(reply, bytes)
        assert msgspec.msgpack.decode(reply) == {"type": "room:heartbeat:ack", "timestamp": 1, "id": 7}


async def test_a_slow_handshake_is_aborted_at_the_opening_time_out():
    async with serving(open_timeout=0.4) as served, bystander(served):
        began = time.monotonic()
        client = await served.raw(handshake=False)
        for byte in request() + b" " * 500:
            client.write(bytes((byte,)))
            await asyncio.sleep(0.01)
            if client.reader.at_eof() or client.writer.transport.is_closing():
                break
        assert await client.ended()
        assert 0.4 <= time.monotonic() - began < BELOW_DEFAULT
        client.writer.transport.abort()


async def test_a_silent_connection_is_aborted_at_the_opening_time_out():
    async with serving(open_timeout=0.3) as served:
        began = time.monotonic()
        async with await served.raw(handshake=False) as client:
            assert await client.ended()
        assert 0.3 <= time.monotonic() - began < BELOW_DEFAULT
        assert served.handler.opened_ == served.handler.closed_ == []


NOT_REQUESTS = {
    "zeros": bytes(64) + b"\r\n\r\n",
    "one word": b"hello\r\n\r\n",
    "http 2": b"GET / HTTP/2.0\r\n\r\n",
    "post": b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no colon": b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
    "bare newlines": b"GET /ws HTTP/1.1\nHost: x\n\n",
    "empty": b"\r\n\r\n",
    "a frame": client_frame(Opcode.TEXT, b"{}") + b"\n",
    "a frame, then a request": text(HEARTBEAT) + b"\r\n" + request(),
}


@pytest.mark.parametrize("data", NOT_REQUESTS.values(), ids=NOT_REQUESTS)
async def test_data_that_is_not_a_request_is_answered_with_400(data):
    async with (
        serving(open_timeout=PATIENCE) as served,
        bystander(served),
        await served.raw(handshake=False) as client,
    ):
        client.write(data)
        assert (await response(client)).startswith(b"HTTP/1.1 400 ")
        assert len(served.gateway.connections) == 1


async def test_a_tls_client_on_a_plain_port_is_rejected():
    context = ssl._create_unverified_context()
    async with serving(open_timeout=PATIENCE) as served, bystander(served):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", served.port, ssl=context)


REJECTED = {
    "old version": (request().replace(b"Version: 13", b"Version: 8"), 400),
    "no key": (request().replace(b"Sec-WebSocket-Key", b"Sec-WebSocket-Kez"), 400),
    "short key": (request(Sec_WebSocket_Key="dG9vIHNob3J0"), 400),
    "no upgrade": (request().replace(b"Upgrade: websocket\r\n", b""), 426),
    "post": (request(method="POST"), 405),
    "head": (request(method="HEAD"), 405),
    "long path": (request("/" + "x" * 9000), 414),
    "many headers": (request(**{f"X_{number}": "y" for number in range(200)}), 431),
    "long header": (request(X_Long="y" * 9000), 431),
    "other path": (request("/elsewhere"), 404),
    "folder": (request("/ws/"), 404),
}


@pytest.mark.parametrize(("head", "status"), REJECTED.values(), ids=REJECTED)
async def test_an_invalid_handshake_is_answered_with_an_http_error(head, status):
    async with serving() as served, await served.raw(handshake=False) as client:
        client.write(head)
        assert (await response(client)).startswith(f"HTTP/1.1 {status} ".encode())
        assert served.handler.opened_ == []


EARLY = {
    "a message": text(HEARTBEAT),
    "a ping": client_frame(Opcode.PING, b"early"),
    "a close": client_frame(Opcode.CLOSE),
    "half a frame": client_frame(Opcode.TEXT, b"x")[:3],
    "two bytes": client_frame(Opcode.TEXT, b"x")[:2],
    "one byte": client_frame(Opcode.TEXT, b"x")[:1],
    "random bytes": b"\xff\xff\xff\xff",
    "one more request": request(),
}


@pytest.mark.parametrize("extra", EARLY.values(), ids=EARLY)
async def test_data_behind_the_request_before_its_response_is_rejected(extra):
    async with serving() as served, bystander(served), await served.raw(handshake=False) as client:
        client.write(request(), extra)
        assert (await response(client)).startswith(b"HTTP/1.1 400 ")
        assert len(served.gateway.connections) == 1


async def test_only_configured_origins_may_connect():
    async with serving(origins="https://allowed.example") as served:
        async with await served.raw(Origin="https://allowed.example"):
            pass
        async with await served.raw():
            pass
        async with await served.raw(handshake=False) as client:
            client.write(request(Origin="https://other.example"))
            assert (await response(client)).startswith(b"HTTP/1.1 403 ")
    async with serving(origins="*") as served, await served.raw(Origin="https://any.example"):
        pass


async def test_compression_is_negotiated_only_where_it_is_enabled():
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}
    async with serving() as served, await served.raw(handshake=False) as client:
        assert b"permessage-deflate" not in await client.shake_hands(**offer)
    async with serving(compression=True) as served:
        async with await served.raw(handshake=False) as client:
            head = await client.shake_hands(**offer)
            assert b"permessage-deflate; server_no_context_takeover; client_no_context_takeover" in head
        async with connect(served.url, compression="deflate") as socket:
            await socket.send('{"type":"room:heartbeat"}')
            assert await socket.recv() == '{"type":"room:heartbeat:ack","timestamp":1}'
            assert served.handler.opened_[-1].compressed


async def test_a_handler_that_fails_on_a_new_connection_affects_only_that_connection():
    async with serving() as served, bystander(served):
        opened = served.handler.opened
        served.handler.opened = failing
        async with await served.raw(handshake=False) as client:
            client.write(request())
            assert await client.ended()
        served.handler.opened = opened
        async with await served.raw() as client:
            client.write(text(HEARTBEAT))
            assert (await client.message())["type"] == "room:heartbeat:ack"


def failing(_connection: Connection) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "head", [b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 80\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0"]
)
async def test_the_proxy_protocol_is_refused_with_a_sentence_and_noticed(head):
    async with serving() as served:
        async with await served.raw(handshake=False) as client:
            client.write(head + request())
            answer = await response(client)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"does not read the PROXY protocol" in answer
        (notice,) = served.gateway.notices
        assert notice.startswith("proxy sends the PROXY protocol: have the proxy 127.0.0.1")
