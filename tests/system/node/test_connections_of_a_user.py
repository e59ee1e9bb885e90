"""The connections of one user in a room are limited, over all nodes."""

from contextlib import AsyncExitStack

from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server


async def test_a_user_has_a_limited_number_of_connections_in_a_room(redis_server: Server) -> None:
    async with (
        served(redis_server, max_per_user=3) as one,
        served(redis_server, max_per_user=3) as two,
        AsyncExitStack() as stack,
    ):
        clients = []
        for node in (one, two, one):
            clients.append(await stack.enter_async_context(RawClient.connect(node)))
            await clients[-1].join("lobby", "ann")
        fourth = await stack.enter_async_context(RawClient.connect(two))
        refused = await fourth.answer("join_room", roomId="lobby", userId="ann")
        assert (refused["type"], refused["code"]) == ("error", "too_many_connections")
        await fourth.join("lobby", "bob")
        await clients[0].join("lobby", "ann")  # it is one of them
        await clients[0].ask("leave_room", "room:left", roomId="lobby")
        await clients[0].join("lobby", "ann")


async def test_zero_is_no_limit(bundled_server: Server) -> None:
    async with served(bundled_server, max_per_user=0) as node, AsyncExitStack() as stack:
        for _ in range(40):
            client = await stack.enter_async_context(RawClient.connect(node))
            await client.join("lobby", "ann")
