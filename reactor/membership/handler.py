"""Turns what a client asks for into calls of the store, and their results into replies.

Heartbeats go into the node's batch and cost no task. Every other request runs in a task of its own. The
session defers what a client asks about a room until its join or leave is answered, so requests keep their
order.
"""

from collections.abc import Callable, Iterable
from typing import Any

import structlog
from msgspec import UNSET

from reactor.errors import Unavailable
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import Fanout
from reactor.gateway.roster import Roster
from reactor.gateway.snapshots import Snapshots
from reactor.membership.reconciler import Reconciler
from reactor.presence.attachment import Attachment, AttachmentEvent
from reactor.presence.heartbeats import Heartbeats
from reactor.presence.keys import Entry
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Joined, JoinRefused, Position, Store
from reactor.protocol import intents, messages
from reactor.protocol.membership import Membership
from reactor.protocol.requests import Request
from reactor.protocol.room import RoomView
from reactor.settings import RoomPolicy, Settings
from reactor.tasks import Spawner

log = structlog.get_logger()

_UNAVAILABLE = "Redis does not answer: try again in a moment, this connection stays open"
_INTERNAL = "the server failed on this request; others are served"
_NO_AUTH = "this server asks for no token: leave the auth message out"
_ENDED = "this membership has ended: join again"
_REFUSED = {
    "full": ("room_full", "the room has as many members as it may have: try again after a member has left"),
    "departed": ("not_joined", _ENDED),
}
_TOO_MANY_HEARTBEATS = (
    "heartbeats of this member wait for Redis, which does not answer: they count, this one adds nothing"
)
_ANSWERED = 1 << 30  # more rooms than a heartbeat can have: `PendingAck` never counts down to 0 from here


class RequestHandler:
    """The gateway's handler: one method for each kind of intent.

    policy: a room's present settings. ready: whether clients are well served, and a word on why not.
    degraded: the message for a client that connects while Redis is away, or None.
    """

    def __init__(
        self, settings: Settings, policy: Callable[[str], RoomPolicy], store: Store,
        heartbeats: Heartbeats, feed: RoomFeed, reconciler: Reconciler,
        roster: Roster[Connection], fanout: Fanout, tasks: Spawner, *,
        ready: Callable[[], tuple[bool, str]], degraded: Callable[[], Any],
    ) -> None:  # fmt: skip
        self._settings, self._policy = settings, policy
        self._store, self._heartbeats = store, heartbeats
        self._feed, self._reconciler = feed, reconciler
        self._roster, self._fanout, self._tasks = roster, fanout, tasks
        self.ready, self._degraded = ready, degraded
        self._snapshots = Snapshots()
        self.joins = 0
        self._heartbeat_ms = round(settings.heartbeat_interval * 1000)
        self._methods: dict[type, Callable[[Connection, Any], Any]] = {
            intents.Join: self._join,
            intents.Leave: self._leave,
            intents.UpdateMember: self._update,
            intents.SetAway: self._set_away,
            intents.ListMembers: self._list,
            intents.CountMembers: self._count,
            intents.AskPresent: self._is_present,
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
            connection.send(messages.ErrorMessage("auth_disabled", _NO_AUTH, intent.id))
        else:
            if type(intent) is intents.Leave:
                # Not in the task, since the member may depart, or the socket close, before that begins.
                intent.membership.attachment.advance(AttachmentEvent.LEAVE_SUBMITTED)
            self._tasks.start_soon(self._run, connection, intent)

    def closed(self, connection: Connection) -> None:
        """Detach a closed connection from its members, which begin their disconnect grace."""
        for membership in connection.session.close():
            attachment = membership.attachment
            # Where a join or a leave is on its way, the answer to it leads to the same.
            if attachment is not None and attachment.live:
                self._detach_closed(connection, attachment)

    def _detach_closed(self, connection: Connection, attachment: Attachment) -> None:
        room_id = attachment.entry.room_id
        self._reconciler.detach(attachment, AttachmentEvent.SOCKET_CLOSED)
        self._roster.remove(room_id, connection)
        self._feed.unfollow(room_id)
        self._reconciler.detach_queue.add(attachment)

    # The intents.

    def _refresh(self, connection: Connection, intent: intents.Refresh) -> None:
        if not intent.memberships:
            connection.send(messages.HeartbeatAck(self._reconciler.now(), intent.room_id, intent.id))
            return
        ack = PendingAck(connection, intent, self._reconciler)
        for membership in intent.memberships:
            self._heartbeats.add(membership.attachment, ack)

    async def _run(self, connection: Connection, intent: Any) -> None:
        try:
            await self._methods[type(intent)](connection, intent)
        except Unavailable:
            connection.send(messages.ErrorMessage("unavailable", _UNAVAILABLE, intent.id, _room_of(intent)))
        except Exception:
            log.exception("request_failed", socket_id=connection.socket_id, intent=type(intent).__name__)
            connection.send(messages.ErrorMessage("internal", _INTERNAL, intent.id, _room_of(intent)))

    async def _join(self, connection: Connection, intent: intents.Join) -> None:
        membership = connection.session.rooms.get(intent.room_id)  # None where the socket was closed already
        while membership is not None and not await self._try_join(connection, membership, intent):
            pass

    async def _try_join(self, connection: Connection, membership: Membership, intent: intents.Join) -> bool:
        """Send a join to Redis and answer it; False where it has to be sent again under another id."""
        session, room_id = connection.session, intent.room_id
        former: Attachment | None = membership.attachment
        rejoin = former is not None and former.live
        attachment = former if former is not None and rejoin else self._new_attachment(connection, intent)
        try:
            reply, view = await self._reconciler.follow_and_register(connection, attachment, intent)
        except Exception:
            self._reconciler.abort_join(connection, attachment)
            self._replay_deferred(connection, session.refused(room_id))
            raise
        if session.closed:
            self._feed.unfollow(room_id)
            self._reconciler.detach_queue.add(attachment)
            return True
        if isinstance(reply, JoinRefused) or intent.user_id not in view.members:
            self._feed.unfollow(room_id)
            self._refuse(connection, attachment, intent, reply)
            return True
        if rejoin and attachment.live:
            self._feed.unfollow(room_id)  # the room is followed since the first join
        elif rejoin:
            # Its former membership ended while the re-join was on the way.
            if attachment.detach_requested:
                self._feed.unfollow(room_id)
                return False
            ended, attachment = attachment, self._new_attachment(connection, intent)
            attachment.continue_from(ended)
        membership.attachment = attachment
        self._complete_join(connection, attachment, intent, reply, view)
        return True

    def _new_attachment(self, connection: Connection, intent: intents.Join) -> Attachment:
        terms = self._policy(intent.room_id)
        return Attachment(Entry(intent.room_id, intent.user_id), connection.socket_id, terms)

    def _complete_join(
        self, connection: Connection, attachment: Attachment, intent: intents.Join,
        reply: Joined, view: RoomView,
    ) -> None:  # fmt: skip
        room_id, terms = intent.room_id, attachment.terms
        # A member is away on all its connections.
        self._reconciler.attach(attachment, away=view.members[intent.user_id].away)
        self.joins += not reply.resumed
        if self._roster.add(room_id, intent.user_id, connection, intent.view):
            self._fanout.discard_pending(room_id)
        shown = self._fanout.view_for(room_id, intent.view, len(view.members))
        answer = messages.RoomJoined(
            room_id=room_id,
            user_id=intent.user_id,
            socket_id=attachment.connection,
            ttl=terms.ttl,
            heartbeat_interval=min(self._heartbeat_ms, terms.ttl // 3),
            resumed=reply.resumed,
            epoch=view.epoch,
            version=view.version,
            count=len(view.members),
            view=shown,
            id=intent.id,
        )
        self._snapshots.send(connection, answer, view, whole=shown == "members")
        if deferred := connection.session.joined(room_id):
            self._replay_deferred(connection, deferred)

    def _refuse(
        self,
        connection: Connection,
        attachment: Attachment,
        intent: intents.Join,
        reply: Joined | JoinRefused,
    ) -> None:
        """Answer a join that Redis did not take, or whose member has departed since."""
        if isinstance(reply, JoinRefused):
            attachment.advance(AttachmentEvent.REFUSED)
            code, sentence = _REFUSED[reply.reason]
        else:
            self._reconciler.abort_join(connection, attachment)
            code, sentence = _REFUSED["departed"]
        connection.send(messages.ErrorMessage(code, sentence, intent.id, intent.room_id))
        self._replay_deferred(connection, connection.session.refused(intent.room_id))

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

    async def _update(self, connection: Connection, intent: intents.UpdateMember) -> None:
        attachment: Attachment = intent.membership.attachment
        room_id = attachment.entry.room_id
        updated = await self._store.update(
            attachment.entry, username=intent.username or "", data=intent.data_json or b""
        )
        if updated is None:
            self._reconciler.reregister(attachment)
            connection.send(messages.ErrorMessage("not_joined", _ENDED, intent.id, room_id))
            return
        connection.send(messages.RoomUpdated(room_id, updated.version, intent.id))
        self._feed.offer(room_id, updated.diff)

    async def _set_away(self, connection: Connection, intent: intents.SetAway) -> None:
        for membership in intent.memberships:
            attachment: Attachment = membership.attachment
            attachment.note_away(intent.away)
            diff = await self._store.set_away(attachment.entry, attachment.connection, away=intent.away)
            if diff is None:
                self._reconciler.reregister(attachment)
            else:
                self._feed.offer(attachment.entry.room_id, diff)
        answer = messages.AwayOk if intent.away else messages.BackOk
        connection.send(answer(intent.room_id, intent.id))

    async def _list(self, connection: Connection, intent: intents.ListMembers) -> None:
        room_id, most = intent.room_id, self._settings.max_members_view
        position = await self._store.count(room_id)
        if position.count > most:
            connection.send(_members_reply(room_id, position, UNSET, intent.id))
            return
        if self._feed.view(room_id) is None:
            listing = await self._store.members(room_id)
            connection.send(_members_reply(room_id, listing.position, listing.members, intent.id))
            return
        view = await self._feed.wait_for_version(room_id, position.epoch, position.version)
        position = Position(position.now, view.epoch, view.version, len(view.members))
        message = _members_reply(room_id, position, UNSET, intent.id)
        self._snapshots.send(connection, message, view, whole=position.count <= most)  # it may have grown

    def snapshot(self, room_id: str) -> messages.MembersReply | None:
        """Return a room's members, for connections that were sent only its count until now."""
        view = self._feed.view(room_id)
        if view is None or view.waiting:
            return None
        members = list(view.members.values())
        return messages.MembersReply(room_id, view.epoch, view.version, len(members), members)

    async def _count(self, connection: Connection, intent: intents.CountMembers) -> None:
        at = await self._store.count(intent.room_id)
        connection.send(messages.CountReply(intent.room_id, at.epoch, at.version, at.count, intent.id))

    async def _is_present(self, connection: Connection, intent: intents.AskPresent) -> None:
        present = await self._store.is_present(Entry(intent.room_id, intent.user_id))
        connection.send(messages.IsPresentReply(intent.room_id, intent.user_id, present, intent.id))

    def _replay_deferred(self, connection: Connection, requests: Iterable[Request]) -> None:
        """Act on the requests that the session had deferred."""
        for request in requests:
            try:
                intent = connection.session.receive(request)
                if intent is not None:
                    self.intent(connection, intent)
            except messages.ProtocolError as error:
                connection.send(error.reply())


class PendingAck:
    """A heartbeat that is acknowledged once Redis has taken it for each of its rooms.

    A room that ended meanwhile is not waited for; a heartbeat for that room alone gets an error.
    """

    __slots__ = ("_connection", "_id", "_now", "_reconciler", "_room_id", "_rooms_left")

    def __init__(self, connection: Connection, intent: intents.Refresh, reconciler: Reconciler) -> None:
        self._connection = connection
        self._reconciler = reconciler
        self._room_id, self._id = intent.room_id, intent.id
        self._rooms_left = len(intent.memberships)
        self._now = 0

    def acknowledged(self, now: int) -> None:
        """Redis has it for one more room; of several it took them at the earliest of their times."""
        if self._now == 0 or now < self._now:
            self._now = now
        self._rooms_left -= 1
        if self._rooms_left <= 0:
            self._connection.send_now(messages.HeartbeatAck(self._now, self._room_id, self._id))

    def refused(self, attachment: Attachment) -> None:
        """Redis does not know the member: register it again, or learn that it has departed."""
        self._reconciler.reregister(attachment, self)

    def ended(self) -> None:
        """One of the rooms is none of this connection's any more."""
        if self._room_id is None:
            self.acknowledged(self._now or self._reconciler.now())
        else:
            self._connection.send(messages.ErrorMessage("not_joined", _ENDED, self._id, self._room_id))

    def overflowed(self) -> None:
        """Too many heartbeats of the member wait for Redis, which does not answer."""
        if self._rooms_left < _ANSWERED:
            self._rooms_left += _ANSWERED  # no other room acknowledges it any more
            error = messages.ErrorMessage("too_many_pending", _TOO_MANY_HEARTBEATS, self._id, self._room_id)
            self._connection.send(error)


def _room_of(intent: Any) -> str | None:
    """Return the room that an intent is about, where it is about one."""
    membership = getattr(intent, "membership", None)
    room_id: str | None = membership.room_id if membership else getattr(intent, "room_id", None)
    return room_id


def _members_reply(
    room_id: str, at: Position, members: Any, request_id: messages.RequestId | None
) -> messages.MembersReply:
    return messages.MembersReply(room_id, at.epoch, at.version, at.count, members, request_id)
