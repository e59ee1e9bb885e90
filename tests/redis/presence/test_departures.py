"""The record of who left and why, as a back end reads and follows it."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest

from reactor.presence.departures import milliseconds_ago
from reactor.presence.rows import Departure
from tests.redis.presence.probe import HOSTILE, Probe
from tests.support.servers import Server
from tests.support.stores import Connected, connected
from tests.support.waiting import PATIENCE


@asynccontextmanager
async def recording(server: Server, **options: Any) -> AsyncIterator[tuple[Connected, Probe]]:
    probe = Probe(server, **options)
    try:
        async with connected(server) as redis:
            yield redis, probe
    finally:
        probe.close()


def comes_and_leaves(probe: Probe, user: str, room: str = "lobby") -> None:
    probe.join(user, room=room)
    probe.ask("leave", user, "n1.1", room=room)


@pytest.mark.parametrize("ids", [None, HOSTILE], ids=["short ids", "hostile ids"])
async def test_a_departure_round_trips_through_the_stream(
    redis_server: Server, ids: dict[str, str] | None
) -> None:
    async with recording(redis_server, ids=ids) as (redis, probe):
        _, joined_at, *_ = probe.join("ann", "n1.a", username="Ann É")
        probe.advance_clock()
        probe.ask("kick", "ann", "")
        (departure,) = await redis.departures.read()
        assert departure == Departure(
            id=departure.id, room_id=probe.id("lobby"), user_id=probe.id("ann"), username="Ann É",
            reason="kicked", joined_at=joined_at, last_active_at=joined_at, left_at=departure.left_at,
            node="n1",
        )  # fmt: skip
        assert departure.left_at > joined_at
        membership = probe.id("ann"), joined_at
        assert await redis.departures.reasons(probe.id("lobby"), [membership]) == {membership: "kicked"}


async def test_departures_of_all_rooms_are_oldest_first_and_can_be_limited_to_one_room(
    redis_server: Server,
) -> None:
    async with recording(redis_server) as (redis, probe):
        rooms = [f"room{number}" for number in range(20)]
        for room in rooms:
            comes_and_leaves(probe, "ann", room)
            probe.advance_clock()
        found = await redis.departures.read()
        assert [one.room_id for one in found] == rooms
        assert [one.room_id for one in await redis.departures.read(room_id="room7")] == ["room7"]
        assert await redis.departures.read(room_id="an empty room") == []
        middle = found[10].left_at
        assert [one.room_id for one in await redis.departures.read(since=middle)] == rooms[10:]
        assert await redis.departures.totals() == {"left": 20}


async def test_more_than_one_page_of_departures_is_read_completely_and_once(redis_server: Server) -> None:
    async with recording(redis_server) as (redis, probe):
        for number in range(2001):
            comes_and_leaves(probe, f"u{number}")
        found = await redis.departures.read(room_id="lobby")
        assert [one.user_id for one in found] == [f"u{number}" for number in range(2001)]
        asked = [found[0], found[700], found[2000]]
        memberships = [(one.user_id, one.joined_at) for one in asked]
        reasons = await redis.departures.reasons("lobby", [*memberships, ("nobody", found[0].joined_at)])
        assert reasons == dict.fromkeys(memberships, "left")


async def test_each_membership_of_a_user_has_its_own_departure_reason(redis_server: Server) -> None:
    async with recording(redis_server) as (redis, probe):
        _, first, *_ = probe.join("ann")
        probe.ask("leave", "ann", "n1.1")
        probe.advance_clock()
        _, second, *_ = probe.join("ann")
        probe.ask("kick", "ann", "")
        asked = ("ann", first), ("ann", second), ("ann", second + 1)
        reasons = await redis.departures.reasons("lobby", asked)
        assert reasons == {("ann", first): "left", ("ann", second): "kicked"}
        assert await redis.departures.reasons("attic", asked) == {}, "in that room it was not"


async def test_reading_to_a_position_and_following_from_it_omits_and_repeats_nothing(
    redis_server: Server,
) -> None:
    async with recording(redis_server) as (redis, probe):
        comes_and_leaves(probe, "before", "room1")
        positions = await redis.departures.positions()
        comes_and_leaves(probe, "between", "room1")
        comes_and_leaves(probe, "between", "room2")
        read = await redis.departures.read(until=positions)
        assert [one.user_id for one in read] == ["before"]
        followed: Any = redis.departures.follow(positions)
        async with aclosing(followed):
            with anyio.fail_after(PATIENCE):
                first, second = await anext(followed), await anext(followed)
                assert {(one.room_id, one.user_id) for one in (first, second)} == {
                    ("room1", "between"), ("room2", "between"),
                }  # fmt: skip
                for room in ("room3", "room1"):
                    comes_and_leaves(probe, "after", room)
                    assert (await anext(followed)).room_id == room


async def test_the_departures_of_one_room_can_be_followed(redis_server: Server) -> None:
    async with recording(redis_server) as (redis, probe):
        near = next(room for n in range(99) if probe.key("x", room := f"room{n}") == probe.key("x", "lobby"))
        followed: Any = redis.departures.follow(await redis.departures.positions("lobby"), room_id="lobby")
        async with aclosing(followed):
            with anyio.fail_after(PATIENCE):
                comes_and_leaves(probe, "ann", near)
                comes_and_leaves(probe, "bob")
                assert (await anext(followed)).user_id == "bob"


async def test_a_trimmed_stream_is_followed_from_its_oldest_entry(redis_server: Server) -> None:
    async with recording(redis_server, departures_kept=100) as (redis, probe):
        positions = await redis.departures.positions("lobby")
        for number in range(500):
            comes_and_leaves(probe, f"u{number}")
        followed: Any = redis.departures.follow(positions, room_id="lobby")
        async with aclosing(followed):
            with anyio.fail_after(PATIENCE):
                seen = [await anext(followed)]
                while seen[-1].user_id != "u499":
                    seen.append(await anext(followed))
        assert 100 <= len(seen) <= 200
        assert await redis.departures.totals() == {"left": 500}


def test_milliseconds_ago_uses_this_machines_clock() -> None:
    assert milliseconds_ago(0) - milliseconds_ago(60) in range(59_000, 60_001)
