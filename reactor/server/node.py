"""Builds the parts of a node, connects them, and starts and stops them in order.

Data flows one way: socket -> gateway -> protocol -> membership -> presence -> Redis -> expired event ->
listener -> reaper -> diff -> fan-out -> socket. Where one part has to call another that is created later, it
calls back through the node.
"""

import socket

import anyio
import structlog
from anyio.abc import TaskGroup

from reactor import __version__
from reactor.backend.clients import EventsState
from reactor.backend.interface import Backend, ChannelCallbacks
from reactor.backend.target import Target
from reactor.errors import ReactorError, Unavailable
from reactor.expiry.listener import Listener
from reactor.expiry.pacemaker import Pacemaker
from reactor.expiry.reaper import Reaper
from reactor.expiry.sweep import Sweep
from reactor.fleet.lease import Lease
from reactor.fleet.peers import FailureDetector
from reactor.fleet.recovery_barrier import RecoveryBarrier
from reactor.fleet.registry import Registry
from reactor.fleet.reports import NodeReport, Reporter
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import Fanout, broadcast
from reactor.gateway.roster import Roster
from reactor.gateway.server import Gateway
from reactor.membership.handler import RequestHandler
from reactor.membership.reconciler import Reconciler
from reactor.membership.recovery import Recovery
from reactor.presence.departures import Departures
from reactor.presence.heartbeats import Heartbeats
from reactor.presence.keys import SHARDS, Entry, wake_channel
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rows import LeftRow
from reactor.presence.rules import RoomRules
from reactor.presence.store import Store
from reactor.protocol.messages import Member, MembersReply
from reactor.settings import Settings
from reactor.tasks import GuardedTasks
from reactor.webhooks.service import Webhooks

log = structlog.get_logger()

SUBSCRIBE_TIMEOUT = 3.0
"""Seconds for which the start waits for the subscriptions; without them the pacemaker and the sweep do."""

SAME_SERVER_DELAY = 2.0
"""Seconds, at most, that other nodes get to notice that Redis lost data although it is the same server."""

CLOSE_TIMEOUT, DETACH_TIMEOUT = 2.0, 2.5
"""Seconds, after `drain_seconds`, for clients to answer the close and for Redis to take the last detaches.

With the default drain a node stops within 10 s, as long as many supervisors wait before they kill it. What is
not detached by then, other nodes detach when the lease has expired.
"""


class Node:
    """A running server. `serve_node` creates it; its parts are public, for tests and for embedding."""

    def __init__(self, settings: Settings, target: Target, tasks: TaskGroup, backend: Backend) -> None:
        self.settings, self.backend = settings, backend
        self._group = tasks
        self._tasks = guarded = GuardedTasks(tasks)
        namespace = settings.namespace

        # What is stored in Redis.
        self.store = Store(backend.runner, namespace)
        self.registry = Registry(backend.runner, namespace)
        self.rules = RoomRules(settings, backend.runner)
        self.departures = Departures(backend.client_of, namespace)
        self.heartbeats = Heartbeats(self.store, self.name)

        # Subscriptions.
        self.channels = backend.channels(
            ChannelCallbacks(self._on_message, self._on_channels_gap, self._on_channels_lost)
        )
        self._wake_channels = {wake_channel(namespace, shard).encode(): shard for shard in range(SHARDS)}
        self._rules_channel = self.rules.channel.encode()
        self.events = EventsState("unknown")
        self._checking_events = anyio.Lock()

        # The fleet.
        self.detector = FailureDetector(
            self.store,
            self.registry,
            lease=settings.lease,
            policy=self.rules.policy,
        )
        self.lease = Lease(
            self.store,
            self.registry,
            self.detector,
            lease=settings.lease,
            on_renamed=self._on_renamed,
            on_expiry_suspended=self._on_expiry_suspended,
        )
        self.reporter = Reporter(self.report, self.registry, self.name)
        self.webhooks = Webhooks(settings, backend.runner, self.registry, node=self.name)

        # Expiry.
        self.reaper = Reaper(self.store)
        self.listener = Listener(
            backend,
            namespace=namespace,
            database=target.db,
            reaper=self.reaper,
            on_gap=self._on_events_gap,
            led_elsewhere=lambda: self.pacemaker.led_elsewhere,
        )
        self.pacemaker = Pacemaker(
            self.store,
            self.registry,
            self.reaper,
            node=self.name,
            events_flow=self._events_flow,
            on_leading=self.listener.claim_deferred,
        )
        self.sweep = Sweep(
            self.store,
            self.registry,
            self.reaper,
            node=self.name,
            interval=settings.sweep_interval,
            detach_unregistered=self.detector.detach_unregistered,
        )

        # Rooms with a member on this node, and its connections.
        self.roster: Roster[Connection] = Roster()
        self.fanout = Fanout(settings, self.roster, self._snapshot)
        self.feed = RoomFeed(
            self.store,
            self.channels,
            self.departures,
            guarded,
            on_diff=self.fanout.send_diff,
            on_left=self._on_left,
            on_room_message=self.fanout.send_message,
            is_data_loss=self._is_data_loss,
        )
        self.reconciler = Reconciler(
            self.rules.policy,
            self.store,
            self.departures,
            self.lease,
            self.feed,
            self.roster,
            self.fanout,
            guarded,
        )

        # Recovery after Redis was away.
        barrier = RecoveryBarrier(
            self.registry,
            self.lease,
            lease=settings.lease,
            floor=min(SAME_SERVER_DELAY, settings.lease * 0.4),
        )
        self.recovery = Recovery(
            backend,
            self.store,
            self.lease,
            self.detector,
            self.sweep,
            self.feed,
            self.reconciler,
            barrier,
            guarded,
            listening=lambda: self.channels.listening,
            broadcast=lambda message: broadcast(message, self.gateway.connections),
        )
        backend.on_health = self.recovery.on_health

        # Requests of clients.
        self.handler = RequestHandler(
            settings,
            self.rules.policy,
            self.store,
            self.heartbeats,
            self.feed,
            self.reconciler,
            self.roster,
            self.fanout,
            guarded,
            ready=self.ready,
            degraded=lambda: self.recovery.degraded_message,
        )
        self.gateway = Gateway(settings, self.handler)

    def name(self) -> str:
        """Return this node's present name; it changes when the node is judged lost (see `Lease`)."""
        return self.lease.name

    def ready(self) -> tuple[bool, str]:
        """Return whether clients are served well now, and a sentence that says what is wrong if not."""
        if not self.backend.healthy:
            return False, "Redis does not answer"
        if not self.channels.listening:
            return False, "not subscribed to Redis"
        if self._events_flow():
            return True, "ok"
        if self.listener.listening and self.events.kind == "unknown":
            return True, (
                "ok; expired events are not confirmed: this Redis user may not read the setting, "
                "and no event has arrived yet"
            )
        return True, "ok; no expired events arrive, so expiry relies on the pacemaker and the sweep"

    def report(self) -> NodeReport:
        """Return this node's present status, for its report."""
        ready, status = self.ready()
        return NodeReport(
            version=__version__,
            connections=len(self.gateway.connections),
            members=self.roster.members,
            rooms=len(self.roster),
            joins=self.handler.joins,
            leading=self.pacemaker.leading,
            ready=ready,
            status=status,
            lateness=[
                (None if bound == float("inf") else bound * 1000, count)
                for bound, count in self.reaper.lateness.cumulative()
            ],
        )

    async def start(self, sock: socket.socket | None = None) -> None:
        """Start all parts; return once clients can connect (on `sock`, if given). Raises Unavailable."""
        settings = self.settings
        for loop in self.backend.loops:
            self._group.start_soon(loop)
        await self.recovery.note_run_id()
        await self.lease.register()
        channels = [self.rules.channel, *(channel.decode() for channel in self._wake_channels)]
        loops = [
            lambda: self.channels.serve(channels),
            self.heartbeats.serve,
            self.reaper.serve,
            self.lease.serve,
            self.recovery.serve,
            self.sweep.serve,
            self.rules.serve,
            self.reporter.serve,
        ]
        if settings.listener:
            loops.append(self.listener.serve)
        if settings.pacemaker:
            loops.append(self.pacemaker.serve)
        if self.webhooks.senders:
            await self.webhooks.begin()
            loops.append(self.webhooks.serve)
        for loop in loops:
            self._tasks.keep_running(loop)
        with anyio.move_on_after(SUBSCRIBE_TIMEOUT):
            await self.channels.subscribed()
            if settings.listener:
                await self.listener.subscribed()
        await self.gateway.start(sock)

    async def stop(self) -> None:
        """Close all connections, detach their members, and deregister."""
        # Heartbeats that wait for their batch go first: once its socket is closed, none counts any more.
        self._tasks.start_soon(self.heartbeats.flush)
        drain = self.settings.drain_seconds if self.gateway.connections else 0.0
        with anyio.move_on_after(drain + CLOSE_TIMEOUT):
            await self.gateway.stop(over_seconds=drain)
        with anyio.move_on_after(DETACH_TIMEOUT):
            await self.reconciler.detach_queue.join()
            try:
                await self.lease.deregister()
            except Unavailable:
                log.warning("not_deregistered", node=self.lease.name)
        self.fanout.stop()
        self._group.cancel_scope.cancel()

    async def check_events(self) -> None:
        """Make sure that the present server publishes expired events. Raises ReactorError."""
        self.events = await self.backend.ensure_events()
        if self.events.line:
            log.warning("expired_events", found=self.events.line)

    # Callbacks of the parts.

    def _events_flow(self) -> bool:
        # A user without the right to read the setting learns that events are on from the first one.
        known = self.events.ok or (self.events.kind == "unknown" and self.listener.received > 0)
        return self.settings.listener and known and self.listener.listening

    def _snapshot(self, room_id: str) -> MembersReply | None:
        return self.handler.snapshot(room_id)

    def _on_renamed(self, old: str) -> None:
        self.recovery.on_renamed(old)
        self.rules.changed()

    def _on_expiry_suspended(self, seconds: float) -> None:
        self.recovery.on_expiry_suspended(seconds)

    def _on_left(self, room_id: str, left: LeftRow, member: Member | None) -> None:
        if member is not None:
            self.recovery.remember(Entry(room_id, left.user_id), member.joined_at, left.reason, left.at)
        self.reconciler.on_left(room_id, left, member)

    def _is_data_loss(self, room_id: str, user_ids: set[str]) -> bool:
        """Return whether the room's new epoch lacks a member that has a connection here."""
        missing = self.roster.users(room_id) - user_ids
        if not any(self.reconciler.should_be_present(room_id, user_id) for user_id in missing):
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

    def _on_channels_gap(self, first: bool) -> None:
        if not first:
            log.warning("channels_resubscribed")
            self.recovery.on_gap()
            self.rules.changed()
            self.pacemaker.scan_all()

    def _on_channels_lost(self, reason: str) -> None:
        log.warning("channels_disconnected", reason=reason)
        self.recovery.on_subscription_lost()

    def _on_events_gap(self, first: bool) -> None:
        self.sweep.trigger()
        if not first:
            self._tasks.start_soon(self._check_events_again)

    async def _check_events_again(self) -> None:
        try:
            async with self._checking_events:  # one call at a time, however many gaps there are
                await self.check_events()
        except ReactorError as error:  # Redis is away again; the next subscription leads here once more
            log.warning("expired_events_not_checked", reason=str(error))
