"""The rooms that a client watches: asked for on each new connection, and kept complete."""

import anyio
from anyio.abc import TaskGroup

from reactor.client.open_connection import ConnectionLost, OpenConnection
from reactor.client.reconnector import Reconnector
from reactor.client.room_membership import SETTLE_AFTER
from reactor.client.watched_room import WatchedRoom
from reactor.errors import ReactorError, Refused
from reactor.protocol import messages

_CONCURRENT = 16
"""Rooms that are asked for at the same time."""


class WatchedRooms:
    """A client's watched rooms by id. queue: most events that an iterator may be behind."""

    def __init__(self, reconnector: Reconnector, queue: int) -> None:
        self._reconnector, self._queue = reconnector, queue
        self._rooms: dict[str, WatchedRoom] = {}
        self._repairing: set[WatchedRoom] = set()
        self._settling: set[WatchedRoom] = set()

    def __len__(self) -> int:
        return len(self._rooms)

    async def watch(self, room_id: str, view: messages.WatchView) -> WatchedRoom:
        """Watch a room, and return it once the server has answered. Raises ReactorError as `Client.watch`."""
        if room_id in self._rooms:
            sentence = f'the room "{room_id}" is watched by this client already: use that object, or close it'
            raise Refused(sentence, "bad_request")
        room = self._rooms[room_id] = WatchedRoom(
            room_id, view,
            queue=self._queue, timeout=self._reconnector.request_timeout, on_close=self._forget,
        )  # fmt: skip
        try:
            while True:
                connection = await self._reconnector.connection()
                try:
                    await room.ask(connection)
                except ConnectionLost:
                    continue
                return room
        except BaseException:
            room.close()
            raise

    async def restore_all(self, connection: OpenConnection) -> None:
        """Ask for every room on a new connection."""
        slots = anyio.Semaphore(_CONCURRENT)

        async def restore(room: WatchedRoom) -> None:
            async with slots:
                await room.restore(connection)

        async with anyio.create_task_group() as tasks:
            for room in [one for one in self._rooms.values() if one.established]:
                tasks.start_soon(restore, room)

    def receive(self, connection: OpenConnection, message: messages.ServerMessage, tasks: TaskGroup) -> None:
        """Pass a message to the rooms that it is for."""
        ids = [getattr(message, "room_id", None)]
        if isinstance(message, messages.RoomCounts):
            ids = [counted.room_id for counted in message.rooms]
        for room_id in ids:
            room = self._rooms.get(room_id or "")
            if room is None:
                continue
            if room.receive(message) and room not in self._repairing:
                self._repairing.add(room)
                tasks.start_soon(self._repair, connection, room)
            if room.unsettled and room not in self._settling:
                self._settling.add(room)
                tasks.start_soon(self._settle, room)

    def connection_lost(self) -> None:
        """Note that the connection was lost."""
        for room in list(self._rooms.values()):
            room.connection_lost()

    def refresh_status(self) -> None:
        """Update the status of each room."""
        for room in list(self._rooms.values()):
            room.refresh_status()

    def end_all(self, error: ReactorError | None) -> None:
        """End every room."""
        for room in list(self._rooms.values()):
            room.end(error)

    async def _repair(self, connection: OpenConnection, room: WatchedRoom) -> None:
        try:
            await room.restore(connection)
        finally:
            self._repairing.discard(room)

    async def _settle(self, room: WatchedRoom) -> None:
        await anyio.sleep(SETTLE_AFTER)
        self._settling.discard(room)
        room.settle()

    def _forget(self, room: WatchedRoom) -> None:
        if self._rooms.get(room.room_id) is room:
            del self._rooms[room.room_id]
