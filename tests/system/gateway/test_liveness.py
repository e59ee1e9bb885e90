"""Pings, pongs, and clients that disappear without closing."""

import asyncio
import time
from typing import Any

import pytest
from websockets.frames import Opcode

from tests.support.gateway import BELOW_DEFAULT, HEARTBEAT, bystander, client_frame, serving, text


async def test_an_idle_client_is_pinged_and_stays_while_it_answers():
    async with serving(ping_interval=0.3, ping_timeout=10) as served, await served.raw() as client:
        for _ in range(6):
            assert await client.frame() == (Opcode.PING, b"")
            client.write(client_frame(Opcode.PONG))
        assert served.handler.closed_ == []


async def test_an_unresponsive_client_is_aborted_after_interval_and_time_out():
    async with serving(ping_interval=0.2, ping_timeout=0.3) as served, bystander(served):
        began = time.monotonic()
        async with await served.raw() as client:
            connection = served.handler.opened_[-1]
            assert await client.frame() == (Opcode.PING, b"")
            assert time.monotonic() - began >= 0.2
            assert await client.close_code() == 1006
            assert 0.2 + 0.3 <= time.monotonic() - began < BELOW_DEFAULT
            await served.handler.until(lambda: connection in served.handler.closed_)
        assert served.handler.closed_.count(connection) == 1


async def test_an_active_client_is_not_pinged():
    async with serving(ping_interval=1.5, ping_timeout=10) as served, await served.raw() as client:
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            client.write(text(HEARTBEAT))
            assert (await client.frame())[0] == Opcode.TEXT
            await asyncio.sleep(0.02)
        assert await client.frame() == (Opcode.PING, b"")


async def test_any_frame_after_a_ping_counts_as_its_answer():
    async with serving(ping_interval=0.2, ping_timeout=10) as served, await served.raw() as client:
        for frames in (text(HEARTBEAT), client_frame(Opcode.PING), client_frame(Opcode.PONG, b"other")) * 2:
            while (await client.frame())[0] != Opcode.PING:
                pass
            client.write(frames)
        assert served.handler.closed_ == []


async def test_pings_can_be_disabled():
    async with serving(ping_interval=0, ping_timeout=0.1) as served, await served.raw() as client:
        try:
            async with asyncio.timeout(0.5):
                await client.reader.read(1)
            raise AssertionError("the server sent something")
        except TimeoutError:
            pass
        client.write(text(HEARTBEAT))
        assert (await client.message())["type"] == "room:heartbeat:ack"


LONG = client_frame(Opcode.TEXT, b" " * 2000)


@pytest.mark.parametrize("ping_interval", [0, 0.1, 60])
@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(LONG[:1], id="a byte of a header"),
        pytest.param(LONG[:500], id="half a frame"),
        pytest.param(client_frame(Opcode.TEXT, b"{", fin=False), id="a fragment"),
    ],
)
async def test_a_message_has_a_deadline_however_it_drips(
    first: bytes, ping_interval: float, compression: bool
):
    options: dict[str, Any] = {"ping_interval": ping_interval, "compression": compression}
    extension = {"Sec_WebSocket_Extensions": "permessage-deflate"} if compression else {}
    async with (
        serving(message_timeout=0.5, **options) as served,
        await served.raw(handshake=True, **extension) as client,
    ):

        async def drip() -> None:
            while True:  # a part that completes nothing, again and again
                client.write(client_frame(Opcode.PONG) if len(first) != 500 else b" ")
                await asyncio.sleep(0.05)

        client.write(text(HEARTBEAT))
        assert (await client.frame())[0] in (Opcode.TEXT, Opcode.PING)
        client.write(first)
        dripping = asyncio.create_task(drip()) if len(first) > 1 else None
        try:
            assert await client.close_code() == 1008
        finally:
            if dripping:
                dripping.cancel()


async def test_whole_messages_have_no_common_deadline():
    async with serving(message_timeout=2.0) as served, await served.raw() as client:
        for _ in range(10):
            client.write(LONG[:500])
            await asyncio.sleep(0.25)
            client.write(LONG[500:])
            assert (await client.message())["code"] == "bad_json"
        assert served.handler.closed_ == []


async def test_many_connections_with_the_same_deadline_are_all_handled():
    async with serving(ping_interval=0.3, ping_timeout=0.3) as served:
        clients = [await served.raw() for _ in range(50)]
        try:
            for client in clients:
                assert await client.frame() == (Opcode.PING, b"")
            await served.handler.until(lambda: len(served.handler.closed_) == 50)
        finally:
            for client in clients:
                client.writer.transport.abort()
