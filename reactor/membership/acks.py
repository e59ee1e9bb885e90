"""Answers: a heartbeat's goes back when Redis has taken the heartbeat, and not before."""

from typing import Any

from reactor.gateway.connection import Connection
from reactor.membership.reconciler import Reconciler
from reactor.presence.attachment import Attachment
from reactor.presence.store import Position
from reactor.protocol import intents as want
from reactor.protocol import messages as say
from reactor.protocol.room import RoomView

CROWDED = "heartbeats of this member wait for Redis, which does not answer: they count, this one adds nothing"
NEVER = 1 << 30
ENDED = "this membership has ended: join again"


class PendingAck:
    """A heartbeat that waits until Redis has taken it for every room that it speaks of.

    A room that ended meanwhile is not waited for; a heartbeat for that room alone gets an error.
    """

    __slots__ = ("_connection", "_id", "_now", "_reconciler", "_room_id", "_rooms_left")

    def __init__(self, connection: Connection, intent: want.Refresh, reconciler: Reconciler) -> None:
        self._connection = connection
        self._reconciler = reconciler
        self._room_id, self._id = intent.room_id, intent.id
        self._rooms_left = len(intent.memberships)
        self._now = 0

    def taken(self, now: int) -> None:
        """Redis has it for one more room; of several it took them at the earliest of their times."""
        if self._now == 0 or now < self._now:
            self._now = now
        self._rooms_left -= 1
        if self._rooms_left <= 0:
            self._connection.send_now(say.HeartbeatAck(self._now, self._room_id, self._id))

    def refused(self, attachment: Attachment) -> None:
        """Redis does not know the member: enter it again, or learn that it has departed."""
        if attachment.live:
            self._reconciler.revive(attachment, self)
        else:
            self.ended()

    def ended(self) -> None:
        """One of the rooms is none of this connection's any more."""
        if self._room_id is None:
            self.taken(self._now or self._reconciler.now())
        else:
            self._connection.send(say.ErrorMessage("not_joined", ENDED, self._id, self._room_id))

    def crowded(self) -> None:
        """Too many heartbeats of the member wait for Redis, which does not answer."""
        if self._rooms_left < NEVER:
            self._rooms_left += NEVER  # whatever its other rooms say: it is answered
            self._connection.send(say.ErrorMessage("too_many_pending", CROWDED, self._id, self._room_id))


def room_of(intent: Any) -> str | None:
    """The room that an intent is about, where it is about one."""
    membership = getattr(intent, "membership", None)
    room_id: str | None = membership.room_id if membership else getattr(intent, "room_id", None)
    return room_id


def joined_message(
    intent: want.Join, attachment: Attachment, view: RoomView, shown: say.View, resumed: bool, heartbeat: int
) -> say.RoomJoined:
    """The answer to a join but for the members. heartbeat: ms."""
    return say.RoomJoined(
        room_id=intent.room_id,
        user_id=intent.user_id,
        socket_id=attachment.connection,
        ttl=attachment.terms.ttl,
        heartbeat_interval=min(heartbeat, attachment.terms.ttl // 3),
        resumed=resumed,
        epoch=view.epoch,
        version=view.version,
        count=len(view.members),
        view=shown,
        id=intent.id,
    )


def members_message(
    room_id: str, at: Position, members: Any, request_id: say.RequestId | None
) -> say.MembersReply:
    """The answer to `room:members`."""
    return say.MembersReply(room_id, at.epoch, at.version, at.count, members, request_id)
