"""What a client hears of a room: each event, a count, nothing; and what it may ask without being there."""

from contextlib import AsyncExitStack

import anyio
import pytest

from reactor.client import Client
from reactor.errors import (
    Refused,
)
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import PATIENCE
from tests.system.client.clients import RoomRecorder, client_of


async def test_each_iterator_gets_all_events_and_ends_with_the_room(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as one, client_of(node) as two:
        ann = await one.join("lobby", user_id="ann")
        seen: list[list[tuple[str, int]]] = [[], [], []]
        begun = [anyio.Event() for _ in seen]

        async def follow(place: int) -> None:
            async for event in ann:
                seen[place].append((event.kind, event.count))
                begun[place].set()

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for place in range(3):
                    tasks.start_soon(follow, place)
                for event in begun:
                    await event.wait()
                recorder = RoomRecorder(ann)
                bob = await two.join("lobby", user_id="bob")
                await recorder.until_members("ann", "bob")
                await bob.update(username="Bob")
                await recorder.until_member("bob", username="Bob")
                await bob.leave()
                await recorder.until_members("ann")
                await ann.leave()
        assert seen == [[("sync", 1), ("join", 2), ("update", 2), ("leave", 1)]] * 3


async def test_a_slow_iterator_gets_a_sync_and_delays_no_other(bundled_server: Server):
    async with (
        served(bundled_server, diff_window=0) as node,
        client_of(node, queue=4) as one,
        client_of(node) as two,
    ):
        ann = await one.join("lobby", user_id="ann")
        slow = aiter(ann)
        assert (await anext(slow)).kind == "sync"
        bob = await two.join("lobby", user_id="bob")
        for number in range(20):
            await bob.update(username=f"Bob {number}")
        await RoomRecorder(ann).until_member("bob", username="Bob 19")
        event = await anext(slow)
        assert event.kind == "sync"
        assert {member.username for member in event.members} == {"ann", "Bob 19"}


@pytest.mark.slow
async def test_a_hundred_clients_converge_on_the_same_list(bundled_server: Server):
    users = [f"user {number}" for number in range(100)]
    async with served(bundled_server) as one, served(bundled_server) as two, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(client_of((one, two)[number % 2])) for number in range(len(users))
        ]
        rooms = {}

        async def join(client: Client, user_id: str) -> None:
            rooms[user_id] = await client.join("lobby", user_id=user_id, data={"of": user_id})

        async with anyio.create_task_group() as tasks:
            for client, user_id in zip(clients, users, strict=True):
                tasks.start_soon(join, client, user_id)
        recorders = {user_id: RoomRecorder(room) for user_id, room in rooms.items()}
        for recorder in recorders.values():
            await recorder.until_members(*users)

        gone, staying = users[::3], [user_id for number, user_id in enumerate(users) if number % 3]
        async with anyio.create_task_group() as tasks:
            for user_id in gone:
                tasks.start_soon(rooms[user_id].leave)
            for user_id in staying:
                tasks.start_soon(rooms[user_id].away)
        lists = []
        for user_id in staying:
            room = rooms[user_id]
            await recorders[user_id].until_members(*staying)
            for other in staying:
                await recorders[user_id].until_member(other, away=True)
            left = [change for change in recorders[user_id].changes if change[0] == "leave"]
            assert sorted(left) == sorted(("leave", other) for other in gone), "each once"
            lists.append(dict(room.members))
        assert all(members == lists[0] for members in lists)


async def test_a_count_view_receives_counts_and_none_receives_nothing(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as one, client_of(node) as two:
        counted = await one.join("lobby", user_id="ann", view="count")
        recorder = RoomRecorder(counted)
        other = await two.join("hall", user_id="ann", view="none")
        assert (counted.view, counted.members, counted.me, counted.count) == ("count", {}, None, 1)
        async with client_of(node) as third:
            await third.join("lobby", user_id="bob")
            await recorder.until(lambda: counted.count == 2)
        await recorder.until(lambda: counted.count == 1)
        assert [(event.kind, event.count, event.members) for event in recorder.events] == [
            ("sync", 2, ()),
            ("sync", 1, ()),
        ]
        assert (other.view, other.members) == ("none", {})
        await other.update(username="Ann")


async def test_a_room_that_grows_too_large_is_a_count_until_it_is_small_again(bundled_server: Server):
    async with served(bundled_server, max_members_view=3) as node, AsyncExitStack() as stack:
        first = await stack.enter_async_context(client_of(node))
        room = await first.join("lobby", user_id="first")
        recorder = RoomRecorder(room)
        others = []
        for number in range(3):
            client = await stack.enter_async_context(client_of(node))
            others.append(await client.join("lobby", user_id=f"user {number}"))
        await recorder.until(lambda: room.view == "count" and room.count == 4)
        assert room.members == {}
        assert others[-1].view == "count"
        for other in others[:2]:
            await other.leave()
        await recorder.until_members("first", "user 2")
        assert room.view == "members"
        assert recorder.reasons == {}, "nobody left by becoming a number"


async def test_reads_need_no_join(bundled_server: Server):
    async with (
        served(bundled_server, max_members_view=1) as node,
        client_of(node) as one,
        client_of(node) as two,
    ):
        assert await two.members("lobby") == []
        await one.join("lobby", user_id="ann", username="Ann")
        assert [member.username for member in await two.members("lobby")] == ["Ann"]
        assert await two.count("lobby") == 1
        assert await two.is_present("lobby", "ann")
        assert not await two.is_present("lobby", "bob")
        await two.join("lobby", user_id="bob")
        with pytest.raises(Refused, match="ask for its count"):
            await two.members("lobby")
