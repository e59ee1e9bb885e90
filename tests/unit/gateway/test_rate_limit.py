"""How fast one connection may speak: never too fast, and never held up below its rate."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode

from reactor.gateway.rate_limit import MAX_REJECTIONS, ExcessDecision, ExcessMessages, RateLimit
from tests.support.gateway import HEARTBEAT, Raw, client_frame, serving, text

SLOW: dict[str, Any] = {"messages_per_second": 10, "message_burst": 5, "max_rooms": 3}


async def codes(client: Raw, number: int) -> list[str]:
    said = [await client.message() for _ in range(number)]
    return [message.get("code", "ok") for message in said]


async def flood(client: Raw, number: int) -> None:
    client.write(*(text({"type": "room:heartbeat", "id": count}) for count in range(number)))


async def test_over_the_rate_is_refused_and_then_closed():
    async with serving(**SLOW) as served, await served.raw() as client:
        await flood(client, 200)
        refused, taken = 0, 0
        while (received := await client.frame())[0] == Opcode.TEXT:
            refused += b"too_many_requests" in received[1]
            taken += b"ack" in received[1]
        assert received[0] == Opcode.CLOSE
        assert int.from_bytes(received[1][:2]) == 4029
        assert refused == MAX_REJECTIONS
        assert 11 <= taken <= 15, "the burst, and once the rooms it may join and leave"


async def test_a_refusal_names_the_request():
    async with serving(**SLOW) as served, await served.raw() as client:
        await flood(client, 15)
        await codes(client, 15)
        client.write(
            text({"type": "leave_room", "roomId": "lobby", "id": "x"}), client_frame(Opcode.TEXT, b"{")
        )
        error = await client.message()
        assert (error["code"], error["id"], error["roomId"]) == ("too_many_requests", "x", "lobby")
        assert (await client.message())["code"] == "too_many_requests"
        assert served.handler.intents[-1].room_id is None, "it was not done"


async def test_who_waits_is_served_again_and_forgiven():
    async with serving(**SLOW) as served, await served.raw() as client:
        for _ in range(3):
            await flood(client, 25)
            assert (await codes(client, 25)).count("too_many_requests") >= 5
            await asyncio.sleep(1.0)  # its allowance grows with the time
            client.write(text(HEARTBEAT))
            assert await codes(client, 1) == ["ok"]


async def test_at_its_rate_one_may_go_on():
    async with serving(**SLOW) as served, await served.raw() as client:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            client.write(text(HEARTBEAT))
            assert await codes(client, 1) == ["ok"]
            await asyncio.sleep(0.11)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_control_frames_count_too(opcode):
    async with serving(**SLOW) as served, await served.raw() as client:
        client.write(*(client_frame(few, b"x") for few in (Opcode.PING, Opcode.PONG) * 2))
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


async def test_each_connection_has_a_pace_of_its_own():
    async with serving(**SLOW) as served, await served.raw() as one, await served.raw() as other:
        await flood(one, 20)
        assert "too_many_requests" in await codes(one, 20)
        other.write(text(HEARTBEAT))
        assert await codes(other, 1) == ["ok"]


@given(
    st.integers(1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 1), max_size=200),
)
def test_what_is_taken_is_bounded_by_burst_and_rate(rate, burst, waits):
    limit = RateLimit(rate, burst, 0.0)
    paid, now, taken = 0.0, 0.0, list[float]()
    for wait in waits:
        now += wait / rate
        due = max(paid, now) + limit.interval
        if due - now <= limit.tolerance + 1e-9:
            paid = due
            taken.append(now)
    for start in range(0, len(taken), 7):
        for more, last in enumerate(taken[start:], 1):
            assert more <= burst + (last - taken[start]) * rate + 1


def test_an_overdraft():
    excess = ExcessMessages(credit=2)
    drawn = [excess.decide(0.0, 1.0) for _ in range(2 + MAX_REJECTIONS + 1)]
    assert drawn == [ExcessDecision.ACCEPT] * 2 + [ExcessDecision.REJECT] * MAX_REJECTIONS + [
        ExcessDecision.CLOSE
    ]
    excess = ExcessMessages(credit=0)
    assert [excess.decide(float(now), 0.5) for now in range(100)] == [ExcessDecision.REJECT] * 100
