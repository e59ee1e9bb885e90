"""A client that returns by position: it receives what has changed since its list, in place of the list."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import msgpack
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from reactor.gateway import snapshots
from reactor.presence.keys import Entry
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient
from tests.support.servers import Server
from tests.support.waiting import until


def resume(joined: Message, *, members: int | None = None) -> dict[str, Any]:
    """What a client says that has this reply to its join."""
    position = {name: joined[name] for name in ("epoch", "version", "joinedAt")}
    return position | {"members": len(joined["members"]) if members is None else members}


async def vanish(server: Server, ann: RawClient) -> None:
    """Lose ann's connection, and wait until that is in Redis.

    A join before that would find two connections, and the end of one of them is a change of the room.
    """
    ann.vanish()
    await in_its_grace(server)


async def in_its_grace(server: Server) -> None:
    """Wait until ann has no connection, by her remaining life, which is the grace of 15 s then."""
    await until(lambda: server.control.pttl(redis_state.presence_key("lobby", "ann")) <= 15_000)


async def return_to(server: Server, node: Node, position: dict[str, Any], **more: Any) -> Message:
    """Ann's return and its answer; her connection is closed then."""
    async with RawClient.connect(node) as back:
        joined = await back.join("lobby", "ann", resume=position, **more)
    await in_its_grace(server)
    return joined


@asynccontextmanager
async def in_the_lobby(node: Node, *users: str) -> AsyncIterator[list[RawClient]]:
    """Clients that are in the lobby, one for each user."""
    async with AsyncExitStack() as stack:
        clients = []
        for user in users:
            client = await stack.enter_async_context(RawClient.connect(node))
            await client.join("lobby", user)
            clients.append(client)
        yield clients


def changed(diff: Message) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Who joined, who was updated, and who left and why."""
    joined, updated = ([one["userId"] for one in diff[kind]] for kind in ("joined", "updated"))
    return joined, updated, [(one["userId"], one["reason"]) for one in diff["left"]]


def answers(node: Node) -> dict[str, int]:
    return dict(node.feed.recent.results)


async def test_a_return_to_an_unchanged_room_is_sent_neither_a_list_nor_diffs(redis_server: Server) -> None:
    async with served(redis_server) as node, in_the_lobby(node, "bob"), RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        joined = await return_to(redis_server, node, resume(before))
        assert joined["diffs"] == []
        assert "members" not in joined
        assert (joined["resumed"], joined["version"], joined["count"]) == (True, before["version"], 2)
        assert answers(node) == {"diffs": 1}


async def test_a_return_is_sent_the_changes_since_its_list_merged_into_one(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        in_the_lobby(node, "bob", "cy", "dee", "eve", "fay") as others,
        RawClient.connect(node) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        async with in_the_lobby(node, "gus"):
            for number in range(3):
                await others[1].ask("room:update", "room:updated", roomId="lobby", data={"n": number})
            await node.store.kick(Entry("lobby", "bob"), "")
            joined = await return_to(redis_server, node, resume(before))
            (diff,) = joined["diffs"]
            assert "members" not in joined
            assert set(diff) == {"from", "version", "count", "joined", "updated", "left"}
            assert (diff["from"], diff["version"], diff["count"]) == (before["version"], joined["version"], 6)
            assert changed(diff) == (["gus"], ["cy"], [("bob", "kicked")])
            assert diff["updated"][0]["data"] == {"n": 2}
            # The next client that returns from there gets the same and what has changed since.
            await others[2].ask("room:update", "room:updated", roomId="lobby", data=1)
            (later,) = (await return_to(redis_server, node, resume(before)))["diffs"]
            assert changed(later) == (["gus"], ["cy", "dee"], [("bob", "kicked")])
            assert later["from"] == before["version"]


async def test_a_client_that_does_not_say_how_many_members_it_has_is_sent_a_list(
    redis_server: Server,
) -> None:
    """An earlier client does not know `diffs`."""
    async with served(redis_server) as node, in_the_lobby(node, "bob"), RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        position = resume(before)
        del position["members"]
        joined = await return_to(redis_server, node, position)
        assert len(joined["members"]) == 2
        assert "diffs" not in joined
        assert answers(node) == {}


async def test_a_client_whose_list_is_another_one_is_sent_a_list(redis_server: Server) -> None:
    async with served(redis_server) as node, in_the_lobby(node, "bob"), RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        for wrong in (
            resume(before, members=3),
            resume(before) | {"version": before["version"] + 1},
            resume(before) | {"version": 0},
            resume(before) | {"epoch": "another"},
        ):
            joined = await return_to(redis_server, node, wrong)
            assert len(joined["members"]) == 2
            assert "diffs" not in joined
        assert answers(node) == {"other_list": 1, "forgotten": 3}


async def test_changes_that_take_more_than_the_list_are_sent_as_a_list(redis_server: Server) -> None:
    async with served(redis_server) as node, in_the_lobby(node, "bob"), RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        for number in range(3):
            async with in_the_lobby(node, f"guest {number}") as (guest,):
                await guest.ask("leave_room", "room:left", roomId="lobby")
        joined = await return_to(redis_server, node, resume(before))
        assert {one["userId"] for one in joined["members"]} == {"ann", "bob"}
        assert answers(node) == {"larger": 1}


@pytest.mark.parametrize("data", ["short", "long"])
async def test_changes_that_take_long_to_encode_are_sent_as_a_list_that_is_prepared(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.setattr(snapshots, "LARGE", 3)
    prepared = []
    prepare = snapshots.Snapshots._prepare

    async def note(*args: Any) -> None:
        prepared.append(args)
        await prepare(*args)

    async with served(bundled_server) as node, in_the_lobby(node, *"bcdefgh") as others:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"

        async def join(**fields: Any) -> Any:
            async with connect(url, subprotocols=[Subprotocol("reactor.msgpack")]) as socket:
                request = {"type": "join_room", "roomId": "lobby", "userId": "ann", **fields}
                await socket.send(msgpack.encode(request))
                return msgpack.decode(await socket.recv(decode=False))

        before = await join()
        await in_its_grace(bundled_server)
        monkeypatch.setattr(snapshots, "PART_BYTES", 2000)
        for other in others[:2]:
            await other.ask("room:update", "room:updated", roomId="lobby", data="x" * 1200 * (data == "long"))
        monkeypatch.setattr(snapshots.Snapshots, "_prepare", note)
        back = await join(resume=resume(before))
        assert ("members" in back, "diffs" in back) == ((True, False) if data == "long" else (False, True))
        assert len(prepared) == (data == "long"), "no one pays for a list that is not sent"
        assert answers(node) == {"larger" if data == "long" else "diffs": 1}


async def test_diffs_that_the_bound_has_dropped_are_replaced_by_a_list(redis_server: Server) -> None:
    async with (
        served(redis_server, recent_diffs=4096) as node,
        in_the_lobby(node, "bob", "cy", "dee") as (bob, *_),
        RawClient.connect(node) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        await bob.ask("room:update", "room:updated", roomId="lobby", data=0)
        assert "diffs" in await return_to(redis_server, node, resume(before))
        for number in range(20):
            await bob.ask("room:update", "room:updated", roomId="lobby", data=str(number) * 100)
            assert node.feed.recent.bytes <= 4096
        after = await return_to(redis_server, node, resume(before))
        assert len(after["members"]) == 4
        assert answers(node) == {"diffs": 1, "forgotten": 1}
        # From there on it is known again.
        assert (await return_to(redis_server, node, resume(after)))["diffs"] == []


async def test_with_a_bound_of_0_a_return_is_sent_a_list(redis_server: Server) -> None:
    async with (
        served(redis_server, recent_diffs=0) as node,
        in_the_lobby(node, "bob"),
        RawClient.connect(node) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        assert len((await return_to(redis_server, node, resume(before)))["members"]) == 2
        assert node.feed.recent.bytes == 0


async def test_a_return_to_another_node_is_sent_the_diffs_if_that_node_follows_the_room(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        in_the_lobby(two, "bob", "cy") as (bob, _),
        RawClient.connect(one) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        await bob.ask("room:update", "room:updated", roomId="lobby", data=1)
        (diff,) = (await return_to(redis_server, two, resume(before)))["diffs"]
        assert changed(diff) == ([], ["bob"], [])


async def test_a_node_that_did_not_follow_the_room_sends_diffs_only_where_nothing_has_changed(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as one,
        in_the_lobby(one, "bob") as (bob,),
        RawClient.connect(one) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        async with served(redis_server) as new:
            assert (await return_to(redis_server, new, resume(before)))["diffs"] == []
        await bob.ask("room:update", "room:updated", roomId="lobby", data=1)
        async with served(redis_server) as new:
            assert len((await return_to(redis_server, new, resume(before)))["members"]) == 2


async def test_a_new_epoch_is_sent_as_a_list(redis_server: Server) -> None:
    async with served(redis_server) as node, in_the_lobby(node, "bob"), RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        redis_server.control.flushall()
        await until(lambda: redis_state.members(redis_server, "lobby").keys() >= {"bob"})
        joined = await return_to(redis_server, node, resume(before))
        assert joined["epoch"] != before["epoch"]
        assert "ann" in {one["userId"] for one in joined["members"]}


async def test_a_kick_while_away_still_force_leaves(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        in_the_lobby(node, "bob"),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as back,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        await node.store.kick(Entry("lobby", "ann"), "Enough.")
        answer = await back.answer("join_room", roomId="lobby", userId="ann", resume=resume(before))
        assert (answer["type"], answer["reason"]) == ("room:force-leave", "kicked")
        assert answers(node) == {}


@pytest.mark.parametrize("view", ["count", "none"])
async def test_other_views_are_sent_neither_list_nor_diffs(redis_server: Server, view: str) -> None:
    async with served(redis_server) as node, in_the_lobby(node, "bob"), RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        joined = await return_to(redis_server, node, resume(before), view=view)
        assert (joined["view"], joined["count"]) == (view, 2)
        assert not joined.keys() & {"members", "diffs"}


async def test_a_room_that_is_served_as_a_count_meanwhile_is_sent_as_a_count(redis_server: Server) -> None:
    async with (
        served(redis_server, max_members_view=2) as node,
        in_the_lobby(node, "bob"),
        RawClient.connect(node) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        async with in_the_lobby(node, "cy"):
            joined = await return_to(redis_server, node, resume(before))
        assert (joined["view"], joined["count"]) == ("count", 3)
        assert not joined.keys() & {"members", "diffs"}


async def test_the_room_is_followed_on_for_the_return_of_its_last_client_here(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        in_the_lobby(two, "bob", "cy") as (bob, _),
        RawClient.connect(one) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        await until(lambda: not one.gateway.connections)
        await bob.ask("room:update", "room:updated", roomId="lobby", data=1)
        (diff,) = (await return_to(redis_server, one, resume(before)))["diffs"]
        assert changed(diff) == ([], ["bob"], [])


async def test_a_member_that_was_suspended_as_a_list_was_made_is_not_lost_by_a_return(
    redis_server: Server,
) -> None:
    """Lists of one version can differ by it; a client that has one of them is sent the other."""
    async with (
        served(redis_server) as one,
        in_the_lobby(one, "bob", "cy"),
        RawClient.connect(one) as ann,
    ):
        before = await ann.join("lobby", "ann")
        await vanish(redis_server, ann)
        # What a node sees whose list is made while expiry is suspended.
        async with served(redis_server) as two:
            members = two.store.members

            async def without_cy(*args: Any) -> Any:
                listing = await members(*args)
                kept = [member for member in listing.members if member.user_id != "cy"]
                return replace(listing, members=kept)

            two.store.members = without_cy  # type: ignore[method-assign, assignment]
            joined = await return_to(redis_server, two, resume(before))
            assert {member["userId"] for member in joined["members"]} == {"ann", "bob"}
            assert answers(two) == {"other_list": 1}
