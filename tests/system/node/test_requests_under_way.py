"""A connection has a few requests under way at a time; those behind them keep their order, or are refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reactor.membership.request_queue import MAX_UNDER_WAY
from reactor.presence.replies import Position
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until


class SlowCounts:
    """Counts of rooms that take until `release`; the others are as quick as before."""

    def __init__(self, node: Node) -> None:
        self.released = asyncio.Event()
        self.at_a_time = self.most = 0
        self._count = node.store.count
        node.store.count = self._slow  # type: ignore[method-assign]

    async def _slow(self, room_id: str) -> Position:
        self.at_a_time += 1
        self.most = max(self.most, self.at_a_time)
        try:
            await self.released.wait()
        finally:
            self.at_a_time -= 1
        return await self._count(room_id)


@asynccontextmanager
async def slow(server: Server, **settings: int) -> AsyncIterator[tuple[Node, RawClient, SlowCounts]]:
    async with served(server, **settings) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        yield node, ann, SlowCounts(node)


async def test_a_few_requests_are_under_way_and_all_are_answered_in_their_order(
    bundled_server: Server,
) -> None:
    async with slow(bundled_server) as (_, ann, counts):
        for number in range(20):
            await ann.send("room:count", roomId="lobby", id=number)
        await ann.ask("room:heartbeat", "room:heartbeat:ack")  # waits behind none of them
        assert counts.at_a_time == MAX_UNDER_WAY
        counts.released.set()
        await ann.until(lambda: len(ann.of("room:count")) == 20)
        assert [reply["id"] for reply in ann.of("room:count")] == list(range(20))
        assert counts.most == MAX_UNDER_WAY


async def test_requests_beyond_those_that_may_wait_are_refused(bundled_server: Server) -> None:
    async with slow(bundled_server, max_rooms=2, message_burst=3) as (_, ann, counts):
        for number in range(MAX_UNDER_WAY + 5 + 2):
            await ann.send("room:count", roomId="lobby", id=number)
        await ann.send("join_room", roomId="den", userId="ann", id="join")
        await ann.until(lambda: len(ann.of("error")) == 3)
        assert [(error["code"], error["id"]) for error in ann.of("error")] == [
            ("too_many_pending", MAX_UNDER_WAY + 5),
            ("too_many_pending", MAX_UNDER_WAY + 6),
            ("too_many_pending", "join"),
        ]
        counts.released.set()
        await ann.until(lambda: len(ann.of("room:count")) == MAX_UNDER_WAY + 5)
        await ann.join("den", "ann")


async def test_what_a_closed_connection_asked_for_is_cancelled(bundled_server: Server) -> None:
    async with slow(bundled_server) as (_, ann, counts):
        for _ in range(20):
            await ann.send("room:count", roomId="lobby")
        await until(lambda: counts.at_a_time == MAX_UNDER_WAY)
        ann.vanish()
        await until(lambda: counts.at_a_time == 0)
        assert counts.most == MAX_UNDER_WAY


async def test_a_leave_that_waits_is_carried_out_though_the_connection_closes(bundled_server: Server) -> None:
    async with slow(bundled_server, grace=60) as (_, ann, counts):
        for _ in range(20):
            await ann.send("room:count", roomId="lobby")
        await ann.send("leave_room", roomId="lobby")
        await until(lambda: counts.at_a_time == MAX_UNDER_WAY)
        ann.vanish()
        await until(lambda: redis_state.members(bundled_server, "lobby") == {})
        assert [entry["reason"] for entry in redis_state.stream(bundled_server, "lobby")] == ["left"]
