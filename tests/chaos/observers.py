"""Clients that watch rooms without being in them, by a script, and what their views must equal.

An observer connects to any node, watches some rooms by their members and all rooms by their counts, loses its
connection now and then, and watches anew. Its diffs must follow each other as those of a member do; at a
quiet point its members and counts equal what Redis holds. It is no member, so the rules of members make it a
finding if it is listed, counted or leaves a key.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.chaos.bans import BanRecords
from tests.chaos.client import NodePicker
from tests.chaos.client_socket import KEPT
from tests.chaos.convergence import listed_fields, stored_members
from tests.chaos.history import Finding, History, NodeLife, now_ms
from tests.chaos.state import State
from tests.chaos.view import Message, View
from tests.chaos.websocket import WebSocket

ASKS_AGAIN = 0.2
"""Seconds until a refused request is repeated."""
CLOSES = {1000, 1005, 1006, 1012, 4003}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Watching:
    """The script of an observer.

    rooms: those of which it watches the members. cuts: when it loses its socket (s).
    """

    user: str
    rooms: tuple[str, ...]
    cuts: tuple[float, ...]
    seed: int


class WatchedView(View):
    """A room as an observer sees it. Departures are counted where members receive them."""

    def _departed(self, user: str, member: Message, reason: str) -> None:
        """Do nothing."""


class Observer:
    """Runs a script. `views` and `counts` are those of its present connection, by room."""

    def __init__(
        self, script: Watching, rooms: tuple[str, ...], history: History, bans: BanRecords, nodes: NodePicker,
    ) -> None:  # fmt: skip
        self.script, self._rooms, self._history = script, rooms, history
        self._bans, self._nodes = bans, nodes
        self._chance = random.Random(script.seed)
        self._socket: WebSocket | None = None
        self._node: NodeLife | None = None
        self._closed = asyncio.Event()
        self.views: dict[str, WatchedView] = {}
        self.counts: dict[str, tuple[str, int, int]] = {}
        self._asked: dict[int, tuple[str, ...]] = {}
        self._number = 0
        self._opened = 0
        self._recent: deque[str] = deque(maxlen=KEPT)

    @property
    def name(self) -> str:
        return f"{self.script.user}.{self._opened}@{self._node.name if self._node else '-'}"

    @property
    def connected(self) -> bool:
        """Whether it is connected to a node that exists."""
        return self._socket is not None and self._socket.open and self._node_lives

    @property
    def _node_lives(self) -> bool:
        return self._node is not None and self._node.ended_at is None

    async def live(self, over: asyncio.Event) -> None:
        """Run the script, and watch until `over`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        cuts = list(self.script.cuts)
        while not over.is_set():
            if not self.connected:
                await self._connect()
            elif cuts and cuts[0] <= loop.time() - began:
                cuts.pop(0)
                self.leave()
            else:
                self._ask()
            await asyncio.sleep(self._chance.uniform(0.5, 1.0) * ASKS_AGAIN)
        self.leave()

    def leave(self) -> None:
        """Abort the connection."""
        if self._socket is not None:
            self._socket.abort()

    async def _connect(self) -> None:
        self.leave()
        found = self._nodes.pick(self._chance)
        if found is None:
            return
        node, port = found
        self.views, self.counts, self._asked = {}, {}, {}
        self._opened += 1
        self._node = node
        opened = self._opened
        try:
            self._socket = await WebSocket.connect(
                port,
                lambda payload: self._received(payload) if opened == self._opened else None,
                lambda code: self._on_closed(code) if opened == self._opened else None,
                self._bans.headers_of(self.script.user),
            )
        except OSError:
            self._socket = None

    def _ask(self) -> None:
        """Watch what is not watched, nor asked for."""
        asked = {room for rooms in self._asked.values() for room in rooms}
        for room in self.script.rooms:
            if room not in self.views and room not in asked:
                self._send((room,), roomId=room, view="members")
        of_counts = [room for room in self._rooms if room not in self.script.rooms]
        missing = tuple(room for room in of_counts if room not in self.counts and room not in asked)
        if missing:
            self._send(missing, roomIds=missing, view="count")

    def _send(self, rooms: tuple[str, ...], **fields: Any) -> None:
        if self._socket is not None:
            self._number += 1
            self._asked[self._number] = rooms
            self._socket.send(_encode({"type": "room:watch", "id": self._number, **fields}))

    def _received(self, payload: bytes) -> None:
        message: Message = _decode(payload)
        text = payload.decode()
        self._recent.append(f"{now_ms()} {self.name} < {text[:700]}")
        rooms = self._asked.pop(message.get("id", 0), ())
        room = message.get("roomId", "")
        match message["type"]:
            case "room:watching":
                view = self.views[room] = WatchedView(self._history, room, self.name)
                self._history.recent_by_socket[self.name] = self._recent
                view.begin(message)
            case "room:diff" if room in self.views:
                self.views[room].apply(message)
            case "room:members" if room in self.views:
                self.views[room].listing(message)
            case "room:counts":
                for one in message["rooms"]:
                    self._counted(one, known=bool(rooms))
                for one in message.get("refused", ()):
                    self._refused(one, requested=True)
            case "error":
                self._refused(message, requested=bool(rooms))

    def _counted(self, one: Message, *, known: bool) -> None:
        """Take over a count. known: whether it answers a request, so that the room may be a new one."""
        room = one["roomId"]
        if room in self.counts or known:
            self.counts[room] = one["epoch"], one["version"], one["count"]

    def _refused(self, message: Message, *, requested: bool) -> None:
        code, room = message["code"], message.get("roomId")
        if code == "banned":
            self._bans.check_refusal(self.script.user, room, f"{self.name}: {message}", self._node)
            if room is not None:
                self.views.pop(room, None)
                self.counts.pop(room, None)
        elif code != "unavailable" or not requested:
            self._history.violation("answer", f"{self.name}: refused: {message}", *list(self._recent)[-8:])

    def _on_closed(self, code: int) -> None:
        self.views, self.counts, self._asked = {}, {}, {}
        if code not in CLOSES:
            self._history.violation("close", f"{self.name} closed with {code}", *list(self._recent)[-4:])

    def differences(self, sockets: Mapping[str, Mapping[str, int]], state: State) -> list[Finding]:
        """How its views differ from Redis. sockets: the number of live sockets by room and user."""
        user = self.script.user
        if not self.connected:
            if self._bans.holds(user, None):
                return []
            return [Finding("lost", f"{self.name} could not return to watch", tuple(self._recent)[-8:])]
        found = []
        for room in self._rooms:
            watches = room in self.views or room in self.counts
            if self._bans.holds(user, room):
                forbidden = self._bans.proves_users and self._bans.certainly_holds(user, room)
                what = "watches it, in spite of a ban" if watches and forbidden else ""
            elif not watches:
                what = "is not watched again"
            elif room in self.views:
                what = self._difference(self.views[room], sockets.get(room, {}), state)
            else:
                count, members = self.counts[room][2], len(state.members.get(room, {}))
                what = f"has a count of {count}, and Redis of {members}" if count != members else ""
            if what:
                evidence = [text for text in self._recent if f'"{room}"' in text]
                found.append(Finding("view", f"{self.name} in {room} {what}", tuple(evidence[-8:])))
        return found

    @staticmethod
    def _difference(view: View, sockets: Mapping[str, int], state: State) -> str:
        members, position = state.members.get(view.room, {}), state.positions.get(view.room)
        if not members and not view.members:
            return ""  # of an empty room nothing may be stored
        if (view.epoch, view.version) != position:
            return f"is at {view.epoch} {view.version}, and Redis at {position}"
        listed, stored = listed_fields(view), stored_members(members, sockets)
        if listed == stored:
            return ""
        return f"differs: received {listed}, in Redis {stored}"
