"""Turns what a client asks for into calls of the store, and their results into replies.

Heartbeats and changes of `away` go into the node's batches and cost no task. Every other request runs in a
task of its own, a few of each connection at a time. The session defers what a client asks about a room until
its join or leave is answered, so requests keep their order. What a request costs is charged to its client.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace

from reactor.backend.interface import RedisFull
from reactor.errors import Unavailable
from reactor.gateway.connection import Connection
from reactor.gateway.cost import (
    DIFF_READ,
    KIB_PATCHED,
    KIB_RECEIVED,
    LARGE_MESSAGE,
    CostLimiter,
    change_price,
    price_of,
    time_price,
)
from reactor.gateway.fanout import Fanout
from reactor.gateway.roster import Roster
from reactor.log import RateLimitedLog
from reactor.membership.ban_check import BanCheck, banned_error
from reactor.membership.closed_sockets import ClosedSockets
from reactor.membership.observers import Observers
from reactor.membership.paced_heartbeats import PacedHeartbeats
from reactor.membership.paid_lists import PaidLists
from reactor.membership.pending import PendingAck, PendingAway, away_reply
from reactor.membership.people_watch import NoPeople, PeopleWatches
from reactor.membership.questions import RoomQuestions
from reactor.membership.reconciler import Reconciler
from reactor.membership.refusals import (
    ENDED,
    FULL,
    INTERNAL,
    NO_AUTH,
    NO_MESSAGES,
    REFUSED,
    TOO_EXPENSIVE,
    TOO_MANY_HELD,
    UNAVAILABLE,
)
from reactor.membership.request_queue import CONNECTION_BYTES, RequestQueue
from reactor.presence.attachment import Attachment, AttachmentEvent
from reactor.presence.away import AwayChanges
from reactor.presence.bans import Ban
from reactor.presence.heartbeats import Heartbeats
from reactor.presence.keys import Entry
from reactor.presence.people_feed import PeopleFeed
from reactor.presence.replies import Joined, JoinRefused, Updated
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rows import LeftRow
from reactor.presence.store import Store
from reactor.protocol import intents, messages
from reactor.protocol.membership import Membership
from reactor.protocol.reasons import BANNED
from reactor.protocol.requests import Request
from reactor.protocol.room import RoomView
from reactor.settings import RoomPolicy, Settings
from reactor.tasks import Spawner

log = structlog.get_logger()

_JOINED_BYTES = 60
"""Of a diff with one new member, beside its user's id, its name and its data."""


class RequestHandler:
    """The gateway's handler: one method for each kind of intent.

    policy: a room's present settings. ready: whether clients are well served, and a word on why not.
    degraded: the message for a client that connects while Redis is away, or None. bans: who may not watch or
    ask. on_full: called when Redis refuses to add data. people: None where their index is off.
    """

    _make_people_watches: Callable[..., PeopleWatches] = PeopleWatches

    def __init__(
        self, settings: Settings, policy: Callable[[str], RoomPolicy], store: Store,
        heartbeats: Heartbeats, feed: RoomFeed, reconciler: Reconciler,
        roster: Roster[Connection], fanout: Fanout, tasks: Spawner, *,
        ready: Callable[[], tuple[bool, str]], degraded: Callable[[], Any], bans: BanCheck,
        on_full: Callable[[RedisFull], None],
        people: PeopleFeed | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._policy = settings, policy
        self._store, self._heartbeats = store, heartbeats
        self._feed, self._reconciler = feed, reconciler
        self._roster, self._fanout, self._tasks = roster, fanout, tasks
        self.ready, self._degraded, self._on_full = ready, degraded, on_full
        self._away = AwayChanges(store, tasks)
        self._closed_sockets = ClosedSockets(self._detach_closed, reconciler.detach_queue, tasks)
        max_held = settings.max_rooms + settings.message_burst
        max_bytes = CONNECTION_BYTES + settings.max_rooms * settings.max_data
        self._requests = RequestQueue(
            self._carry_out, self._admit, tasks, max_held=max_held, max_bytes=max_bytes
        )
        self.costs = CostLimiter(settings.cost_per_second, settings.cost_burst)
        self._paced = PacedHeartbeats(self.costs, self._refresh_many)
        self._clock = asyncio.get_running_loop().time
        self._lists = PaidLists(fanout.snapshots, self.costs, self._clock)
        self.observers = Observers(
            feed, roster, fanout, self._lists, self._charge, bans, max_watched=settings.max_watched
        )
        self._log = RateLimitedLog()
        self.joins = 0
        self.refused_banned = 0
        self.returns = 0
        self._heartbeat_ms = round(settings.heartbeat_interval * 1000)
        self._limits = messages.MessageLimits(settings.max_message, settings.max_data, settings.max_id)
        self.people = (
            self._make_people_watches(settings, people, charge=self._charge)
            if people is not None
            else NoPeople()
        )
        self.questions = RoomQuestions(
            store, feed, self._lists, self._charge, bans, max_members_view=settings.max_members_view
        )
        self._methods: dict[type, Callable[[Connection, Any], Any]] = {
            intents.Join: self._join,
            intents.Leave: self._leave,
            intents.UpdateMember: self._update,
            intents.ListMembers: self.questions.list_members,
            intents.CountMembers: self.questions.count,
            intents.AskPresent: self.questions.is_present,
            intents.SendMessage: self._send,
            intents.WatchRooms: self.observers.watch,
            intents.UnwatchRooms: self.observers.unwatch,
            intents.FollowPeople: self.people.watch,
            intents.UnfollowPeople: self.people.unwatch,
        }

    # Called by the gateway.

    def opened(self, connection: Connection) -> None:
        """Take note of a new connection; during an outage it is notified, as the others were."""
        self._reconciler.assign_id(connection)
        if (degraded := self._degraded()) is not None:
            connection.send(degraded)

    def intent(self, connection: Connection, intent: intents.Intent) -> None:
        """Begin to act on what a client asks for."""
        if type(intent) is intents.Refresh:
            self._refresh(connection, intent)
        elif type(intent) is intents.Authenticate:
            connection.send(messages.ErrorMessage("auth_disabled", NO_AUTH, intent.id))
        elif type(intent) is intents.SetAway:
            self._set_away(connection, intent)
        elif type(intent) is intents.Leave:
            # Not in the task, since the member may depart, or the socket close, before that begins.
            intent.membership.attachment.advance(AttachmentEvent.LEAVE_SUBMITTED)
            self._requests.add(connection, intent)
        elif self._requests.has_place(connection, intent):
            self._requests.add(connection, intent)
        else:
            self._refuse_request(connection, intent, "too_many_pending", TOO_MANY_HELD)

    def admits(self, connection: Connection, payload: bytes) -> bool:
        """Charge a message by its size before it is decoded, or refuse it where too much was spent."""
        now = self._clock()
        if not self.costs.delay(connection, now) or connection.codec.is_never_refused(payload):
            self.costs.charge(connection, _price_of_size(payload), now)
            return True
        wait = self.costs.wait(connection, now)
        self._log_refusal(connection, now)
        request_id, room_id = connection.codec.identify(payload)
        retry_after = round(wait * 1000) + 1
        connection.send(
            messages.ErrorMessage("too_many_requests", TOO_EXPENSIVE, request_id, room_id, retry_after)
        )
        return False

    def charge_reading(self, connection: Connection, payload: bytes, seconds: float) -> None:
        """Charge what it took to decode a message, beyond what was charged for its size."""
        units = time_price(seconds) - _price_of_size(payload)
        if units > 0:
            self._charge(connection, units)

    def admits_token(self, connection: Connection, intent: intents.Authenticate) -> bool:
        """Charge the check of a further token, or refuse it where too much was spent."""
        return self._admit(connection, intent)

    def drained(self, connection: Connection) -> None:
        """Continue with a connection that reads again."""
        self._fanout.catch_up(connection)
        self.people.catch_up(connection)
        self._requests.resume(connection)

    def closed(self, connection: Connection) -> None:
        """Detach a closed connection from its members, which begin their disconnect grace."""
        self._fanout.forget(connection)
        self._paced.forget(connection)
        self.observers.closed(connection)
        self.people.forget(connection)
        leaves = self._requests.close(connection)
        attachments = (membership.attachment for membership in connection.session.close())
        # Where a join or a leave is on its way, the answer to it leads to the same.
        self._closed_sockets.add(connection, [one for one in attachments if one is not None])
        for leave in leaves:
            self._tasks.start_soon(self._carry_out, connection, leave)

    def _detach_closed(
        self, connection: Connection, attachment: Attachment, since: float | None = None
    ) -> None:
        room_id = attachment.entry.room_id
        self._away.flush(attachment)  # which grace begins depends on it
        self._reconciler.detach(attachment, AttachmentEvent.SOCKET_CLOSED)
        self._roster.remove(room_id, connection)
        self._feed.unfollow(room_id)
        self._reconciler.detach_queue.add(attachment, closing=connection.session.closing, since=since)

    # The intents.

    def _refresh(self, connection: Connection, intent: intents.Refresh) -> None:
        if not intent.memberships:
            connection.send(messages.HeartbeatAck(self._reconciler.now(), intent.room_id, intent.id))
            return
        if len(intent.memberships) > 1:
            self._paced.add(connection, intent)
            return
        ack = PendingAck(connection, intent, self._reconciler)
        self._heartbeats.add(intent.memberships[0].attachment, ack)

    def _refresh_many(
        self, connection: Connection, intent: intents.Refresh, others: list[messages.RequestId | None]
    ) -> None:
        """Renew several rooms. others: the ids of heartbeats that are answered with this one."""
        if not intent.memberships:
            for request_id in (intent.id, *others):
                connection.send(messages.HeartbeatAck(self._reconciler.now(), intent.room_id, request_id))
            return
        self._charge(connection, price_of(intent))
        ack = PendingAck(connection, intent, self._reconciler, others)
        for membership in intent.memberships:
            self._heartbeats.add(membership.attachment, ack)

    def _charge(self, connection: Connection, units: float) -> None:
        self.costs.charge(connection, units, self._clock())

    def _charge_change(self, connection: Connection, room_id: str, diff: bytes) -> None:
        """Charge a change that this connection made to the members who are notified of it.

        Observers cost nothing here: they are sent as much as their node has time for, and no member can be
        made to pay by those who watch it.
        """
        view = self._feed.view(room_id)
        if diff and view is not None:
            self._charge(connection, change_price(len(diff), view.connections))

    def _admit(self, connection: Connection, intent: Any) -> bool:
        """Charge a request, or refuse it where too much was spent. Leaving a room is always possible."""
        now = self._clock()
        wait = 0.0 if type(intent) is intents.Leave else self.costs.wait(connection, now)
        if not wait:
            self.costs.charge(connection, price_of(intent), now)
            return True
        self._log_refusal(connection, now)
        self._refuse_request(connection, intent, "too_many_requests", TOO_EXPENSIVE, retry_after=wait)
        return False

    def _log_refusal(self, connection: Connection, now: float) -> None:
        address = connection.address.name if connection.address is not None else ""
        setting = "cost_per_second, cost_burst"
        self._log.warning("cost_limit_reached", now, address=address, setting=setting)

    def _refuse_request(
        self, connection: Connection, intent: Any, code: str, sentence: str, *, retry_after: float = 0.0
    ) -> None:
        """Answer a request that is not begun. retry_after: seconds."""
        room_id, wait = _room_of(intent), round(retry_after * 1000) + 1 if retry_after else None
        connection.send(messages.ErrorMessage(code, sentence, intent.id, room_id, wait))
        if type(intent) is intents.Join:
            self._replay_deferred(connection, connection.session.refused(intent.room_id))
        elif type(intent) is intents.WatchRooms:
            connection.session.watched.difference_update(intent.added)

    async def _carry_out(self, connection: Connection, intent: Any) -> None:
        try:
            await self._methods[type(intent)](connection, intent)
        except Unavailable as error:
            sentence = UNAVAILABLE
            if isinstance(error, RedisFull):
                self._on_full(error)
                sentence = FULL
            connection.send(messages.ErrorMessage("unavailable", sentence, intent.id, _room_of(intent)))
        except Exception:
            log.exception("request_failed", socket_id=connection.socket_id, intent=type(intent).__name__)
            connection.send(messages.ErrorMessage("internal", INTERNAL, intent.id, _room_of(intent)))

    async def _join(self, connection: Connection, intent: intents.Join) -> None:
        membership = connection.session.rooms.get(intent.room_id)  # None where the socket was closed already
        while membership is not None and not await self._try_join(connection, membership, intent):
            pass

    async def _try_join(self, connection: Connection, membership: Membership, intent: intents.Join) -> bool:
        """Send a join to Redis and answer it; False where it has to be sent again under another id."""
        session, room_id = connection.session, intent.room_id
        former: Attachment | None = membership.attachment
        rejoin = former is not None and former.live
        if rejoin:
            intent = replace(intent, former=None)  # nothing was lost: the connection is in the room
        attachment = former if former is not None and rejoin else self._new_attachment(connection, intent)
        try:
            reply, view = await self._reconciler.follow_and_register(
                connection,
                attachment,
                intent,
                self._lists.payer(connection),
                followed=partial(self._prepare_list, connection, intent) if connection.codec.binary else None,
            )
        except Exception:
            self._reconciler.abort_join(connection, attachment)
            self._replay_deferred(connection, session.refused(room_id))
            raise
        if session.closed:
            if room_id in session.departing and isinstance(reply, Joined):
                await self._leave_closed(attachment, view)
            self._feed.unfollow(room_id)
            self._reconciler.detach_queue.add(attachment, closing=session.closing)
            return True
        if rejoin and not attachment.live and attachment.detach_requested:
            # Its former membership ended while the re-join was on the way: whatever Redis answered to this
            # id, it has detached it since, or will.
            self._feed.unfollow(room_id)
            return False
        if isinstance(reply, JoinRefused) or intent.user_id not in view.members:
            self._feed.unfollow(room_id)
            if isinstance(reply, Joined) and intent.former is not None:
                # It was removed at once. Sent again, the join learns why.
                self._reconciler.abort_join(connection, attachment)
                return False
            self._refuse(connection, attachment, intent, reply)
            return True
        if rejoin and attachment.live:
            self._feed.unfollow(room_id)  # the room is followed since the first join
        elif rejoin:
            # Its former membership ended while the re-join was on the way.
            ended, attachment = attachment, self._new_attachment(connection, intent)
            attachment.continue_from(ended)
        membership.attachment = attachment
        self._complete_join(connection, attachment, intent, reply, view)
        return True

    def _new_attachment(self, connection: Connection, intent: intents.Join) -> Attachment:
        entry, terms = Entry(intent.room_id, intent.user_id), self._policy(intent.room_id)
        return Attachment(entry, connection.socket_id, terms, *self._store.keys.place_of(entry))

    def _complete_join(
        self, connection: Connection, attachment: Attachment, intent: intents.Join,
        reply: Joined, view: RoomView,
    ) -> None:  # fmt: skip
        room_id, terms = intent.room_id, attachment.terms
        # A member is away on all its connections.
        self._reconciler.attach(attachment, away=view.members[intent.user_id].away)
        self.joins += not reply.resumed
        self.returns += reply.resumed
        if self._roster.add(room_id, intent.user_id, connection, intent.view):
            self._fanout.discard_pending(room_id)
        shown = self._fanout.view_for(room_id, intent.view, len(view.members))
        heartbeat_ms = min(self._heartbeat_ms, terms.ttl // 3)
        answer = messages.RoomJoined(
            room_id=room_id,
            user_id=intent.user_id,
            socket_id=attachment.connection,
            ttl=terms.ttl,
            heartbeat_interval=heartbeat_ms,
            resumed=reply.resumed,
            epoch=view.epoch,
            version=view.version,
            count=len(view.members),
            view=shown,
            joined_at=attachment.joined_at,
            limits=self._limits,
            id=intent.id,
        )
        price = self._send_joined(connection, answer, intent, view)
        # Joins at the same time share a diff: each is charged as if it were alone in it.
        changed = len(reply.diff) if reply.resumed else _joined_size(intent)
        price += change_price(changed, view.connections)
        self.costs.charge(connection, price, self._clock())
        connection.session.rooms[room_id].heartbeat_interval = heartbeat_ms / 1000
        connection.expect_heartbeats(heartbeat_ms / 1000)
        if deferred := connection.session.joined(room_id):
            self._replay_deferred(connection, deferred)

    async def _prepare_list(self, connection: Connection, join: intents.Join, view: RoomView) -> None:
        """Prepare the list that may answer a join, unless the diffs since a former one will."""
        if not self._fanout.is_listed(join.room_id, join.view, len(view.members)):
            return
        if join.former is not None:
            serves = partial(self._lists.may_send_diff, connection, view)
            since = self._feed.recent.since(view, join.former, serves=serves, counts=False)
            self._charge(connection, self._feed.recent.read * DIFF_READ)
            if since is not None:
                return
        await self._lists.prepare(connection, view)

    def _send_joined(
        self, connection: Connection, answer: messages.RoomJoined, join: intents.Join, view: RoomView
    ) -> float:
        """Answer a join with the diffs since the list that the client has, or with the list, or neither.

        Returns the units that it costs.
        """
        whole = answer.view == "members"
        since = None
        if whole and join.former is not None:
            # Also where more has changed while the join was on the way, and no list is prepared.
            whole_is_slow = not self._lists.is_prepared(connection, view)
            since = self._feed.recent.since(
                view,
                join.former,
                serves=lambda diff: whole_is_slow or self._lists.may_send_diff(connection, view, diff),
            )
            self._charge(connection, self._feed.recent.read * DIFF_READ)
        if since is None:
            return self._lists.send(connection, answer, view, whole=whole)
        return self._lists.send_diffs(connection, answer, since)

    def _refuse(
        self,
        connection: Connection,
        attachment: Attachment,
        intent: intents.Join,
        reply: Joined | JoinRefused,
    ) -> None:
        """Answer a join that Redis did not take, or whose member has departed since."""
        departure = None
        if isinstance(reply, JoinRefused):
            attachment.advance(AttachmentEvent.REFUSED)
            code, departure = reply.reason, reply.departure
        else:
            self._reconciler.abort_join(connection, attachment)
            code = "departed"
        if isinstance(reply, JoinRefused) and reply.ban is not None:
            self._refuse_banned(connection, intent, reply.ban, reply.now)
        else:
            connection.send(self._refusal(intent, code, departure))
        self._replay_deferred(connection, connection.session.refused(intent.room_id))

    def _refuse_banned(self, connection: Connection, intent: intents.Join, ban: Ban, now: int) -> None:
        self.refused_banned += 1
        if intent.former is None:
            connection.send(banned_error(ban, now, request_id=intent.id, room_id=intent.room_id))
            return
        notice = self._reconciler.notice_of(intent.room_id, BANNED, ban.message)
        at, until = ban.at or now, ban.until or None
        connection.send(messages.RoomForceLeave(intent.room_id, notice, BANNED, at, intent.id, until))

    def _refusal(self, intent: intents.Join, reason: str, departure: LeftRow | None) -> messages.Message:
        room_id = intent.room_id
        if departure is None:
            return messages.ErrorMessage(*REFUSED[reason], intent.id, room_id)
        notice = self._reconciler.notice_of(room_id, departure.reason, departure.message)
        return messages.RoomForceLeave(room_id, notice, departure.reason, departure.at, intent.id)

    async def _leave(self, connection: Connection, intent: intents.Leave) -> None:
        membership, session = intent.membership, connection.session
        attachment: Attachment = membership.attachment
        room_id = membership.room_id
        view = self._feed.view(room_id)
        try:
            await self._store.leave(
                attachment.entry,
                attachment.connection,
                known=self._feed.last_known(*attachment.entry),
                known_epoch=view.epoch if view is not None else "",
            )
        except Unavailable:
            if session.closed:
                self._detach_closed(connection, attachment)
                return
            # It is in the roster until Redis has taken the leave, so it has missed no diff. Where it is not,
            # the member was seen to depart, so it has left.
            if connection in self._roster.connections_of(room_id, membership.user_id):
                self._reconciler.resume_after_leave(attachment)
                self._replay_deferred(connection, session.refused(room_id))
                raise
        self._roster.remove(room_id, connection)
        self._reconciler.detach(attachment, AttachmentEvent.LEFT)
        self._feed.unfollow(room_id)
        if attachment.may_be_taken_late:
            self._reconciler.abort_join(connection, attachment)
        connection.send(messages.RoomLeft(room_id, intent.id))
        self._replay_deferred(connection, session.left(room_id))

    async def _leave_closed(self, attachment: Attachment, view: RoomView) -> None:
        """Leave the room for a client that left it and closed its connection before its join was answered."""
        with suppress(Unavailable):  # The grace of a lost connection applies.
            await self._store.leave(
                attachment.entry,
                attachment.connection,
                known=self._feed.last_known(*attachment.entry),
                known_epoch=view.epoch,
            )

    async def _update(self, connection: Connection, intent: intents.UpdateMember) -> None:
        attachment: Attachment = intent.membership.attachment
        room_id = attachment.entry.room_id
        patch = intent.patch_json or b""
        updated = await self._store.update(
            attachment.entry,
            username=intent.username or "",
            data=intent.data_json or b"",
            patch=patch,
            max_data=self._settings.max_data,
        )
        if patch:  # whether it changed something or not
            self._charge(connection, KIB_PATCHED * (len(patch) + updated.read) / 1024)
        if isinstance(updated, Updated):
            connection.send(messages.RoomUpdated(room_id, updated.version, intent.id))
            self._charge_change(connection, room_id, updated.diff)
            self._feed.offer(room_id, updated.diff)
        elif updated.reason == "too_big":
            sentence = (
                f"data would take {updated.size} bytes as JSON, the limit is {self._settings.max_data}: "
                "remove fields, by null"
            )
            connection.send(messages.ErrorMessage("data_too_big", sentence, intent.id, room_id))
        else:
            self._refuse_absent(connection, attachment, intent.id)

    async def _send(self, connection: Connection, intent: intents.SendMessage) -> None:
        attachment: Attachment = intent.membership.attachment
        room_id = attachment.entry.room_id
        if not self._settings.member_messages:
            connection.send(messages.ErrorMessage("forbidden", NO_MESSAGES, intent.id, room_id))
            return
        view = self._feed.view(room_id)
        if view is not None:
            self._charge(connection, change_price(len(intent.data_json), _receivers(view, intent.to)))
        if await self._store.publish_member_message(
            attachment.entry, connection.socket_id, intent.data_json, intent.to
        ):
            connection.send(messages.RoomSent(room_id, intent.id))
        else:
            self._refuse_absent(connection, attachment, intent.id)

    def _refuse_absent(
        self, connection: Connection, attachment: Attachment, request_id: messages.RequestId | None
    ) -> None:
        """Answer a request of a member whom Redis does not have, and register it again or learn why."""
        self._reconciler.reregister(attachment)
        room_id = attachment.entry.room_id
        connection.send(messages.ErrorMessage("not_joined", ENDED, request_id, room_id))

    def _set_away(self, connection: Connection, intent: intents.SetAway) -> None:
        if not intent.memberships:
            connection.send(away_reply(intent))
            return
        if not self._admit(connection, intent):
            return
        self._requests.begin_barrier(connection)
        change = PendingAway(
            connection, intent, on_written=self._away_written, on_answered=self._away_answered
        )
        for membership in intent.memberships:
            membership.attachment.note_away(intent.away)
            self._away.add(membership.attachment, change)

    def _away_written(self, connection: Connection, attachment: Attachment, diff: bytes | None) -> None:
        """Note that Redis has a connection's change of `away`; diff: None where it is not in the room."""
        room_id = attachment.entry.room_id
        if diff is None:
            self._reconciler.reregister(attachment)
        else:
            self._charge_change(connection, room_id, diff)
            self._feed.offer(room_id, diff)
            self._reconciler.note_away(attachment.entry, diff)

    def _away_answered(self, connection: Connection, answer: messages.ServerMessage) -> None:
        """Answer a request to go away, or to be back."""
        connection.send(answer)
        self._requests.end_barrier(connection)

    def _replay_deferred(self, connection: Connection, requests: Iterable[Request]) -> None:
        """Act on the requests that the session had deferred."""
        for request in requests:
            try:
                intent = connection.session.receive(request)
                if intent is not None:
                    self.intent(connection, intent)
            except messages.ProtocolError as error:
                connection.send(error.reply())


def _price_of_size(payload: bytes) -> float:
    return KIB_RECEIVED * len(payload) / 1024 if len(payload) > LARGE_MESSAGE else 0.0


def _receivers(view: RoomView, to: Collection[str] | None) -> int:
    """Return how many connections receive a message: of the users in `to`, or of all members."""
    if to is None:
        return view.connections
    found = [view.members.get(user) for user in to]
    return sum(member.connections if member is not None else 1 for member in found)


def _joined_size(intent: intents.Join) -> int:
    """Return the bytes of a diff with this new member, about."""
    user_id = len(intent.user_id.encode())
    username = len(intent.username.encode()) or user_id
    return _JOINED_BYTES + user_id + username + len(intent.data_json or b"")


def _room_of(intent: Any) -> str | None:
    """Return the room that an intent is about, where it is about one."""
    membership = getattr(intent, "membership", None)
    room_id: str | None = membership.room_id if membership else getattr(intent, "room_id", None)
    return room_id
