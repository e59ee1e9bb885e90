"""A cluster: the scripts, messages and events of each shard on the primary that serves its slot.

redis-py's own cluster client polls the subscriptions of its nodes in turn, and receives nothing more after a
failover. Here each primary has its own connections and tasks, which follow the topology. A slot that is being
migrated answers ASK to every script, because the only key that a script declares never exists: so no script
runs on half a shard, and the runner retries until the slot has arrived.
"""

from asyncio import gather
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

import anyio
from redis.asyncio import Redis

from reactor.backend.clients import (
    EventsState,
    MemoryState,
    check_server,
    client_at,
    ensure_events,
    memory_state_of,
    run_id_of,
)
from reactor.backend.interface import ChannelCallbacks, LaneCounts, Loop, OnHealth, ignore_health
from reactor.backend.outages import NO_ANSWER
from reactor.backend.scripts import (
    LANES,
    Redirected,
    Script,
    ScriptRunner,
    ScriptSources,
    load_scripts,
    new_times,
)
from reactor.backend.subscription import Subscription
from reactor.backend.target import Target
from reactor.backend.topology import Address, Topology
from reactor.errors import RedisUnreachable, Unavailable
from reactor.histogram import SECONDS, Histogram

REDIRECT_TIMEOUT = 5.0
"""Seconds for which a script is retried after redirections before the caller gets the error."""
REDIRECT_PAUSE = 0.05
NO_OWNER_PAUSE = 0.05
MOVE_TIMEOUT = 5.0
"""Seconds that a channel has to be confirmed by the primary to which its slot moved."""

_NOWHERE: Address = ("", 0)
"""Where a channel is subscribed to while no primary serves its slot."""

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


def _at(address: Address, reason: str) -> str:
    """The reason of an outage, with the primary that does not answer: the others do."""
    return reason.replace(NO_ANSWER, f"{NO_ANSWER} at {address[0]}:{address[1]}, a primary of the cluster")


class ClusterRunner:
    """One ScriptRunner for each primary; a script goes to the one that serves its shard's slot."""

    def __init__(self, topology: Topology, scripts: Mapping[str, Script], on_health: OnHealth) -> None:
        self._topology, self._scripts, self._on_health = topology, scripts, on_health
        self._runners: dict[Address, ScriptRunner] = {}
        self.times = new_times()
        self.refusals = Counter[str]()
        self._tasks = TaskPerItem[ScriptRunner]()
        self._healthy = True
        self._last_reason = NO_ANSWER
        self._refused: Counter[str] = Counter()  # by runners that were given up

    @property
    def healthy(self) -> bool:
        """Whether all primaries take commands."""
        return self._healthy

    @property
    def lanes(self) -> Mapping[str, LaneCounts]:
        """How many calls wait for the primaries, and how many were refused, by lane."""
        runners = [runner.lanes for runner in self._runners.values()]
        return {
            name: LaneCounts(
                sum(lanes[name].waiting for lanes in runners),
                self._refused[name] + sum(lanes[name].refused for lanes in runners),
            )
            for name in LANES
        }

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
                on_health=lambda _healthy, reason: self._update_health(_at(address, reason)),
                times=self.times,
                refusals=self.refusals,
            )
            self._tasks.reconcile()
        return runner

    def _update_health(self, reason: str) -> None:
        healthy = all(
            runner.healthy for address, runner in self._runners.items() if address in self._topology.primaries
        )
        former, self._last_reason = self._last_reason, reason or self._last_reason
        if healthy is not self._healthy or (not healthy and self._last_reason != former):
            self._healthy = healthy
            # A change of the topology can make a server count that was away before: it has a reason, too.
            self._on_health(healthy, "" if healthy else self._last_reason)

    def reconcile(self) -> None:
        """The topology has changed: give up the runners of servers that are no primaries any more."""
        for address in self._runners.keys() - self._topology.primaries:
            runner = self._runners.pop(address)
            runner.abandon()
            self._refused.update({name: lane.refused for name, lane in runner.lanes.items()})
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
        self._on_gap, self._on_moved = callbacks.on_gap, callbacks.on_moved
        self._callbacks = callbacks
        self._subscriptions: dict[Address, Subscription] = {}
        self._clients: dict[Address, Redis] = {}
        self._channels: set[str] = set()
        self._subscribed_at: dict[str, Address] = {}
        self._moved: set[str] = set()
        self._filled_by_moves: set[Address] = set()  # primaries that took the place of no other
        self._moved_event = anyio.Event()
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

    @property
    def problem(self) -> Exception | None:
        """Why it does not listen: the error of the last attempt at one of the primaries."""
        problems = (
            self._subscriptions[address].problem
            for address in self._topology.primaries & self._subscriptions.keys()
        )
        return next((problem for problem in problems if problem is not None), None)

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
        """The topology has changed: subscribe where the slots are served now.

        A channel whose slot moved to another primary is reported by itself: nothing else missed a message.
        Where one primary took the place of another, this is a failover, and a gap for all. One that gave its
        last slots to primaries that were there before only moved them, as where a cluster is made smaller.
        """
        gone = self._subscriptions.keys() - self._topology.primaries
        new = self._topology.primaries - self._subscriptions.keys()
        failed_over = bool(gone and new)
        if not failed_over:
            self._filled_by_moves |= new
        self._filled_by_moves -= gone
        for address in gone:
            del self._subscriptions[address]
        for address in self._topology.primaries:
            self._subscription(address)
        if not self._on_every_primary:
            for channel, address in list(self._subscribed_at.items()):
                if self._move(channel, address) and not failed_over:
                    self._moved.add(channel)
                    self._moved_event.set()
        self._tasks.reconcile()
        if self._reported_first and (failed_over or (new and self._on_every_primary)):
            self._on_gap(False)

    def _move(self, channel: str, address: Address) -> bool:
        """Subscribe to a channel where it is now; whether that is elsewhere."""
        try:
            owner = self._topology.owner_of(channel)
        except LookupError:
            if address not in self._subscriptions:  # should it come back, it knows nothing of the channel
                self._subscribed_at[channel] = _NOWHERE
            return False
        if owner == address and address in self._subscriptions:
            return False
        if address in self._subscriptions:
            self._subscriptions[address].unsubscribe(channel)
        self._subscribed_at[channel] = owner
        self._subscription(owner).request(channel)
        return True

    async def _report_moved(self) -> None:
        """Report channels that moved, once they are subscribed to at their new primary."""
        while True:
            await self._moved_event.wait()
            self._moved_event = anyio.Event()
            moved, self._moved = self._moved & self._channels, set()
            with anyio.move_on_after(MOVE_TIMEOUT):  # one that has moved on meanwhile is reported again
                await gather(*map(self.subscribe, moved))
            if moved:
                self._on_moved(frozenset(moved))

    def _subscription(self, address: Address) -> Subscription:
        subscription = self._subscriptions.get(address)
        if subscription is None:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = client_at(self._target, address, blocking=True)
            subscription = self._subscriptions[address] = Subscription(
                client,
                replace(self._callbacks, on_gap=partial(self._on_gap_of_one, address)),
                sharded=not self._on_every_primary,
                lags=self.lags,
            )
            for channel in self._channels if self._on_every_primary else ():
                subscription.request(channel)
            self._tasks.reconcile()
        return subscription

    def _on_gap_of_one(self, address: Address, first: bool) -> None:
        if self._reported_first:
            # A primary without any of the channels is no gap, and one that has just got its first slots from
            # others is none beyond the channels that are reported as moved.
            moves_only = first and address in self._filled_by_moves
            if self._on_every_primary or (address in self._subscribed_at.values() and not moves_only):
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
            subscription = self._subscription(address)  # which a change of the topology may have made before
            for channel in self._channels if self._on_every_primary else ():
                subscription.request(channel)
        self._started.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._report_moved)
            await self._tasks.serve(lambda: set(self._subscriptions.values()), Subscription.serve)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


class ClusterBackend:
    """A cluster in use; see `Backend`."""

    def __init__(self, target: Target, sources: ScriptSources) -> None:
        self._target = target
        self._topology = topology = Topology(target)
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
    def lanes(self) -> Mapping[str, LaneCounts]:
        """How many calls wait for the primaries, and how many were refused, by lane."""
        return self.runner.lanes

    @property
    def refusals(self) -> Counter[str]:
        """How many calls Redis refused, by script name."""
        return self.runner.refusals

    @property
    def loops(self) -> list[Loop]:
        """Background tasks; the caller runs each of them."""
        return [self.runner.serve, self._topology.serve]

    async def connect(self) -> None:
        """Check the first server that answers, and read the topology; see `Backend`."""
        unreachable: RedisUnreachable | None = None
        for address in self._target.hosts:
            try:
                await check_server(self._target, self._topology.client(address))
            except RedisUnreachable as error:
                unreachable = unreachable or error
            else:
                await self._topology.start()
                return
        if unreachable is not None:
            raise unreachable

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

    async def ensure_events(self, *, manage: bool) -> EventsState:
        """Make every primary publish `expired` events; the worst state found. Raises ReactorError."""
        states = await gather(
            *(
                ensure_events(self._topology.client(address), self._target, manage=manage)
                for address in self._topology.primaries
            )
        )
        return max(states, key=lambda state: ("ok", "set", "unknown", "missing").index(state.kind))

    async def memory_state(self) -> MemoryState:
        """What the primaries do when their memory is full: one that evicts, and all evicted keys."""
        clients = map(self._topology.client, self._topology.primaries)
        states = await gather(*map(memory_state_of, clients))
        worst = max(states, key=lambda state: state.evicts)
        return replace(worst, evicted=sum(state.evicted for state in states))

    async def run_id(self) -> str:
        """The run ids of all primaries. Raises Unavailable."""
        clients = map(self._topology.client, self._topology.primaries)
        return " ".join(sorted(await gather(*map(run_id_of, clients))))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._topology.aclose()
        for channels in self._channels:
            await channels.aclose()

    def _reconcile(self) -> None:
        self.runner.reconcile()
        for channels in self._channels:
            channels.reconcile()
