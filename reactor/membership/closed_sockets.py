"""Detaches the memberships of closed connections that were in very many rooms, some at a time.

When such connections are lost together, their memberships would otherwise keep the event loop for seconds: no
heartbeat would be taken meanwhile, and the lease of this node could end. They are detached room by room, so
that the members of a room that are lost together depart together: in one diff, and not in one each.
"""

import asyncio
from collections.abc import Callable, Iterable

from reactor.gateway.connection import Connection
from reactor.membership.detach_queue import DetachQueue
from reactor.presence.attachment import Attachment
from reactor.tasks import Spawner

AT_ONCE = 100
"""Memberships that are detached before anything else runs: about 3 ms."""


class ClosedSockets:
    """The memberships of closed connections that this node has not begun to detach.

    detach(connection, attachment, since): begins it. since: when the connection was lost (s, the loop's
    clock). queue: counts these memberships as pending meanwhile.
    """

    def __init__(
        self, detach: Callable[[Connection, Attachment, float], None], queue: DetachQueue, tasks: Spawner
    ) -> None:
        self._detach, self._queue, self._tasks = detach, queue, tasks
        self._waiting: dict[str, list[tuple[Connection, Attachment, float]]] = {}  # by room
        self._loop = asyncio.get_running_loop()
        self._running = False

    def add(self, connection: Connection, attachments: Iterable[Attachment]) -> None:
        """Detach a closed connection from its rooms: at once where they are few, else soon."""
        live, now = [attachment for attachment in attachments if attachment.live], self._loop.time()
        if len(live) <= AT_ONCE:
            for attachment in live:
                self._detach(connection, attachment, now)
            return
        self._queue.expect(len(live))
        for attachment in live:
            self._waiting.setdefault(attachment.entry.room_id, []).append((connection, attachment, now))
        if not self._running:
            self._running = True
            self._tasks.start_soon(self._detach_waiting)

    async def _detach_waiting(self) -> None:
        try:
            begun = 0
            while self._waiting:
                waiting = self._waiting.pop(next(iter(self._waiting)))
                for connection, attachment, since in waiting:
                    try:
                        if attachment.live:  # its member may have departed meanwhile
                            self._detach(connection, attachment, since)
                    finally:
                        self._queue.expect(-1)
                    begun += 1
                    if begun % AT_ONCE == 0:
                        await asyncio.sleep(0)
        finally:
            self._running = False
