"""Clients that violate the protocol; a bystander, an ordinary client on the same server, is not affected."""

import asyncio
import gc
import tracemalloc
import zlib
from contextlib import AsyncExitStack

import pytest
from websockets.frames import Opcode

from tests.support.gateway import HEARTBEAT, bystander, client_frame, serving, text
from tests.support.waiting import PATIENCE

TEXT, CONT, BINARY, PING, PONG = Opcode.TEXT, Opcode.CONT, Opcode.BINARY, Opcode.PING, Opcode.PONG


def long_frame_header(size: int) -> bytes:
    return bytes((0x81, 0xFF)) + size.to_bytes(8, "big") + b"mask"


VIOLATIONS = {
    "one byte too big": (client_frame(TEXT, b"x" * 1025), 1009),
    "a terabyte announced": (long_frame_header(1 << 40), 1009),
    "too big in fragments": (
        client_frame(TEXT, b"x" * 600, fin=False) + client_frame(CONT, b"x" * 600, fin=False),
        1009,
    ),
    "17 fragments": (
        client_frame(TEXT, b"x", fin=False) + client_frame(CONT, b"x", fin=False) * 16,
        1008,
    ),
    "17 fragments, the last final": (
        client_frame(TEXT, b"x", fin=False) + client_frame(CONT, b"x", fin=False) * 15 + client_frame(CONT),
        1008,
    ),
    "empty fragments": (client_frame(TEXT, fin=False) + client_frame(CONT, fin=False) * 60_000, 1008),
    "bad text": (client_frame(TEXT, b'{"type":"\xff"}'), 1007),
    "long bad text": (client_frame(TEXT, b"x" * 200 + b"\xc0"), 1007),
    "half a character": (client_frame(TEXT, "é".encode()[:1]), 1007),
    "a surrogate": (client_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "bad text in a fragment": (client_frame(TEXT, b"ab\xff", fin=False), 1007),
    "binary to JSON": (client_frame(BINARY, b"\x80"), 1003),
    "long binary to JSON": (client_frame(BINARY, b"\x80" * 500), 1003),
    "unmasked": (client_frame(TEXT, b"{}", mask=False), 1002),
    "unmasked ping": (client_frame(PING, b"", mask=False), 1002),
    "reserved bit": (b"\xc1\x80mask", 1002),
    "unknown opcode": (b"\x83\x80mask", 1002),
    "long ping": (b"\x89\xfe\x00\x7emask" + bytes(126), 1002),
    "fragmented ping": (b"\x09\x80mask", 1002),
    "a continuation of nothing": (client_frame(CONT, b"x"), 1002),
    "a message within another": (client_frame(TEXT, b"x", fin=False) + client_frame(TEXT, b"y"), 1002),
    "close of one byte": (client_frame(Opcode.CLOSE, b"\x03"), 1002),
    "close with a reserved code": (client_frame(Opcode.CLOSE, b"\x03\xed"), 1002),
    "close with bad text": (client_frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by the byte"])
@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
async def test_a_protocol_violation_closes_its_connection_with_its_code(data, code, at_once):
    async with (
        serving(max_message=1024, close_timeout=30) as served,
        bystander(served),
        await served.raw() as client,
    ):
        if at_once:
            client.write(data)
        else:
            for byte in data[:2000]:
                if client.writer.transport.is_closing():
                    break
                client.write(bytes((byte,)))
                await asyncio.sleep(0)
        # Frames after the violation are ignored.
        if not client.writer.transport.is_closing():
            client.write(text(HEARTBEAT))
        assert await client.close_code() == code
        if client.writer.can_write_eof():
            client.writer.write_eof()
        assert await client.frame() == (-1, b"")
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        assert len(served.gateway.connections) == 1


async def test_messages_before_a_violation_are_answered_first():
    async with serving() as served, await served.raw() as client:
        client.write(text(HEARTBEAT), client_frame(PING, b"p"), text(HEARTBEAT), client_frame(CONT))
        frames = [await client.frame() for _ in range(5)]
        assert [opcode for opcode, _ in frames] == [TEXT, PONG, TEXT, Opcode.CLOSE, -1]


async def test_a_message_may_have_sixteen_fragments():
    async with serving() as served, await served.raw() as client:
        message = b'{"type":"room:heartbeat"}    '
        parts = [message[start : start + 2] for start in range(0, 30, 2)]
        client.write(client_frame(TEXT, fin=False))
        client.write(
            *(client_frame(CONT, part, fin=False) for part in parts[:14]), client_frame(CONT, parts[14])
        )
        assert (await client.message())["type"] == "room:heartbeat:ack"


async def test_a_character_may_be_split_between_fragments():
    async with serving() as served, await served.raw() as client:
        message = '{"type":"room:heartbeat","id":"é"}'.encode()
        middle = message.index(b"\xa9")
        client.write(client_frame(TEXT, message[:middle], fin=False), client_frame(CONT, message[middle:]))
        assert (await client.message())["id"] == "é"


async def test_control_frames_may_come_between_fragments():
    async with serving() as served, await served.raw() as client:
        client.write(client_frame(TEXT, b'{"type":', fin=False), client_frame(PING, b"a"))
        assert await client.frame() == (PONG, b"a")
        client.write(client_frame(PONG, b"b"), client_frame(CONT, b'"room:heartbeat"}'))
        assert (await client.message())["type"] == "room:heartbeat:ack"


async def test_ten_pings_at_once_are_answered_in_order():
    async with serving() as served, await served.raw() as client:
        client.write(*(client_frame(PING, bytes((number,))) for number in range(10)))
        assert [await client.frame() for _ in range(10)] == [(PONG, bytes((number,))) for number in range(10)]


async def test_a_flood_of_pings_is_answered_with_few_pongs():
    async with serving() as served, bystander(served), await served.raw() as client:
        client.write(*(client_frame(PING, number.to_bytes(4)) for number in range(50_000)))
        client.write(text(HEARTBEAT))
        pongs = []
        while (received := await client.frame())[0] == PONG:
            pongs.append(int.from_bytes(received[1]))
        assert received[0] == TEXT
        assert pongs == sorted(pongs)
        assert pongs[-1] == 49_999
        assert len(pongs) < 5_000


async def test_pings_of_a_client_that_does_not_read_do_not_accumulate():
    async with (
        serving(send_buffer=65536, close_timeout=0.5) as served,
        bystander(served),
        await served.raw() as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # Few enough that each ping is answered.
        flood = b"".join(client_frame(PING, bytes(125)) for _ in range(15))
        while not client.writer.transport.is_closing():
            client.write(flood)
            try:
                await asyncio.wait_for(client.writer.drain(), PATIENCE)
            except ConnectionError:
                break
            await asyncio.sleep(0)
        await served.handler.until(lambda: len(served.handler.closed_) == 1)


async def test_a_flood_of_tiny_fragments_does_not_grow_memory():
    # Tracing of memory makes all that the process does several times slower.
    async with serving(close_timeout=0.1) as served, bystander(served, within=5.0), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await served.raw()) for _ in range(20)]
        gc.collect()
        tracemalloc.start()
        flood = client_frame(TEXT, fin=False) + client_frame(CONT, fin=False) * 40_000
        for client in clients:
            client.write(flood)
        assert [await client.close_code() for client in clients] == [1008] * 20
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The clients' own buffers hold the flood: 20 times 240 KB.
        assert peak < 20 * len(flood) + 6_000_000


async def test_a_decompressed_message_is_limited():
    deflate = zlib.compressobj(wbits=-12)
    bomb = deflate.compress(b"x" * 50_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with (
        serving(compression=True) as served,
        bystander(served),
        await served.raw(handshake=False) as client,
    ):
        await client.shake_hands(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
        frame = bytearray(client_frame(TEXT, bomb[:60_000]))
        frame[0] |= 0x40
        tracemalloc.start()
        client.write(frame)
        assert await client.close_code() == 1009
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
        tracemalloc.stop()


async def test_many_compressed_messages_are_decompressed_a_few_at_a_time():
    deflate = zlib.compressobj(9, wbits=-12)
    small = deflate.compress(b"x" * 65_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
    frame = bytearray(client_frame(TEXT, small[:-4]))
    frame[0] |= 0x40
    assert len(frame) < 100
    async with serving(compression=True, messages_per_second=20) as served, bystander(served):
        client = await served.raw(handshake=False)
        await client.shake_hands(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
        tracemalloc.start()
        client.write(frame * 40)
        assert await client.close_code() == 4029
        assert tracemalloc.get_traced_memory()[1] < 1_500_000  # 40 of these are 2.6 MB
        tracemalloc.stop()
        client.writer.close()


async def test_a_client_may_disconnect_in_any_state():
    streams = [
        b"",
        client_frame(TEXT, b"x")[:1],
        client_frame(TEXT, b"x" * 300)[:4],
        client_frame(TEXT, b"x" * 300)[:100],
        client_frame(TEXT, b"x", fin=False),
        client_frame(PING, b"x"),
        text(HEARTBEAT) * 3,
        client_frame(Opcode.CLOSE),
    ]
    async with serving() as served, bystander(served):
        for number, stream in enumerate(streams * 2):
            async with await served.raw() as client:
                client.write(stream)
                await client.writer.drain()
                if number < len(streams):
                    client.writer.write_eof()
                    assert await client.ended()
        await served.handler.until(lambda: len(served.handler.closed_) == 2 * len(streams))
        assert set(served.handler.closed_) == set(served.handler.opened_) - served.gateway.connections
