"""This node's lease: its registration in Redis under a name, and the renewals that keep it.

What it is for. Connections are stored in Redis under the name of their node. When a node dies, the other
nodes have to notice it and detach its connections; a node that was only slow has to learn that they did.

What triggers it. `serve` renews the lease every third of its length; `renew`, `rename` and `abandon_name`
do so at once when something else suggests that the name is lost. Each renewal:

1. increases this node's counter in the registry. Where the registry no longer has the name (this node was
   judged lost, or Redis lost its data) the node takes a new one and `on_renamed` is called, so that all
   memberships are registered again under it;
2. marks every shard as alive. A shard that had no mark for a whole lease suspends expiry for one lease,
   and `on_expiry_suspended` is called: no heartbeat could arrive meanwhile, so no member may expire;
3. passes the registry on to `LivePeers` and `FailureDetector` (peers.py), which judge the other nodes.

What it guarantees. A name is never used again after it was judged lost: heartbeats under it are refused by
each shard (fencing), and a new one is random. A node that stops for good (`deregister`) takes no other name
afterwards. No two clocks are compared: other nodes judge by the counter and by their own steady clocks.
"""

import secrets
import socket
from asyncio import gather
from collections.abc import Callable
from functools import partial
from os import getpid
from time import monotonic

import anyio
import structlog

from reactor.backend.interface import Stopping
from reactor.errors import FormatMismatch, Unavailable
from reactor.fleet.format_advance import FormatAdvance
from reactor.fleet.peers import FailureDetector, LivePeers
from reactor.fleet.registry import NOT_REGISTERED, NodeRecord, Registry
from reactor.presence.store import Store

log = structlog.get_logger()


def new_node_name() -> str:
    """Return a random name for a node."""
    return secrets.token_hex(4)


class Lease:
    """This node's lease. `serve` has to run.

    lease: seconds. on_renamed(old) is called when the node had to take another name: all its connections
    have to be registered again under the new one. on_expiry_suspended(seconds) is called when expiry is
    suspended, for at most that long, and with 0 when it is no longer. on_clock_step(shard, ms) is called when
    Redis's clock went back so far: the deadlines of the shard have to follow. on_format_mismatch(error) is
    called when the namespace has another format by now, which this node cannot use: the node has to stop.

    `began_on_restored_data`: whether the first marks found rooms of a server that no mark named, and that no
    node has outlived: it may have gone back to an older state.
    `RecoveryBarrier` sets `registered_in`, `run_id` and `barrier_passed`; each renewal publishes them.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        detector: FailureDetector,
        *,
        lease: float,
        on_renamed: Callable[[str], None],
        on_expiry_suspended: Callable[[float], None],
        on_clock_step: Callable[[int, int], None] = lambda _shard, _step: None,
        on_format_mismatch: Callable[[FormatMismatch], None] = lambda _error: None,
    ) -> None:
        self._store, self._registry, self._detector = store, registry, detector
        self._lease = lease
        self._on_renamed, self._on_expiry_suspended = on_renamed, on_expiry_suspended
        self._on_clock_step, self._on_format_mismatch = on_clock_step, on_format_mismatch
        self._advance = FormatAdvance(registry.formats, monotonic())
        self._about = f"{socket.gethostname()}:{getpid()}"
        self._peers = LivePeers(lease)
        self._counter = 0
        self._registered = False
        self._renewing = anyio.Lock()
        self._deregistered = False
        self._expiry_suspended = False
        self._former_name: str | None = None
        self._first_marks = True
        self.began_on_restored_data = False
        self.name = self._instance = new_node_name()
        self.registered_in = NOT_REGISTERED
        self.run_id, self.barrier_passed = "", False

    @property
    def live_peers(self) -> set[str]:
        """The instances of all live nodes, this one included; a loss of Redis's data removes none."""
        return self._peers.instances | {self._instance}

    @property
    def registered(self) -> bool:
        """Whether Redis has had this node's name at some time."""
        return self._counter > 0 and (self._registered or self._former_name is not None)

    def now(self) -> int:
        """Return Redis's time (ms): no time that is sent to a client comes from this machine's clock."""
        return self._registry.now()

    async def register(self) -> None:
        """Register the name for the first time. Raises Unavailable."""
        await self._renew()

    async def renew(self) -> None:
        """Renew at once; where this node was judged lost it takes another name. Raises Unavailable."""
        async with self._renewing:
            await self._renew()

    async def rename(self) -> str:
        """Take another name, since what Redis stores under this one may be wrong; return the former name.

        on_renamed is not called. Raises Unavailable; then it can be called again.
        """
        async with self._renewing:
            self._drop_name()
            await self._register_name()
            former, self._former_name = self._former_name or self.name, None
        return former

    async def abandon_name(self, name: str) -> None:
        """Take another name because a shard refuses this one; without effect where it has changed already.

        A node that judged this one lost may have fenced only some of the shards, so that the name is still in
        the registry. Raises Unavailable.
        """
        async with self._renewing:
            if self.name == name:
                self._drop_name()
            await self._renew()

    async def serve(self) -> None:
        """Renew every third of the lease until cancelled; a renewal that fails is skipped."""
        while True:
            await anyio.sleep(self._lease / 3)
            try:
                await self.renew()
            except Unavailable:
                continue

    async def deregister(self) -> None:
        """Give the name up for good; every member has to be detached before.

        Raises Unavailable. Every later renewal raises it too.
        """
        async with self._renewing:
            self._deregistered = True
            await self._registry.deregister(self.name)

    async def _renew(self) -> None:
        records = await self._register_name()
        if self._former_name is not None:
            former, self._former_name = self._former_name, None
            log.warning("node_renamed", old=former, new=self.name)
            self._on_renamed(former)
        self._peers.observe(records, monotonic())
        failed = await self._mark_shards_alive()
        self._detector.check(records, own_name=self.name, now=monotonic())
        if failed is not None:  # not before: a shard that is away, or refuses, does not hide a lost node
            raise failed

    async def _register_name(self) -> dict[str, NodeRecord]:
        """Renew under the present name, or under a new one where that is lost; return the registry."""
        if self._deregistered:  # a renewal would register a new name, which this node never removes
            raise Stopping
        while True:
            self._counter += 1
            former_format = self._registry.format_number
            try:
                records = await self._registry.renew(
                    self.name,
                    NodeRecord(self._counter, self._instance, self.registered_in, self._about),
                    lease_ms=int(self._lease * 1000),
                    first=not self._registered,
                    advance=self._advance.permitted(monotonic()),
                )
            except FormatMismatch as error:
                self._on_format_mismatch(error)
                raise Unavailable(str(error)) from error
            if records is not None:
                self._registered = True
                self._advance.observe(records, monotonic())
                if self._registry.format_number != former_format:
                    log.info("format_advanced", old=former_format, new=self._registry.format_number)
                return records
            self._advance.registry_lost(monotonic())
            self._drop_name()

    def _drop_name(self) -> None:
        # A name that was never registered is kept: Redis stores nothing under it.
        if self._registered:
            self._former_name, self.name, self._registered = self.name, new_node_name(), False
            self.registered_in = NOT_REGISTERED

    async def _mark_shards_alive(self) -> BaseException | None:
        """Mark every shard; return the error of one that could not be marked."""
        mark = partial(
            self._store.mark_shard_alive,
            lease=int(self._lease * 1000),
            servers=self.run_id,
            all_there=self.barrier_passed,
        )
        marks = await gather(*map(mark, self._store.keys.shards), return_exceptions=True)
        failed = [mark for mark in marks if isinstance(mark, BaseException)]
        made = [mark for mark in marks if not isinstance(mark, BaseException)]
        suspended = any(mark.suspended_until for mark in made)
        if self._first_marks:
            self.began_on_restored_data |= any(mark.restored for mark in made)
            self._first_marks = bool(failed)
        for shard, one in enumerate(marks):
            if not isinstance(one, BaseException) and one.step:
                self._on_clock_step(shard, one.step)
        if suspended and not self._expiry_suspended:
            log.warning("expiry_suspended", seconds=self._lease)
            self._on_expiry_suspended(self._lease)
        if self._expiry_suspended and not suspended:
            self._on_expiry_suspended(0.0)
        self._expiry_suspended = suspended
        return failed[0] if failed else None
