"""A cluster: each shard's scripts, diffs and events on the primary that has its slot.

redis-py's own cluster client polls its nodes' subscriptions one after another and stays deaf after a
failover. Here each primary has a connection and a task of its own, and they follow the topology. A slot
that is being moved answers ASK to every script, since the one key that a script declares never exists: so
no script runs on half of a shard, and it is tried again until the slot has arrived.
"""

from asyncio import gather
from collections.abc import Callable, Coroutine, Iterable
from time import monotonic
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis

from reactor.errors import Unavailable
from reactor.presence.backend import Loop, OnHealth, ignore_health
from reactor.presence.connect import (
    EventsState,
    check_server,
    client_at,
    ensure_events,
    lost_means_unavailable,
)
from reactor.presence.scripts import Redirected, Script, ScriptRunner, load_scripts
from reactor.presence.subscription import Subscription
from reactor.presence.target import Target
from reactor.presence.topology import Address, Topology

log = structlog.get_logger()

REDIRECTED_FOR = 5.0
"""Seconds for which a script follows its slot around before it is given up."""
REDIRECT_PAUSE = 0.05


class _Loops:
    """Runs one loop for each primary there is, and ends those of primaries that are no more."""

    def __init__(self) -> None:
        self._scopes: dict[Address, anyio.CancelScope] = {}
        self._changed = anyio.Event()

    def reconcile(self) -> None:
        self._changed.set()

    async def serve(
        self, wanted: Callable[[], set[Address]], loop: Callable[[Address], Coroutine[Any, Any, None]]
    ) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                for address in self._scopes.keys() - wanted():
                    self._scopes.pop(address).cancel()
                for address in wanted() - self._scopes.keys():
                    scope = self._scopes[address] = anyio.CancelScope()
                    tasks.start_soon(self._run, scope, loop, address)
                await self._changed.wait()

    @staticmethod
    async def _run(
        scope: anyio.CancelScope, loop: Callable[[Address], Coroutine[Any, Any, None]], address: Address
    ) -> None:
        with scope:
            await loop(address)


class ClusterRunner:
    """A queue to each primary; a script goes to the one that has its shard's slot."""

    def __init__(self, topology: Topology, scripts: dict[str, Script], on_health: OnHealth) -> None:
        self._topology, self._scripts, self._on_health = topology, scripts, on_health
        self._runners: dict[Address, ScriptRunner] = {}
        self._loops = _Loops()
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
            self._runners.pop(address)
        self._loops.reconcile()
        self._judge("")

    async def serve(self) -> None:
        """Send what is asked for, until cancelled."""
        await self._loops.serve(lambda: set(self._runners), lambda address: self._runners[address].serve())


class ClusterChannels:
    """Listens to sharded channels, each on the node that has its slot; or to one channel on every primary.

    Seen from outside it is one subscription: whatever happens to a part of it is a gap.
    """

    def __init__(
        self, target: Target, topology: Topology, *, everywhere: bool,
        on_message: Callable[[bytes, bytes], None], on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._target, self._topology, self._everywhere = target, topology, everywhere
        self._on_message, self._on_gap, self._on_lost = on_message, on_gap, on_lost
        self._parts: dict[Address, Subscription] = {}
        self._clients: dict[Address, Redis] = {}
        self._homes: dict[str, Address] = {}
        self._channels: dict[str, anyio.Event] = {}
        self._loops = _Loops()
        self._started = anyio.Event()
        self._told_first = False

    @property
    def listening(self) -> bool:
        """Whether every primary is listened to."""
        return self._parts.keys() >= self._topology.primaries and all(
            part.listening for address, part in self._parts.items() if address in self._topology.primaries
        )

    async def subscribed(self) -> None:
        """Return once every channel asked for so far is confirmed."""
        await self._started.wait()
        await gather(*(part.subscribed() for part in list(self._parts.values())))

    async def subscribe(self, channel: str) -> None:
        """Return once the channel is confirmed where it is at home now."""
        self._channels.setdefault(channel, anyio.Event())
        while True:
            try:
                home = self._topology.owner_of(channel)
            except LookupError:
                await anyio.sleep(REDIRECT_PAUSE)
                continue
            self._homes[channel] = home
            await self._part(home).subscribe(channel)
            if self._homes.get(channel, home) == home:
                return

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to the channel."""
        self._channels.pop(channel, None)
        home = self._homes.pop(channel, None)
        if home in self._parts:
            self._parts[home].unsubscribe(channel)

    def reconcile(self) -> None:
        """The topology changed: listen where the slots are now."""
        for address in self._parts.keys() - self._topology.primaries:
            del self._parts[address]
        for address in self._topology.primaries:
            self._part(address)
        if not self._everywhere:
            for channel, home in list(self._homes.items()):
                self._move(channel, home)
        self._loops.reconcile()
        if self._told_first:
            self._on_gap(False)

    def _move(self, channel: str, home: Address) -> None:
        try:
            owner = self._topology.owner_of(channel)
        except LookupError:
            return
        if owner != home or home not in self._parts:
            if home in self._parts:
                self._parts[home].unsubscribe(channel)
            self._homes[channel] = owner
            self._part(owner).want(channel)

    def _part(self, address: Address) -> Subscription:
        part = self._parts.get(address)
        if part is None:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = client_at(self._target, address, waits=True)
            part = self._parts[address] = Subscription(
                client,
                on_message=self._on_message,
                on_gap=self._on_part_gap,
                on_lost=self._on_lost,
                sharded=not self._everywhere,
            )
            for channel in self._channels if self._everywhere else ():
                part.want(channel)
            self._loops.reconcile()
        return part

    def _on_part_gap(self, _first: bool) -> None:
        if self._told_first:
            self._on_gap(False)
        elif self.listening:
            self._told_first = True
            self._on_gap(True)

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen until cancelled."""
        for channel in channels:
            self._channels.setdefault(channel, anyio.Event())
            if not self._everywhere:
                home = self._homes[channel] = self._topology.owner_of(channel)
                self._part(home).want(channel)
        for address in self._topology.primaries:
            self._part(address)
        self._started.set()
        await self._loops.serve(lambda: set(self._parts), lambda address: self._parts[address].serve())

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


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
        await check_server(target, topology.client(target.hosts[0]))
        await topology.start()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await topology.aclose()
        raise
    return ClusterBackend(target, topology, departures_kept=departures_kept)
