"""Lists of rooms for those who ask: shared, in pages, and cancelled when no client waits."""

import asyncio
from contextlib import AsyncExitStack

from reactor.presence.keys import Entry
from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until


async def fill(node: Node, room_id: str, members: int) -> set[str]:
    """Join users to a room that the node does not follow; return their ids."""
    users = [f"u{number}" for number in range(members)]
    name = node.name()  # that of a node which is not registered would be taken for lost
    joins = (node.store.join(Entry(room_id, user), f"{name}.{user}", ttl=60_000) for user in users)
    await asyncio.gather(*joins)
    return set(users)


def lists_made(node: Node) -> int:
    """How often the script that lists a room has run."""
    return node.backend.times["list"].count if "list" in node.backend.times else 0


async def test_clients_that_ask_for_a_room_at_once_share_a_list(redis_server: Server) -> None:
    async with served(redis_server) as node, AsyncExitStack() as stack:
        users = await fill(node, "large", 40)
        clients = [await stack.enter_async_context(RawClient.connect(node)) for _ in range(30)]
        for client in clients:
            for _ in range(4):
                await client.send("room:members", roomId="large")
        for client in clients:
            await client.until(lambda: len(client.of("room:members")) == 4)  # noqa: B023
        for client in clients:
            assert {m["userId"] for m in client.of("room:members")[-1]["members"]} == users
        assert lists_made(node) <= 12, "120 questions"


async def test_a_list_is_never_older_than_the_question(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        for members in range(1, 5):
            users = await fill(node, "growing", members)
            found = await ann.answer("room:members", roomId="growing")
            assert {member["userId"] for member in found["members"]} == users


async def test_a_room_is_listed_in_pages(redis_server: Server) -> None:
    async with served(redis_server, max_members_view=100) as node, RawClient.connect(node) as ann:
        users = await fill(node, "large", 700)
        assert "members" not in await ann.answer("room:members", roomId="large")
        found, pages, fields = set[str](), 0, {"limit": 50}
        while True:
            page = await ann.answer("room:members", roomId="large", **fields)
            assert page["count"] == 700
            assert len(page["members"]) < 130
            found |= {member["userId"] for member in page["members"]}
            pages += 1
            if "cursor" not in page:
                break
            fields = {"limit": 50, "cursor": page["cursor"]}
        assert found == users
        assert pages >= 7
        for wrong in ({"cursor": "x"}, {"cursor": "-1"}, {"limit": 0}):
            assert (await ann.answer("room:members", roomId="large", **wrong))["code"] == "bad_message"


async def test_a_list_that_no_client_waits_for_is_cancelled(redis_server: Server) -> None:
    async with served(redis_server) as node:
        await fill(node, "large", 2)
        async with RawClient.connect(node) as ann, RawClient.connect(node) as bob:
            await ann.answer("room:members", roomId="large")
            made = lists_made(node)
            for number in range(20):  # the list of each waits for a place, or for its time
                await bob.send("room:members", roomId=f"room {number}")
                await bob.send("room:members", roomId="large")
            bob.vanish()
            await until(lambda: len(node.gateway.connections) == 1)
            assert node.handler.questions._listings._next == {}
            await ann.answer("room:members", roomId="large")
            assert lists_made(node) <= made + 5
