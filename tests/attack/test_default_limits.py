"""The default limits never affect ordinary clients, however active they are."""

import asyncio
from contextlib import AsyncExitStack

from reactor import Client
from reactor.settings import Settings
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

DEFAULTS = Settings()


async def test_a_client_in_the_maximum_of_rooms_returns_to_all_of_them(bundled_server: Server):
    async with served(
        bundled_server,
        messages_per_second=DEFAULTS.messages_per_second,
        cost_per_second=DEFAULTS.cost_per_second,
    ) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        async with Client(url) as client:
            names = [f"room {number}" for number in range(DEFAULTS.max_rooms)]
            rooms = await asyncio.gather(*(client.join(name, user_id="ann") for name in names))
            assert len(rooms) == DEFAULTS.max_rooms
            for _ in range(2):
                (connection,) = node.gateway.connections
                before = connection.socket_id
                connection.abort()
                await until(
                    lambda: any(
                        other.socket_id != before and len(other.session.rooms) == len(names)  # noqa: B023
                        for other in node.gateway.connections
                    )
                )
            assert all(room.count == 1 for room in rooms)
        assert node.gateway.counts.errors == {}


async def test_thirty_clients_behind_one_address_are_served(bundled_server: Server):
    async with (
        served(bundled_server, trusted_proxies="none", messages_per_second=20, cost_per_second=400) as node,
        AsyncExitStack() as stack,
    ):
        for number in range(30):
            client = await stack.enter_async_context(RawClient.connect(node))
            await client.join("lobby", f"user {number}")
            for _ in range(5):
                await client.ask("room:heartbeat", "room:heartbeat:ack")
        assert node.gateway.counts.errors == {}
        assert node.gateway.counts.rejected == {}
