"""Closing a connection from either side; the handler is notified exactly once."""

import asyncio
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from reactor.protocol.messages import ServiceDegraded
from tests.support.gateway import BELOW_DEFAULT, HEARTBEAT, bystander, client_frame, serving, text


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return client_frame(Opcode.CLOSE, code.to_bytes(2) + reason)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9away", b"\x0f\xa0mine"])
async def test_a_clients_close_is_echoed_and_the_stream_ends(payload):
    async with serving() as served, bystander(served), await served.raw() as client:
        client.write(client_frame(Opcode.CLOSE, payload))
        assert await client.frame() == (Opcode.CLOSE, payload)
        assert await client.frame() == (-1, b"")
        client.writer.close()
        await served.handler.until(lambda: len(served.handler.closed_) == 1)


async def test_a_message_received_with_the_close_is_answered_first():
    async with serving(compression=True) as served:
        for offer in ({}, {"Sec_WebSocket_Extensions": "permessage-deflate"}):
            async with await served.raw(handshake=False) as client:
                await client.shake_hands(**offer)
                client.write(text(HEARTBEAT), close_frame(1000))
                assert (await client.frame())[0] == Opcode.TEXT
                assert await client.frame() == (Opcode.CLOSE, b"\x03\xe8")


async def test_frames_behind_a_close_are_ignored():
    async with serving() as served, await served.raw() as client:
        client.write(close_frame(1000), text(HEARTBEAT), client_frame(Opcode.PING))
        assert await client.close_code() == 1000
        client.write(text(HEARTBEAT))
        assert await client.frame() == (-1, b"")
        assert served.handler.intents == []


async def test_a_client_that_closes_but_stays_is_aborted():
    async with serving(close_timeout=0.2) as served, await served.raw() as client:
        client.write(close_frame(1000))
        began = time.monotonic()
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        assert 0.2 <= time.monotonic() - began < BELOW_DEFAULT


async def test_the_servers_close_follows_earlier_messages_and_its_echo_ends_the_stream():
    async with serving() as served, await served.raw() as client:
        connection = served.handler.opened_[0]
        for number in range(100):
            connection.send(ServiceDegraded(f"{number} {'x' * 2000}"))
        connection.close(4003, "kicked")
        for number in range(100):
            assert (await client.message())["reason"].startswith(f"{number} ")
        assert await client.frame() == (Opcode.CLOSE, b"\x0f\xa3kicked")
        client.write(close_frame(4003))
        assert await client.frame() == (-1, b"")


async def test_after_the_servers_close_nothing_is_sent_or_processed():
    async with serving(close_timeout=0.2) as served, bystander(served), await served.raw() as client:
        connection = served.handler.opened_[-1]
        connection.close(4003)
        connection.send(ServiceDegraded("late"))
        connection.send_payload(b"{}")
        connection.send_frame(b"\x81\x02{}")
        connection.close(1011, "again")
        client.write(text(HEARTBEAT), client_frame(Opcode.TEXT, b"x" * 500))
        client.write(client_frame(Opcode.PING, b"still"))
        assert await client.frame() == (Opcode.CLOSE, b"\x0f\xa3")
        # A pong may follow a close frame until the peer's own (RFC 6455 section 5.5.2).
        assert await client.frame() == (Opcode.PONG, b"still")
        assert await client.frame() == (-1, b"")
        await served.handler.until(lambda: connection in served.handler.closed_)
        for late in (connection.send_payload, connection.send_frame):
            late(b"{}")
        connection.send(ServiceDegraded("later"))
        connection.close(1000)
        connection.abort()
        assert served.handler.closed_.count(connection) == 1


async def test_a_client_that_does_not_answer_the_close_is_aborted():
    async with serving(close_timeout=0.2) as served, bystander(served), await served.raw() as client:
        began = time.monotonic()
        connection = served.handler.opened_[-1]
        connection.close(1012)
        while not connection._transport.is_closing():
            client.write(client_frame(Opcode.PONG))
            await asyncio.sleep(0.01)
        assert 0.2 <= time.monotonic() - began < BELOW_DEFAULT
        await served.handler.until(lambda: connection in served.handler.closed_)


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PONG])
async def test_a_flood_behind_the_servers_close_is_not_parsed(opcode):
    async with serving(close_timeout=60, messages_per_second=20) as served, await served.raw() as client:
        connection = served.handler.opened_[0]
        connection.close(4001, "no token")
        client.write(client_frame(opcode, b"") * 20_000)
        assert await client.close_code() == 4001
        assert await client.frame() == (-1, b"")  # the server waits for no answer any more, and parses none
        assert connection not in served.handler.closed_
        assert connection._parser is None
        client.write(client_frame(opcode, b"") * 20_000)
        client.writer.close()
        await served.handler.until(lambda: connection in served.handler.closed_)


async def test_both_sides_may_close_at_the_same_time():
    async with serving() as served, await served.raw() as client:
        client.write(close_frame(1000))
        served.handler.opened_[0].close(1012)
        assert await client.close_code() in {1000, 1012}
        assert await client.frame() == (-1, b"")


async def test_a_close_while_a_request_is_processed_discards_the_requests_behind_it():
    async with serving() as served, bystander(served), await served.raw() as client:
        served.handler.act, act = lambda connection, _: connection.close(4001, "no"), served.handler.act
        client.write(text(HEARTBEAT) * 5, close_frame(1000))
        client.write(text(HEARTBEAT))
        served.handler.act = act
        assert await client.close_code() in {1000, 4001}
        assert await client.frame() == (-1, b"")


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_request_may_close_its_own_connection(how):
    async with serving(close_timeout=0.2) as served, await served.raw() as client:

        def act(connection, _intent):
            if how == "abort":
                connection.abort()
            else:
                connection.close(4029, "too many")

        served.handler.act = act
        client.write(text(HEARTBEAT) * 3 + client_frame(Opcode.PING) * 3)
        assert await client.close_code() == (1006 if how == "abort" else 4029)
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        assert len(served.handler.intents) == 1


async def test_a_long_reason_is_cut_between_characters():
    async with serving() as served, await served.raw() as client:
        served.handler.opened_[0].close(1011, "é" * 100)
        _, payload = await client.frame()
        assert payload[2:].decode() == "é" * 61


async def test_a_client_library_sees_a_clean_close():
    async with serving() as served, connect(served.url) as socket:
        await served.handler.until(lambda: len(served.handler.opened_) == 1)
        served.handler.opened_[0].close(4003, "kicked")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4003, "kicked")
        assert closed.value.rcvd_then_sent


async def test_a_handler_that_fails_on_a_closed_connection_affects_no_other():
    async with serving() as served, bystander(served):
        closed = served.handler.closed

        def failing(connection):
            closed(connection)
            raise RuntimeError("on purpose")

        served.handler.closed = failing
        async with await served.raw():
            pass
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        served.handler.closed = closed
