"""Redis was away, and is back: whole, empty, or older (B12).

While it is away sockets stay open and clients are told so. When it is back, whoever is connected is
present again, whoever left is not, and nobody is told of anything that did not happen: until every node
could enter its members again, no change is handed on, and no end by time counts (see `pulse.lua`).
"""

from asyncio import gather
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

import anyio
import structlog

from reactor.backend.interface import Backend
from reactor.errors import Unavailable
from reactor.expiry.sweep import Sweep
from reactor.fleet.lease import Lease
from reactor.fleet.peers import FailureDetector
from reactor.fleet.recovery_barrier import RollCall
from reactor.membership.reconciler import Reconciler
from reactor.presence.keys import Entry
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Store
from reactor.protocol.messages import ServiceDegraded, ServiceRestored
from reactor.tasks import Spawner

log = structlog.get_logger()

REMEMBERED = 300.0
"""Seconds for which told departures are remembered. A failover loses less than that."""

RETRY_AFTER = 0.2
ROLL_CALL_EVERY = 0.1


class Recovery:
    """Makes the state right after a loss, and says so. Its methods are called by whoever noticed something.

    listening: whether this node hears diffs.
    """

    def __init__(
        self, backend: Backend, store: Store, lease: Lease, detector: FailureDetector, sweep: Sweep,
        feed: RoomFeed, reconciler: Reconciler, roll_call: RollCall, tasks: Spawner, *,
        tell_all: Callable[[Any], None], listening: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._backend, self._store, self._lease, self._detector, self._sweep = (
            backend,
            store,
            lease,
            detector,
            sweep,
        )
        self._feed, self._reconciler, self._tasks = feed, reconciler, tasks
        self._roll_call, self._tell_all, self._listening = roll_call, tell_all, listening
        self._run = self._renewed_for = ""
        self._degraded, self._healthy = False, True
        self._busy = anyio.Lock()
        self._begun = 0
        self._departed: deque[tuple[float, Entry, int, str, int]] = deque()

    async def note_run(self) -> None:
        """Note which life of the server this is. Raises Unavailable."""
        self._run = self._renewed_for = await self._backend.run_id()
        self._roll_call.be_present(self._run)

    @property
    def degraded_message(self) -> ServiceDegraded | None:
        """What whoever comes during an outage is to be told."""
        return ServiceDegraded(reason="Redis does not answer") if self._degraded else None

    def remember(self, entry: Entry, joined_at: int, reason: str, left_at: int) -> None:
        """A departure was told: if Redis goes back to before it, it still holds. joined_at, left_at: ms."""
        now = monotonic()
        self._departed.append((now, entry, joined_at, reason, left_at))
        while self._departed[0][0] < now - REMEMBERED:
            self._departed.popleft()

    def on_health(self, healthy: bool, reason: str) -> None:
        """Redis takes no commands, or takes them again."""
        self._healthy = healthy
        if healthy:
            log.info("redis_back")
            self._tasks.start_soon(self._restore)
        else:
            log.warning("redis_away", reason=reason)
            self._feed.pause()  # whoever answers next may be older, by versions that look alike
            if not self._degraded:
                self._degraded = True
                self._tell_all(self.degraded_message)

    def on_link_lost(self) -> None:
        """Diffs are not heard any more: what replies say now may be of another server."""
        self._feed.pause()

    def on_gap(self) -> None:
        """The subscription had to be made anew: diffs were missed, and it may be another server."""
        self._feed.pause()
        self._begin(self._after_gap)

    def on_data_lost(self, room_id: str) -> None:
        """A room begins anew without those who are here: Redis lost its data, and nothing else told so."""
        log.warning("redis_lost_data", room=room_id)
        self._feed.pause()
        self._begin(self._after_loss)

    def on_renamed(self, old: str) -> None:
        """This node has another name: it was judged lost, or Redis lost its data."""
        self._feed.pause()
        self._begin(self._after_rename, old)

    def on_expiry_suspended(self, seconds: float) -> None:
        """Ends by time do not count for a while; what came due meanwhile is looked for behind it."""
        self._tasks.start_soon(self._sweep_after, seconds)

    def _begin(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._begun += 1
        self._tasks.start_soon(self._one_at_a_time, work, args)

    async def _one_at_a_time(
        self, work: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]
    ) -> None:
        try:
            async with self._busy:
                await work(*args)
        finally:
            self._begun -= 1
            if self._begun == 0:
                self._restored()

    async def _restore(self) -> None:
        # Not by waiting for each channel: one that is let go of meanwhile, or its server, is never confirmed.
        while not self._listening():  # noqa: ASYNC110 - see above
            await anyio.sleep(RETRY_AFTER)
        await self._persist(self._lease.renew)
        self._sweep.trigger()
        self._begin(self._after_gap)

    def _restored(self) -> None:
        if self._degraded and self._healthy:
            self._degraded = False
            self._tell_all(ServiceRestored(reason="Redis answers again"))

    async def _after_gap(self) -> None:
        if await self._is_another():
            await self._enter_anew(another=True)
        await self._go_on()

    async def _after_loss(self) -> None:
        await self._enter_anew(another=False)
        await self._go_on()

    async def _is_another(self) -> bool:
        """Whether the server is not the one before, which may know less; that is found out once."""
        run, was = await self._persist(self._backend.run_id), self._run
        if run != was:
            log.warning("redis_is_another", was=was, now=run)
            self._run = run
        return bool(run != was)

    async def _enter_anew(self, *, another: bool) -> None:
        """Under another name, as nothing that Redis knows of this one can be relied on."""
        old = await self._persist(self._lease.rename)
        await self._end_departed()
        await self._enter_all_again(old, another=another)

    async def _after_rename(self, old: str) -> None:
        another = await self._is_another()  # and the gap that tells so is still to come: once is enough
        if another:
            await self._end_departed()
        await self._enter_all_again(old, another=another)
        await self._go_on()

    async def _enter_all_again(self, old: str, *, another: bool) -> None:
        """Under the present name, and let go of what Redis knows under the former one."""
        await self._reconciler.reregister_all()
        await self._persist(lambda: self._detector.detach_node(old))
        await self._persist(lambda: self._roll_call.answer(self._run, another=another))

    async def _go_on(self) -> None:
        """Hand changes on again, once the other nodes are there too; but not when it all begins anew."""
        while self._begun == 1 and not await self._persist(self._roll_call.closed):  # noqa: ASYNC110 - Redis is asked
            await anyio.sleep(ROLL_CALL_EVERY)
        if self._begun == 1 and self._renewed_for != self._run:
            await gather(*(self._renew_epoch(room_id) for room_id in list(self._feed.rooms())))
            self._renewed_for = self._run
        # Else the next time that it is healthy, or subscribed, leads here once more.
        if self._begun == 1 and self._healthy and self._listening():
            self._feed.resume()

    async def _renew_epoch(self, room_id: str) -> None:
        await self._persist(lambda: self._store.renew_epoch(room_id, self._run))

    async def _end_departed(self) -> None:
        async def end(_told: float, entry: Entry, joined_at: int, reason: str, left_at: int) -> None:
            await self._persist(
                lambda: self._store.end_again(entry, joined_at=joined_at, reason=reason, left_at=left_at)
            )

        await gather(*(end(*departed) for departed in self._departed))

    async def _sweep_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._sweep.trigger()

    async def _persist(self, work: Callable[[], Any]) -> Any:
        while True:
            try:
                return await work()
            except Unavailable:
                await anyio.sleep(RETRY_AFTER)
