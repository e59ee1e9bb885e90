"""Touches each key when its time is up, so that Redis says so at once.

By itself Redis deletes an expired key when somebody asks for it, or when its sampling comes by, which takes
minutes among many long-lived keys (https://redis.io/docs/latest/commands/expire/#how-redis-expires-keys).
Only one node of the fleet is the pacemaker; another takes over within two seconds. It looks at noted
deadlines, which are lower bounds: a member that turns out to be alive gets its true one, so each look moves
something forward and none spins.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.expiry.deadlines import Deadlines, RedisClock, Touches
from reactor.expiry.reaper import Reaper
from reactor.fleet.election import LeaderElection
from reactor.fleet.registry import Registry
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store

log = structlog.get_logger()

LOOK_AT_LEAST_EVERY = 1.0
"""Seconds. A wake-up that got lost costs no more than this."""
ROWS_PER_LOOK = 5000
CLAIM_RETRY_MS = 250
EVENT_COMES_WITHIN = 0.2
"""Seconds. After a touch the event has so long to bring its claim, before the pacemaker claims by itself."""


class Pacemaker:
    """Keeps one namespace punctual, while it is this node's turn. `serve` has to run.

    events_flow: whether the listener hears events; where it does not, the pacemaker claims what it finds
    at once. on_leading is called when the turn comes to this node.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        reaper: Reaper,
        *,
        node: Callable[[], str],
        events_flow: Callable[[], bool],
        on_leading: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._reaper, self._events_flow = store, reaper, events_flow
        self._on_leading = on_leading
        self._election = LeaderElection(registry, "pacemaker", node=node, on_change=self._on_leadership)
        self._clock = RedisClock()
        self._deadlines = Deadlines(SHARDS)
        self._touches = [Touches() for _ in range(SHARDS)]
        self._wakeup = asyncio.Event()
        self.leading = False
        self.looks = 0
        self.moved = 0

    @property
    def led_elsewhere(self) -> bool:
        """Whether another node is known to have the turn."""
        return self._election.led_elsewhere

    def wake(self, shard: int, deadline: int) -> None:
        """A shard's earliest deadline (ms, Redis's clock) came nearer."""
        if self._deadlines.lower(shard, self._clock.steady(deadline + 1)):
            self._wakeup.set()

    def look_everywhere(self) -> None:
        """Wake-ups may have been missed."""
        self._deadlines.all_due()
        self._wakeup.set()

    async def serve(self) -> None:
        """Keep the turn, and look when it is time, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._election.serve)
            tasks.start_soon(self._keep_time)

    def _on_leadership(self, leading: bool) -> None:
        log.info("pacemaker_leadership", leading=leading)
        self.leading = leading
        if leading:
            self.look_everywhere()
            self._on_leading()

    async def _keep_time(self) -> None:
        while True:
            due = self._deadlines.due(monotonic()) if self.leading else []
            if due:
                # As tasks of asyncio's own: those of a group take a fifth of all that an idle node does.
                await asyncio.gather(*map(self._look, due))
                continue
            wait = self._deadlines.nearest() - monotonic() if self.leading else LOOK_AT_LEAST_EVERY
            with anyio.move_on_after(min(max(wait, 0.0), LOOK_AT_LEAST_EVERY)):
                await self._wakeup.wait()
            self._wakeup.clear()

    async def _look(self, shard: int) -> None:
        """Look at one shard, and note when it wants the next look."""
        # Set before the question goes out: a wake-up that comes while it is on its way may lower it again.
        self._deadlines.set(shard, monotonic() + LOOK_AT_LEAST_EVERY)
        try:
            found = await self._store.due(shard, limit=ROWS_PER_LOOK, retry=CLAIM_RETRY_MS)
        except Unavailable:
            return
        self._clock.observe(found.now, monotonic())
        self.looks += 1
        self.moved += found.moved
        if found.next_deadline is not None:
            self._deadlines.lower(shard, self._clock.steady(found.next_deadline + 1))
        self._reaper.found_gone(shard, self._unclaimed(shard, found.gone), "pacemaker")

    def _unclaimed(self, shard: int, gone: list[str]) -> list[str]:
        """Of those found gone, the ones that no event has brought to their claim, or will."""
        if not self._events_flow():
            return gone
        now, touches = monotonic(), self._touches[shard]
        return [name for name in gone if now - touches.first(name, now) >= EVENT_COMES_WITHIN]
