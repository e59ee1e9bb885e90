"""One connection: from a decoded request to the intent it comes down to, or to the error it deserves.

The session knows the rooms its connection is in and decides; it reads no clock and moves no bytes. For each
request call `receive` and do what the returned intent says. A Join must be answered by `joined` or `refused`,
a Leave by `left` or `refused`, once each; the requests which these return had been held back until then, and
are to be received again, in order, before any newer one. Call `expelled` when a membership has ended in
Redis, and `close` once, when the socket is gone. The states are in membership.py.
"""

from collections.abc import Callable
from typing import Any, ClassVar, cast

from msgspec import UNSET

from reactor.protocol import requests as ask
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
from reactor.protocol.membership import PENDING, TRANSITIONS, Event, Membership, State
from reactor.protocol.messages import ProtocolError

_IN = State.IN


class Session:
    """The memberships of one connection.

    Attributes:
        rooms: The rooms this connection is in, or on its way into or out of, by id.
        closed: Whether `close` was called. An answer that comes later is taken in silence; the node then
            detaches what a late join has entered.

    """

    __slots__ = ("_held", "_limits", "_waiting", "closed", "rooms")

    def __init__(self, limits: Limits) -> None:
        self.rooms: dict[str, Membership] = {}
        self.closed = False
        self._limits = limits
        self._waiting: dict[str, list[ask.Request]] = {}
        self._held = 0

    # What the client says.

    def receive(self, request: ask.Request) -> Intent | None:
        """Return what this request comes down to, or None when it is held back for now.

        Raises:
            ProtocolError: The request cannot be; it changed nothing, and the connection goes on.

        """
        if type(request) is ask.Heartbeat:
            # Nearly all that is ever received; an id that is a key of `rooms` is known to be clean.
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
            raise addressed(error, request) from None

    def _auth(self, request: ask.Auth) -> Intent:
        return Authenticate(request.token, request.id)

    def _join(self, request: ask.JoinRoom) -> Intent | None:
        room_id = self._room_id(request)
        if request.user_id is UNSET:
            raise ProtocolError("bad_message", 'join_room needs "userId": text or a whole number')
        user_id = clean_id(request.user_id, "userId", self._limits.max_id)
        username = self._username(request.username) or ""
        join = Join(room_id, user_id, username, self._data(request.data), request.view, request.id)
        if self._hold(room_id, request):
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
        membership.advance(Event.JOIN)
        membership.asked = join
        return join

    def _heartbeat(self, request: ask.Heartbeat) -> Intent | None:
        room_id = self._room_id(request)
        if self._hold(room_id, request):
            return None
        return Refresh((self._member(room_id, Event.USE),), room_id, request.id)

    def _update(self, request: ask.Update) -> Intent | None:
        room_id = self._room_id(request)
        username, data_json = self._username(request.username), self._data(request.data)
        if self._hold(room_id, request):
            return None
        membership = self._member(room_id, Event.USE)
        if username == "":
            username = membership.user_id
        return UpdateMember(membership, username, data_json, request.id)

    def _set_away(self, request: ask.Away | ask.Back) -> Intent | None:
        away = type(request) is ask.Away
        if request.room_id is None:
            pending = next((room for room, place in self.rooms.items() if place.state in PENDING), None)
            if pending is not None:
                self._hold(pending, request)
                return None
            return SetAway(self._all_in(), away, None, request.id)
        room_id = self._room_id(request)
        if self._hold(room_id, request):
            return None
        return SetAway((self._member(room_id, Event.USE),), away, room_id, request.id)

    def _members(self, request: ask.Members) -> Intent | None:
        room_id = self._room_id(request)
        return None if self._hold(room_id, request) else ListMembers(room_id, request.id)

    def _count(self, request: ask.Count) -> Intent | None:
        room_id = self._room_id(request)
        return None if self._hold(room_id, request) else CountMembers(room_id, request.id)

    def _is_present(self, request: ask.IsPresent) -> Intent | None:
        room_id = self._room_id(request)
        user_id = clean_id(request.user_id, "userId", self._limits.max_id)
        return None if self._hold(room_id, request) else AskPresent(room_id, user_id, request.id)

    def _leave(self, request: ask.LeaveRoom) -> Intent | None:
        room_id = self._room_id(request)
        if self._hold(room_id, request):
            return None
        membership = self._member(room_id, Event.LEAVE)
        membership.advance(Event.LEAVE)
        return Leave(membership, request.id)

    # What the node says.

    def joined(self, room_id: str) -> list[ask.Request]:
        """Note that Redis has taken the join; return the requests that had waited for it.

        Raises:
            IllegalEvent: No join was on its way.

        """
        return self._answered(room_id, Event.JOINED)

    def refused(self, room_id: str) -> list[ask.Request]:
        """Note that the join or the leave was not taken, so that all is as before it; return what had waited.

        Raises:
            IllegalEvent: Neither was on its way.

        """
        return self._answered(room_id, Event.REFUSED)

    def left(self, room_id: str) -> list[ask.Request]:
        """Note that Redis has taken the leave; return the requests that had waited for it.

        Raises:
            IllegalEvent: No leave was on its way.

        """
        return self._answered(room_id, Event.LEFT)

    def expelled(self, room_id: str) -> bool:
        """Note that the membership has ended in Redis; True when this took the connection's last room."""
        membership = self.rooms.get(room_id)
        if membership is None or membership.advance(Event.EXPELLED) is not State.OUT:
            return False
        del self.rooms[room_id]
        return not self.rooms

    def close(self) -> list[Membership]:
        """Note that the socket is gone; return the memberships to detach, also those on their way."""
        memberships = list(self.rooms.values())
        for membership in memberships:
            membership.advance(Event.CLOSED)
        self.closed = True
        self.rooms.clear()
        self._waiting.clear()
        self._held = 0
        return memberships

    # Within.

    def _room_id(self, request: Any) -> str:
        return clean_id(request.room_id, "roomId", self._limits.max_id)

    def _username(self, username: str | None) -> str | None:
        if username:
            check_text(username, "username", self._limits.max_id, "bad_message")
        return username

    def _data(self, data: Any) -> bytes | None:
        return None if data is UNSET else data_as_json(data, self._limits.max_data)

    def _all_in(self) -> tuple[Membership, ...]:
        return tuple([place for place in self.rooms.values() if place.state is _IN])

    def _member(self, room_id: str, event: Event) -> Membership:
        membership = self.rooms.get(room_id)
        if membership is None or event not in TRANSITIONS[membership.state]:
            raise ProtocolError("not_joined", "this connection is not in the room: send join_room first")
        return membership

    def _hold(self, room_id: str, request: ask.Request) -> bool:
        membership = self.rooms.get(room_id)
        if membership is None or membership.state not in PENDING:
            return False
        if self._held >= self._limits.max_pending:
            raise ProtocolError(
                "too_many_pending",
                f"{self._held} requests wait for a join or leave already: wait for its answer first",
            )
        self._waiting.setdefault(room_id, []).append(request)
        self._held += 1
        return True

    def _answered(self, room_id: str, event: Event) -> list[ask.Request]:
        if self.closed:
            return []
        membership = self.rooms.get(room_id) or Membership(room_id, "")
        state = membership.advance(event)
        asked, membership.asked = membership.asked, None
        if state is State.OUT:
            del self.rooms[room_id]
        elif event is Event.JOINED and asked is not None:
            membership.username, membership.view = asked.username or membership.username, asked.view
        waited = self._waiting.pop(room_id, [])
        self._held -= len(waited)
        return waited

    _HANDLERS: ClassVar[dict[type, Callable[["Session", Any], Intent | None]]] = {
        ask.Auth: _auth,
        ask.JoinRoom: _join,
        ask.Heartbeat: _heartbeat,
        ask.Update: _update,
        ask.Away: _set_away,
        ask.Back: _set_away,
        ask.Members: _members,
        ask.Count: _count,
        ask.IsPresent: _is_present,
        ask.LeaveRoom: _leave,
    }


def addressed(error: ProtocolError, request: ask.Request) -> ProtocolError:
    """Return the error with the request and the room that it is about, as far as these can be said."""
    error.id = request.id
    if error.room_id is None and error.code != "bad_id":
        room_id = getattr(request, "room_id", None)
        error.room_id = None if room_id is None else str(room_id)
    return error
