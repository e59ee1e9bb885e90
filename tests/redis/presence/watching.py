"""A back end that watches rooms, step by step, while another program changes them."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from reactor.presence.api import Presence, RoomEvent
from reactor.settings import Settings
from tests.redis.presence.probe import Probe
from tests.support.servers import Server
from tests.support.stores import NAMESPACE
from tests.support.waiting import PATIENCE


@asynccontextmanager
async def presence_and_probe(
    server: Server, ids: dict[str, str] | None = None
) -> AsyncIterator[tuple[Presence, Probe]]:
    probe = Probe(server, ids=ids)
    try:
        async with Presence.open(Settings(redis_url=server.url, namespace=NAMESPACE)) as presence:
            yield presence, probe
    finally:
        probe.close()


class Watching:
    """A watcher of a room, step by step."""

    def __init__(self, events: AsyncIterator[RoomEvent]) -> None:
        self._events = events

    async def next(self) -> RoomEvent:
        with anyio.fail_after(PATIENCE):
            return await anext(self._events)

    async def next_change(self) -> str:
        """The next event in short: `+ann (1)`, `~ann (1)`, `-ann:left (0)`, `=ann,bob (2)`."""
        event = await self.next()
        if event.kind == "sync":
            return f"={','.join(sorted(member.user_id for member in event.members))} ({event.count})"
        assert event.member is not None
        mark = {"join": "+", "update": "~", "leave": "-"}[event.kind]
        reason = f":{event.reason}" if event.reason else ""
        return f"{mark}{event.member.user_id}{reason} ({event.count})"


@asynccontextmanager
async def watching(presence: Presence, room_id: str = "lobby") -> AsyncIterator[Watching]:
    events: Any = presence.watch(room_id)
    async with contextlib.aclosing(events):
        yield Watching(events)
