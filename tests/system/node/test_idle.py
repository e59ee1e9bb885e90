"""A room in which nothing changes causes no messages and no writes."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import anyio
import redis.asyncio

from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

MEMBERS = 100
PERIOD = 1.0


async def test_an_idle_room_publishes_nothing_for_two_heartbeat_periods(redis_server: Server) -> None:
    """Clients receive acknowledgements alone, nothing is published, and no index is written."""
    async with (
        served(redis_server, ttl=30, sweep_interval=0) as one,
        served(redis_server, ttl=30, sweep_interval=0) as two,
        AsyncExitStack() as stack,
    ):
        clients = []
        for number in range(MEMBERS):
            client = await stack.enter_async_context(RawClient.connect((one, two)[number % 2]))
            await client.join("lobby", f"u{number}")
            clients.append(client)
        for client in clients:
            await client.until(lambda client=client: _knows_all(client))  # type: ignore[misc]
        before = [len(client.received) for client in clients]
        noted = redis_state.rows(redis_server, "lobby")
        looks = one.pacemaker.scans + two.pacemaker.scans

        published: list[Any] = []
        watching = asyncio.create_task(_witness(redis_server, published))
        await until(lambda: redis_server.control.pubsub_numpat() == 1)
        for _ in range(2):
            for client in clients:
                await client.send("room:heartbeat")
                await anyio.sleep(PERIOD / MEMBERS)
        for client in clients:
            await client.until(lambda client=client: len(client.of("room:heartbeat:ack")) == 2)  # type: ignore[misc]
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

        # The leadership of the sweep may expire, which concerns no room.
        assert [each for each in published if not each[1].startswith(b"{reactor:fleet}")] == []
        for client, start in zip(clients, before, strict=True):
            assert [message["type"] for message in client.received[start:]] == ["room:heartbeat:ack"] * 2
        assert redis_state.rows(redis_server, "lobby") == noted
        # Each shard is scanned once a second, by one of the nodes.
        assert one.pacemaker.scans + two.pacemaker.scans - looks <= 16 * 8


def _knows_all(client: RawClient) -> bool:
    return any(message.get("count") == MEMBERS for message in client.of("room:joined", "room:diff"))


async def _witness(server: Server, published: list[Any]) -> None:
    """Everything that is published, on any channel."""
    client = redis.asyncio.Redis(unix_socket_path=str(server.socket), protocol=2)
    async with client, client.pubsub() as pubsub:
        await pubsub.psubscribe("*")
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                published += [(message["channel"], message["data"])]
