"""Clients watch people, whatever the rooms: online, away, offline, last seen."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from reactor.gateway.cost import PERSON_ROOM
from reactor.membership import people_watch
from reactor.presence import people_feed
from reactor.presence.api import Presence
from reactor.presence.keys import Entry
from reactor.presence.people_feed import FollowedPerson, PeopleFeed
from reactor.presence.store import Store
from tests.support.nodes import NodeProcess, served
from tests.support.people import statuses, until_person, until_record, watch
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token


async def test_a_watcher_on_another_node_is_notified_once_of_each_going_online_and_offline(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as other,
        RawClient.connect(one) as ann,
        RawClient.connect(other) as watcher,
    ):
        assert await watch(watcher, "ann", "bob") == [
            {"userId": "ann", "status": "offline"},
            {"userId": "bob", "status": "offline"},
        ]
        await ann.join("lobby", "ann")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online"])
        await ann.join("kitchen", "ann")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await ann.ask("room:away", "room:away:ok")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "away"])
        await ann.ask("room:back", "room:back:ok")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "away", "online"])
        await ann.ask("leave_room", "room:left", roomId="kitchen")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "away", "online", "offline"])
        last = watcher.of("people:diff")[-1]["changed"][0]
        assert last["lastSeen"] > 0
        assert await watch(watcher, "ann") == [last]


async def test_a_user_whose_connection_is_lost_is_offline_after_the_grace_with_the_last_activity(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, grace=0.5) as node,
        RawClient.connect(node) as watcher,
    ):
        await watch(watcher, "ann")
        async with RawClient.connect(node) as ann:
            joined = await ann.join("lobby", "ann")
            await watcher.until(lambda: statuses(watcher, "ann") == ["online"])
        await watcher.until(lambda: statuses(watcher, "ann")[-1:] == ["offline"])
        person = watcher.of("people:diff")[-1]["changed"][0]
        assert person["lastSeen"] == joined["joinedAt"]


async def test_back_ends_ask_watch_and_erase(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as phone,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        await ann.join("@ann", "ann", view="none")
        await phone.join("hall", "ann")
        await phone.ask("room:away", "room:away:ok")
        ann_now, unknown = await presence.users(["ann", "unknown"])
        assert (ann_now.status, ann_now.rooms, ann_now.connections) == ("online", ["hall", "lobby"], 2)
        assert ann_now.since is not None
        assert (unknown.status, unknown.last_seen, unknown.rooms) == ("offline", None, [])
        await ann.ask("room:away", "room:away:ok")
        assert (await presence.user("ann")).status == "away"
        changes = presence.watch_users(["ann"])
        assert (await anext(changes)).rooms == ["hall", "lobby"]
        for client, room in ((ann, "lobby"), (ann, "@ann"), (phone, "hall")):
            await client.ask("leave_room", "room:left", roomId=room)
        async for person in changes:
            if person.status == "offline":
                break
        assert person.last_seen
        assert (await presence.user("ann")).last_seen == person.last_seen
        assert await presence.erase("ann")
        assert (await presence.user("ann")).last_seen is None
        assert not await presence.erase("ann")


async def test_a_killed_node_leaves_no_user_online(redis_server: Server) -> None:
    """The record names a room that a killed node was about to join: it is removed, no watcher is notified."""
    async with (
        served(redis_server, lease=0.5) as node,
        RawClient.connect(node) as watcher,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await watch(watcher, "ann")
        store = node.people_store
        async with NodeProcess.start(redis_server, lease=0.5) as other:
            await store.enter(store.keys.shard_of("ann"), [(Entry("lobby", "ann"), "killed-1")])
            assert (await presence.user("ann")).status == "offline"
            assert await watch(watcher, "ann") == [{"userId": "ann", "status": "offline"}]
            await other.kill()
        await until_record(node, "ann", lambda record: not record.rooms)
        assert statuses(watcher, "ann") == []


async def test_on_one_server_joins_leaves_and_expiries_need_no_call_of_the_index(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, ttl=1.0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
    ):
        called: list[str] = []
        run = node.backend.runner.run

        async def note(name: str, prefix: str, *args: Any) -> Any:
            called.append(name)
            return await run(name, prefix, *args)

        node.backend.runner.run = note  # type: ignore[method-assign]
        await watch(watcher, "ann")
        await ann.join("lobby", "ann")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online"])
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "offline"])
        await ann.join("hall", "ann")  # and no heartbeat
        await until_record(node, "ann", lambda record: "claim" in called and not record.rooms)
        assert {"join", "leave", "claim"} <= set(called)
        assert not set(called) & {"enter_people", "correct_people", "exit_people", "drop_exits"}


async def test_a_departure_whose_node_dies_before_the_index_is_taken_in_by_another(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
    ):
        await watch(watcher, "ann")
        await ann.join("lobby", "ann")
        dead = Store(node.backend.runner, node.keys)  # it takes nothing into the index
        assert await dead.kick(Entry("lobby", "ann"))
        await watcher.until(lambda: statuses(watcher, "ann") == ["online", "offline"])


async def test_after_a_loss_of_all_data_the_index_is_as_before(redis_server: Server) -> None:
    async with (
        served(redis_server, lease=0.5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await watch(watcher, "ann")
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        redis_server.control.flushall()
        await until_person(lambda: presence.user("ann"), lambda person: person.rooms == ["lobby"])
        await watcher.until(lambda: statuses(watcher, "ann")[-1:] == ["online"])
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await watcher.until(lambda: statuses(watcher, "ann")[-1] == "offline")


async def test_a_token_says_whom_its_user_may_watch(redis_server: Server) -> None:
    async with (
        served(redis_server, auth_secret=SECRET) as node,
        RawClient.connect(node) as viewer,
        RawClient.connect(node) as friend,
        RawClient.connect(node) as other,
    ):
        await viewer.ask("auth", "auth:ok", token=token(sub="viewer", people=["friend-*"], where=True))
        for client, user in ((friend, "friend-1"), (other, "other")):
            await client.ask("auth", "auth:ok", token=token(sub=user))
            await client.join("lobby", user)
        await until_record(node, "friend-1", lambda record: bool(record.counted))
        assert await watch(viewer, "friend-1", "other") == [
            {"userId": "friend-1", "status": "online", "rooms": ["lobby"]},
            {"userId": "other", "status": "offline", "rooms": []},
        ]
        assert await watch(friend, "viewer") == [{"userId": "viewer", "status": "offline"}]
        await friend.join("hall", "friend-1")
        await viewer.has_received("people:diff")
        assert viewer.of("people:diff")[-1]["changed"][0]["rooms"] == ["hall", "lobby"]
        error = await viewer.ask("join_room", "error", roomId="@other")
        assert error["code"] == "forbidden"


async def test_a_token_that_allows_less_ends_the_watching_of_others_and_of_rooms(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, auth_secret=SECRET) as node,
        RawClient.connect(node) as viewer,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await viewer.ask("auth", "auth:ok", token=token(sub="viewer", people=["*"], where=True))
        for client, user in ((ann, "ann"), (bob, "bob")):
            await client.ask("auth", "auth:ok", token=token(sub=user))
            await client.join("lobby", user)
            await until_record(node, user, lambda record: bool(record.counted))
        for person in await watch(viewer, "ann", "bob"):
            assert (person["status"], person["rooms"]) == ("online", ["lobby"])
        await viewer.ask("auth", "auth:ok", token=token(sub="viewer", people=["ann"]))
        await ann.ask("room:away", "room:away:ok")  # the next change of anyone who is watched
        changed = (await viewer.receive("people:diff"))["changed"]
        assert changed == [{"userId": "ann", "status": "away"}, {"userId": "bob", "status": "offline"}]
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        changed = (await viewer.receive("people:diff"))["changed"]
        assert [person["userId"] for person in changed] == ["ann"]
        assert statuses(viewer, "bob") == ["offline"]
        assert await watch(viewer, "bob") == [{"userId": "bob", "status": "offline"}]


async def test_each_of_several_requests_that_watch_too_many_together_is_answered(
    bundled_server: Server,
) -> None:
    async with served(bundled_server, max_people=3) as node, RawClient.connect(node) as watcher:
        for number in range(3):
            await watcher.send("people:watch", id=number, userIds=[f"u{number}a", f"u{number}b"])
        await watcher.until(lambda: len(watcher.of("people:state", "error")) == 3)
        assert len(watcher.of("people:state")) == 1
        assert [error["code"] for error in watcher.of("error")] == ["too_many_people"] * 2


async def test_requests_of_one_connection_follow_no_more_users_at_a_time_than_it_may_watch(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    begin = PeopleFeed._begin

    async def count(self: PeopleFeed, people: list[FollowedPerson]) -> None:
        nonlocal most
        most = max(most, len(self))
        await begin(self, people)

    monkeypatch.setattr(PeopleFeed, "_begin", count)
    async with served(bundled_server, max_people=10) as node, RawClient.connect(node) as watcher:
        for number in range(4):
            users = [f"user {number} {one}" for one in range(10)]
            await watcher.send("people:watch", id=number, userIds=users)
            await watcher.send("people:unwatch", id=f"none {number}")
        await watcher.until(lambda: len(watcher.of("people:unwatched")) == 4)
        assert len(watcher.of("people:state")) == 4
        await watcher.send("people:watch", id="last", userIds=["ann"])
        await watcher.until(lambda: len(watcher.of("people:state")) == 5)
    assert most == 10


async def test_many_changes_for_many_watchers_are_sent_in_portions_and_all_arrive(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_watch, "MAX_SENT", 10)
    users = [f"user {number}" for number in range(30)]
    portions: list[int] = []
    send = people_watch.PeopleWatches._send

    def count(self: Any, connections: list[Any], sent: Any, *, where: bool) -> int:
        portions.append(len(connections) * len(sent))
        return send(self, connections, sent, where=where)

    monkeypatch.setattr(people_watch.PeopleWatches, "_send", count)
    async with (
        served(bundled_server, messages_per_second=0, cost_per_second=0) as node,
        RawClient.connect(node) as crowd,
        RawClient.connect(node) as first,
        RawClient.connect(node) as second,
        RawClient.connect(node) as third,
    ):
        watchers = first, second, third
        for client in watchers:
            await watch(client, *users)
        for number, user in enumerate(users):
            await crowd.join(f"room {number}", user)
        for kind in ("away", "back", "away"):
            await crowd.ask(f"room:{kind}", f"room:{kind}:ok")
        for client in watchers:
            await client.until(lambda: all(statuses(client, user)[-1:] == ["away"] for user in users))  # noqa: B023
    assert max(portions) <= 10 + len(watchers)


async def test_who_watches_a_user_pays_for_each_of_its_rooms(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=100_000) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
    ):
        for number in range(40):
            await ann.join(f"room {number}", "ann")
        await until_record(node, "ann", lambda record: len(record.counted) == 40)
        await watch(watcher, "nobody")
        people: Any = node.handler.people
        (connection,) = people._watches
        spent: list[float] = [connection.spending.own]
        for user in ("bob", "ann", "ann"):
            await watch(watcher, user)
            spent.append(connection.spending.own)
        for_bob, for_ann, again = (after - before for before, after in pairwise(spent))
        # Units that are paid off meanwhile do not matter: a debt only has its end.
        assert min(for_ann, again) - for_bob > 40 * PERSON_ROOM * 0.9


async def test_a_user_in_many_rooms_is_sent_with_some_of_them_and_less_often(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_feed, "MAX_ROOMS_SHOWN", 2)
    monkeypatch.setattr(people_watch, "BYTES_PER_SECOND", 1)
    async with (
        served(redis_server, auth_secret=SECRET) as node,
        RawClient.connect(node) as viewer,
        RawClient.connect(node) as friend,
    ):
        await viewer.ask("auth", "auth:ok", token=token(sub="viewer", people=["friend"], where=True))
        await friend.ask("auth", "auth:ok", token=token(sub="friend"))
        for room in ("c", "b", "d"):
            await friend.join(room, "friend")
        await until_record(node, "friend", lambda record: len(record.counted) == 3)
        (person,) = await watch(viewer, "friend")
        assert person["rooms"] == ["b", "c"]
        await friend.join("a", "friend")
        await viewer.has_received("people:diff")
        assert viewer.of("people:diff")[-1]["changed"][0]["rooms"] == ["a", "b"]
        people: Any = node.handler.people
        assert people._window_ends - people._loop.time() > 10, "a second for each byte"


async def test_who_begins_to_watch_while_changes_wait_is_sent_the_last_state(
    bundled_server: Server,
) -> None:
    """It is sent a newer state than the others, which may be followed by the one that they were sent."""
    async with (
        served(bundled_server, diff_window=1) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as first,
        RawClient.connect(node) as late,
    ):
        await watch(first, "ann")
        await ann.join("lobby", "ann")
        await first.until(lambda: statuses(first, "ann") == ["online"])
        await ann.ask("room:away", "room:away:ok")
        found = await watch(late, "ann")
        await ann.ask("room:back", "room:back:ok")
        if found[0]["status"] == "away":
            await late.until(lambda: statuses(late, "ann")[-1:] == ["online"])
        else:
            await watch(late, "ann")


async def test_a_request_for_many_users_holds_up_no_other_one(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_watch, "MAX_AT_A_TIME", 1)
    order: list[str] = []
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as greedy,
        RawClient.connect(node) as usual,
    ):
        await asyncio.gather(greedy.answer("room:count", roomId="a"), usual.answer("room:count", roomId="a"))
        users = [f"user {number}" for number in range(1000)]

        async def ask(client: RawClient, name: str, watched: list[str]) -> None:
            await watch(client, *watched)
            order.append(name)

        await asyncio.gather(ask(greedy, "greedy", users), ask(usual, "usual", ["ann"]))
    assert order == ["usual", "greedy"]


async def test_the_room_of_a_user_alone_says_nothing_to_others_whatever_their_token(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        for client, user in ((ann, "ann"), (bob, "bob")):
            await client.ask("auth", "auth:ok", token=token(sub=user, rooms=["*"], watch=["*"]))
        await ann.join("@ann", "ann", view="none")
        for kind in ("room:watch", "room:count", "room:members", "room:is_present"):
            fields = {"userId": "ann"} if kind == "room:is_present" else {}
            assert (await bob.answer(kind, roomId="@ann", **fields)).get("code") == "forbidden", kind
        assert (await ann.answer("room:count", roomId="@ann"))["count"] == 1
