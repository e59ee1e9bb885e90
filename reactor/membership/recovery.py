"""Recovers when Redis was away or lost data, whether it comes back whole, empty or older.

Sockets stay open meanwhile. Afterwards every connected member is present again, every member that had left is
not, and no client is notified of anything that did not happen. The states are in `recovery_state.py`.
"""

from asyncio import Event, gather
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import anyio
import structlog

from reactor.backend.interface import Backend
from reactor.errors import Unavailable
from reactor.expiry.sweep import Sweep
from reactor.fleet.lease import Lease
from reactor.fleet.peers import FailureDetector
from reactor.fleet.recovery_barrier import RecoveryBarrier
from reactor.membership.reconciler import Reconciler
from reactor.membership.recovery_state import RecoveryEvent, RecoveryMachine, RecoveryState
from reactor.presence.keys import Entry
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Store
from reactor.protocol.messages import ServiceDegraded, ServiceRestored
from reactor.tasks import Spawner

log = structlog.get_logger()

REMEMBERED = 300.0
"""Seconds for which departures are remembered. A failover loses less than that."""

MAX_REMEMBERED = 100_000
"""Departures that are remembered at most, about 50 MB: those of the last 100 s of a node at full load. Of
one that is forgotten and that Redis loses, the member is there until its TTL has ended."""

RETRY_AFTER = 0.2
"""Seconds between attempts while Redis does not answer."""

LONG = 1.0
"""Seconds of a recovery after which this node says that it is not ready: joins wait for the end of it."""

BARRIER_EVERY = 0.1
"""Seconds between two questions whether the other nodes are at the barrier."""


class Recovery:
    """Makes the state right after a loss. `serve` has to run; the `on_` methods say what was noticed.

    listening: whether the subscription works. broadcast: sends a message to all clients. repeat_bans: makes
    the changes of bans again that Redis may have forgotten.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        lease: Lease,
        detector: FailureDetector,
        sweep: Sweep,
        feed: RoomFeed,
        reconciler: Reconciler,
        barrier: RecoveryBarrier,
        tasks: Spawner,
        *,
        broadcast: Callable[[Any], object],
        listening: Callable[[], bool],
        repeat_bans: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._repeat_bans = repeat_bans
        self._backend, self._store, self._sweep = backend, store, sweep
        self._lease, self._detector, self._barrier = lease, detector, barrier
        self._feed, self._reconciler, self._tasks = feed, reconciler, tasks
        self._broadcast, self._listening = broadcast, listening
        self._machine = RecoveryMachine()
        self._began = monotonic()
        self._unhealthy_since: float | None = None
        self._checks: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._wakeup = Event()
        self._notified = False  # of the outage, by service:degraded
        self._run_id = self._epochs_renewed_for = ""
        self._departed: deque[tuple[float, Entry, int, str, int]] = deque(maxlen=MAX_REMEMBERED)

    @property
    def state(self) -> RecoveryState:
        """Whether what Redis holds can be relied on."""
        return self._machine.state

    @property
    def takes_long(self) -> bool:
        """Whether what Redis holds could not be relied on for so long that clients notice."""
        return self._unhealthy_since is not None and monotonic() - self._unhealthy_since > LONG

    @property
    def renews_epochs(self) -> bool:
        """Whether a room has to begin a new epoch when this node begins to follow it.

        So where Redis was restarted and no node outlived it: it may be older than what clients know, and
        would reach their versions again in another way.
        """
        return self._lease.began_on_restored_data and monotonic() - self._began < REMEMBERED

    async def renew_epoch(self, room_id: str) -> None:
        """Begin a new epoch of a room, unless that was done since the server's start. Raises Unavailable."""
        await self._store.renew_epoch(room_id, self._run_id)

    @property
    def degraded_message(self) -> ServiceDegraded | None:
        """The message for a client that connects during an outage."""
        return ServiceDegraded(reason="Redis does not answer") if self._notified else None

    async def note_run_id(self) -> None:
        """Note which run of the server this is. Raises Unavailable."""
        self._run_id = self._epochs_renewed_for = await self._backend.run_id()
        self._barrier.note_registered(self._run_id)

    def remember(self, entry: Entry, joined_at: int, reason: str, left_at: int) -> None:
        """Remember a departure, which holds although Redis may go back to before it. Times are ms."""
        now = monotonic()
        self._departed.append((now, entry, joined_at, reason, left_at))
        while self._departed[0][0] < now - REMEMBERED:
            self._departed.popleft()

    # What was noticed.

    def on_health(self, healthy: bool, reason: str) -> None:
        """Redis takes no commands, or takes them again."""
        if healthy:
            log.info("redis_back")
            self._advance(RecoveryEvent.REDIS_RESTORED)
            self._tasks.start_soon(self._check_when_subscribed)
        else:
            log.warning("redis_away", reason=reason)
            self._feed.pause()  # the next server may be older, at versions that look alike
            self._advance(RecoveryEvent.REDIS_LOST)
            if not self._notified:
                self._notified = True
                self._broadcast(self.degraded_message)

    def on_subscription_lost(self) -> None:
        """Diffs do not arrive any more, and the next replies may be those of another server."""
        self._feed.pause()
        self._advance(RecoveryEvent.SUBSCRIPTION_LOST)

    def on_gap(self) -> None:
        """The subscription was renewed: diffs were missed, and it may be another server."""
        self._feed.pause()
        self._require(self._check_server)

    def on_data_lost(self, room_id: str) -> None:
        """A room lacks members that are connected here: Redis lost its data, and nothing else showed it."""
        log.warning("redis_lost_data", room=room_id)
        self._feed.pause()
        self._require(self._reregister_after_loss)

    def on_renamed(self, old: str) -> None:
        """This node has another name: it was judged lost, or Redis lost its data."""
        self._feed.pause()
        self._require(partial(self._reregister_renamed, old))

    def on_expiry_suspended(self, seconds: float) -> None:
        """Expiry is suspended for at most so long; the sweep then finds what came due meanwhile."""
        self._tasks.start_soon(self._sweep_after, seconds)

    async def _sweep_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._sweep.trigger()

    async def _check_when_subscribed(self) -> None:
        # Not by waiting for each channel: one that is unsubscribed meanwhile, or its server, never confirms.
        while not self._listening():  # noqa: ASYNC110 - see above
            await anyio.sleep(RETRY_AFTER)
        await self._persist(self._lease.renew)
        self._sweep.trigger()
        self._require(self._check_server)

    def _advance(self, event: RecoveryEvent) -> RecoveryState:
        state = self._machine.advance(event)
        if state is RecoveryState.HEALTHY:
            self._unhealthy_since = None
        elif self._unhealthy_since is None:
            self._unhealthy_since = monotonic()
        return state

    # The steps.

    def _require(self, check: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._checks.append(check)
        self._advance(RecoveryEvent.CHECK_REQUIRED)
        self._wakeup.set()

    async def serve(self) -> None:
        """Make the checks that are required, one at a time, until cancelled."""
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            try:
                await self._recover()
            except Exception:
                self._require(self._check_server)  # this loop is started again
                raise

    async def _recover(self) -> None:
        """Make all checks, pass the barrier, resume the feed; a check required meanwhile begins it anew."""
        while self._checks:
            while self._checks:
                await self._checks.popleft()()
            self._advance(RecoveryEvent.REREGISTERED)
            if await self._pass_barrier():
                if not self._listening():
                    self._advance(RecoveryEvent.SUBSCRIPTION_LOST)
                if self._advance(RecoveryEvent.BARRIER_PASSED) is RecoveryState.HEALTHY:
                    self._resume()

    async def _pass_barrier(self) -> bool:
        """Wait for the other nodes and renew the epochs; False when another check is required first."""
        while not self._checks and not await self._persist(self._barrier.passed):  # noqa: ASYNC110 - Redis is asked
            await anyio.sleep(BARRIER_EVERY)
        if not self._checks and self._epochs_renewed_for != self._run_id:
            rooms = list(self._feed.rooms())
            await gather(*(self._persist(partial(self.renew_epoch, room_id)) for room_id in rooms))
            self._epochs_renewed_for = self._run_id
        return not self._checks

    def _resume(self) -> None:
        self._feed.resume()
        if self._notified:
            self._notified = False
            self._broadcast(ServiceRestored(reason="Redis answers again"))

    # The checks.

    async def _check_server(self) -> None:
        if await self._is_another_server():
            await self._reregister_under_new_name(same_server=False)
            return
        # This node may have been judged lost meanwhile: then `on_renamed` requires the next check, and the
        # departures of its members are not passed on before they are registered again.
        with suppress(Unavailable):
            await self._lease.renew()

    async def _reregister_after_loss(self) -> None:
        await self._reregister_under_new_name(same_server=True)

    async def _reregister_under_new_name(self, *, same_server: bool) -> None:
        """Take another name, since nothing that Redis stores under this one can be relied on."""
        old = await self._persist(self._lease.rename)
        await self._repeat_changes(same_server=same_server)
        await self._reregister_all(old, same_server=same_server)

    async def _reregister_renamed(self, old: str) -> None:
        # Asked here, since the gap that shows another server comes later: to register once is enough.
        another = await self._is_another_server()
        if another:
            await self._repeat_changes(same_server=False)
        await self._reregister_all(old, same_server=not another)

    async def _reregister_all(self, old: str, *, same_server: bool) -> None:
        """Register all connections under the present name, and detach what Redis has under the old one."""
        await self._reconciler.reregister_all()
        await self._persist(lambda: self._detector.detach_node(old))
        await self._persist(lambda: self._barrier.arrive(self._run_id, same_server=same_server))

    async def _is_another_server(self) -> bool:
        """Return whether this is another server, which may hold less; only the first call returns True."""
        run_id, former = await self._persist(self._backend.run_id), self._run_id
        if run_id != former:
            log.warning("redis_is_another", was=former, now=run_id)
            self._run_id = run_id
        return bool(run_id != former)

    async def _repeat_changes(self, *, same_server: bool) -> None:
        """Repeat what Redis may have forgotten, before any connection is registered again."""
        # Departures first: who had left before a ban is not removed by it.
        await self._remove_departed()
        if not same_server:  # an operator who empties a server that goes on lifts the bans, too
            await self._persist(self._repeat_bans)

    async def _remove_departed(self) -> None:
        async def remove(_now: float, entry: Entry, joined_at: int, reason: str, left_at: int) -> None:
            await self._persist(
                lambda: self._store.repeat_departure(
                    entry, joined_at=joined_at, reason=reason, left_at=left_at
                )
            )

        await gather(*(remove(*departed) for departed in self._departed))

    async def _persist(self, work: Callable[[], Any]) -> Any:
        """Return the result of some work, tried until Redis answers."""
        while True:
            try:
                return await work()
            except Unavailable:
                await anyio.sleep(RETRY_AFTER)
