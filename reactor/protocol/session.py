"""One connection's session: turns each decoded request into an intent, or into the error to reply with. PURE.

The session keeps the connection's memberships and decides; it reads no clock and does no I/O. For each
request call `receive` and carry out the returned intent. Report the outcome of a Join by `joined` or
`refused`, and that of a Leave by `left` or `refused`, exactly once. These return the requests that were
deferred meanwhile, to be received again, in this order, before any newer one. Call `expelled` when a
membership has ended in Redis, and `close` once when the connection is closed. membership.py describes the
states.
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar, cast

from msgspec import UNSET, Raw
from msgspec.structs import replace

from reactor.protocol import requests
from reactor.protocol.data import data_as_json
from reactor.protocol.identity import OWN_ROOM
from reactor.protocol.ids import check_text, clean_id, clean_ids
from reactor.protocol.intents import (
    AskPresent,
    Authenticate,
    CountMembers,
    FollowPeople,
    FormerJoining,
    Intent,
    Join,
    Leave,
    ListMembers,
    Refresh,
    SendMessage,
    SetAway,
    UnfollowPeople,
    UnwatchRooms,
    UpdateMember,
    WatchRooms,
)
from reactor.protocol.limits import Limits
from reactor.protocol.membership import PENDING, TRANSITIONS, Membership, MembershipEvent, MembershipState
from reactor.protocol.messages import ProtocolError, RefusedRoom

MAX_RECIPIENTS = 100
"""Users that one message may name in `to`."""

MAX_DEFERRED_BYTES = 64 * 1024
"""Bytes of the requests that wait for the reply to a join or a leave, of one connection."""

MAX_PEOPLE = 1000
"""Users that one request may watch, or not watch any more."""

_IN = MembershipState.IN
_COMPACT_FROM = (
    64  # bytes of data that waits as JSON: the objects that it was made of can take 25 times as many
)
_DEFERRED_OVERHEAD, _ID_OVERHEAD = 500, 60  # bytes of a request that waits, and of each id in it, about
_CURSOR = re.compile("[0-9]{1,19}")


_NO_ROOMS = frozenset[str]()  # one for all connections: each would take 232 bytes


class Session:
    """The memberships of one connection.

    Attributes:
        rooms: The memberships by room id, pending ones included.
        watched: The rooms that the connection watches, those that are being followed included.
        closing: Whether the client said that it is being closed.
        departing: Rooms that the client has left while its join was pending, once the connection is closed.
        closed: Whether `close` was called. Outcomes reported later are ignored; the node then detaches what a
            late join has registered.

    """

    __slots__ = (
        "_deferred",
        "_deferred_bytes",
        "_deferred_count",
        "_joins",
        "_limits",
        "closed",
        "closing",
        "departing",
        "rooms",
        "watched",
    )

    def __init__(self, limits: Limits) -> None:
        self.rooms: dict[str, Membership] = {}
        self.watched: set[str] = set()
        self.closed = self.closing = False
        self.departing = _NO_ROOMS
        self._limits = limits
        self._joins: dict[str, Join] = {}
        self._deferred: dict[str, list[requests.Request]] = {}
        self._deferred_count = 0
        self._deferred_bytes: dict[str, int] = {}

    @property
    def proved_user(self) -> str | None:
        """The user that a token has proved; None where the server asks for none."""
        return None

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
        if room_id.startswith(OWN_ROOM) and room_id != OWN_ROOM + user_id:
            raise ProtocolError("forbidden", f"a room {OWN_ROOM}USER is for that user alone: name another")
        username = self._username(request.username) or ""
        former = self._former(request.resume) if request.resume is not None else None
        join = Join(room_id, user_id, username, self._data(request.data), request.view, request.id, former)
        if self._defer(room_id, request, join.data_json):
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
        patch_json = self._patch(request)
        if self._defer(room_id, request, data_json, patch_json):
            return None
        membership = self._member(room_id, MembershipEvent.USE)
        if username == "":
            username = membership.user_id
        return UpdateMember(membership, username, data_json, request.id, patch_json)

    def _send(self, request: requests.Send) -> Intent | None:
        room_id = self._room_id(request)
        data_json = data_as_json(request.data, self._limits.max_data)
        to = None
        if request.to is not None:
            if len(request.to) > MAX_RECIPIENTS:
                raise ProtocolError(
                    "bad_message", f"to may name {MAX_RECIPIENTS} users: send to all, or twice"
                )
            to = tuple(clean_ids(request.to, "a user in to", self._limits.max_id))
        if self._defer(room_id, request, data_json):
            return None
        return SendMessage(self._member(room_id, MembershipEvent.USE), data_json, to, request.id)

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
        if request.limit is not None and request.limit < 1:
            raise ProtocolError("bad_message", '"limit" of room:members must be at least 1')
        if request.cursor is not None and not _CURSOR.fullmatch(request.cursor):
            raise ProtocolError("bad_message", '"cursor" of room:members must be that of the page before')
        if self._defer(room_id, request):
            return None
        return ListMembers(room_id, request.id, request.limit, request.cursor)

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

    def _watch(self, request: requests.Watch) -> Intent:
        room_ids, single = self._room_ids(request)
        if not single and request.view != "count":
            raise ProtocolError(
                "bad_message",
                'roomIds of room:watch needs "view": "count": watch members by roomId',
            )
        allowed, refused = [], []
        for room_id in room_ids:
            sentence = self._why_not_watch(room_id)
            if sentence is None:
                allowed.append(room_id)
            elif single:
                raise ProtocolError("forbidden", sentence)
            else:
                refused.append(RefusedRoom(room_id, "forbidden", sentence))
        added = [room_id for room_id in allowed if room_id not in self.watched]
        if len(self.watched) + len(added) > self._limits.max_watched:
            raise ProtocolError(
                "too_many_rooms",
                f"a connection may watch {self._limits.max_watched} rooms at a time: send room:unwatch first",
            )
        self.watched.update(added)
        return WatchRooms(tuple(allowed), request.view, single, request.id, tuple(added), tuple(refused))

    def _unwatch(self, request: requests.Unwatch) -> Intent:
        room_ids, single = self._room_ids(request)
        self.watched.difference_update(room_ids)
        return UnwatchRooms(room_ids, single, request.id)

    def _watch_people(self, request: requests.WatchPeople) -> Intent:
        return FollowPeople(self._people(request.user_ids, "people:watch"), request.id)

    def _unwatch_people(self, request: requests.UnwatchPeople) -> Intent:
        users = None if request.user_ids is None else self._people(request.user_ids, "people:unwatch")
        return UnfollowPeople(users, request.id)

    def _people(self, users: list[requests.AnyId], kind: str) -> tuple[str, ...]:
        """Return the ids, each once."""
        if len(users) > MAX_PEOPLE:
            raise ProtocolError("bad_message", f"{kind} may name {MAX_PEOPLE} users: send several")
        return tuple(clean_ids(users, "a user in userIds", self._limits.max_id))

    def _closing(self, _request: requests.Closing) -> None:
        self.closing = True

    def heartbeat_interval(self) -> float | None:
        """Return the shortest interval (seconds) of the rooms that the connection is in; None without one."""
        return min((one.heartbeat_interval for one in self.rooms.values() if one.state is _IN), default=None)

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
        """Note that the membership ended in Redis; return True when the connection is in no room any more.

        A connection that watches rooms is still of use.
        """
        membership = self.rooms.get(room_id)
        if membership is None or membership.advance(MembershipEvent.EXPELLED) is not MembershipState.OUT:
            return False
        del self.rooms[room_id]
        return not self.rooms and not self.watched

    @property
    def checks_first_token(self) -> bool:
        """Whether requests are to be kept, as received, until a token has been checked."""
        return False

    def close(self) -> list[Membership]:
        """Note that the connection is closed; return the memberships to detach, pending ones included."""
        memberships = list(self.rooms.values())
        self.departing = frozenset(one.room_id for one in memberships if self._is_departing(one))
        for membership in memberships:
            membership.advance(MembershipEvent.CLOSED)
        self.closed = True
        self.rooms.clear()
        self.watched.clear()
        self._joins.clear()
        self._deferred.clear()
        self._deferred_bytes.clear()
        self._deferred_count = 0
        return memberships

    # Private methods.

    def _is_departing(self, membership: Membership) -> bool:
        if membership.state is not MembershipState.JOINING:
            return False
        waiting = self._deferred.get(membership.room_id, ())
        kinds = [type(one) for one in waiting if isinstance(one, requests.JoinRoom | requests.LeaveRoom)]
        return bool(kinds) and kinds[-1] is requests.LeaveRoom

    def _room_id(self, request: Any) -> str:
        return clean_id(request.room_id, "roomId", self._limits.max_id)

    def _room_ids(self, request: requests.Watch | requests.Unwatch) -> tuple[tuple[str, ...], bool]:
        """Return the rooms of a request, and whether it names a single one."""
        if (request.room_id is None) is (request.room_ids is None):
            raise ProtocolError("bad_message", "roomId or roomIds is needed: the room, or a list of rooms")
        if request.room_ids is None:
            return (self._room_id(request),), True
        most = self._limits.max_watched
        if not 0 < len(request.room_ids) <= most:
            raise ProtocolError("bad_message", f"roomIds must have 1 to {most} rooms: send several requests")
        return tuple(clean_ids(request.room_ids, "a room in roomIds", self._limits.max_id)), False

    def _why_not_watch(self, _room_id: str) -> str | None:
        """Return why the room may not be watched, or None."""
        return None

    def _username(self, username: str | None) -> str | None:
        if username:
            check_text(username, "username", self._limits.max_id, "bad_message")
        return username

    def _data(self, data: Any) -> bytes | None:
        return None if data is UNSET else data_as_json(data, self._limits.max_data)

    def _former(self, resume: requests.Resume) -> FormerJoining:
        return FormerJoining(resume.epoch, resume.version, resume.joined_at, resume.members)

    def _patch(self, request: requests.Update) -> bytes | None:
        if request.patch is UNSET:
            return None
        if request.data is not UNSET:
            raise ProtocolError("bad_message", "room:update takes data or patch: send one of them")
        if not isinstance(request.patch, dict | Raw):
            raise ProtocolError(
                "bad_message", "patch must be an object (RFC 7396): send anything else as data"
            )
        return self._data(request.patch)

    def _all_in(self) -> tuple[Membership, ...]:
        return tuple([one for one in self.rooms.values() if one.state is _IN])

    def _member(self, room_id: str, event: MembershipEvent) -> Membership:
        membership = self.rooms.get(room_id)
        if membership is None or event not in TRANSITIONS[membership.state]:
            raise ProtocolError("not_joined", "this connection is not in the room: send join_room first")
        return membership

    def _defer(
        self, room_id: str, request: Any, data_json: bytes | None = None, patch_json: bytes | None = None
    ) -> bool:
        membership = self.rooms.get(room_id)
        if membership is None or membership.state not in PENDING:
            return False
        size = _DEFERRED_OVERHEAD + len(data_json or b"") + len(patch_json or b"")
        size += sum(_ID_OVERHEAD + len(str(user)) for user in getattr(request, "to", None) or ())
        # One request may always wait, however large.
        waiting = sum(self._deferred_bytes.values())
        too_large = waiting and waiting + size > MAX_DEFERRED_BYTES
        if self._deferred_count >= self._limits.max_pending or too_large:
            raise ProtocolError(
                "too_many_pending",
                f"{self._deferred_count} requests are waiting for a join or leave: wait for its reply first",
            )
        if data_json is not None and len(data_json) > _COMPACT_FROM:
            request = replace(request, data=Raw(data_json))
        if patch_json is not None and len(patch_json) > _COMPACT_FROM:
            request = replace(request, patch=Raw(patch_json))
        self._deferred.setdefault(room_id, []).append(request)
        self._deferred_count += 1
        self._deferred_bytes[room_id] = self._deferred_bytes.get(room_id, 0) + size
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
        self._deferred_bytes.pop(room_id, None)
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
        requests.Send: _send,
        requests.Watch: _watch,
        requests.Unwatch: _unwatch,
        requests.WatchPeople: _watch_people,
        requests.UnwatchPeople: _unwatch_people,
        requests.Closing: _closing,
    }


def in_reply_to(error: ProtocolError, request: requests.Request) -> ProtocolError:
    """Return the error with the id and the room of the request that it replies to, where these are valid."""
    error.id = request.id
    if error.room_id is None and error.code != "bad_id":
        room_id = getattr(request, "room_id", None)
        error.room_id = None if room_id is None else str(room_id)
    return error
