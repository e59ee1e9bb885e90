"""Requests that wait until batches have written them in all their rooms: heartbeats, changes of `away`."""

from collections.abc import Callable

from reactor.gateway.connection import Connection
from reactor.membership.reconciler import Reconciler
from reactor.membership.refusals import ENDED, TOO_MANY_HEARTBEATS, TOO_MANY_HELD, UNAVAILABLE
from reactor.presence.attachment import Attachment
from reactor.protocol import intents, messages

MAX_ABSORBED = 256
"""Heartbeats that are answered with another one at most: of each only its id is kept."""

_ANSWERED = 1 << 30  # more rooms than a heartbeat can have: `PendingAck` never counts down to 0 from here


class PendingAck:
    """A heartbeat that is acknowledged once Redis has taken it for each of its rooms.

    A room that ended meanwhile is not waited for; a heartbeat for that room alone gets an error. Further
    heartbeats of the connection for the same rooms may be answered with it, since one does what all would do.
    others: the ids of such.
    """

    __slots__ = ("_connection", "_id", "_now", "_others", "_reconciler", "_room_id", "_rooms", "_rooms_left")

    def __init__(
        self,
        connection: Connection,
        intent: intents.Refresh,
        reconciler: Reconciler,
        others: list[messages.RequestId | None] | tuple[()] = (),
    ) -> None:
        self._connection = connection
        self._reconciler = reconciler
        self._room_id, self._id = intent.room_id, intent.id
        self._rooms = self._rooms_left = len(intent.memberships)
        self._now = 0
        self._others = others

    def absorb(self, other: "PendingAck") -> bool:
        """Answer another heartbeat with this one, which is then not waited for; return whether it can be."""
        if other.is_settled:
            return True  # by another of its rooms
        if self.is_settled or other.scope != self.scope or len(self._others) >= MAX_ABSORBED:
            return False
        self._others = self._others or []
        self._others.append(other.hand_over())
        return True

    @property
    def is_settled(self) -> bool:
        """Whether another heartbeat answers for it, or it was refused."""
        return self._rooms_left >= _ANSWERED

    @property
    def scope(self) -> tuple[str | None, int]:
        """What it is for: a room, or None for all; and how many those are."""
        return self._room_id, self._rooms

    def hand_over(self) -> messages.RequestId | None:
        """Return its id for another heartbeat, which answers for it from here on."""
        self._rooms_left += _ANSWERED
        return self._id

    def acknowledged(self, now: int) -> None:
        """Redis has it for one more room; of several it took them at the earliest of their times."""
        if self._now == 0 or now < self._now:
            self._now = now
        self._rooms_left -= 1
        if self._rooms_left <= 0:
            for request_id in (self._id, *self._others):
                self._connection.send_now(messages.HeartbeatAck(self._now, self._room_id, request_id))

    def refused(self, attachment: Attachment) -> None:
        """Redis does not know the member: register it again, or learn that it has departed."""
        self._reconciler.reregister(attachment, self)

    def ended(self) -> None:
        """One of the rooms is none of this connection's any more."""
        if self._room_id is None:
            self.acknowledged(self._now or self._reconciler.now())
        else:
            for request_id in (self._id, *self._others):
                self._connection.send(messages.ErrorMessage("not_joined", ENDED, request_id, self._room_id))

    def overflowed(self) -> None:
        """Too many heartbeats of the connection wait for Redis, which does not answer."""
        if not self.is_settled:
            request_id = self.hand_over()  # no other room acknowledges it any more
            error = messages.ErrorMessage("too_many_pending", TOO_MANY_HEARTBEATS, request_id, self._room_id)
            self._connection.send(error)


class PendingAway:
    """A request to go away, or to be back, that is answered once Redis has it for each of its rooms.

    on_written(connection, attachment, diff): called for each room; diff: None where it is not in the room.
    on_answered(connection, answer): called once, with what the client is to receive.
    """

    __slots__ = ("_connection", "_error", "_intent", "_on_answered", "_on_written", "_rooms_left")

    def __init__(
        self,
        connection: Connection,
        intent: intents.SetAway,
        *,
        on_written: Callable[[Connection, Attachment, bytes | None], None],
        on_answered: Callable[[Connection, messages.ServerMessage], None],
    ) -> None:
        self._connection, self._intent = connection, intent
        self._on_written, self._on_answered = on_written, on_answered
        self._rooms_left = len(intent.memberships)
        self._error: tuple[str, str] | None = None

    def written(self, attachment: Attachment, diff: bytes | None) -> None:
        """Redis has it in one more room, or does not have the connection there."""
        self._on_written(self._connection, attachment, diff)
        self._count_down()

    def ended(self) -> None:
        """One of the rooms is none of this connection's any more."""
        self._count_down()

    def failed(self) -> None:
        """Redis did not answer for one of the rooms."""
        self._error = "unavailable", UNAVAILABLE
        self._count_down()

    def overflowed(self) -> None:
        """Too many requests wait for one of the rooms."""
        self._error = "too_many_pending", TOO_MANY_HELD
        self._count_down()

    def _count_down(self) -> None:
        self._rooms_left -= 1
        if self._rooms_left:
            return
        intent = self._intent
        answer: messages.ServerMessage = away_reply(intent)
        if self._error is not None:
            answer = messages.ErrorMessage(*self._error, intent.id, intent.room_id)
        self._on_answered(self._connection, answer)


def away_reply(intent: intents.SetAway) -> messages.AwayOk | messages.BackOk:
    """Return the answer to a request that was carried out."""
    return (messages.AwayOk if intent.away else messages.BackOk)(intent.room_id, intent.id)
