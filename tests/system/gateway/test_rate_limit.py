"""The rate limit of one connection: a client never exceeds it, and is never rejected below it."""

import asyncio
import time
from typing import Any

import pytest
from websockets.frames import Opcode

from reactor.gateway.rate_limit import MAX_REJECTIONS
from tests.support.gateway import HEARTBEAT, Raw, client_frame, serving, text

SLOW: dict[str, Any] = {"messages_per_second": 10, "message_burst": 5, "max_rooms": 3}


async def codes(client: Raw, number: int) -> list[str]:
    messages = [await client.message() for _ in range(number)]
    return [message.get("code", "ok") for message in messages]


async def flood(client: Raw, number: int) -> None:
    client.write(*(text({"type": "room:heartbeat", "id": count}) for count in range(number)))


async def test_messages_over_the_rate_are_rejected_and_then_close_the_connection():
    async with serving(**SLOW) as served, await served.raw() as client:
        began = time.monotonic()
        await flood(client, 200)
        rejected, accepted = 0, 0
        while (received := await client.frame())[0] == Opcode.TEXT:
            rejected += b"too_many_requests" in received[1]
            accepted += b"ack" in received[1]
        assert received[0] == Opcode.CLOSE
        assert int.from_bytes(received[1][:2]) == 4029
        assert rejected == MAX_REJECTIONS
        assert accepted >= 11, "the burst, and the credit for joining and leaving its rooms"
        assert accepted <= 15 + 10 * (time.monotonic() - began)


async def test_a_rejection_names_its_request():
    async with serving(**SLOW | {"messages_per_second": 1}) as served, await served.raw() as client:
        await flood(client, 15)
        client.write(
            text({"type": "leave_room", "roomId": "lobby", "id": "x"}), client_frame(Opcode.TEXT, b"{")
        )
        await codes(client, 15)
        error = await client.message()
        assert (error["code"], error["id"], error["roomId"]) == ("too_many_requests", "x", "lobby")
        assert (await client.message())["code"] == "too_many_requests"
        assert served.handler.intents[-1].room_id is None, "the rejected request was not processed"


async def test_a_large_message_counts_as_several():
    async with (
        serving(messages_per_second=1, message_burst=20) as served,
        await served.raw() as client,
    ):
        large = [
            text({"type": "leave_room", "roomId": "a", "id": number, "x": "x" * 60_000})
            for number in range(3)
        ]
        client.write(*large)
        errors = [await client.message() for _ in large]
        assert [error["code"] for error in errors] == ["not_joined", "not_joined", "too_many_requests"]
        assert (errors[2]["id"], errors[2]["roomId"]) == (2, "a")
        await flood(client, 4)
        assert await codes(client, 4) == ["ok"] * 4


async def test_the_largest_message_is_accepted_whatever_the_burst():
    async with serving(messages_per_second=1, message_burst=2) as served, await served.raw() as client:
        client.write(text({"type": "leave_room", "roomId": "a", "x": "x" * 65_000}))
        assert (await client.message())["code"] == "not_joined"


async def test_a_client_that_waits_is_served_again():
    async with serving(**SLOW) as served, await served.raw() as client:
        for _ in range(3):
            await flood(client, 25)
            assert (await codes(client, 25)).count("too_many_requests") >= 5
            await asyncio.sleep(1.0)  # long enough that the rejections are forgotten
            client.write(text(HEARTBEAT))
            assert await codes(client, 1) == ["ok"]


async def test_a_client_at_the_rate_is_never_rejected():
    async with serving(**SLOW) as served, await served.raw() as client:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            client.write(text(HEARTBEAT))
            assert await codes(client, 1) == ["ok"]
            await asyncio.sleep(0.11)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_control_frames_count_towards_the_rate(opcode):
    async with serving(**SLOW) as served, await served.raw() as client:
        client.write(*(client_frame(kind, b"x") for kind in (Opcode.PING, Opcode.PONG) * 2))
        client.write(text(HEARTBEAT))
        assert [(await client.frame())[0] for _ in range(3)] == [Opcode.PONG] * 2 + [Opcode.TEXT]
        client.write(*(client_frame(opcode, bytes(1)) for _ in range(20_000)))
        client.write(text(HEARTBEAT))
        pongs = 0
        while (received := await client.frame())[0] == Opcode.PONG:
            pongs += 1
        assert received[0] == Opcode.CLOSE
        assert int.from_bytes(received[1][:2]) == 4029
        assert pongs < 100


async def test_each_connection_has_its_own_rate_limit():
    async with serving(**SLOW) as served, await served.raw() as one, await served.raw() as other:
        await flood(one, 20)
        assert "too_many_requests" in await codes(one, 20)
        other.write(text(HEARTBEAT))
        assert await codes(other, 1) == ["ok"]
