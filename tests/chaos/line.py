"""One socket of a person: says what it is told to say, and keeps what it was told."""

import asyncio
from collections import deque
from typing import Any, Self

import msgspec

from tests.chaos.history import History, Life, Stay, last_refresh, now_ms
from tests.chaos.view import Message, View
from tests.chaos.wire import Wire

REMEMBERED = 300
"""Messages kept as evidence."""

EXPECTED = {"not_joined", "unavailable"}
"""Error codes that a well-behaved client may meet when things fail."""

CLOSES = {1000, 1005, 1006, 1012, 4003}
"""Close codes that may be seen: our own, a cut, a node that restarts, a forced leave from the last room."""

Question = tuple[str, str, list[Stay], int]
"""What was asked: type, room, where one was then, and when."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Line:
    """An open socket. `stays` and `views` are by room; `closed` is set once it is no more.

    `name` is the person's, with the number of the socket.
    """

    def __init__(self, history: History, user: str, name: str, life: Life) -> None:
        self._history, self.user, self.name, self.life = history, user, name, life
        self.stays: dict[str, Stay] = {}
        self.views: dict[str, View] = {}
        self.closed = asyncio.Event()
        self.degraded = False
        self._closing = False
        self.asked: dict[int, Question] = {}
        self.failed: list[tuple[str, str]] = []
        self.put_out: list[str] = []
        self._number = 0
        self._tail: deque[str] = deque(maxlen=REMEMBERED)
        self._wire: Wire
        history.tails[name] = self._tail

    @classmethod
    async def open(cls, history: History, user: str, name: str, life: Life, port: int) -> Self:
        """Raises OSError."""
        line = cls(history, user, name, life)
        line._wire = await Wire.connect(port, line._heard, line._on_closed)
        return line

    @property
    def alive(self) -> bool:
        """Whether it can be expected to hear and to be heard."""
        return self._wire.open and not (self._closing or self._wire.muted) and self.life.ended_at is None

    @property
    def inside(self) -> dict[str, Stay]:
        """The rooms that it believes to be in."""
        return {room: stay for room, stay in self.stays.items() if stay.until is None} if self.alive else {}

    @property
    def rooms_asked_for(self) -> set[str]:
        """Rooms that a join or a leave without an answer is about."""
        return {room for kind, room, *_ in self.asked.values() if kind in {"join_room", "leave_room"}}

    def take_refused(self) -> list[tuple[str, str]]:
        """The joins and leaves that were refused for the moment since the last look: type and room."""
        refused, self.failed = self.failed, []
        return refused

    @property
    def waits_since(self) -> int | None:
        """When the oldest request that has no answer was sent."""
        return min((sent for *_, sent in self.asked.values()), default=None)

    # Saying.

    def say(self, kind: str, room: str = "", **fields: Any) -> None:
        self._number += 1
        message = {"type": kind, "id": self._number, **fields}
        if room:
            message["roomId"] = room
        stays = list(self.inside.values()) if kind == "room:heartbeat" else []
        at = now_ms()
        self.asked[self._number] = (kind, room, stays, at)
        for stay in stays:
            stay.beats.append(at)
        if kind in {"join_room", "leave_room"}:
            asked = self._history.joins if kind == "join_room" else self._history.leaves
            asked.setdefault((room, self.user), []).append(at)
            self._note_leaving(room, at if kind == "leave_room" else None)
        payload = _encode(message)
        self._note(">", payload)
        self._wire.send(payload)

    def _note_leaving(self, room: str, at: int | None) -> None:
        if (stay := self.inside.get(room)) is not None:
            stay.leaving_since = at

    def cut(self) -> None:
        """Gone without a word."""
        self._end_all("cut")
        self._wire.abort()

    def mute(self) -> None:
        """Half open from here on."""
        self._end_all("muted")
        self._wire.mute()

    def close(self) -> None:
        """The closing handshake; the room takes that for a drop."""
        self._closing = True
        self._end_all("closed by us")
        self._wire.close()

    def give_up(self) -> None:
        """Cut off, since there is no answer."""
        asked = [f"{kind} {room} of {at}" for kind, room, _, at in self.asked.values()]
        self._tail.append(f"{now_ms()} {self.name} gives up, without an answer to {asked}")
        self.cut()

    def discard(self) -> None:
        """Let go of a socket whose node is no more, or that nobody needs."""
        self._wire.abort()

    # Hearing.

    def _note(self, mark: str, payload: bytes) -> None:
        text = payload.decode()
        self._tail.append(f"{now_ms()} {self.name} {mark} {text if len(text) < 700 else text[:700] + ' …'}")

    def _heard(self, payload: bytes) -> None:
        message: Message = _decode(payload)
        self._note("<", payload)
        request = message.get("id")
        question = self.asked.pop(request, None) if request is not None else None
        if request is not None and question is None:
            self.trouble("answer", f"request {request} was answered twice")
        self._take(message, question)

    def _take(self, message: Message, question: Question | None) -> None:
        room = message.get("roomId", "")
        match message["type"]:
            case "room:joined":
                self._joined(room, message)
            case "room:diff" | "room:count" | "room:members":
                self._news(room, message, asked=question is not None)
            case "room:left":
                self._end(room, "left")
            case "room:force-leave":
                self._forced(room, message)
            case "service:degraded" | "service:restored" as kind:
                if kind == "service:restored" and not self.degraded:
                    self.trouble("service", "restored, but was not degraded")
                self.degraded = kind == "service:degraded"
            case "room:heartbeat:ack":
                self._acknowledged(message, question)
            case "error":
                self._refused(message, question)

    def _news(self, room: str, message: Message, *, asked: bool) -> None:
        if room not in self.inside:
            if message["type"] == "room:diff" and self.alive:
                how = (stay := self.stays.get(room)) and f"{stay.how} since {stay.until}"
                self.trouble("view", f"news of {room}, where it is not ({how}): {_short(message)}")
            return
        view = self.views[room]
        match message["type"]:
            case "room:diff":
                view.apply(message)
            case "room:members":
                view.listing(message)
            case "room:count" if not asked:
                view.counted(message)

    def _acknowledged(self, message: Message, question: Question | None) -> None:
        self.check_time("an acknowledgement", message["timestamp"])
        leaving = {room for kind, room, *_ in self.asked.values() if kind == "leave_room"}
        for stay in question[2] if question is not None else ():
            # Who has asked to leave is not renewed any more, and other rooms do not wait for that.
            if stay.until is None and stay.room not in leaving:
                stay.acked.append(message["timestamp"])

    def _joined(self, room: str, message: Message) -> None:
        me = next((one for one in message.get("members", ()) if one["userId"] == self.user), None)
        if me is None and message["view"] == "members":
            self.trouble("view", f"joined {room}, but is not on the list: {_short(message)}")
        joined_at = me["joinedAt"] if me else None
        stay = self.stays.get(room)
        if stay is None or stay.until is not None or stay.joined_at != joined_at:
            self._end(room, "joined anew")
            if self.alive:
                stay = Stay(room, self.user, self.name, self.life, now_ms(), joined_at)
                self.stays[room] = stay
                self._history.stays.append(stay)
        view = self.views[room] = View(self._history, room, self.name)
        view.begin(message)
        for one in message.get("members", ()):
            self.check_time("joinedAt", one["joinedAt"])
            self.check_time("lastActiveAt", one["lastActiveAt"])

    def _forced(self, room: str, message: Message) -> None:
        stay = self.inside.get(room)
        self.check_time("force-leave", message["timestamp"])
        if stay is None:
            if self.alive:
                self.trouble("force-leave", f"put out of {room}, where it is not: {message}")
            return
        ttl = self._history.ttl_of[room]
        last = last_refresh(self._history.asked_to_join(stay), stay.acked, ttl)
        if message["reason"] == "inactivity_timeout" and stay.acked and now_ms() < last + ttl:
            self.trouble(
                "force-leave", f"put out of {room} {last + ttl - now_ms()} ms before its time: {message}"
            )
        self.put_out.append(room)
        self._end(room, f"put out: {message['reason']}")

    def _refused(self, message: Message, question: Question | None) -> None:
        if message["code"] not in EXPECTED or question is None:
            self.trouble("answer", f"refused: {message} to {question and question[:2]}")
        elif question[0] in {"join_room", "leave_room"}:
            self.failed.append((question[0], question[1]))
            self._note_leaving(question[1], None)

    def check_time(self, what: str, at: int) -> None:
        """A time that was told is by Redis's clock, whatever the node's says."""
        if not self._history.began_at - 1000 <= at <= now_ms() + 1000:
            self.trouble("clock", f"{what} of {at}, told at {now_ms()}")

    def _on_closed(self, code: int) -> None:
        if code not in CLOSES:
            self.trouble("close", f"closed with {code}")
        self._end_all(f"closed with {code}")
        self.asked.clear()
        self.closed.set()

    def _end(self, room: str, how: str) -> None:
        stay = self.stays.get(room)
        if stay is not None and stay.until is None:
            stay.until, stay.how = now_ms(), how

    def _end_all(self, how: str) -> None:
        for room in self.stays:
            self._end(room, how)

    def trouble(self, rule: str, text: str) -> None:
        self._history.trouble(rule, f"{self.name}: {text}", *list(self._tail)[-8:])

    @property
    def tail(self) -> list[str]:
        """The last messages, for evidence."""
        return list(self._tail)


def _short(message: Message) -> str:
    text = str(message)
    return text if len(text) < 300 else text[:300] + " …"
