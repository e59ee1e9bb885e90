"""One connection of a scripted client: sends requests, records messages, and checks them at once."""

import asyncio
from collections import deque
from typing import Any, Self

import msgspec

from tests.chaos.bans import BanRecords
from tests.chaos.history import History, Membership, NodeLife, last_refresh, now_ms
from tests.chaos.view import Message, View
from tests.chaos.websocket import WebSocket

ROUNDING = 50
"""Milliseconds by which a time of Redis and one of the client may differ."""

KEPT = 300
"""Number of messages kept as evidence."""

EXPECTED = {"not_joined", "unavailable"}
"""Error codes that a correct client may receive during faults."""

CLOSES = {1000, 1005, 1006, 1012, 4003}
"""Expected close codes: our own close, an abort, a restart of the node, removal from the last room."""

Request = tuple[str, str, list[Membership], int]
"""A request: type, room, the memberships at that time, and when it was sent."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ClientSocket:
    """An open socket. `memberships` and `views` are by room; `closed` is set when it has closed.

    `name` is the name of the client with the number of the socket.
    """

    def __init__(self, history: History, bans: BanRecords, user: str, name: str, node_life: NodeLife) -> None:
        self._history, self.user, self.name, self.node_life = history, user, name, node_life
        self._bans = bans
        self.memberships: dict[str, Membership] = {}
        self.views: dict[str, View] = {}
        self.joined_at: dict[str, int] = {}  # by room, as the reply to the join says
        self.returns_to: dict[str, Membership] = {}  # the memberships that its joins resume, by room
        self.former_views: dict[str, View] = {}  # the views that its joins resume, by room
        self.closed = asyncio.Event()
        self.degraded = False
        self._closing = False
        self.pending: dict[int, Request] = {}
        self.failed: list[tuple[str, str]] = []
        self.removed_from: list[str] = []
        self._number = 0
        self._recent: deque[str] = deque(maxlen=KEPT)
        self._websocket: WebSocket
        history.recent_by_socket[name] = self._recent

    @classmethod
    async def open(
        cls, history: History, bans: BanRecords, user: str, name: str, node_life: NodeLife, port: int
    ) -> Self:
        """Connect to a node. Raises OSError."""
        socket = cls(history, bans, user, name, node_life)
        socket._websocket = await WebSocket.connect(
            port, socket._received, socket._on_closed, bans.headers_of(user)
        )
        return socket

    @property
    def alive(self) -> bool:
        """Whether messages can pass in both directions."""
        return (
            self._websocket.open
            and not (self._closing or self._websocket.muted)
            and self.node_life.ended_at is None
        )

    @property
    def inside(self) -> dict[str, Membership]:
        """The memberships that have not ended, by room."""
        return (
            {room: membership for room, membership in self.memberships.items() if membership.until is None}
            if self.alive
            else {}
        )

    @property
    def rooms_requested(self) -> set[str]:
        """Rooms with a join or leave that has no reply yet."""
        return {room for kind, room, *_ in self.pending.values() if kind in {"join_room", "leave_room"}}

    def pop_refused(self) -> list[tuple[str, str]]:
        """The joins and leaves that were refused since the last call: type and room."""
        refused, self.failed = self.failed, []
        return refused

    def joining(self, room: str) -> Message | None:
        """What a join by another socket says, to resume the membership of this one; None without one."""
        if room not in self.joined_at:
            return None
        view = self.views[room]
        known = {"members": len(view.members)} if view.shown == "members" else {}
        return {"epoch": view.epoch, "version": view.version, "joinedAt": self.joined_at[room], **known}

    @property
    def oldest_request_at(self) -> int | None:
        """When the oldest request without a reply was sent."""
        return min((sent for *_, sent in self.pending.values()), default=None)

    # Sending.

    def send(self, kind: str, room: str = "", **fields: Any) -> None:
        self._number += 1
        message = {"type": kind, "id": self._number, **fields}
        if room:
            message["roomId"] = room
        memberships = list(self.inside.values()) if kind == "room:heartbeat" else []
        at = now_ms()
        self.pending[self._number] = (kind, room, memberships, at)
        for membership in memberships:
            membership.heartbeats.append(at)
        if kind in {"join_room", "leave_room"}:
            requested = self._history.joins if kind == "join_room" else self._history.leaves
            requested.setdefault((room, self.user), []).append(at)
            self._note_leaving(room, at if kind == "leave_room" else None)
        payload = _encode(message)
        self._note(">", payload)
        self._websocket.send(payload)

    def _note_leaving(self, room: str, at: int | None) -> None:
        if (membership := self.inside.get(room)) is not None:
            membership.leaving_since = at

    def cut(self) -> None:
        """Abort the connection."""
        self._end_all("cut")
        self._websocket.abort()

    def mute(self) -> None:
        """Become half open."""
        self._end_all("muted")
        self._websocket.mute()

    def close(self) -> None:
        """Send a close frame; the server treats that as a disconnect."""
        self._closing = True
        self._end_all("closed by us")
        self._websocket.close()

    def give_up(self) -> None:
        """Abort the connection because a reply is missing."""
        requested = [f"{kind} {room} of {at}" for kind, room, _, at in self.pending.values()]
        self._recent.append(f"{now_ms()} {self.name} gives up, without a reply to {requested}")
        self.cut()

    def discard(self) -> None:
        """Abort a socket that is no longer needed or whose node has ended."""
        self._websocket.abort()

    # Receiving.

    def _note(self, mark: str, payload: bytes) -> None:
        text = payload.decode()
        self._recent.append(f"{now_ms()} {self.name} {mark} {text if len(text) < 700 else text[:700] + ' …'}")

    def _received(self, payload: bytes) -> None:
        message: Message = _decode(payload)
        self._note("<", payload)
        number = message.get("id")
        request = self.pending.pop(number, None) if number is not None else None
        if number is not None and request is None:
            self.violation("answer", f"request {number} was answered twice")
        self._take(message, request)

    def _take(self, message: Message, request: Request | None) -> None:
        room = message.get("roomId", "")
        match message["type"]:
            case "room:joined":
                self._joined(room, message)
            case "room:diff" | "room:count" | "room:members":
                self._room_message(room, message, requested=request is not None)
            case "room:left":
                self.joined_at.pop(room, None)
                self._end(room, "left")
            case "room:force-leave":
                self._removed(room, message, returns=request is not None)
            case "service:degraded" | "service:restored" as kind:
                if kind == "service:restored" and not self.degraded:
                    self.violation("service", "restored, but was not degraded")
                self.degraded = kind == "service:degraded"
            case "room:heartbeat:ack":
                self._acknowledged(message, request)
            case "error":
                self._refused(message, request)

    def _room_message(self, room: str, message: Message, *, requested: bool) -> None:
        if room not in self.inside:
            if message["type"] == "room:diff" and self.alive:
                how = (
                    membership := self.memberships.get(room)
                ) and f"{membership.how} since {membership.until}"
                self.violation(
                    "view", f"received a diff of {room}, and is not in it ({how}): {_short(message)}"
                )
            return
        view = self.views[room]
        match message["type"]:
            case "room:diff":
                view.apply(message)
            case "room:members":
                view.listing(message)
            case "room:count" if not requested:
                view.counted(message)

    def _acknowledged(self, message: Message, request: Request | None) -> None:
        self.check_time("an acknowledgement", message["timestamp"])
        leaving = {room for kind, room, *_ in self.pending.values() if kind == "leave_room"}
        for membership in request[2] if request is not None else ():
            # A heartbeat no longer refreshes a membership that the client has asked to leave.
            if membership.until is None and membership.room not in leaving:
                membership.acked.append(message["timestamp"])

    def _joined(self, room: str, message: Message) -> None:
        view = View(self._history, room, self.name)
        view.begin(message, self.former_views.get(room))
        me = view.members.get(self.user)
        if me is None and message["view"] == "members":
            self.violation("view", f"joined {room}, but is not in the snapshot: {_short(message)}")
        joined_at = me["joinedAt"] if me else None
        if self.alive:  # otherwise the client does not know of it, and does not return to it
            self.joined_at[room] = message["joinedAt"]
        membership = self.memberships.get(room)
        if membership is None or membership.until is not None or membership.joined_at != joined_at:
            self._end(room, "joined again")
            if self.alive:
                membership = Membership(room, self.user, self.name, self.node_life, now_ms(), joined_at)
                self.memberships[room] = membership
                self._history.memberships.append(membership)
        self.views[room] = view
        for one in message.get("members", ()):
            self.check_time("joinedAt", one["joinedAt"])
            self.check_time("lastActiveAt", one["lastActiveAt"])

    def _removed(self, room: str, message: Message, *, returns: bool) -> None:
        """Leave the room. returns: the answer to a join says that the membership to resume had ended."""
        membership = self.returns_to.get(room) if returns else self.inside.get(room)
        self.check_time("force-leave", message["timestamp"])
        if membership is None:
            if self.alive:
                self.violation("force-leave", f"removed from {room}, and is not in it: {message}")
            return
        if message["reason"] == "banned":
            # A node that missed the ban, or a return, may come later than its end.
            self._bans.check_refusal(
                self.user, room, f"{self.name}: removed: {message}", self.node_life, membership.since
            )
        ttl = self._history.ttl_of[room]
        last = last_refresh(self._history.join_requested_at(membership), membership.acked, ttl)
        at = message["timestamp"] + ROUNDING if returns else now_ms()
        if message["reason"] == "inactivity_timeout" and membership.acked and at < last + ttl:
            self.violation(
                "force-leave", f"removed from {room} {last + ttl - at} ms before the expiry: {message}"
            )
        self.removed_from.append(room)
        self.joined_at.pop(room, None)
        self._end(room, f"removed: {message['reason']}")

    def _refused(self, message: Message, request: Request | None) -> None:
        if message["code"] == "banned":
            # Joins are judged by Redis; everything else by what the node knows.
            since = request[3] if request is not None and request[0] == "join_room" else None
            room = request[1] if request is not None else message.get("roomId")
            self._bans.check_refusal(
                self.user, room or None, f"{self.name}: {message} to {request and request[:2]}",
                self.node_life, since,
            )  # fmt: skip
        elif message["code"] not in EXPECTED or request is None:
            self.violation("answer", f"refused: {message} to {request and request[:2]}")
        elif request[0] in {"join_room", "leave_room"}:
            self.failed.append((request[0], request[1]))
            self._note_leaving(request[1], None)

    def check_time(self, what: str, at: int) -> None:
        """Check that a received time is from Redis's clock, not from the node's."""
        if not self._history.began_at - 1000 <= at <= now_ms() + 1000:
            self.violation("clock", f"{what} of {at}, received at {now_ms()}")

    def _on_closed(self, code: int) -> None:
        if code not in CLOSES:
            self.violation("close", f"closed with {code}")
        self._end_all(f"closed with {code}")
        for kind, room, *_ in self.pending.values():
            if kind == "join_room":
                self._history.unanswered.setdefault((room, self.user), []).append(self.node_life)
        self.pending.clear()
        self.closed.set()

    def _end(self, room: str, how: str) -> None:
        membership = self.memberships.get(room)
        if membership is not None and membership.until is None:
            membership.until, membership.how = now_ms(), how

    def _end_all(self, how: str) -> None:
        for room in self.memberships:
            self._end(room, how)

    def violation(self, rule: str, text: str) -> None:
        self._history.violation(rule, f"{self.name}: {text}", *list(self._recent)[-8:])

    @property
    def recent(self) -> list[str]:
        """The last messages, as evidence."""
        return list(self._recent)


def _short(message: Message) -> str:
    text = str(message)
    return text if len(text) < 300 else text[:300] + " …"
