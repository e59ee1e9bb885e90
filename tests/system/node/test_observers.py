"""Connections that watch rooms without being members: their view, and what they are not."""

import asyncio
from typing import Any

import pytest

from reactor.gateway import address_share
from reactor.membership import observers
from reactor.presence.keys import Entry
from reactor.server.node import Node
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until


async def watch(client: RawClient, room_id: str, view: str = "members") -> dict[str, Any]:
    watching = await client.answer("room:watch", roomId=room_id, view=view)
    assert watching["type"] == "room:watching", watching
    return watching


def counts(client: RawClient, room_id: str) -> list[int]:
    """The counts of a room that the client was sent, in order."""
    found = []
    for message in client.received:
        if message["type"] == "room:counts":
            found += [room["count"] for room in message["rooms"] if room["roomId"] == room_id]
    return found


def keys_of_rooms(server: Server) -> set[str]:
    """All keys but those that say who does the work of all nodes, which comes when it comes."""
    return {key for key in server.control.scan_iter("*") if ":turn:" not in key}


async def test_an_observer_sees_members_on_another_node_and_is_no_member(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as page,
    ):
        await ann.join("lobby", "ann", data=1)
        keys = keys_of_rooms(redis_server)
        watching = await watch(page, "lobby")
        assert (watching["roomId"], watching["count"], watching["view"]) == ("lobby", 1, "members")
        assert [member["userId"] for member in watching["members"]] == ["ann"]
        assert keys_of_rooms(redis_server) == keys

        async with RawClient.connect(one) as bob:
            await bob.join("lobby", "bob")
            diff = await page.receive("room:diff")
            assert [member["userId"] for member in diff["joined"]] == ["bob"]
            assert (diff["epoch"], diff["from"]) == (watching["epoch"], watching["version"])
            await bob.ask("room:update", "room:updated", roomId="lobby", data=2)
            assert (await page.receive("room:diff"))["updated"][0]["data"] == 2
            await bob.ask("room:send", "room:sent", roomId="lobby", data="for members")
            await bob.ask("leave_room", "room:left", roomId="lobby")
        assert await page.receive_departure_of("bob") == "left"
        members = await ann.ask("room:members", "room:members", roomId="lobby")
        assert [member["userId"] for member in members["members"]] == ["ann"]
        assert not page.of("room:message")
        assert two.roster.members == len(two.roster) == 0
        assert two.handler.observers.watched == 1


async def test_a_connection_that_watches_the_count_takes_no_change_from_one_that_watches_members(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, diff_window=1) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as page,
        RawClient.connect(node) as other,
    ):
        await watch(page, "lobby")
        await ann.join("lobby", "ann")
        diff = await page.receive("room:diff")
        async with RawClient.connect(node) as bob:
            await bob.join("lobby", "bob")
            await other.answer("room:watch", roomId="lobby", view="count")  # while bob's join waits
            following = await page.receive("room:diff")
            assert following["from"] == diff["version"]
            assert [member["userId"] for member in following["joined"]] == ["bob"]


async def test_an_empty_room_is_watched_emptied_and_begun_anew(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(two) as page,
        RawClient.connect(two) as counter,
    ):
        watching = await watch(page, "lobby")
        assert (watching["count"], watching["members"]) == (0, [])
        assert (await watch(counter, "lobby", "count"))["count"] == 0
        for user in ("ann", "bob"):
            async with RawClient.connect(one) as member:
                await member.join("lobby", user)
                diff = await page.receive("room:diff")
                assert [one["userId"] for one in diff["joined"]] == [user]
                await member.ask("leave_room", "room:left", roomId="lobby")
            assert await page.receive_departure_of(user) == "left"
            if user == "ann":
                assert redis_server.control.delete("{reactor:7kf}:state:lobby") == 1  # it begins anew
        await counter.until(lambda: counts(counter, "lobby")[-1:] == [0])
        await page.answer("room:unwatch", roomId="lobby")
        await counter.answer("room:unwatch", roomId="lobby")
        assert not two.feed.rooms()
        async with RawClient.connect(one) as member:
            start = len(page.received)
            await member.join("lobby", "cy")
            await page.barrier()
            assert [message["type"] for message in page.received[start:]] == ["error"]


async def test_the_counts_of_many_rooms_come_in_one_message_a_window(redis_server: Server) -> None:
    rooms = [f"room {number}" for number in range(100)]
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as page,
        RawClient.connect(node) as other_page,
        RawClient.connect(node) as ann,
    ):
        first = await page.answer("room:watch", roomIds=rooms, view="count")
        assert first["type"] == "room:counts"
        assert [(room["roomId"], room["count"]) for room in first["rooms"]] == [(room, 0) for room in rooms]
        await other_page.answer("room:watch", roomIds=rooms[:50], view="count")
        for room in rooms:
            await ann.send("join_room", roomId=room, userId="ann")
        await page.until(lambda: all(counts(page, room)[-1:] == [1] for room in rooms))
        await other_page.until(lambda: all(counts(other_page, room)[-1:] == [1] for room in rooms[:50]))
        messages = page.of("room:counts")
        assert len(messages) < 30, f"{len(messages)} messages for 100 joins"
        assert not counts(other_page, rooms[50])
        # A page that ends watching one of them is sent the others'.
        await page.answer("room:unwatch", roomIds=rooms[:99])
        for room in (rooms[0], rooms[99]):
            await ann.ask("leave_room", "room:left", roomId=room)
        await page.until(lambda: counts(page, rooms[99])[-1] == 0)
        # What the window of both changes brought has come by the time the next window brings another.
        await ann.join(rooms[99], "ann")
        await page.until(lambda: counts(page, rooms[99])[-1] == 1)
        assert counts(page, rooms[0])[-1] == 1


async def test_a_room_above_the_limit_is_watched_as_a_count(bundled_server: Server) -> None:
    async with (
        served(bundled_server, max_members_view=2) as node,
        RawClient.connect(node) as page,
        RawClient.connect(node) as late,
        RawClient.connect(node) as members,
    ):
        assert "members" in await watch(page, "lobby")
        others = []
        for user in "abc":
            other = RawClient.connect(node)
            others.append(other)
            await (await other.__aenter__()).join("lobby", user)
        await page.receive("room:count", count=3)
        watching = await watch(late, "lobby")
        assert (watching["view"], watching["count"], "members" in watching) == ("count", 3, False)
        for other in others[1:]:
            await other.__aexit__(None, None, None)
        for user in "bc":
            await members.answer("room:is_present", roomId="lobby", userId=user)
            await node.store.kick(Entry("lobby", user), "")
        for client in (page, late):
            listed = await client.receive("room:members")
            assert [member["userId"] for member in listed["members"]] == ["a"]
        await others[0].__aexit__(None, None, None)


async def test_a_member_may_watch_its_room_and_goes_on_watching_when_it_was_removed(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await watch(ann, "lobby")
        await bob.join("lobby", "bob")
        await ann.receive("room:diff")
        await node.store.kick(Entry("lobby", "ann"), "out")
        await ann.receive("room:force-leave", reason="kicked")
        await bob.ask("room:update", "room:updated", roomId="lobby", data=1)
        diff = await ann.receive_next(
            lambda message: message["type"] == "room:diff" and bool(message["updated"])
        )
        assert diff["updated"][0]["userId"] == "bob"
        assert ann.open
        joins = [message for message in ann.of("room:diff") if message["joined"]]
        assert len(joins) == 1, "a change is sent once to a member that watches its own room"


async def test_what_an_observer_may_watch_is_decided_by_its_token(bundled_server: Server) -> None:
    async with served(bundled_server, auth_secret=SECRET) as node:
        for given, allowed, denied in (
            (token(rooms=["lobby"]), "lobby", "other"),
            (token(rooms=["lobby"], watch=["stats-*"]), "stats-1", "lobby"),
        ):
            headers = {"Authorization": f"Bearer {given}"}
            async with RawClient.connect(node, additional_headers=headers) as page:
                await watch(page, allowed)
                refused = await page.answer("room:watch", roomId=denied)
                assert (refused["type"], refused["code"]) == ("error", "forbidden")
                both = await page.answer("room:watch", roomIds=[allowed, denied], view="count")
                assert [room["roomId"] for room in both["rooms"]] == [allowed]
                assert [(room["roomId"], room["code"]) for room in both["refused"]] == [(denied, "forbidden")]
                renewed = await page.answer("auth", token=token(rooms=[denied], watch=[denied]))
                assert renewed["type"] == "auth:ok"
                assert await page.closed() == 4001


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({}, "bad_message"),
        ({"roomId": "a", "roomIds": ["b"]}, "bad_message"),
        ({"roomIds": [], "view": "count"}, "bad_message"),
        ({"roomIds": ["a"]}, "bad_message"),
        ({"roomId": "a", "view": "none"}, "bad_message"),
        ({"roomIds": ["a", "b", "c", "d"], "view": "count"}, "bad_message"),
        ({"roomIds": ["a", "\u0000"], "view": "count"}, "bad_id"),
        ({"roomIds": [["a"]], "view": "count"}, "bad_message"),
    ],
)
async def test_a_wrong_request_watches_nothing(
    bundled_server: Server, request_: dict[str, Any], code: str
) -> None:
    async with served(bundled_server, max_watched=3) as node, RawClient.connect(node) as page:
        refused = await page.answer("room:watch", **request_)
        assert (refused["type"], refused["code"]) == ("error", code)
        assert node.handler.observers.watched == 0


async def test_watched_rooms_are_limited_and_those_unwatched_free_their_place(bundled_server: Server) -> None:
    async with served(bundled_server, max_watched=2) as node, RawClient.connect(node) as page:
        await page.answer("room:watch", roomIds=["a", "b"], view="count")
        refused = await page.answer("room:watch", roomId="c")
        assert (refused["code"], refused["roomId"]) == ("too_many_rooms", "c")
        await watch(page, "a")  # another view of a room that is watched
        await page.answer("room:unwatch", roomId="a")
        await watch(page, "c")


async def test_watching_is_charged(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=10) as node,
        RawClient.connect(node) as page,
    ):
        rooms = [f"room {number}" for number in range(50)]
        assert (await page.answer("room:watch", roomIds=rooms, view="count"))["type"] == "room:counts"
        refused = await page.answer("room:watch", roomId="lobby")
        assert refused["code"] == "too_many_requests"
        assert refused["retryAfter"] > 0
        assert node.handler.observers.watched == 50


async def test_a_closed_observer_leaves_nothing_on_its_node(bundled_server: Server) -> None:
    async with served(bundled_server) as node:
        for _ in range(3):
            async with RawClient.connect(node) as page:
                await watch(page, "a")
                await page.send("room:watch", roomIds=["a", "b", "c"], view="count")
                page.vanish()
        await until(lambda: not node.gateway.connections and not list(node.feed.rooms()))
        assert node.handler.observers.watched == 0
        assert "a" not in node.roster


async def test_views_of_observers_are_right_after_redis_was_restarted_empty(redis_server: Server) -> None:
    async with (
        served(redis_server, lease=1.5) as one,
        served(redis_server, lease=1.5) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as page,
        RawClient.connect(two) as counter,
    ):
        await ann.join("lobby", "ann")
        await watch(page, "lobby")
        await counter.answer("room:watch", roomIds=["lobby", "attic"], view="count")
        redis_server.kill()
        await page.receive("service:degraded")
        redis_server.start()
        for client in (ann, page, counter):
            await client.receive("service:restored")
        async with RawClient.connect(one) as bob:
            await bob.join("lobby", "bob")
            await counter.until(lambda: counts(counter, "lobby")[-1:] == [2])
            diff = await page.receive_next(
                lambda message: (
                    message["type"] == "room:diff"
                    and "bob" in [member["userId"] for member in message["joined"]]
                )
            )
            assert diff["count"] == 2
        assert not [left for message in page.of("room:diff") for left in message["left"]]


async def test_an_observer_sees_the_members_of_a_killed_node_leave(redis_server: Server) -> None:
    async with (
        served(redis_server, lease=1.0) as one,
        NodeProcess.start(redis_server, lease=1.0, grace=1.0) as other,
        RawClient.connect(one) as page,
        RawClient.connect(one) as counter,
    ):
        await watch(page, "lobby")
        await watch(counter, "lobby", "count")
        async with RawClient.connect(other) as ann:
            await ann.join("lobby", "ann")
            await page.receive("room:diff", count=1)
            await other.kill()
            assert await page.receive_departure_of("ann") == "disconnected"
        await counter.until(lambda: counts(counter, "lobby")[-1:] == [0])


async def test_while_redis_is_away_watching_is_refused_and_possible_afterwards(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, lease=1.5) as node,
        RawClient.connect(node) as page,
    ):
        bundled_server.kill()
        refused = await page.answer("room:watch", roomId="lobby")
        assert refused["code"] == "unavailable"
        assert not page_rooms(node)
        bundled_server.start()
        await page.receive("service:restored")
        assert (await watch(page, "lobby"))["count"] == 0


def page_rooms(node: Node) -> list[str]:
    return [room for connection in node.gateway.connections for room in connection.session.watched]


async def test_the_connections_of_an_address_watch_a_bounded_number_of_rooms_together(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_share, "CONNECTIONS", 2)
    rooms = [f"room {number}" for number in range(6)]
    async with (
        served(bundled_server, trusted_proxies="none", max_watched=3, max_people=3) as node,
        RawClient.connect(node) as one,
        RawClient.connect(node) as two,
        RawClient.connect(node) as three,
    ):
        for client, watched in ((one, rooms[:3]), (two, rooms[3:])):
            await client.ask("room:watch", "room:counts", roomIds=watched, view="count")
            await client.ask("people:watch", "people:state", userIds=watched)
        await three.ask("room:watch", "room:counts", roomIds=rooms[:3], view="count")  # followed already
        await three.ask("room:unwatch", "room:unwatched", roomIds=rooms[:3])
        assert (await three.answer("room:watch", roomId="another"))["code"] == "too_many_rooms"
        assert (await three.answer("people:watch", userIds=["another"]))["code"] == "too_many_people"
        await one.ask("room:unwatch", "room:unwatched", roomIds=rooms[:1])
        await one.ask("people:unwatch", "people:unwatched")
        await three.ask("room:watch", "room:watching", roomId="another")
        await three.ask("people:watch", "people:state", userIds=["another"])


async def test_rooms_that_wait_to_be_listed_are_not_listed_for_a_closed_connection(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "MAX_OPENED", 1)
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        followed: list[str] = []
        follow, begun, ended = node.feed.follow, asyncio.Event(), asyncio.Event()
        watch = node.handler.observers._watch

        async def note(room_id: str, *payer: Any) -> Any:
            followed.append(room_id)
            begun.set()
            await until(lambda: not node.gateway.connections)
            return await follow(room_id, *payer)

        async def watch_and_end(*request: Any) -> None:
            try:
                await watch(*request)
            finally:
                ended.set()

        monkeypatch.setattr(node.feed, "follow", note)
        monkeypatch.setattr(node.handler.observers, "_watch", watch_and_end)
        rooms = [f"room {number}" for number in range(50)]
        await ann.send("room:watch", roomIds=rooms, view="count")
        await begun.wait()
        ann.vanish()
        await ended.wait()
    assert followed == rooms[:1]
