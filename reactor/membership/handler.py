"""What a client wants -> the one call of the store that it means -> what the client hears.

Heartbeats go into the node's batch and cost no task. All else runs in a task of its own; the session
holds back what a client says about a room until its join or leave is answered, so that nothing overtakes.
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
from reactor.membership.acks import ENDED, PendingAck, joined_message, members_message, room_of
from reactor.membership.entering import Entering
from reactor.membership.reconciler import Reconciler
from reactor.presence.attachment import Attachment
from reactor.presence.heartbeats import Heartbeats
from reactor.presence.keys import Entry
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Joined, NotJoined, Position, Store
from reactor.protocol import intents as want
from reactor.protocol import messages as say
from reactor.protocol.requests import Request
from reactor.protocol.room import RoomView
from reactor.settings import RoomPolicy, Settings
from reactor.tasks import Spawner

log = structlog.get_logger()

_AWAY = "Redis does not answer: try again in a moment, this connection stays open"
_REFUSED = {
    "full": ("room_full", "the room has as many members as it may have: try again when somebody left"),
    "departed": ("not_joined", ENDED),
}


class Dispatch:
    """The gateway's handler: B1 to B6, each a method."""

    def __init__(
        self, settings: Settings, policy: Callable[[str], RoomPolicy], store: Store,
        heartbeats: Heartbeats, feed: RoomFeed, entering: Entering, reconciler: Reconciler,
        roster: Roster[Connection], fanout: Fanout, tasks: Spawner, *,
        ready: Callable[[], tuple[bool, str]], trouble: Callable[[], Any],
    ) -> None:  # fmt: skip
        self._settings, self._policy = settings, policy
        self._store, self._heartbeats = store, heartbeats
        self._feed, self._entering, self._reconciler = feed, entering, reconciler
        self._roster, self._fanout, self._tasks = roster, fanout, tasks
        self.ready, self._trouble = ready, trouble
        self._snapshots = Snapshots()
        self.joins = 0
        self._heartbeat_ms = round(settings.heartbeat_interval * 1000)
        self._doing: dict[type, Callable[[Connection, Any], Any]] = {
            want.Join: self._join,
            want.Leave: self._leave,
            want.UpdateMember: self._update,
            want.SetAway: self._set_away,
            want.ListMembers: self._list,
            want.CountMembers: self._count,
            want.AskPresent: self._is_present,
        }

    # A socket's life.

    def opened(self, connection: Connection) -> None:
        """Take note of a new socket; one that comes in an outage is told so, as the others were."""
        self._entering.name(connection)
        if (trouble := self._trouble()) is not None:
            connection.send(trouble)

    def intent(self, connection: Connection, intent: want.Intent) -> None:
        """Begin to act on what a client wants."""
        if type(intent) is want.Refresh:
            self._refresh(connection, intent)
        elif type(intent) is want.Authenticate:
            sentence = "this server asks for no token: leave the auth message out"
            connection.send(say.ErrorMessage("auth_disabled", sentence, intent.id))
        else:
            self._tasks.start_soon(self._do, connection, intent)

    def closed(self, connection: Connection) -> None:
        """A socket is gone: its members go under the grace (B6)."""
        for membership in connection.session.close():
            attachment = membership.attachment
            if attachment is not None and attachment.live:
                self._let_go(connection, attachment)
                self._reconciler.dropping.start(attachment)

    def _let_go(self, connection: Connection, attachment: Attachment) -> None:
        room_id = attachment.entry.room_id
        self._reconciler.detach(attachment)
        self._roster.remove(room_id, connection)
        self._feed.release(room_id)

    # What it wants.

    def _refresh(self, connection: Connection, intent: want.Refresh) -> None:
        if not intent.memberships:
            connection.send(say.HeartbeatAck(self._reconciler.now(), intent.room_id, intent.id))
            return
        ack = PendingAck(connection, intent, self._reconciler)
        for membership in intent.memberships:
            self._heartbeats.add(membership.attachment, ack)

    async def _do(self, connection: Connection, intent: Any) -> None:
        try:
            await self._doing[type(intent)](connection, intent)
        except Unavailable:
            connection.send(say.ErrorMessage("unavailable", _AWAY, intent.id, room_of(intent)))
        except Exception:
            log.exception("a request failed", socket_id=connection.socket_id, intent=type(intent).__name__)
            sentence = "the server failed on this request; others are served"
            connection.send(say.ErrorMessage("internal", sentence, intent.id, room_of(intent)))

    async def _join(self, connection: Connection, intent: want.Join) -> None:
        session, room_id = connection.session, intent.room_id
        membership = session.rooms.get(room_id)
        if membership is None:
            return  # the socket went before its turn came
        former: Attachment | None = membership.attachment
        if former is not None and not former.live:
            former = None
        attachment = former or self._new_attachment(connection, intent)
        try:
            reply, view = await self._enter(connection, attachment, intent)
        except Exception:
            self._take_back(connection, attachment)
            self._receive_again(connection, session.refused(room_id))
            raise
        if session.closed:
            self._feed.release(room_id)
            self._reconciler.dropping.start(attachment)
            return
        if isinstance(reply, NotJoined) or intent.user_id not in view.members:
            self._feed.release(room_id)
            self._refuse(connection, attachment, intent, reply)
            return
        if former is not None and former.live:
            self._feed.release(room_id)  # it holds the room already
        elif former is not None:
            if former.dropped:  # what this joining is in by is let go of: it takes another name
                self._feed.release(room_id)
                await self._join(connection, intent)
                return
            attachment = self._new_attachment(connection, intent)  # the one before ended by the way
            attachment.connection, attachment.joined_at = former.connection, former.joined_at
        membership.attachment = attachment
        member = view.members.get(intent.user_id)
        attachment.away = member is not None and member.away  # all its connections are, so this one is
        self._reconciler.attach(attachment)
        self.joins += not reply.resumed
        if self._roster.add(room_id, intent.user_id, connection, intent.view):
            self._fanout.discard_pending(room_id)
        shown = self._fanout.view_for(room_id, intent.view, len(view.members))
        answer = joined_message(intent, attachment, view, shown, reply.resumed, self._heartbeat_ms)
        self._snapshots.send(connection, answer, view, whole=shown == "members")
        self._receive_again(connection, session.joined(room_id))

    def _new_attachment(self, connection: Connection, intent: want.Join) -> Attachment:
        terms = self._policy(intent.room_id)
        return Attachment(Entry(intent.room_id, intent.user_id), connection.socket_id, terms)

    async def _enter(
        self, connection: Connection, attachment: Attachment, intent: want.Join
    ) -> tuple[Joined | NotJoined, RoomView]:
        """Follow the room and enter it; the view includes the joining. When it raises, it follows no more."""
        view = await self._feed.hold(intent.room_id)
        face: Any = {"username": intent.username, "data": intent.data_json or b""}
        try:
            reply = await self._entering.enter(attachment, **face)
            if isinstance(reply, Joined):
                view = await self._feed.reached(intent.room_id, reply.epoch, reply.version)
            # The node may have taken another name meanwhile; it lets go of all that it did under this one.
            while isinstance(reply, Joined) and not (
                connection.session.closed or self._entering.is_current(attachment)
            ):
                again = await self._entering.enter(attachment, **face)
                if isinstance(again, NotJoined):
                    reply = again
                else:
                    view = await self._feed.reached(intent.room_id, again.epoch, again.version)
        except BaseException:
            self._feed.release(intent.room_id)
            raise
        return reply, view

    def _take_back(self, connection: Connection, attachment: Attachment) -> None:
        """Redis may have taken a join all the same, or take it yet: see that no member is left of it.

        The socket gets another name, so that this does not meet its next attempt. What it is in by goes on.
        """
        if attachment in self._reconciler.attached:
            return
        attachment.live = False
        self._reconciler.dropping.start(attachment)
        self._entering.name(connection)

    def _refuse(
        self, connection: Connection, attachment: Attachment, intent: want.Join, reply: Joined | NotJoined
    ) -> None:
        """Say why a join was not taken, or that who joined has departed since."""
        if isinstance(reply, Joined):
            # Its time was up while it waited for the answer, and may be held yet: nobody goes on with it.
            self._take_back(connection, attachment)
        code, sentence = _REFUSED[reply.why if isinstance(reply, NotJoined) else "departed"]
        connection.send(say.ErrorMessage(code, sentence, intent.id, intent.room_id))
        self._receive_again(connection, connection.session.refused(intent.room_id))

    async def _leave(self, connection: Connection, intent: want.Leave) -> None:
        membership, session = intent.membership, connection.session
        attachment: Attachment = membership.attachment
        room_id = membership.room_id
        # In the roster until Redis has taken it, or it would miss a diff where that fails.
        attachment.live = False
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
                self._let_go(connection, attachment)
                self._reconciler.dropping.start(attachment)
                return
            if connection in self._roster.connections_of(room_id, membership.user_id):
                attachment.live = True
                self._reconciler.revive(attachment, None)  # it may have been let go of meanwhile
                self._receive_again(connection, session.refused(room_id))
                raise
        self._roster.remove(room_id, connection)
        self._reconciler.detach(attachment)
        self._feed.release(room_id)
        if attachment.unanswered:
            self._take_back(connection, attachment)
        connection.send(say.RoomLeft(room_id, intent.id))
        self._receive_again(connection, session.left(room_id))

    async def _update(self, connection: Connection, intent: want.UpdateMember) -> None:
        attachment: Attachment = intent.membership.attachment
        room_id = attachment.entry.room_id
        updated = await self._store.update(
            attachment.entry, username=intent.username or "", data=intent.data_json or b""
        )
        if updated is None:
            self._reconciler.revive(attachment, None)
            connection.send(say.ErrorMessage("not_joined", ENDED, intent.id, room_id))
            return
        connection.send(say.RoomUpdated(room_id, updated.version, intent.id))
        self._feed.offer(room_id, updated.diff)

    async def _set_away(self, connection: Connection, intent: want.SetAway) -> None:
        for membership in intent.memberships:
            attachment: Attachment = membership.attachment
            attachment.away = intent.away
            diff = await self._store.set_away(attachment.entry, attachment.connection, away=intent.away)
            if diff is None:
                self._reconciler.revive(attachment, None)
            else:
                self._feed.offer(attachment.entry.room_id, diff)
        answer = say.AwayOk if intent.away else say.BackOk
        connection.send(answer(intent.room_id, intent.id))

    async def _list(self, connection: Connection, intent: want.ListMembers) -> None:
        room_id, most = intent.room_id, self._settings.max_members_view
        position = await self._store.count(room_id)
        if position.count > most:
            connection.send(members_message(room_id, position, UNSET, intent.id))
            return
        if self._feed.view(room_id) is None:
            listing = await self._store.members(room_id)
            connection.send(members_message(room_id, listing.position, listing.members, intent.id))
            return
        view = await self._feed.reached(room_id, position.epoch, position.version)
        position = Position(position.now, view.epoch, view.version, len(view.members))
        message = members_message(room_id, position, UNSET, intent.id)
        self._snapshots.send(connection, message, view, whole=position.count <= most)  # it may have grown

    def snapshot(self, room_id: str) -> say.MembersReply | None:
        """A room's members as this node knows them, for those who were served its count until now."""
        view = self._feed.view(room_id)
        if view is None or view.waiting:
            return None
        members = list(view.members.values())
        return say.MembersReply(room_id, view.epoch, view.version, len(members), members)

    async def _count(self, connection: Connection, intent: want.CountMembers) -> None:
        at = await self._store.count(intent.room_id)
        connection.send(say.CountReply(intent.room_id, at.epoch, at.version, at.count, intent.id))

    async def _is_present(self, connection: Connection, intent: want.AskPresent) -> None:
        present = await self._store.is_present(Entry(intent.room_id, intent.user_id))
        connection.send(say.IsPresentReply(intent.room_id, intent.user_id, present, intent.id))

    def _receive_again(self, connection: Connection, requests: Iterable[Request]) -> None:
        """Take up what the session had held back."""
        for request in requests:
            try:
                intent = connection.session.receive(request)
                if intent is not None:
                    self.intent(connection, intent)
            except say.ProtocolError as error:
                connection.send(error.reply())
