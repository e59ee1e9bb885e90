"""Very many memberships lose their sockets at the same moment."""

import asyncio
from contextlib import AsyncExitStack

from structlog.testing import capture_logs

from reactor.membership.detach_queue import MAX_CONNECTIONS
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

SOCKETS, ROOMS = 5, 400
CALLS = 64
"""Calls of all shards at a time, at most, and shards that each socket's memberships are in."""


async def test_thousands_of_lost_memberships_are_detached_in_few_calls_and_nothing_else_suffers(
    redis_server: Server,
) -> None:
    rooms = [f"room{number}" for number in range(ROOMS)]
    with capture_logs() as log:
        async with (
            served(redis_server, grace=1.5, lease=2.0, max_rooms=ROOMS) as node,
            RawClient.connect(node) as watcher,
            AsyncExitStack() as stack,
        ):
            await watcher.join(rooms[0], "watcher")
            clients = [await stack.enter_async_context(RawClient.connect(node)) for _ in range(SOCKETS)]

            async def join_all(number: int, client: RawClient) -> None:
                for room in rooms:
                    await client.join(room, f"u{number}")

            await asyncio.gather(*(join_all(*numbered) for numbered in enumerate(clients)))
            for client in clients:
                client.vanish()
            while node.reconciler.detach_queue.pending or len(node.gateway.connections) > 1:
                await watcher.ask("room:heartbeat", "room:heartbeat:ack", roomId=rooms[0])
                assert node.backend.lanes["urgent"].waiting <= 2 * CALLS
            calls = node.backend.times["detach"].count
            assert calls <= SOCKETS * ROOMS / MAX_CONNECTIONS + SOCKETS * CALLS
            await until(lambda: sum(node.reaper.found_by.values()) == SOCKETS * ROOMS)
            await watcher.until(lambda: len(departures(watcher.received)) == SOCKETS)
            assert {reason for _, reason in departures(watcher.received)} == {"disconnected"}
    assert not {"redis_away", "expiry_suspended", "node_renamed"} & {line["event"] for line in log}
