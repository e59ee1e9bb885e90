"""Detaches connections from their members in Redis, for as long as that takes.

Sockets are lost by the thousand when a network or a load balancer fails, and each may be in many rooms. So
the connections of a shard are detached together, a bounded number in a call and one call of a shard at a
time: what Redis has to do for them before it can take a heartbeat stays a few milliseconds, however many are
waiting here. Those of one room go together, and get one deadline: what a room shares is written once for all
of them then, and once more when they depart.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import anyio

from reactor.errors import Unavailable
from reactor.presence.attachment import Attachment
from reactor.presence.store import LostConnection, Store
from reactor.settings import RoomPolicy
from reactor.tasks import Spawner

MAX_CONNECTIONS = 32
"""Connections in one call of the script: about 1 ms of Redis's time."""

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""


GRACE_STEP = 100
"""Milliseconds of waiting in this queue that count against the grace, or not at all."""


class _Detach(NamedTuple):
    """An attachment that waits for its detach. gone: whether it had left the room when it was added.

    since: from when on its grace runs (s, the loop's clock).
    """

    attachment: Attachment
    grace: int
    away_grace: int
    gone: bool
    since: float

    def lost(self, now: float) -> LostConnection:
        # A join without an answer may reach Redis after this, and has to be refused then.
        unanswered = self.gone and self.attachment.unanswered > 0
        at = self.attachment
        grace, away_grace = self.grace, self.away_grace
        if (waited := int((now - self.since) * 1000) // GRACE_STEP * GRACE_STEP) > 0:
            grace, away_grace = _remaining(grace, waited), _remaining(away_grace, waited)
        return LostConnection(at.entry, at.connection, grace, away_grace, unanswered)


def _remaining(grace: int, waited: int) -> int:
    """Return what is left of a grace (ms): half of it at least, for a client that waits as long as this."""
    return max(grace - waited, (grace + 1) // 2)


class DetachQueue:
    """The connections that are gone, and that Redis still has or may yet take.

    pending: how many those are.
    """

    def __init__(self, policy: Callable[[str], RoomPolicy], store: Store, tasks: Spawner) -> None:
        self._policy, self._store, self._tasks = policy, store, tasks
        # By shard, then by room.
        self._waiting: defaultdict[int, dict[str, list[_Detach]]] = defaultdict(dict)
        self._loop = asyncio.get_running_loop()
        self._under_way: set[int] = set()  # shards
        self.pending = 0
        self._empty = anyio.Event()

    def add(self, attachment: Attachment, *, closing: bool = False, since: float | None = None) -> None:
        """Start to detach the connection. It may be added again, when a late answer shows it in Redis.

        closing: the client said that it is closed for good, so that the `close_grace` applies. since: when it
        was lost (s, the loop's clock), where that is not now: the grace runs from then on.
        """
        attachment.detach_queued()
        self.expect(1)
        terms = self._policy(attachment.entry.room_id)  # the present ones, which may not be those of the join
        graces = (terms.close_grace, terms.close_grace) if closing else (terms.grace, terms.away_grace)
        # A leave that is on its way may yet fail.
        since = self._loop.time() if since is None else since
        self._wait(attachment.shard, _Detach(attachment, *graces, not attachment.in_room, since))
        if attachment.shard not in self._under_way:
            self._under_way.add(attachment.shard)
            self._tasks.start_soon(self._detach_waiting, attachment.shard)

    def expect(self, count: int) -> None:
        """Count `count` more attachments, which are yet to be added, as pending; a negative number: fewer."""
        if self.pending == 0:
            self._empty = anyio.Event()
        self.pending += count
        if self.pending == 0:
            self._empty.set()

    async def join(self) -> None:
        """Return when Redis has taken every detach."""
        while self.pending:
            await self._empty.wait()

    def _wait(self, shard: int, one: _Detach) -> None:
        self._waiting[shard].setdefault(one.attachment.entry.room_id, []).append(one)

    async def _detach_waiting(self, shard: int) -> None:
        waiting = self._waiting[shard]
        try:
            while waiting:
                failed = await self._detach(shard, _next_batch(waiting))
                if failed:
                    for one in failed:
                        # No client could return while Redis did not answer, so that the grace begins anew.
                        self._wait(shard, one._replace(since=self._loop.time()))
                    await anyio.sleep(RETRY_AFTER)
        finally:
            self._under_way.discard(shard)

    async def _detach(self, shard: int, batch: list[_Detach]) -> list[_Detach]:
        """Send one call; return those that Redis has not taken."""
        failed: list[_Detach] = []
        try:
            try:
                now = self._loop.time()
                outcomes = await self._store.detach_all(shard, [one.lost(now) for one in batch])
            except Unavailable:
                failed = batch
            else:
                for one, outcome in zip(batch, outcomes, strict=True):
                    if isinstance(outcome, Unavailable):
                        failed.append(one)
                    else:
                        one.attachment.detach_taken()
        finally:
            self.expect(len(failed) - len(batch))
        return failed


def _next_batch(waiting: dict[str, list[_Detach]]) -> list[_Detach]:
    """Take the connections of one call: whole rooms, in their order, as far as they fit.

    The grace of those of one room runs from when the last one was lost, so that they depart together.
    """
    batch: list[_Detach] = []
    while waiting:
        room_id = next(iter(waiting))
        room = waiting[room_id]
        if batch and len(batch) + len(room) > MAX_CONNECTIONS:
            break
        taken = room[:MAX_CONNECTIONS]
        since = max(one.since for one in taken)
        batch += taken if len(taken) == 1 else [one._replace(since=since) for one in taken]
        if len(room) <= MAX_CONNECTIONS:
            del waiting[room_id]
        else:
            del room[:MAX_CONNECTIONS]
            waiting[room_id] = waiting.pop(room_id)  # after the others
    return batch
