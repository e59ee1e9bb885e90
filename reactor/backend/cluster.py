"""A cluster: the scripts, messages and events of each shard on the primary that serves its slot.

redis-py's own cluster client polls the subscriptions of its nodes in turn, and receives nothing more after a
failover. Here each primary has its own connections and tasks, which follow the topology. A slot that is being
migrated answers ASK to every script, because the only key that a script declares never exists: so no script
runs on half a shard, and the runner retries until the slot has arrived.
"""

from asyncio import gather
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any, Generic, TypeVar

import anyio
from redis.asyncio import Redis

from reactor.backend.clients import (
    EventsState,
    check_server,
    client_at,
    ensure_events,
    errors_as_unavailable,
)
from reactor.backend.interface import ChannelCallbacks, Loop, OnHealth, ignore_health
from reactor.backend.scripts import Redirected, Script, ScriptRunner, ScriptSources, load_scripts, new_times
from reactor.backend.subscription import Subscription
from reactor.backend.target import Target
from reactor.backend.topology import Address, Topology
from reactor.errors import RedisUnreachable, Unavailable
from reactor.histogram import SECONDS, Histogram

REDIRECT_TIMEOUT = 5.0
"""Seconds for which a script is retried after redirections before the caller gets the error."""
REDIRECT_PAUSE = 0.05
NO_OWNER_PAUSE = 0.05

T = TypeVar("T")
Task = Callable[[T], Coroutine[Any, Any, None]]


class TaskPerItem(Generic[T]):
    """Runs one task for each item of a changing set.

    The items are the objects that serve a primary, not its address: a primary that leaves and returns at once
    has a new object, which needs a new task.
    """

    def __init__(self) -> None:
        self._scopes: dict[T, anyio.CancelScope] = {}
        self._changed = anyio.Event()

    def reconcile(self) -> None:
        """The set has changed: start and cancel tasks accordingly."""
        self._changed.set()

    async def serve(
        self, items: Callable[[], set[T]], task: Callable[[T], Coroutine[Any, Any, None]]
    ) -> None:
        """Run `task` for each of the present `items`, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                for item in self._scopes.keys() - items():
                    self._scopes.pop(item).cancel()
                for item in items() - self._scopes.keys():
                    scope = self._scopes[item] = anyio.CancelScope()
                    tasks.start_soon(self._run, scope, task, item)
                await self._changed.wait()

    @staticmethod
    async def _run(scope: anyio.CancelScope, task: Task[T], item: T) -> None:
        with scope:
            await task(item)


class ClusterRunner:
    """One ScriptRunner for each primary; a script goes to the one that serves its shard's slot."""

    def __init__(self, topology: Topology, scripts: dict[str, Script], on_health: OnHealth) -> None:
        self._topology, self._scripts, self._on_health = topology, scripts, on_health
        self._runners: dict[Address, ScriptRunner] = {}
        self.times = new_times()
        self._tasks = TaskPerItem[ScriptRunner]()
        self._healthy = True

    @property
    def healthy(self) -> bool:
        """Whether all primaries take commands."""
        return self._healthy

    async def run(self, name: str, prefix: str, *args: str | bytes | int | float) -> Any:
        """Run the script `name` on the shard with the key prefix `prefix`; its raw reply.

        Raises Unavailable: the script may or may not have run.
        """
        give_up = monotonic() + REDIRECT_TIMEOUT
        while True:
            try:
                return await self._runner(prefix).run(name, prefix, *args)
            except LookupError as error:
                raise Unavailable(f"the cluster is incomplete: {error}") from error
            except Redirected as error:
                if monotonic() > give_up:
                    raise
                if error.moved:
                    self._topology.refresh_soon()
                await anyio.sleep(REDIRECT_PAUSE)
            except Unavailable:
                self._topology.refresh_soon()
                raise

    def _runner(self, prefix: str) -> ScriptRunner:
        address = self._topology.owner_of(prefix)
        runner = self._runners.get(address)
        if runner is None:
            runner = self._runners[address] = ScriptRunner(
                self._topology.client(address),
                self._scripts,
                on_health=lambda _healthy, reason: self._update_health(reason),
                times=self.times,
            )
            self._tasks.reconcile()
        return runner

    def _update_health(self, reason: str) -> None:
        healthy = all(
            runner.healthy for address, runner in self._runners.items() if address in self._topology.primaries
        )
        if healthy is not self._healthy:
            self._healthy = healthy
            self._on_health(healthy, reason)

    def reconcile(self) -> None:
        """The topology has changed: give up the runners of servers that are no primaries any more."""
        for address in self._runners.keys() - self._topology.primaries:
            self._runners.pop(address).abandon()
        self._tasks.reconcile()
        self._update_health("")

    async def serve(self) -> None:
        """Send what is queued, until cancelled."""
        await self._tasks.serve(lambda: set(self._runners.values()), ScriptRunner.serve)


class ClusterChannels:
    """Sharded channels, each subscribed to on its slot's primary; or channels subscribed to on every primary.

    To the caller it is one subscription: whatever happens to a part of it is reported as a gap.
    """

    def __init__(
        self, target: Target, topology: Topology, callbacks: ChannelCallbacks, *, on_every_primary: bool
    ) -> None:
        self._target, self._topology, self._on_every_primary = target, topology, on_every_primary
        self._on_gap = callbacks.on_gap
        self._callbacks_of_one = replace(callbacks, on_gap=self._on_gap_of_one)
        self._subscriptions: dict[Address, Subscription] = {}
        self._clients: dict[Address, Redis] = {}
        self._channels: set[str] = set()
        self._subscribed_at: dict[str, Address] = {}
        self._tasks = TaskPerItem[Subscription]()
        self._started = anyio.Event()
        self._reported_first = False
        self.lags = Histogram(SECONDS)

    @property
    def listening(self) -> bool:
        """Whether every primary is listened to."""
        return self._subscriptions.keys() >= self._topology.primaries and all(
            subscription.listening
            for address, subscription in self._subscriptions.items()
            if address in self._topology.primaries
        )

    async def subscribed(self) -> None:
        """Return once every channel requested so far is confirmed."""
        await self._started.wait()
        await gather(*(subscription.subscribed() for subscription in list(self._subscriptions.values())))

    async def subscribe(self, channel: str) -> None:
        """Return once the channel is confirmed by the primary that serves its slot now."""
        self._channels.add(channel)
        while True:
            try:
                owner = self._topology.owner_of(channel)
            except LookupError:
                await anyio.sleep(NO_OWNER_PAUSE)
                continue
            self._subscribed_at[channel] = owner
            await self._subscription(owner).subscribe(channel)
            if self._subscribed_at.get(channel, owner) == owner:
                return

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel."""
        self._channels.discard(channel)
        address = self._subscribed_at.pop(channel, None)
        if address in self._subscriptions:
            self._subscriptions[address].unsubscribe(channel)

    def reconcile(self) -> None:
        """The topology has changed: subscribe where the slots are served now."""
        for address in self._subscriptions.keys() - self._topology.primaries:
            del self._subscriptions[address]
        for address in self._topology.primaries:
            self._subscription(address)
        if not self._on_every_primary:
            for channel, address in list(self._subscribed_at.items()):
                self._move(channel, address)
        self._tasks.reconcile()
        if self._reported_first:
            self._on_gap(False)

    def _move(self, channel: str, address: Address) -> None:
        try:
            owner = self._topology.owner_of(channel)
        except LookupError:
            return
        if owner != address or address not in self._subscriptions:
            if address in self._subscriptions:
                self._subscriptions[address].unsubscribe(channel)
            self._subscribed_at[channel] = owner
            self._subscription(owner).request(channel)

    def _subscription(self, address: Address) -> Subscription:
        subscription = self._subscriptions.get(address)
        if subscription is None:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = client_at(self._target, address, blocking=True)
            subscription = self._subscriptions[address] = Subscription(
                client, self._callbacks_of_one, sharded=not self._on_every_primary, lags=self.lags
            )
            for channel in self._channels if self._on_every_primary else ():
                subscription.request(channel)
            self._tasks.reconcile()
        return subscription

    def _on_gap_of_one(self, _first: bool) -> None:
        if self._reported_first:
            self._on_gap(False)
        elif self.listening:
            self._reported_first = True
            self._on_gap(True)

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen until cancelled."""
        for channel in channels:
            self._channels.add(channel)
            if not self._on_every_primary:
                owner = self._subscribed_at[channel] = self._topology.owner_of(channel)
                self._subscription(owner).request(channel)
        for address in self._topology.primaries:
            self._subscription(address)
        self._started.set()
        await self._tasks.serve(lambda: set(self._subscriptions.values()), Subscription.serve)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


class ClusterBackend:
    """A cluster in use; see `Backend`."""

    def __init__(self, target: Target, topology: Topology, sources: ScriptSources) -> None:
        self._target, self._topology = target, topology
        scripts = load_scripts(sources, publish="SPUBLISH")
        self.runner: ClusterRunner = ClusterRunner(topology, scripts, self._report_health)
        self.on_health: OnHealth = ignore_health
        self._channels: list[ClusterChannels] = []
        topology.on_change = self._reconcile

    def _report_health(self, healthy: bool, reason: str) -> None:
        self.on_health(healthy, reason)

    @property
    def healthy(self) -> bool:
        """Whether all primaries take commands."""
        return self.runner.healthy

    @property
    def times(self) -> Mapping[str, Histogram]:
        """Seconds that calls took, the wait in the queue included, by script name."""
        return self.runner.times

    @property
    def loops(self) -> list[Loop]:
        """Background tasks; the caller runs each of them."""
        return [self.runner.serve, self._topology.serve]

    def channels(self, callbacks: ChannelCallbacks) -> ClusterChannels:
        """Channels of shards, each read from the primary that serves its slot."""
        return self._listen(callbacks, on_every_primary=False)

    def events(self, callbacks: ChannelCallbacks) -> ClusterChannels:
        """Channels read from every primary: each publishes the events of its own keys only."""
        return self._listen(callbacks, on_every_primary=True)

    def _listen(self, callbacks: ChannelCallbacks, *, on_every_primary: bool) -> ClusterChannels:
        channels = ClusterChannels(self._target, self._topology, callbacks, on_every_primary=on_every_primary)
        self._channels.append(channels)
        return channels

    def client_of(self, key: str) -> Redis:
        """The client of the primary that has the key. Raises Unavailable while none has it."""
        try:
            return self._topology.client(self._topology.owner_of(key))
        except LookupError as error:
            raise Unavailable(f"the cluster is incomplete: {error}") from error

    async def ensure_events(self) -> EventsState:
        """Make every primary publish `expired` events; the worst state found. Raises ReactorError."""
        states = await gather(
            *(
                ensure_events(self._topology.client(address), self._target)
                for address in self._topology.primaries
            )
        )
        return max(states, key=lambda state: ("ok", "set", "unknown", "missing").index(state.kind))

    async def run_id(self) -> str:
        """The run ids of all primaries. Raises Unavailable."""
        with errors_as_unavailable():
            infos: list[Any] = await gather(
                *(self._topology.client(address).info("server") for address in self._topology.primaries)
            )
        return " ".join(sorted(str(info["run_id"]) for info in infos))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._topology.aclose()
        for channels in self._channels:
            await channels.aclose()

    def _reconcile(self) -> None:
        self.runner.reconcile()
        for channels in self._channels:
            channels.reconcile()


async def open_cluster(target: Target, sources: ScriptSources) -> ClusterBackend:
    """Connect to a cluster. Raises RedisUnreachable, RedisMisconfigured or RedisTooOld, each with its fix."""
    topology = Topology(target)
    try:
        await _check_first_that_answers(target, topology)
        await topology.start()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await topology.aclose()
        raise
    return ClusterBackend(target, topology, sources)


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
