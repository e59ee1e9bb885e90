"""One connection's session: turns each decoded request into an intent, or into the error to reply with. PURE.

The session keeps the connection's memberships and decides; it reads no clock and does no I/O. For each
request call `receive` and carry out the returned intent. Report the outcome of a Join by `joined` or
`refused`, and that of a Leave by `left` or `refused`, exactly once. These return the requests that were
deferred meanwhile, to be received again, in this order, before any newer one. Call `expelled` when a
membership has ended in Redis, and `close` once when the connection is closed. membership.py describes the
states.
"""

from collections.abc import Callable
from typing import Any, ClassVar, cast

from msgspec import UNSET

from reactor.protocol import requests
from reactor.protocol.data import data_as_json
from reactor.protocol.ids import check_text, clean_id
from reactor.protocol.intents import (
    AskPresent,
    Authenticate,
    CountMembers,
    Intent,
    Join,
    Leave,
    ListMembers,
    Refresh,
    SetAway,
    UpdateMember,
)
from reactor.protocol.limits import Limits
from reactor.protocol.membership import PENDING, TRANSITIONS, Membership, MembershipEvent, MembershipState
from reactor.protocol.messages import ProtocolError

_IN = MembershipState.IN


class Session:
    """The memberships of one connection.

    Attributes:
        rooms: The memberships by room id, pending ones included.
        closed: Whether `close` was called. Outcomes reported later are ignored; the node then detaches what a
            late join has registered.

    """

    __slots__ = ("_deferred", "_deferred_count", "_joins", "_limits", "closed", "rooms")

    def __init__(self, limits: Limits) -> None:
        self.rooms: dict[str, Membership] = {}
        self.closed = False
        self._limits = limits
        self._joins: dict[str, Join] = {}
        self._deferred: dict[str, list[requests.Request]] = {}
        self._deferred_count = 0

    # Requests of the client.

    def receive(self, request: requests.Request) -> Intent | None:
        """Return the intent of this request, or None when it is deferred.

        Raises:
            ProtocolError: The request is invalid; it changed nothing, and the connection stays open.

        """
        if type(request) is requests.Heartbeat:
            # Nearly all requests are heartbeats; an id that is a key of `rooms` is known to be clean.
            room_id = request.room_id
            if room_id is None:
                return Refresh(self._all_in(), None, request.id)
            membership = self.rooms.get(cast("str", room_id))
            if membership is not None and membership.state is _IN:
                return Refresh((membership,), membership.room_id, request.id)
        if self.closed:
            return None
        try:
            return self._HANDLERS[type(request)](self, request)
        except ProtocolError as error:
            raise in_reply_to(error, request) from None

    def _auth(self, request: requests.Auth) -> Intent:
        return Authenticate(request.token, request.id)

    def _join(self, request: requests.JoinRoom) -> Intent | None:
        room_id = self._room_id(request)
        if request.user_id is UNSET:
            raise ProtocolError("bad_message", 'join_room needs "userId": text or a whole number')
        user_id = clean_id(request.user_id, "userId", self._limits.max_id)
        username = self._username(request.username) or ""
        join = Join(room_id, user_id, username, self._data(request.data), request.view, request.id)
        if self._defer(room_id, request):
            return None
        membership = self.rooms.get(room_id)
        if membership is None:
            if len(self.rooms) >= self._limits.max_rooms:
                raise ProtocolError(
                    "too_many_rooms",
                    f"a connection may be in {self._limits.max_rooms} rooms at a time: leave one first",
                )
            membership = self.rooms[room_id] = Membership(room_id, user_id)
        elif membership.user_id != user_id:
            raise ProtocolError(
                "already_joined",
                "this connection is in the room as another user: leave it first, or use a second connection",
            )
        membership.advance(MembershipEvent.JOIN)
        self._joins[room_id] = join
        return join

    def _heartbeat(self, request: requests.Heartbeat) -> Intent | None:
        room_id = self._room_id(request)
        if self._defer(room_id, request):
            return None
        return Refresh((self._member(room_id, MembershipEvent.USE),), room_id, request.id)

    def _update(self, request: requests.Update) -> Intent | None:
        room_id = self._room_id(request)
        username, data_json = self._username(request.username), self._data(request.data)
        if self._defer(room_id, request):
            return None
        membership = self._member(room_id, MembershipEvent.USE)
        if username == "":
            username = membership.user_id
        return UpdateMember(membership, username, data_json, request.id)

    def _set_away(self, request: requests.Away | requests.Back) -> Intent | None:
        away = type(request) is requests.Away
        if request.room_id is None:
            pending = next((room for room, one in self.rooms.items() if one.state in PENDING), None)
            if pending is not None:
                self._defer(pending, request)
                return None
            return SetAway(self._all_in(), away, None, request.id)
        room_id = self._room_id(request)
        if self._defer(room_id, request):
            return None
        return SetAway((self._member(room_id, MembershipEvent.USE),), away, room_id, request.id)

    def _members(self, request: requests.Members) -> Intent | None:
        room_id = self._room_id(request)
        return None if self._defer(room_id, request) else ListMembers(room_id, request.id)

    def _count(self, request: requests.Count) -> Intent | None:
        room_id = self._room_id(request)
        return None if self._defer(room_id, request) else CountMembers(room_id, request.id)

    def _is_present(self, request: requests.IsPresent) -> Intent | None:
        room_id = self._room_id(request)
        user_id = clean_id(request.user_id, "userId", self._limits.max_id)
        return None if self._defer(room_id, request) else AskPresent(room_id, user_id, request.id)

    def _leave(self, request: requests.LeaveRoom) -> Intent | None:
        room_id = self._room_id(request)
        if self._defer(room_id, request):
            return None
        membership = self._member(room_id, MembershipEvent.LEAVE)
        membership.advance(MembershipEvent.LEAVE)
        return Leave(membership, request.id)

    # Outcomes, reported by the node.

    def joined(self, room_id: str) -> list[requests.Request]:
        """Note that Redis has accepted the join; return the requests that were deferred for it.

        Raises:
            IllegalEvent: No join was pending.

        """
        return self._settled(room_id, MembershipEvent.JOINED)

    def refused(self, room_id: str) -> list[requests.Request]:
        """Note that the join or the leave failed and changed nothing; return the deferred requests.

        Raises:
            IllegalEvent: Neither was pending.

        """
        return self._settled(room_id, MembershipEvent.REFUSED)

    def left(self, room_id: str) -> list[requests.Request]:
        """Note that Redis has accepted the leave; return the requests that were deferred for it.

        Raises:
            IllegalEvent: No leave was pending.

        """
        return self._settled(room_id, MembershipEvent.LEFT)

    def expelled(self, room_id: str) -> bool:
        """Note that the membership ended in Redis; return True when that was the connection's last room."""
        membership = self.rooms.get(room_id)
        if membership is None or membership.advance(MembershipEvent.EXPELLED) is not MembershipState.OUT:
            return False
        del self.rooms[room_id]
        return not self.rooms

    def close(self) -> list[Membership]:
        """Note that the connection is closed; return the memberships to detach, pending ones included."""
        memberships = list(self.rooms.values())
        for membership in memberships:
            membership.advance(MembershipEvent.CLOSED)
        self.closed = True
        self.rooms.clear()
        self._joins.clear()
        self._deferred.clear()
        self._deferred_count = 0
        return memberships

    # Private methods.

    def _room_id(self, request: Any) -> str:
        return clean_id(request.room_id, "roomId", self._limits.max_id)

    def _username(self, username: str | None) -> str | None:
        if username:
            check_text(username, "username", self._limits.max_id, "bad_message")
        return username

    def _data(self, data: Any) -> bytes | None:
        return None if data is UNSET else data_as_json(data, self._limits.max_data)

    def _all_in(self) -> tuple[Membership, ...]:
        return tuple([one for one in self.rooms.values() if one.state is _IN])

    def _member(self, room_id: str, event: MembershipEvent) -> Membership:
        membership = self.rooms.get(room_id)
        if membership is None or event not in TRANSITIONS[membership.state]:
            raise ProtocolError("not_joined", "this connection is not in the room: send join_room first")
        return membership

    def _defer(self, room_id: str, request: requests.Request) -> bool:
        membership = self.rooms.get(room_id)
        if membership is None or membership.state not in PENDING:
            return False
        if self._deferred_count >= self._limits.max_pending:
            raise ProtocolError(
                "too_many_pending",
                f"{self._deferred_count} requests are waiting for a join or leave: wait for its reply first",
            )
        self._deferred.setdefault(room_id, []).append(request)
        self._deferred_count += 1
        return True

    def _settled(self, room_id: str, event: MembershipEvent) -> list[requests.Request]:
        if self.closed:
            return []
        membership = self.rooms.get(room_id) or Membership(room_id, "")
        state = membership.advance(event)
        join = self._joins.pop(room_id, None)
        if state is MembershipState.OUT:
            del self.rooms[room_id]
        elif event is MembershipEvent.JOINED and join is not None:
            membership.username, membership.view = join.username or membership.username, join.view
        deferred = self._deferred.pop(room_id, [])
        self._deferred_count -= len(deferred)
        return deferred

    _HANDLERS: ClassVar[dict[type, Callable[["Session", Any], Intent | None]]] = {
        requests.Auth: _auth,
        requests.JoinRoom: _join,
        requests.Heartbeat: _heartbeat,
        requests.Update: _update,
        requests.Away: _set_away,
        requests.Back: _set_away,
        requests.Members: _members,
        requests.Count: _count,
        requests.IsPresent: _is_present,
        requests.LeaveRoom: _leave,
    }


def in_reply_to(error: ProtocolError, request: requests.Request) -> ProtocolError:
    """Return the error with the id and the room of the request that it replies to, where these are valid."""
    error.id = request.id
    if error.room_id is None and error.code != "bad_id":
        room_id = getattr(request, "room_id", None)
        error.room_id = None if room_id is None else str(room_id)
    return error
