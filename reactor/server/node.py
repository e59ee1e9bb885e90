"""The node: builds the steps, hands each its neighbour, runs them in one task group, stops them in order.

Socket -> gateway -> dispatch -> presence -> Redis -> expired event -> listener -> reaper -> diffs ->
fan-out -> socket.
"""

import socket

import anyio
import structlog
from anyio.abc import TaskGroup

from reactor import __version__
from reactor.backend.clients import EventsState
from reactor.backend.interface import Backend
from reactor.backend.target import Target
from reactor.errors import ReactorError, Unavailable
from reactor.expiry.listener import Listener
from reactor.expiry.pacemaker import Pacemaker
from reactor.expiry.reaper import Reaper
from reactor.expiry.sweep import Sweep
from reactor.fleet.lease import Lease
from reactor.fleet.peers import FailureDetector
from reactor.fleet.recovery_barrier import RollCall
from reactor.fleet.registry import Registry
from reactor.fleet.reports import NodeReport, Reporter
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import Fanout, send_to_all
from reactor.gateway.roster import Roster
from reactor.gateway.server import Gateway
from reactor.membership.entering import Entering
from reactor.membership.handler import Dispatch
from reactor.membership.reconciler import Reconciler
from reactor.membership.recovery import Recovery
from reactor.presence.departures import Departures
from reactor.presence.heartbeats import Heartbeats
from reactor.presence.keys import SHARDS, Entry, wake_channel
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rows import LeftRow
from reactor.presence.rules import RoomRules
from reactor.presence.store import Store
from reactor.protocol.messages import Member
from reactor.settings import Settings
from reactor.tasks import GuardedTasks
from reactor.webhooks.service import Webhooks

log = structlog.get_logger()

SUBSCRIBED_AT_START = 3.0
"""Seconds that the first clients wait for the subscriptions at most; without them the pacemaker and the
sweep do.
"""

SETTLE = 2.0
"""Seconds, at most, that other nodes get to notice that Redis lost data although it is the same server."""

CLOSED_WITHIN, FLUSHED_WITHIN = 2.0, 2.5
"""Seconds, behind the drain, that the last clients get to answer the close, and Redis to take the last
detachings when the node stops: 10 s in all, as long as many supervisors wait. The lease sees to the rest.
"""


class Node:
    """A running server. Made by `running`; its parts are public for tests and for whoever embeds it."""

    def __init__(self, settings: Settings, target: Target, tasks: TaskGroup, backend: Backend) -> None:
        self.settings = settings
        self.backend = backend
        self._group = tasks
        self._tasks = guarded = GuardedTasks(tasks)
        namespace = settings.namespace
        self.store = Store(backend.runner, namespace)
        self.registry = Registry(backend.runner, namespace)
        self.rules = RoomRules(settings, backend.runner)
        self.departures = Departures(backend.client_of, namespace)
        self.reaper = Reaper(self.store)
        self.detector = FailureDetector(
            self.store, self.registry, lease=settings.lease, policy=self.rules.policy
        )
        self.lease = Lease(
            self.store, self.registry, self.detector, lease=settings.lease,
            on_renamed=self._on_renamed,
            on_expiry_suspended=lambda seconds: self.recovery.on_expiry_suspended(seconds),  # noqa: PLW0108 - made below
        )  # fmt: skip
        self.sweep = Sweep(
            self.store, self.registry, self.reaper,
            node=self.name, interval=settings.sweep_interval,
            detach_unregistered=self.detector.detach_unregistered,
        )  # fmt: skip
        self.listener = Listener(
            backend, namespace=namespace, database=target.db, reaper=self.reaper, on_gap=self._on_events_gap,
            left_to_another=lambda: self.pacemaker.led_elsewhere,
        )  # fmt: skip
        self.pacemaker = Pacemaker(
            self.store, self.registry, self.reaper, node=self.name, events_flow=self._events_flow,
            on_leading=self.listener.take_over,
        )  # fmt: skip
        self.webhooks = Webhooks(settings, backend.runner, self.registry, node=self.name)
        self._wake_channels = {wake_channel(namespace, shard).encode(): shard for shard in range(SHARDS)}
        self._rules_channel = self.rules.channel.encode()
        self.bus = backend.channels(self._on_message, self._on_bus_gap, self._on_bus_lost)
        self.roster: Roster[Connection] = Roster()
        self.fanout = Fanout(settings, self.roster, lambda room: self.dispatch.snapshot(room))  # noqa: PLW0108 - made below
        self.feed = RoomFeed(
            self.store, self.bus, self.departures, guarded, on_diff=self.fanout.diff, on_left=self._on_left,
            on_said=self.fanout.say, is_loss=self._is_loss,
        )  # fmt: skip
        self.entering = Entering(self.store, self.departures, self.lease, self.feed)
        self.reconciler = Reconciler(
            self.rules.policy, self.store, self.entering, self.lease, self.feed,
            self.roster, self.fanout, guarded,
        )  # fmt: skip
        roll_call = RollCall(
            self.registry, self.lease, lease=settings.lease, floor=min(SETTLE, settings.lease * 0.4)
        )
        self.recovery = Recovery(
            backend, self.store, self.lease, self.detector, self.sweep, self.feed, self.reconciler,
            roll_call, guarded,
            listening=lambda: self.bus.listening,
            tell_all=lambda message: send_to_all(message, self.gateway.connections),
        )  # fmt: skip
        backend.on_health = self.recovery.on_health
        self.heartbeats = Heartbeats(self.store, self.name)
        self.dispatch = Dispatch(
            settings, self.rules.policy, self.store, self.heartbeats, self.feed, self.entering,
            self.reconciler, self.roster, self.fanout, guarded,
            ready=self.ready, trouble=lambda: self.recovery.trouble,
        )  # fmt: skip
        self.gateway = Gateway(settings, self.dispatch)
        self.events = EventsState("unknown")
        self._checking = anyio.Lock()

    def name(self) -> str:
        """This node's present name; it changes when it was judged lost."""
        return self.lease.name

    def ready(self) -> tuple[bool, str]:
        """Whether clients are well served now, and a word on why not."""
        if not self.backend.healthy:
            return False, "Redis does not answer"
        if not self.bus.listening:
            return False, "not subscribed to Redis"
        if self._events_flow():
            return True, "ok"
        if self.listener.listening and self.events.kind == "unknown":
            return True, "ok; whether expired events are sent is not to be seen here, and none has come yet"
        return True, "ok, without expired events: the pacemaker and the sweep stand in"

    def report(self) -> NodeReport:
        """What it tells the fleet of itself now."""
        ready, status = self.ready()
        return NodeReport(
            version=__version__,
            connections=len(self.gateway.connections),
            members=self.roster.members,
            rooms=len(self.roster),
            joins=self.dispatch.joins,
            leading=self.pacemaker.leading,
            ready=ready,
            status=status,
            lateness=[
                (None if bound == float("inf") else bound * 1000, count)
                for bound, count in self.reaper.lateness.cumulative()
            ],
        )

    def _events_flow(self) -> bool:
        # A user who may not look whether events are switched on finds out by the first one.
        known = self.events.ok or (self.events.kind == "unknown" and self.listener.heard > 0)
        return self.settings.listener and known and self.listener.listening

    async def start(self, sock: socket.socket | None = None) -> None:
        """Start every step, in order; return once the node is open to clients (on `sock`, if given)."""
        tasks, settings = self._tasks, self.settings
        for needed in self.backend.loops:
            self._group.start_soon(needed)
        await self.recovery.note_run()
        await self.lease.register()
        channels = [self.rules.channel, *(channel.decode() for channel in self._wake_channels)]
        tasks.keep_running(lambda: self.bus.serve(channels))
        loops = [self.heartbeats.serve, self.reaper.serve, self.lease.serve, self.sweep.serve]
        loops += [self.rules.serve, Reporter(self.report, self.registry, self.name).serve]
        if settings.listener:
            loops.append(self.listener.serve)
        if settings.pacemaker:
            loops.append(self.pacemaker.serve)
        if self.webhooks.senders:
            await self.webhooks.begin()
            loops.append(self.webhooks.serve)
        for loop in loops:
            tasks.keep_running(loop)
        with anyio.move_on_after(SUBSCRIBED_AT_START):
            await self.bus.subscribed()
            if settings.listener:
                await self.listener.subscribed()
        await self.gateway.start(sock)

    async def stop(self) -> None:
        """See all clients out, put their members under the grace, and give up the lease."""
        # What waits for company goes out first: a heartbeat of a socket that is gone would not count.
        self._tasks.start_soon(self.heartbeats.flush)
        drain = self.settings.drain_seconds if self.gateway.connections else 0.0
        with anyio.move_on_after(drain + CLOSED_WITHIN):
            await self.gateway.stop(over_seconds=drain)
        with anyio.move_on_after(FLUSHED_WITHIN):
            await self.reconciler.dropping.all_done()
            try:
                await self.lease.deregister()
            except Unavailable:
                log.warning("not_deregistered", node=self.lease.name)
        self.fanout.stop()
        self._group.cancel_scope.cancel()

    # What the steps tell each other through the node.

    def _on_renamed(self, old: str) -> None:
        self.recovery.on_renamed(old)
        self.rules.changed()

    def _on_left(self, room_id: str, left: LeftRow, member: Member | None) -> None:
        if member is not None:
            self.recovery.remember(Entry(room_id, left.user_id), member.joined_at, left.reason, left.at)
        self.reconciler.on_left(room_id, left, member)

    def _is_loss(self, room_id: str, user_ids: set[str]) -> bool:
        """Whether a room that begins anew does so without a member whose socket is here."""
        missing = self.roster.users(room_id) - user_ids
        if not any(self.reconciler.should_be_there(room_id, user_id) for user_id in missing):
            return False
        self.recovery.on_data_lost(room_id)
        return True

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        shard = self._wake_channels.get(channel)
        if channel == self._rules_channel:
            self.rules.changed(payload.decode(errors="replace"))
        elif shard is None:
            self.feed.on_message(channel, payload)
        elif payload.isdigit() and len(payload) < 16:
            self.pacemaker.wake(shard, int(payload))

    def _on_events_gap(self, first: bool) -> None:
        self.sweep.now()
        if not first:
            self._tasks.start_soon(self._check_events_again)

    async def _check_events_again(self) -> None:
        try:
            async with self._checking:  # a Redis that hangs is asked once, however many gaps there are
                await self.check_events()
        except ReactorError as error:  # away again: the next subscription leads here once more
            log.warning("events_not_checked", reason=str(error))

    async def check_events(self) -> None:
        """See that events are sent by whatever server is there now. Raises ReactorError."""
        self.events = await self.backend.ensure_events()
        if self.events.line:
            log.warning("keyspace_events", found=self.events.line)

    def _on_bus_gap(self, first: bool) -> None:
        if not first:
            log.warning("diffs_resubscribed")
            self.recovery.on_gap()
            self.rules.changed()
            self.pacemaker.look_everywhere()

    def _on_bus_lost(self, reason: str) -> None:
        log.warning("diffs_lost", reason=reason)
        self.recovery.on_link_lost()
