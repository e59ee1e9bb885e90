"""Detaches connections from their members in Redis, for as long as that takes."""

from collections.abc import Callable

import anyio

from reactor.errors import Unavailable
from reactor.presence.attachment import Attachment
from reactor.presence.store import Store
from reactor.settings import RoomPolicy
from reactor.tasks import Spawner

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""


class DetachQueue:
    """The connections that are gone, and that Redis still has or may yet take."""

    def __init__(self, policy: Callable[[str], RoomPolicy], store: Store, tasks: Spawner) -> None:
        self._policy, self._store, self._tasks = policy, store, tasks
        self._pending = 0
        self._empty = anyio.Event()

    def add(self, attachment: Attachment) -> None:
        """Start to detach the connection. It may be added again, when a late answer shows it in Redis."""
        attachment.detach_queued()
        if self._pending == 0:
            self._empty = anyio.Event()
        self._pending += 1
        self._tasks.start_soon(self._detach, attachment)

    async def join(self) -> None:
        """Return when Redis has taken every detach."""
        while self._pending:
            await self._empty.wait()

    async def _detach(self, attachment: Attachment) -> None:
        try:
            await self._detach_in_redis(attachment)
            attachment.detach_taken()
        finally:
            self._pending -= 1
            if self._pending == 0:
                self._empty.set()

    async def _detach_in_redis(self, attachment: Attachment) -> None:
        terms = self._policy(attachment.entry.room_id)  # the present ones, which may not be those of the join
        gone = not attachment.in_room  # a leave that is on its way may yet fail
        while True:
            try:
                await self._store.detach(
                    attachment.entry,
                    attachment.connection,
                    grace=terms.grace,
                    away_grace=terms.away_grace,
                    # A join without an answer may reach Redis after this, and has to be refused then.
                    join_unanswered=gone and attachment.unanswered > 0,
                )
            except Unavailable:
                await anyio.sleep(RETRY_AFTER)
            else:
                return
