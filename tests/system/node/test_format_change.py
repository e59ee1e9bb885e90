"""The format of a namespace in a running fleet: restored when lost, refused where it differs, advanced."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from reactor.errors import FormatMismatch
from reactor.fleet import registry
from reactor.presence import format as presence_format
from reactor.presence.api import Presence
from reactor.presence.format import FormatRange
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

KEY = "{reactor:fleet}:format"
NEXT = FormatRange(1, 2)


@pytest.fixture
def _advancing_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.fleet.format_advance.ADVANCE_DELAY", 0.5)


@asynccontextmanager
async def next_release(
    server: Server, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Node]:
    """A node of a release that speaks formats 1 and 2; in format 2 a join stores one field more."""
    with monkeypatch.context() as patched:
        patched.setattr(registry, "FORMATS", NEXT)
        patched.setattr(presence_format, "FORMATS", NEXT)
        async with served(server, **settings) as node:
            join = node.store.join

            async def join_in_format(entry: Any, *args: Any, **options: Any) -> Any:
                writes = node.registry.format_number
                reply = await join(entry, *args, **options)
                if writes == 2:
                    server.control.hset(redis_state.presence_key(*entry), "device", "phone")
                return reply

            node.store.join = join_in_format  # type: ignore[method-assign]
            patched.undo()
            yield node


def number(server: Server) -> int:
    return int(str(server.control.hget(KEY, "number")))


def in_format_2(server: Server) -> set[str]:
    rooms = redis_state.everywhere(server).values()
    return {user for members in rooms for user, fields in members.items() if "device" in fields}


@pytest.mark.usefixtures("_advancing_soon")
async def test_a_fleet_passes_to_a_newer_format_and_no_one_sees_a_departure(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = 1.0
    async with (
        served(redis_server, lease=lease) as old,
        next_release(redis_server, monkeypatch, lease=lease) as new,
        RawClient.connect(new) as watcher,
    ):
        await watcher.join("lobby", "watcher")
        async with RawClient.connect(old) as ann:
            await ann.join("lobby", "ann")
            await anyio.sleep(3 * lease)  # in which nothing may change
            assert number(redis_server) == 1
            assert not in_format_2(redis_server), "both write what the old release reads"
        # The client of the old node returns to the new one, within the grace.
        async with RawClient.connect(new) as ann, RawClient.connect(new) as late:
            assert (await ann.join("lobby", "ann"))["resumed"]
            await old.lease.deregister()
            await until(lambda: new.registry.format_number == 2)
            assert number(redis_server) == 2
            await late.join("lobby", "late")
            assert in_format_2(redis_server) == {"late"}
            listed = await watcher.ask("room:members", "room:members", roomId="lobby")
            assert {member["userId"] for member in listed["members"]} == {"watcher", "ann", "late"}
            assert not [one for one in watcher.received if one.get("left")]
            with pytest.raises(FormatMismatch, match="in format 2, and this release speaks 1"):
                async with served(redis_server):
                    pass


@pytest.mark.parametrize("loss", ["flushall", "eviction"])
async def test_a_lost_format_is_restored_by_the_nodes(redis_server: Server, loss: str) -> None:
    async with served(redis_server, shards=5, lease=1.0) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        if loss == "flushall":
            redis_server.control.flushall()
        else:
            redis_server.control.delete(KEY)
        await until(lambda: redis_server.control.hget(KEY, "shards") == "5")
        async with served(redis_server) as other:
            assert len(other.keys.shards) == 5


async def test_a_node_stops_with_one_line_when_the_format_becomes_another(redis_server: Server) -> None:
    async def serve_until_stopped() -> None:
        async with served(redis_server, lease=0.6):
            redis_server.control.hset(KEY, "number", 9)
            with anyio.fail_after(PATIENCE):
                await anyio.sleep_forever()

    with pytest.raises(FormatMismatch, match=r"in format 9, .* speaks 1: .*; this node stops\."):
        await serve_until_stopped()


@pytest.mark.parametrize("shards", [1, 3, 96])
async def test_members_join_expire_and_are_read_with_any_number_of_shards(
    redis_server: Server, shards: int
) -> None:
    async with (
        served(redis_server, shards=shards) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        Presence.open(redis_server.socket_url) as presence,
    ):
        for room in ("lobby", "hall", "attic"):
            await ann.join(room, "ann")
        await bob.join("lobby", "bob")
        counts = {room.room_id: room.count for room in await presence.rooms()}
        assert counts == {"lobby": 2, "hall": 1, "attic": 1}
        found: Any = redis_server.control.keys("{reactor:*}:room:lobby:user:bob")
        (key,) = found
        redis_server.control.pexpire(key, 20)
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        assert [one.user_id async for one in presence.departures("lobby")] == ["bob"]


async def test_a_presence_that_was_open_first_finds_what_the_first_node_creates(redis_server: Server) -> None:
    async with Presence.open(redis_server.socket_url) as presence:
        assert await presence.rooms() == []
        assert redis_server.control.exists(KEY) == 0, "it only reads"
        async with served(redis_server, shards=7) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann")
            assert await presence.count("lobby") == 1
