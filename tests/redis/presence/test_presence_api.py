"""`reactor.Presence`: the API for back ends that have only Redis, without a server."""

from contextlib import aclosing
from functools import partial
from typing import Any

import anyio
import pytest

import reactor
from reactor.errors import RedisUnreachable, SettingError, Unavailable
from reactor.presence.api import Presence, RoomInfo
from tests.redis.presence.probe import HOSTILE
from tests.redis.presence.watching import presence_and_probe, watching
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until


def test_presence_is_exported_by_the_package() -> None:
    assert reactor.Presence is Presence


@pytest.mark.parametrize("ids", [None, HOSTILE], ids=["short ids", "hostile ids"])
async def test_members_are_listed_in_the_order_in_which_they_joined(
    redis_server: Server, ids: dict[str, str] | None
) -> None:
    async with presence_and_probe(redis_server, ids) as (presence, probe):
        lobby, ann, bob = probe.id("lobby"), probe.id("ann"), probe.id("bob")
        assert await presence.members(lobby) == []
        assert await presence.count(lobby) == 0
        assert not await presence.is_present(lobby, ann)
        probe.join("bob", username="B", data='{"n":[1]}', away=1)
        probe.advance_clock()
        probe.join("ann")
        probe.join("ann", "n2.1")
        first, second = await presence.members(lobby)
        assert (first.user_id, first.username, first.data, first.away) == (bob, "B", {"n": [1]}, True)
        assert (second.user_id, second.username, second.connections) == (ann, ann, 2)
        assert first.joined_at < second.joined_at <= second.last_active_at
        assert await presence.count(lobby) == 2
        assert await presence.is_present(lobby, ann)
        assert await presence.rooms() == [RoomInfo(room_id=lobby, count=2)]


async def test_an_expired_member_is_in_no_answer_before_its_departure_is_noticed(
    redis_server: Server,
) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        for room in ("members", "count", "is_present", "rooms"):
            for user in ("ann", "bob"):
                probe.join(user, room=room)
            probe.expire("ann", room=room)
        assert [member.user_id for member in await presence.members("members")] == ["bob"]
        assert await presence.count("count") == 1
        assert not await presence.is_present("is_present", "ann")
        assert {room.room_id: room.count for room in await presence.rooms()} == dict.fromkeys(
            ("members", "count", "is_present", "rooms"), 1
        )
        assert await presence.totals() == {"inactivity_timeout": 4}


async def test_rooms_are_listed_by_size(redis_server: Server) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        for size in range(1, 41):
            for user in range(size % 4 + 1):
                probe.join(f"u{user}", room=f"room{size:02d}")
        rooms = await presence.rooms()
        assert len(rooms) == 40
        assert [(-room.count, room.room_id) for room in rooms] == sorted(
            (-(size % 4 + 1), f"room{size:02d}") for size in range(1, 41)
        )


async def test_a_kick_removes_a_member_and_returns_whether_there_was_one(redis_server: Server) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        probe.join("ann")
        probe.join("ann", "n2.1")
        probe.received()
        assert await presence.kick("lobby", "ann", "Enough.")
        assert not await presence.kick("lobby", "ann")
        assert await presence.count("lobby") == 0
        ((_, row),) = probe.received().diffs
        assert [(left.user_id, left.reason, left.message) for left in row.left] == [
            ("ann", "kicked", "Enough.")
        ]
        assert await presence.totals() == {"kicked": 1}


async def test_departures_are_read_and_then_followed_without_gaps_or_repetitions(
    redis_server: Server,
) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        for room in ("lobby", "hall"):
            probe.join("ann", room=room)
            probe.ask("leave", "ann", "n1.1", room=room)
            probe.advance_clock()
        assert [one.room_id async for one in presence.departures()] == ["lobby", "hall"]
        assert [one.room_id async for one in presence.departures("hall")] == ["hall"]
        assert [one async for one in presence.departures(since=probe.now() + 1)] == []
        following: Any = presence.departures(follow=True)
        async with aclosing(following):
            with anyio.fail_after(PATIENCE):
                assert [(await anext(following)).room_id for _ in range(2)] == ["lobby", "hall"]
                probe.join("bob")
                probe.ask("kick", "bob", "")
                departure = await anext(following)
                assert (departure.user_id, departure.reason) == ("bob", "kicked")


# Opening, losing and closing.


async def test_an_exception_of_the_callers_block_is_raised_unchanged(redis_server: Server) -> None:
    class MineError(Exception):
        pass

    with pytest.raises(MineError) as raised:  # noqa: PT012
        async with Presence.open(redis_server.url) as presence:
            assert await presence.count("lobby") == 0
            raise MineError
    assert raised.value.__cause__ is None


async def test_every_call_raises_unavailable_while_redis_is_away_and_works_when_it_is_back(
    redis_server: Server,
) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        redis_server.kill()

        async def departures() -> None:
            async for _ in presence.departures():
                pass

        for call in (
            presence.rooms, presence.totals, departures, lambda: presence.members("lobby"),
            lambda: presence.count("lobby"), lambda: presence.kick("lobby", "ann"),
            lambda: presence.is_present("lobby", "ann"),
        ):  # fmt: skip
            with anyio.fail_after(PATIENCE), pytest.raises(Unavailable):
                await call()
        redis_server.start()
        probe.join("ann")
        assert await presence.count("lobby") == 1
        assert await presence.totals() == {}


async def test_an_unreachable_redis_is_reported_in_one_line(redis_server: Server) -> None:
    redis_server.kill()
    with pytest.raises(RedisUnreachable) as raised:
        async with Presence.open(redis_server.url):
            raise AssertionError("it opened")
    assert "\n" not in str(raised.value)
    with pytest.raises(SettingError):
        async with Presence.open("http://localhost"):
            raise AssertionError("it opened")


async def test_after_closing_calls_fail_and_all_connections_are_closed(redis_server: Server) -> None:
    connected = redis_server.control.client_list
    before = len(connected())
    async with Presence.open(redis_server.url) as presence, watching(presence) as it:
        assert await it.next_change() == "= (0)"
        assert len(connected()) > before
    with anyio.fail_after(PATIENCE), pytest.raises(Unavailable):
        await presence.count("lobby")
    await until(lambda: len(connected()) == before)


async def test_namespaces_are_separate(redis_server: Server) -> None:
    async with presence_and_probe(redis_server) as (presence, probe):
        probe.join("ann")
        async with Presence.open(redis_server.url) as other:
            assert await other.rooms() == []
            assert await other.count("lobby") == 0
            assert not await other.kick("lobby", "ann")
        assert await presence.count("lobby") == 1


async def test_an_id_that_no_user_and_no_room_can_have_is_refused_by_its_name(bundled_server: Server) -> None:
    """A number is one that can: it is the text of its digits, as on the wire."""
    async with Presence.open(bundled_server.socket_url) as presence:
        number: Any = 7
        assert (await presence.user(number)).user_id == "7"
        assert [person.user_id for person in await presence.users(["ann", "ann"])] == ["ann", "ann"]
        wrong: list[Any] = ["", None, True, 1.5, b"ann", "\0ann", "\ud800", "x" * 5000]
        for user in wrong:
            with pytest.raises(SettingError, match="a user in user_ids"):
                await presence.users([user])
            calls = presence.erase, presence.unban, presence.revoke, partial(presence.ban, for_="10m")
            for call in calls:
                with pytest.raises(SettingError, match="user_id"):
                    await call(user)
        with pytest.raises(SettingError, match="room_id"):
            await presence.ban("ann", "", for_="10m")
        with pytest.raises(SettingError, match="a list of user ids"):
            await presence.users("ann")
        with pytest.raises(SettingError, match="a list of user ids"):
            await anext(presence.watch_users("ann"))
        with anyio.fail_after(PATIENCE):
            assert await presence.users([]) == [person async for person in presence.watch_users([])] == []
        assert [ban async for ban in presence.bans()] == []
