"""Builds the parts of a node, connects them, and starts and stops them in order.

Data flows one way: socket -> gateway -> protocol -> membership -> presence -> Redis -> expired event ->
listener -> reaper -> diff -> fan-out -> socket. Where one part has to call another that is created later, it
calls back through the node.
"""

import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex

import anyio
import structlog
from anyio.abc import TaskGroup

from reactor import __version__
from reactor.backend.clients import EventsState, errors_as_unavailable
from reactor.backend.division import DIVIDED, DIVISION_FIX, division_of
from reactor.backend.interface import Backend, ChannelCallbacks, NotPermitted
from reactor.backend.target import Target
from reactor.errors import FormatMismatch, ReactorError, RedisMisconfigured, RedisUnreachable, Unavailable
from reactor.expiry.listener import Listener
from reactor.expiry.log_trimming import LogTrimmer
from reactor.expiry.pacemaker import Pacemaker
from reactor.expiry.sweep import Sweep
from reactor.fleet.lease import Lease
from reactor.fleet.peers import FailureDetector
from reactor.fleet.recovery_barrier import RecoveryBarrier
from reactor.fleet.registry import Registry
from reactor.fleet.reports import NodeReport, Reporter
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import broadcast
from reactor.gateway.roster import Roster
from reactor.gateway.server import Gateway
from reactor.membership.ban_check import BanCheck
from reactor.membership.people_watch import PeopleWatches
from reactor.membership.reconciler import Reconciler
from reactor.membership.recovery import Recovery
from reactor.membership.recovery_state import RecoveryState
from reactor.membership.roster_audit import RosterAudit
from reactor.membership.user_removal import UserRemoval
from reactor.presence.bans import Bans
from reactor.presence.departures import Departures
from reactor.presence.format import default_shards, open_format
from reactor.presence.heartbeats import Heartbeats
from reactor.presence.keys import Entry, Keyspace
from reactor.presence.known_bans import KnownBans
from reactor.presence.people import PeopleStore
from reactor.presence.people_feed import FollowedPerson
from reactor.presence.recent_diffs import RecentDiffs
from reactor.presence.revocations import Revocations, RevocationStore
from reactor.presence.rights import RightsMonitor, missing_rights, refused_right
from reactor.presence.rows import LeftRow
from reactor.presence.rules import RoomRules
from reactor.protocol.messages import Member
from reactor.protocol.room import RoomView
from reactor.server.eviction_watch import EvictionWatch
from reactor.server.full_watch import FullWatch
from reactor.server.loop_lag import LoopLag
from reactor.server.people_parts import People
from reactor.server.publications import Publications
from reactor.server.readiness import Readiness
from reactor.server.subscription_watch import SubscriptionWatch, subscription_problem
from reactor.settings import Settings
from reactor.tasks import GuardedTasks
from reactor.tracing.node_parts import Parts
from reactor.webhooks.service import Webhooks

log = structlog.get_logger()

SUBSCRIBE_TIMEOUT = 3.0
"""Seconds for which the start waits for the subscriptions; without them the pacemaker and the sweep do."""

MIN_CONNECT_DELAY, MAX_CONNECT_DELAY = 0.1, 2.0
"""Seconds between two attempts to use Redis at the start: doubled each time, the second half at random."""

LISTEN_AFTER = 2.0
"""Seconds after which a node listens although it does not know yet whether Redis answers."""

SAME_SERVER_DELAY = 2.0
"""Seconds, at most, that other nodes get to notice that Redis lost data although it is the same server."""

CLOSE_TIMEOUT, DETACH_TIMEOUT = 2.0, 2.5
"""Seconds, after `drain_seconds`, for clients to answer the close and for Redis to take the last detaches.

With the default drain a node stops within 10 s, as long as many supervisors wait before they kill it. What is
not detached by then, other nodes detach when the lease has expired.
"""


class Node:
    """A running server. `serve_node` creates it; its parts are public, for tests and for embedding."""

    def __init__(
        self, settings: Settings, target: Target, tasks: TaskGroup, backend: Backend, parts: Parts
    ) -> None:
        self.settings, self.backend = settings, backend
        self._group, self._target = tasks, target
        self._redis_missing = anyio.Event()
        self._tasks = guarded = GuardedTasks(tasks)
        namespace = settings.namespace

        self.on_secrets: list[Callable[[Settings], None]] = []
        """Called with the settings whose secrets are to be used from now on."""
        self.admin_connections_cut = Counter[str]()
        """Connections that its admin port closed, by reason."""

        # What is stored in Redis.
        self.keys = Keyspace(namespace, target.db)
        self.store = parts.store(backend.runner, self.keys)
        self.registry = Registry(backend.runner, self.keys)
        self.rules = RoomRules(settings, backend.runner, target.db)
        self.bans = Bans(backend.runner, self.keys)
        self.known_bans = KnownBans(
            self.bans.all, now=self.registry.now,
            on_banned=lambda ban: self.user_removal.on_banned(ban),  # noqa: PLW0108 - it is created later
        )  # fmt: skip
        self.ban_check = BanCheck(self.known_bans, self.registry.now)
        self.revocation_store = RevocationStore(backend.runner, self.keys)
        self.revocations = Revocations(
            self.revocation_store, kept=settings.revocation_kept, now=self.registry.now,
            on_revoked=lambda: self.gateway.close_revoked(),  # noqa: PLW0108 - it is created later
        )  # fmt: skip
        self.departures = Departures(backend.client_of, self.keys)
        self.heartbeats = Heartbeats(self.store, self.name)
        self.people_store = PeopleStore(backend.runner, self.keys)
        self.people = People(
            settings, target, self.people_store, guarded,
            leading=lambda: self.pacemaker.leading or not settings.pacemaker,
        )  # fmt: skip
        if settings.people:
            self.people.observe(self.store)

        # Subscriptions.
        self.publications = Publications(self.keys, self.rules, self.revocations, self.known_bans, guarded)
        self.channels = backend.channels(
            ChannelCallbacks(
                self.publications.on_message,
                self._on_channels_gap,
                self._on_channels_lost,
                self._on_channels_moved,
            )
        )
        self.events = EventsState("unknown")
        self._checking_events = anyio.Lock()

        # The fleet.
        self.detector = FailureDetector(
            self.store,
            self.registry,
            guarded,
            lease=settings.lease,
            policy=self.rules.policy,
        )
        self.detector.on_detached = self.people.index.trigger_audit
        self.lease = Lease(
            self.store,
            self.registry,
            self.detector,
            lease=settings.lease,
            on_renamed=self._on_renamed,
            on_expiry_suspended=self._on_expiry_suspended,
            on_clock_step=self._on_clock_step,
            on_format_mismatch=self._on_format_mismatch,
        )
        self.loop_lag = LoopLag()
        self.reporter = Reporter(self.report, self.registry, self.name)
        self.webhooks = Webhooks(settings, backend.runner, self.keys, self.registry, node=self.name)

        # Expiry.
        self.reaper = parts.reaper(self.store)
        self.listener = Listener(
            backend,
            keys=self.keys,
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
        self.log_trimmer = LogTrimmer(
            self.store,
            lambda: self.pacemaker.leading or not settings.pacemaker,
            max_bytes=settings.departures_bytes,
            max_age=settings.departures_age,
        )
        self.sweep = Sweep(
            self.store,
            self.registry,
            self.reaper,
            node=self.name,
            interval=settings.sweep_interval,
            detach_unregistered=self.detector.detach_unregistered,
            audit_people=self.people.audit,
            repair_bans=lambda: self.bans.repair(self.registry.now()),
        )

        # Rooms with a member on this node, and its connections.
        self.roster: Roster[Connection] = Roster()
        self.fanout = parts.fanout(settings, self.roster, self._room_view)
        self.feed = parts.feed(
            self.store,
            self.channels,
            self.departures,
            guarded,
            on_diff=self.fanout.send_diff,
            on_left=self._on_left,
            on_known=self.fanout.room_known,
            on_room_message=self.fanout.send_message,
            is_data_loss=self._is_data_loss,
            on_data_lost=self._on_data_lost,
            before_list=self._before_list,
            recent=RecentDiffs(settings.recent_diffs),
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
            max_per_user=settings.max_per_user,
            people=self.people.index if settings.people else None,
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
            repeat_bans=self._repeat_bans,
        )
        backend.on_health = self._on_redis_health
        self.rights = RightsMonitor(
            backend.runner, self.keys, cluster=target.kind == "cluster", on_change=self._on_rights
        )
        self.roster_audit = RosterAudit(
            self.store,
            self.reconciler,
            interval=settings.sweep_interval,
            node=self.name,
            healthy=lambda: self.recovery.state is RecoveryState.HEALTHY,
            on_loss=self.people.note_loss,
        )
        self.fullness = FullWatch(backend.runner)
        self.evictions = EvictionWatch(backend, on_evicted=self.roster_audit.trigger)

        # Requests of clients.
        people_feed = self.people.follow(self.channels, self._on_person) if settings.people else None
        self.handler = parts.handler(
            settings,
            self.rules.policy,
            self.store,
            self.heartbeats,
            self.feed,
            self.reconciler,
            self.roster,
            self.fanout,
            guarded,
            ready=lambda: self.readiness.status(),  # noqa: PLW0108 - it is created later
            degraded=lambda: self.recovery.degraded_message,
            bans=self.ban_check,
            on_full=self.fullness.note,
            people=people_feed,
        )
        self.gateway: Gateway = Gateway(
            settings, self.handler, self.revocations.objection, self.ban_check.refused_login
        )
        self.readiness: Readiness = Readiness(
            self.gateway,
            self.evictions,
            guarded,
            drain_seconds=settings.drain_seconds,
            unsubscribed=lambda: self.subscription_watch.sentence,
            recovering=lambda: self.recovery.takes_long,
            full=lambda: self.fullness.full,
            expiry_warning=self._expiry_warning,
            on_outage=self._on_outage,
        )
        self.subscription_watch = SubscriptionWatch(
            self.channels, on_outage=lambda sentence: self.readiness.note_outage("subscription", sentence)
        )
        self.user_removal = UserRemoval(
            self.store, self.roster, self.reconciler, self.handler.observers, self.known_bans,
            self.gateway.connections_of, guarded,
        )  # fmt: skip
        self.publications.connect(
            feed=self.feed,
            people=people_feed,
            pacemaker=self.pacemaker,
            roster_audit=self.roster_audit,
            user_removal=self.user_removal,
        )

    def name(self) -> str:
        """Return this node's present name; it changes when the node is judged lost (see `Lease`)."""
        return self.lease.name

    def use_secrets(self, settings: Settings) -> None:
        """Use the secrets of these settings from now on; what is open stays open."""
        self.gateway.use_secrets(settings)
        self.webhooks.use_secrets(settings)
        for use in self.on_secrets:
            use(settings)

    def report(self) -> NodeReport:
        """Return this node's present status, for its report."""
        ready, status = self.readiness.status()
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
            notices=self.gateway.notices,
        )

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Start all parts, as soon as Redis answers; return once clients can connect (on `sockets`, if any).

        Where that takes longer, this node listens meanwhile: it answers HTTP requests and refuses WebSockets.
        Raises RedisMisconfigured or RedisTooOld where waiting for Redis does not help, AddressInUse and
        SettingError.
        """
        settings = self.settings
        for loop in self.backend.loops:
            self._group.start_soon(loop)
        self._group.start_soon(self._keep_events_checked)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(self._listen_meanwhile, sockets)
            await self._wait_for_redis()
            waiting.cancel_scope.cancel()
        channels = self.publications.permanent_channels()
        loops = [
            lambda: self.channels.serve(channels),
            self.heartbeats.serve,
            self.reaper.serve,
            self.lease.serve,
            self.recovery.serve,
            self.sweep.serve,
            self.log_trimmer.serve,
            self.roster_audit.serve,
            self.rights.serve,
            self.evictions.serve,
            self.fullness.serve,
            self.rules.serve,
            self.revocations.serve,
            self.known_bans.serve,
            self.reporter.serve,
            self.loop_lag.serve,
            self.people.index.serve,
            self.people.index.confirm,
        ]
        if settings.people:
            loops.append(self.people.serve)
        if settings.listener:
            loops.append(self.listener.serve)
        if settings.pacemaker:
            loops.append(self.pacemaker.serve)
        if self.webhooks.senders:
            loops.append(self.webhooks.serve)
        for loop in loops:
            self._tasks.keep_running(loop)
        with anyio.move_on_after(SUBSCRIBE_TIMEOUT):
            await self.channels.subscribed()
            if settings.listener:
                await self.listener.subscribed()
                if self.events.kind == "unknown":
                    await self._let_a_key_expire()
        if self.gateway.listening:
            self.gateway.admit()
        else:
            await self.gateway.start(sockets)
        self.readiness.note_started()
        self._tasks.keep_running(self.subscription_watch.serve)

    async def _listen_meanwhile(self, sockets: Sequence[socket.socket]) -> None:
        # Not at once: a worker that is started again would take connections from the workers that serve.
        with anyio.move_on_after(LISTEN_AFTER):
            await self._redis_missing.wait()
        with anyio.CancelScope(shield=True):
            await self.gateway.start(sockets, admitting=False)

    async def _wait_for_redis(self) -> None:
        """Return once this node is registered in Redis; what is missing is logged whenever it changes."""
        delay = MIN_CONNECT_DELAY
        while True:
            try:
                await self.backend.connect()
                await self._register()
            except (RedisUnreachable, Unavailable) as error:
                reason = str(error).removeprefix(f"{self._target}: ").replace(str(self._target), "Redis")
                if self.readiness.note_awaited(f"waiting for Redis: {reason}"):
                    log.warning("redis_awaited", reason=str(error))
                self._redis_missing.set()
            else:
                return
            await anyio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
            delay = min(delay * 2, MAX_CONNECT_DELAY)

    async def _register(self) -> None:
        if self.settings.listener:
            await self.check_events()
        await self._demand_one_server()
        await self._demand_rights()  # those of the fleet's keys, which the next call needs
        found = await open_format(
            self.backend.runner, self.keys,
            shards=self.settings.shards, default=default_shards(self._target.kind),
        )  # fmt: skip
        self.registry.format_number = found.number
        await self._demand_rights()
        await self.recovery.note_run_id()
        await self.revocations.load()
        await self.known_bans.load()
        await self.lease.register()
        if self.webhooks.senders:
            await self.webhooks.begin()

    async def _demand_one_server(self) -> None:
        """Check, before anything is written there, that a plain address stands for one server."""
        if self._target.kind != "single":
            return
        probes = Keyspace(self.settings.namespace, shards=default_shards(self._target.kind))
        with errors_as_unavailable():
            found = await division_of(self.backend.client_of(probes.fleet), [*probes.prefixes, probes.fleet])
        if found:
            raise RedisMisconfigured(f"{self._target} {DIVIDED}: {found}; {DIVISION_FIX}.")

    async def _let_a_key_expire(self) -> None:
        """Make an event, by which this node learns that events arrive where it may not read the setting."""
        key = f"{self.keys.fleet}:doctor:{token_hex(8)}"
        with suppress(Unavailable), errors_as_unavailable():
            redis = self.backend.client_of(key)
            await redis.set(key, b"", px=1)
            await anyio.sleep(0.01)
            await redis.exists(key)  # Redis publishes the event when it finds the key expired

    async def _demand_rights(self) -> None:
        try:
            missing = await self.rights.check()
        except NotPermitted as error:
            sentence = refused_right(self._target, self.settings.namespace, error.reply)
            raise RedisMisconfigured(f"{self._target}: {sentence}.") from error
        if missing:
            raise RedisMisconfigured(f"{self._target}: {missing_rights(self._target, missing)}.")

    async def stop(self) -> None:
        """Close all connections, detach their members, and deregister."""
        if not self.lease.registered:  # it has not been serving: Redis was never there
            await self.gateway.stop()
            self._group.cancel_scope.cancel()
            return
        # Heartbeats that wait for their batch go first: once its socket is closed, none counts any more.
        self._tasks.start_soon(self.heartbeats.flush)
        drain = self.settings.drain_seconds if self.gateway.connections else 0.0
        with anyio.move_on_after(drain + CLOSE_TIMEOUT):
            await self.gateway.stop(over_seconds=drain)
        with anyio.move_on_after(DETACH_TIMEOUT):
            await self.reconciler.detach_queue.join()
            with suppress(Unavailable):  # the next node to start does it
                await self.people.index.drain_all()
            try:
                await self.lease.deregister()
            except Unavailable:
                log.warning("not_deregistered", node=self.lease.name)
        self.fanout.stop()
        self._group.cancel_scope.cancel()

    async def check_events(self) -> None:
        """Make sure that the present server publishes expired events. Raises ReactorError."""
        former, self.events = (
            self.events,
            await self.backend.ensure_events(manage=self.settings.manage_redis),
        )
        if self.events == former:
            return
        if self.events.line:
            if self.events.kind == "missing":
                log.warning("expired_events", found=self.events.line)
            else:
                log.info("expired_events", found=self.events.line)

    # Callbacks of the parts.

    def _on_redis_health(self, healthy: bool, reason: str) -> None:
        self.readiness.note_outage("commands", "" if healthy else reason)

    def _on_outage(self, over: bool, reason: str) -> None:
        self.recovery.on_health(over, reason)
        if over:
            self.people.on_data_lost()

    def _on_rights(self, missing: tuple[str, ...]) -> None:
        if not self.readiness.starting:
            self.readiness.note_outage("rights", missing_rights(self._target, missing) if missing else "")

    def _events_flow(self) -> bool:
        # A user without the right to read the setting learns that events are on from the first one.
        known = self.events.ok or (self.events.kind == "unknown" and self.listener.confirmed)
        return self.settings.listener and known and self.listener.listening

    def _events_problem(self) -> str:
        error = self.listener.problem
        if "NOPERM" in str(error):
            user = self._target.acl_user
            fix = f"ACL SETUSER {user} &{self.listener.channel}"
            return f" (the Redis user {user} lacks the right to their channel: {fix})"
        problem = subscription_problem(error)
        return f" ({problem})" if problem else ""

    def _expiry_warning(self) -> str:
        if self._events_flow():
            return ""
        if self.settings.listener and not self.listener.listening:
            return (
                f"not subscribed to expired events{self._events_problem()}, "
                "so expiry relies on the pacemaker and the sweep"
            )
        if self.listener.listening and self.events.kind == "unknown":
            return (
                "expired events are not confirmed: this Redis user may not read the setting, "
                "and no event has arrived yet"
            )
        return "no expired events arrive, so expiry relies on the pacemaker and the sweep"

    def _room_view(self, room_id: str) -> RoomView | None:
        view = self.feed.view(room_id)
        return None if view is None or view.waiting else view

    def _on_renamed(self, old: str) -> None:
        self.recovery.on_renamed(old)
        self.known_bans.changed()
        self.rules.changed()

    def _on_expiry_suspended(self, seconds: float) -> None:
        self.recovery.on_expiry_suspended(seconds)

    def _on_format_mismatch(self, error: FormatMismatch) -> None:
        log.warning("format_mismatch", reason=str(error))
        self._group.start_soon(self._end_with, error)

    @staticmethod
    async def _end_with(error: ReactorError) -> None:
        raise error

    def _on_clock_step(self, shard: int, step: int) -> None:
        log.warning("redis_clock_went_back", shard=shard, seconds=round(step / 1000, 1))
        self._tasks.start_soon(self._follow_clock, shard, step)

    async def _follow_clock(self, shard: int, step: int) -> None:
        margin = int(self.settings.lease * 1000)
        with suppress(Unavailable):  # deadlines that stay as they are come later, and no sooner
            await self.store.follow_clock(shard, step=step, margin=margin)
        self.pacemaker.scan_all()

    def _on_person(self, person: FollowedPerson) -> None:
        if isinstance(self.handler.people, PeopleWatches):
            self.handler.people.on_changed(person)

    def _on_left(self, room_id: str, left: LeftRow, member: Member | None) -> None:
        if member is not None:
            self.recovery.remember(Entry(room_id, left.user_id), member.joined_at, left.reason, left.at)
        self.reconciler.on_left(room_id, left, member)

    def _is_data_loss(self, room_id: str, user_ids: set[str]) -> bool:
        """Return whether the room's new epoch lacks a member that has a connection here."""
        missing = self.roster.users(room_id) - user_ids
        if not any(self.reconciler.should_be_present(room_id, user_id) for user_id in missing):
            return False
        self._on_data_lost(room_id)
        return True

    async def _repeat_bans(self) -> None:
        for change, age in self.known_bans.recent_changes():
            await self.bans.repeat(change, age=age)

    async def _before_list(self, room_id: str) -> None:
        if self.recovery.renews_epochs:
            await self.recovery.renew_epoch(room_id)

    def _on_data_lost(self, room_id: str) -> None:
        self.known_bans.changed()
        self.people.on_data_lost()
        self.recovery.on_data_lost(room_id)

    def _on_channels_gap(self, first: bool) -> None:
        self.revocations.changed()
        self.known_bans.changed()
        if not first:
            log.warning("channels_resubscribed")
            self.recovery.on_gap()
            self.subscription_watch.check()
            self.rules.changed()
            self.people.resync()
            self.pacemaker.scan_all()

    def _on_channels_moved(self, channels: frozenset[str]) -> None:
        self.feed.resync(channels)
        self.revocations.changed()
        self.known_bans.changed()
        self.people.resync(channels)
        self.rules.changed()
        self.pacemaker.scan_all()
        self.sweep.trigger()

    def _on_channels_lost(self, reason: str) -> None:
        log.warning("channels_disconnected", reason=reason)
        self.recovery.on_subscription_lost()

    def _on_events_gap(self, first: bool) -> None:
        self.sweep.trigger()
        if not first:
            self._tasks.start_soon(self._check_events_again)

    async def _keep_events_checked(self) -> None:
        """Check the events regularly: another program may change the setting of a server that goes on."""
        while self.settings.listener and self.settings.sweep_interval:
            await anyio.sleep(self.settings.sweep_interval)
            if self.readiness.status()[0]:  # an outage has a check of its own behind it
                await self._check_events_again()

    async def _check_events_again(self) -> None:
        try:
            async with self._checking_events:  # one call at a time, however many gaps there are
                await self.check_events()
        except ReactorError as error:  # Redis is away again; the next subscription leads here once more
            log.warning("expired_events_not_checked", reason=str(error))
