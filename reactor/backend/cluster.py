"""A cluster: each shard's scripts, diffs and events on the primary that has its slot.

redis-py's own cluster client polls its nodes' subscriptions one after another and stays deaf after a
failover. Here each primary has a connection and a task of its own, and they follow the topology. A slot
that is being moved answers ASK to every script, since the one key that a script declares never exists: so
no script runs on half of a shard, and it is tried again until the slot has arrived.
"""

from asyncio import gather
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis

from reactor.backend.cluster_channels import ClusterChannels
from reactor.backend.connect import (
    EventsState,
    check_server,
    ensure_events,
    lost_means_unavailable,
)
from reactor.backend.interface import Loop, OnHealth, ignore_health
from reactor.backend.primaries import LoopPerPrimary
from reactor.backend.scripts import Redirected, Script, ScriptRunner, load_scripts, new_times
from reactor.backend.target import Target
from reactor.backend.topology import Address, Topology
from reactor.errors import RedisUnreachable, Unavailable
from reactor.histogram import Histogram

log = structlog.get_logger()

REDIRECTED_FOR = 5.0
"""Seconds for which a script follows its slot around before it is given up."""
REDIRECT_PAUSE = 0.05


class ClusterRunner:
    """A queue to each primary; a script goes to the one that has its shard's slot."""

    def __init__(self, topology: Topology, scripts: dict[str, Script], on_health: OnHealth) -> None:
        self._topology, self._scripts, self._on_health = topology, scripts, on_health
        self._runners: dict[Address, ScriptRunner] = {}
        self.times = new_times()
        self._loops = LoopPerPrimary[ScriptRunner]()
        self._healthy = True

    @property
    def healthy(self) -> bool:
        """Whether all primaries take commands."""
        return self._healthy

    async def run(self, name: str, prefix: str, *args: str | bytes | int | float) -> Any:
        """Run a transition on the shard that `prefix` names; its raw reply. Raises Unavailable."""
        give_up = monotonic() + REDIRECTED_FOR
        while True:
            try:
                return await self._runner(prefix).run(name, prefix, *args)
            except LookupError as error:
                raise Unavailable(f"the cluster is not whole: {error}") from error
            except Redirected as error:
                if monotonic() > give_up:
                    raise
                if error.moved:
                    self._topology.ask_soon()
                await anyio.sleep(REDIRECT_PAUSE)
            except Unavailable:
                self._topology.ask_soon()
                raise

    def _runner(self, prefix: str) -> ScriptRunner:
        address = self._topology.owner_of(prefix)
        runner = self._runners.get(address)
        if runner is None:
            runner = self._runners[address] = ScriptRunner(
                self._topology.client(address),
                self._scripts,
                on_health=lambda _healthy, why: self._judge(why),
                times=self.times,
            )
            self._loops.reconcile()
        return runner

    def _judge(self, reason: str) -> None:
        healthy = all(
            runner.healthy for address, runner in self._runners.items() if address in self._topology.primaries
        )
        if healthy is not self._healthy:
            self._healthy = healthy
            self._on_health(healthy, reason)

    def reconcile(self) -> None:
        """The topology changed."""
        for address in self._runners.keys() - self._topology.primaries:
            self._runners.pop(address).abandon()
        self._loops.reconcile()
        self._judge("")

    async def serve(self) -> None:
        """Send what is asked for, until cancelled."""
        await self._loops.serve(lambda: set(self._runners.values()), ScriptRunner.serve)


class ClusterBackend:
    """A cluster in use; see `Backend`."""

    def __init__(self, target: Target, topology: Topology, *, departures_kept: int) -> None:
        self._target, self._topology = target, topology
        scripts = load_scripts(departures_kept=departures_kept, publish="SPUBLISH")
        self.runner: ClusterRunner = ClusterRunner(topology, scripts, self._tell_health)
        self.on_health: OnHealth = ignore_health
        self._listening: list[ClusterChannels] = []
        topology.on_change = self._reconcile

    def _tell_health(self, healthy: bool, reason: str) -> None:
        self.on_health(healthy, reason)

    @property
    def healthy(self) -> bool:
        """Whether all primaries take commands."""
        return self.runner.healthy

    @property
    def times(self) -> Mapping[str, Histogram]:
        """Seconds from the asking to the answer, by the name of the script."""
        return self.runner.times

    @property
    def loops(self) -> list[Loop]:
        """What has to run."""
        return [self.runner.serve, self._topology.serve]

    def channels(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> ClusterChannels:
        """Diffs and wake-ups, each from the node that has its shard's slot."""
        return self._listen(False, on_message, on_gap, on_lost)

    def events(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> ClusterChannels:
        """Events of every primary: a node publishes those of its own keys only."""
        return self._listen(True, on_message, on_gap, on_lost)

    def _listen(
        self,
        everywhere: bool,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> ClusterChannels:
        channels = ClusterChannels(
            self._target,
            self._topology,
            everywhere=everywhere,
            on_message=on_message,
            on_gap=on_gap,
            on_lost=on_lost,
        )
        self._listening.append(channels)
        return channels

    def client_of(self, key: str) -> Redis:
        """The client of the node that has the key."""
        try:
            return self._topology.client(self._topology.owner_of(key))
        except LookupError as error:
            raise Unavailable(f"the cluster is not whole: {error}") from error

    async def ensure_events(self) -> EventsState:
        """See that every primary says when keys expire; the worst that was found. Raises ReactorError."""
        states = await gather(
            *(
                ensure_events(self._topology.client(address), self._target)
                for address in self._topology.primaries
            )
        )
        return max(states, key=lambda state: ("ok", "set", "unknown", "missing").index(state.kind))

    async def run_id(self) -> str:
        """The run ids of all primaries. Raises Unavailable."""
        with lost_means_unavailable():
            infos: list[Any] = await gather(
                *(self._topology.client(address).info("server") for address in self._topology.primaries)
            )
        return " ".join(sorted(str(info["run_id"]) for info in infos))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._topology.aclose()
        for channels in self._listening:
            await channels.aclose()

    def _reconcile(self) -> None:
        self.runner.reconcile()
        for channels in self._listening:
            channels.reconcile()


async def open_cluster(target: Target, *, departures_kept: int) -> ClusterBackend:
    """Connect to a cluster.

    Raises RedisUnreachable, RedisMisconfigured or RedisTooOld, each with its mend.
    """
    topology = Topology(target)
    try:
        await _check_first_that_answers(target, topology)
        await topology.start()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await topology.aclose()
        raise
    return ClusterBackend(target, topology, departures_kept=departures_kept)


async def _check_first_that_answers(target: Target, topology: Topology) -> None:
    unreachable: RedisUnreachable | None = None
    for address in target.hosts:
        try:
            await check_server(target, topology.client(address))
        except RedisUnreachable as error:
            unreachable = unreachable or error
        else:
            return
    if unreachable is not None:
        raise unreachable
