"""Clients of a node, and a recorder of the events of a room."""

from collections.abc import Callable
from typing import Any

import anyio

from reactor.client import Backoff, Client, Room, Status
from reactor.errors import ForceLeave, ReactorError
from reactor.protocol.events import RoomEvent
from reactor.server.node import Node
from tests.support.waiting import PATIENCE, Changes

QUICK = Backoff(first=0.05, cap=0.2, restart=0.05)


def url_of(node: Node) -> str:
    return f"ws://127.0.0.1:{node.gateway.port}/ws"


def client_of(place: Node | int, **options: Any) -> Client:
    """A client that reconnects quickly, to a node or to a port."""
    url = f"ws://127.0.0.1:{place}/ws" if isinstance(place, int) else url_of(place)
    return Client(url, **{"backoff": QUICK, **options})


class RoomRecorder:
    """Records a room's events; `changes` holds (kind, user id) of joins, leaves and updates, in order."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.events: list[RoomEvent] = []
        self.statuses: list[Status] = []
        self.force_leaves: list[ForceLeave] = []
        self._recorded = Changes()
        for kind in ("join", "leave", "update", "sync"):
            room.on(kind, self._record(self.events))
        room.on("status", self._record(self.statuses))
        room.on("force-leave", self._record(self.force_leaves))

    def _record(self, records: list[Any]) -> Callable[[Any], None]:
        def record(event: Any) -> None:
            records.append(event)
            self._recorded.notify()

        return record

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(event.kind, event.member.user_id) for event in self.events if event.member is not None]

    @property
    def reasons(self) -> dict[str, str | None]:
        return {event.member.user_id: event.reason for event in self.events if event.kind == "leave"}

    async def until(self, condition: Callable[[], bool]) -> None:
        await self._recorded.until(condition)

    async def until_member(self, user_id: str, **fields: Any) -> None:
        """Until this member is there and looks like this."""

        def is_so() -> bool:
            member = self.room.members.get(user_id)
            return member is not None and all(
                getattr(member, name) == value for name, value in fields.items()
            )

        await self.until(is_so)

    async def until_statuses(self, *statuses: Status) -> None:
        """Until the room has said just these, from the beginning."""
        await self.until(lambda: self.statuses == [*statuses])

    async def until_members(self, *user_ids: str) -> None:
        await self.until(lambda: set(self.room.members) == set(user_ids))

    async def until_status(self, status: Status) -> None:
        await self.until(lambda: self.room.status is status)


async def ended(room: Room) -> ReactorError | None:
    """Why the room has ended, once it has."""
    with anyio.fail_after(PATIENCE):
        return await room.ended()
