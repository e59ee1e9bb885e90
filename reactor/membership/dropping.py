"""Detaches in Redis the memberships whose socket is gone, however long Redis takes."""

from collections.abc import Callable

import anyio

from reactor.errors import Unavailable
from reactor.presence.attachment import Attachment
from reactor.presence.store import Store
from reactor.settings import RoomPolicy
from reactor.tasks import Spawner

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""


class Dropping:
    """A socket is gone, and Redis still has its membership, or may yet take it.

    held: whether the membership may still be gone on with, as where a leave is on its way and may be refused.
    """

    def __init__(
        self,
        policy: Callable[[str], RoomPolicy],
        store: Store,
        tasks: Spawner,
        held: Callable[[Attachment], bool],
    ) -> None:
        self._policy, self._store, self._tasks, self._held = policy, store, tasks, held
        self._dropping = 0
        self._dropped = anyio.Event()

    def start(self, attachment: Attachment) -> None:
        """Begin to detach in Redis a membership whose socket is gone; `all_done` waits for it."""
        attachment.dropped = True
        self._dropping += 1
        self._dropped = anyio.Event()
        self._tasks.start_soon(self._drop, attachment)

    async def _drop(self, attachment: Attachment) -> None:
        try:
            await self._detach(attachment)
        finally:
            self._dropping -= 1
            if self._dropping == 0:
                self._dropped.set()

    async def all_done(self) -> None:
        """Return when Redis has taken every detaching that was begun."""
        while self._dropping:
            await self._dropped.wait()

    async def _detach(self, attachment: Attachment) -> None:
        terms = self._policy(attachment.entry.room_id)  # what holds now, not what held at the join
        for_good = not self._held(attachment)
        while True:
            try:
                await self._store.detach(
                    attachment.entry,
                    attachment.connection,
                    grace=terms.grace,
                    away_grace=terms.away_grace,
                    doubtful=for_good and attachment.unanswered > 0,
                )
            except Unavailable:
                await anyio.sleep(RETRY_AFTER)
            else:
                return
