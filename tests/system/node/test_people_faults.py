"""People under faults: refused joins, joins of one moment on several nodes, losses, settings that differ."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import redis

from reactor.presence.api import Presence
from reactor.presence.keys import Entry
from reactor.presence.people import PersonRecord
from reactor.presence.people_index import AUDIT_PARTS
from reactor.presence.store import Store
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.people import statuses, until_person, until_record, watch
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

HOUR = 3_600_000
QUICK = {"lease": 0.6, "sweep_interval": 0.4}


def keys_of(server: Server, kind: str) -> list[str]:
    return sorted(server.control.scan_iter(f"*}}:{kind}*", count=1000))


def ends_offline(watcher: RawClient) -> bool:
    return statuses(watcher, "ann")[-1:] == ["offline"]


async def test_a_first_join_that_is_refused_is_seen_by_no_watcher(redis_server: Server) -> None:
    rooms = (RoomRule(match="small", max_members=1),)
    async with (
        served(redis_server, rooms=rooms) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as watcher,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await watch(watcher, "bob")
        published = redis.Redis.from_url(redis_server.socket_url).pubsub()
        published.psubscribe("*:person:bob")
        await ann.join("small", "ann")
        await presence.ban("bob", "lobby", for_=60)
        for room, code in (("small", "room_full"), ("lobby", "banned")):
            error = await bob.answer("join_room", roomId=room, userId="bob")
            assert code in {error.get("code"), error.get("reason")}
        record = await until_record(node, "bob", lambda record: not record.rooms)
        assert record.last_seen is None
        await bob.join("hall", "bob")
        await watcher.until(lambda: statuses(watcher, "bob"))
        await bob.ask("leave_room", "room:left", roomId="hall")
        await watcher.until(lambda: statuses(watcher, "bob")[-1] == "offline")
        assert statuses(watcher, "bob") == ["online", "offline"]
        received = [published.get_message(timeout=1) for _ in range(3)]
        assert [message["type"] for message in received if message] == ["psubscribe", "pmessage", "pmessage"]
        assert published.get_message() is None
        published.close()


async def test_two_who_watch_at_once_are_each_sent_a_change_during_the_second_reading_once(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as first,
        RawClient.connect(node) as second,
    ):
        read, readings, online = node.people_store.records, 0, asyncio.Event()

        async def slow_the_second_time(user_ids: Iterable[str]) -> dict[str, PersonRecord]:
            nonlocal readings
            readings += 1
            if readings == 2:
                await online.wait()
            return await read(user_ids)

        node.people_store.records = slow_the_second_time  # type: ignore[method-assign]
        await first.send("people:watch", userIds=["ann"])
        await second.send("people:watch", userIds=["ann"])
        await first.has_received("people:state")
        await ann.join("lobby", "ann")
        await until_record(node, "ann", lambda record: record.status == "online")
        online.set()
        await first.until(lambda: statuses(first, "ann") == ["online"])
        state = await second.has_received("people:state")
        assert state["people"] == [{"userId": "ann", "status": "online"}]
        await ann.join("hall", "ann")
        await ann.ask("leave_room", "room:left", roomId="hall")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        for watcher in (first, second):
            await watcher.until(partial(ends_offline, watcher))
        assert (statuses(first, "ann"), statuses(second, "ann")) == (["online", "offline"], ["offline"])


async def test_joins_and_leaves_on_two_nodes_at_once_are_each_one_change(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as other,
        RawClient.connect(one) as ann,
        RawClient.connect(other) as again,
        RawClient.connect(other) as watcher,
    ):
        await watch(watcher, "ann")
        expected: list[str] = []
        for _ in range(12):
            for what, status in (("join_room", "online"), ("leave_room", "offline")):
                reply = {"join_room": "room:joined", "leave_room": "room:left"}[what]
                fields = {"roomId": "lobby"} | ({"userId": "ann"} if what == "join_room" else {})
                await asyncio.gather(ann.ask(what, reply, **fields), again.ask(what, reply, **fields))
                expected.append(status)
                await watcher.until(lambda: len(statuses(watcher, "ann")) >= len(expected))
                # At once, so that nothing was repaired for it.
                assert statuses(watcher, "ann") == expected


async def test_a_departure_ends_all_joins_that_redis_took_in_another_order_than_the_index(
    redis_server: Server,
) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as watcher:
        await watch(watcher, "ann")
        ann, store = Entry("lobby", "ann"), node.people_store
        shard = store.keys.shard_of("ann")
        await store.enter(shard, [(ann, "t1")])
        await store.enter(shard, [(ann, "t2")])
        await node.store.join(ann, "other.2", ttl=HOUR, person="t2")
        await node.store.join(ann, "other.1", ttl=HOUR, person="t1")
        node.people.index.verify(ann)
        await watcher.until(lambda: statuses(watcher, "ann") == ["online"])
        await node.store.kick(ann)
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "offline"])
        assert node.people.index.repaired == 0


async def test_members_that_the_index_has_lost_are_added_again(redis_server: Server) -> None:
    async with (
        served(redis_server, **QUICK) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await watch(watcher, "ann")
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        await until_record(node, "ann", lambda record: bool(record.counted))
        redis_server.control.delete(*keys_of(redis_server, "person:"), *keys_of(redis_server, "people"))
        assert (await presence.user("ann")).status == "offline"
        node.sweep.trigger()
        await until_person(lambda: presence.user("ann"), lambda person: person.rooms == ["lobby"])
        await until_record(node, "ann", lambda record: record.status == "online")
        assert node.people.index.repaired == 1
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await until_record(node, "ann", lambda record: not record.rooms)


async def test_a_room_too_much_is_removed_by_the_sweep(redis_server: Server) -> None:
    async with served(redis_server, **QUICK) as node, RawClient.connect(node) as watcher:
        await watch(watcher, "ann")
        store = node.people_store
        await store.enter(store.keys.shard_of("ann"), [(Entry("lobby", "ann"), "lost-1")])
        node.sweep.trigger()
        await until_record(node, "ann", lambda record: not record.rooms)
        assert statuses(watcher, "ann") == []
        assert keys_of(redis_server, "people") == []


async def test_departures_are_taken_in_when_the_last_node_stops_and_when_one_starts(
    redis_server: Server,
) -> None:
    async with Presence.open(redis_server.socket_url) as presence:
        async with (
            served(redis_server) as node,
            RawClient.connect(node) as ann,
            RawClient.connect(node) as bob,
        ):
            await ann.join("lobby", "ann")
            await bob.join("lobby", "bob")
            await until_record(node, "bob", lambda record: bool(record.counted))
            dead = Store(node.backend.runner, node.keys)  # it takes nothing into the index
            assert await dead.kick(Entry("lobby", "ann"))
        assert keys_of(redis_server, "exits") == []
        assert (await presence.user("ann")).last_seen
        await presence.kick("lobby", "bob")  # there is no node
        person = await presence.user("bob")
        assert person.status == "offline"
        assert person.last_seen, "a departure that the index has yet to take in counts"
        assert keys_of(redis_server, "exits") != []
        async with served(redis_server) as node:
            await until_record(node, "bob", lambda record: not record.rooms)
            assert (await presence.user("bob")).last_seen == person.last_seen


async def test_who_falls_silent_was_last_seen_at_the_last_heartbeat(redis_server: Server) -> None:
    async with (
        served(redis_server, ttl=3) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
    ):
        await watch(watcher, "ann")
        await ann.join("lobby", "ann")
        # The scan at the first deadline copies this activity, well before the key that has it expires.
        await asyncio.sleep(2)
        last = await ann.ask("room:heartbeat", "room:heartbeat:ack")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "offline"])
        assert watcher.of("people:diff")[-1]["changed"][0]["lastSeen"] == last["timestamp"]


async def test_a_user_is_away_once_all_connections_on_all_nodes_are(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as other,
        RawClient.connect(one) as ann,
        RawClient.connect(other) as phone,
        RawClient.connect(other) as tablet,
        RawClient.connect(one) as watcher,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await watch(watcher, "ann")
        await ann.join("lobby", "ann")
        await phone.join("lobby", "ann")
        await tablet.join("hall", "ann")
        for client in (ann, tablet):
            await client.ask("room:away", "room:away:ok")
        assert (await presence.user("ann")).status == "online"
        await phone.ask("room:away", "room:away:ok")
        assert (await presence.user("ann")).status == "away"
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "away"])
        await tablet.ask("room:back", "room:back:ok")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "away", "online"])
        await tablet.ask("leave_room", "room:left", roomId="hall")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "away", "online", "away"])
        await tablet.join("lobby", "ann")
        await watcher.until(lambda: statuses(watcher, "ann")[4:] == ["online"])


async def test_after_the_clock_went_back_no_user_was_last_seen_in_the_future(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await until_record(node, "ann", lambda record: not record.rooms)
        (seen,) = keys_of(redis_server, "seen")
        redis_server.control.zincrby(seen, HOUR, "ann")  # as if the clock had been an hour ahead
        await ann.join("lobby", "ann")
        await until_record(node, "ann", lambda record: bool(record.counted))
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await until_record(node, "ann", lambda record: not record.rooms)
        last_seen = (await presence.user("ann")).last_seen
        assert last_seen
        assert last_seen <= time.time() * 1000


async def test_who_is_erased_while_online_has_only_the_time_of_the_next_departure(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        for room in ("lobby", "hall"):
            await ann.join(room, "ann")
        await ann.ask("leave_room", "room:left", roomId="hall")
        assert (await until_record(node, "ann", lambda record: len(record.rooms) == 1)).last_seen
        assert await presence.erase("ann")
        person = await presence.user("ann")
        assert (person.status, person.rooms, person.last_seen) == ("online", ["lobby"], None)
        # What happens in the millisecond of the erasure is erased.
        erased_by = redis_state.now(redis_server)
        await until(lambda: redis_state.now(redis_server) > erased_by)
        await ann.ask("leave_room", "room:left", roomId="lobby")
        assert (await until_record(node, "ann", lambda record: not record.rooms)).last_seen
        assert await presence.erase("ann")
        assert (await presence.user("ann")).last_seen is None


async def test_nothing_is_kept_of_who_was_last_seen_where_that_is_off(redis_server: Server) -> None:
    async with (
        served(redis_server, last_seen_kept=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
    ):
        await watch(watcher, "ann")
        for room in ("lobby", "hall"):
            await ann.join(room, "ann")
        for room in ("lobby", "hall"):
            await ann.ask("leave_room", "room:left", roomId=room)
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "offline"])
        assert watcher.of("people:diff")[-1]["changed"][0] == {"userId": "ann", "status": "offline"}
        assert (await until_record(node, "ann", lambda record: not record.rooms)).last_seen is None
        assert keys_of(redis_server, "seen") == []


async def test_nodes_with_and_without_the_index_serve_one_fleet(redis_server: Server) -> None:
    """Members of the node without it are added by the others, and departures that it makes are taken in."""
    async with (
        served(redis_server, people=False, **QUICK) as off,
        RawClient.connect(off) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        assert keys_of(redis_server, "person") == []
        async with served(redis_server, **QUICK) as on, RawClient.connect(on) as watcher:
            await until_record(on, "ann", lambda record: record.status == "online")
            assert (await presence.user("ann")).rooms == ["lobby"]
            await watch(watcher, "ann")
            await ann.ask("leave_room", "room:left", roomId="lobby")
            await watcher.until(lambda: statuses(watcher, "ann") == ["offline"])
            await watcher.join("lobby", "bob")
            await until_record(on, "bob", lambda record: bool(record.counted))
        assert await off.store.kick(Entry("lobby", "bob"))  # no node with the index is left
        await until_record(off, "bob", lambda record: not record.rooms)
        assert [*keys_of(redis_server, "person"), *keys_of(redis_server, "people")] == []


async def test_damaged_records_are_restored_by_the_next_sweep_and_not_part_by_part(
    redis_server: Server,
) -> None:
    users = [f"user{number}" for number in range(24)]
    async with served(redis_server, sweep_interval=0.4) as node, RawClient.connect(node) as members:
        for user in users:
            await members.join(f"room of {user}", user)
        for user in users:
            await until_record(node, user, lambda record: bool(record.since))
        before = node.sweep.rounds
        for key in keys_of(redis_server, "person:"):
            redis_server.control.set(key, "mine")
        for user in users:
            await until_record(node, user, lambda record: bool(record.since))
        # Part by part it takes ten rounds. One may have begun before the loss was known.
        assert node.sweep.rounds - before <= AUDIT_PARTS / 2


async def test_who_is_kicked_and_erased_at_once_leaves_no_time_when_the_index_takes_that_in(
    redis_server: Server,
) -> None:
    """The departure waits for a node when the erasure comes."""
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "zz-ann é")
        await until_record(node, "zz-ann é", lambda record: bool(record.counted))
        assert await presence.kick("lobby", "zz-ann é")
        await presence.erase("zz-ann é")
        await until_record(node, "zz-ann é", lambda record: not record.rooms)
        await bob.join("lobby", "bob")
        assert await presence.kick("lobby", "bob")  # behind it the first departure has been taken in
        await until_person(lambda: presence.user("bob"), lambda person: person.last_seen is not None)
        assert (await presence.user("zz-ann é")).last_seen is None
        kinds = {key.partition("}:")[2].split(":")[0] for key in _keys_that_name(redis_server, "zz-ann")}
        assert kinds <= {"erased", "removal", "departures"}, "documented under Privacy"


def _keys_that_name(server: Server, user: str) -> list[str]:
    reads: dict[str, Callable[[str], Any]] = {
        "hash": server.control.hgetall,
        "set": server.control.smembers,
        "stream": server.control.xrange,
        "zset": lambda key: server.control.zrange(key, 0, -1),
    }
    return [
        key
        for key in server.control.scan_iter("*", count=1000)
        if user in str(key) or user in str(reads.get(str(server.control.type(key)), str)(key))
    ]
