"""A client that connects, joins, leaves, falls silent and loses its connection by a drawn script."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from tests.chaos.bans import BanRecords
from tests.chaos.client_socket import ClientSocket
from tests.chaos.history import History, NodeLife, now_ms

HEARTBEAT_EVERY = 0.5
GIVES_UP_AFTER = 2000
"""Milliseconds without a reply after which an impatient client closes its socket and reconnects."""


@dataclass(frozen=True, slots=True)
class Act:
    """One action, `at` seconds after the start. rest: its duration in seconds; None is forever."""

    at: float
    kind: str
    room: str = ""
    rest: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that one client will do. view: the view that it requests in `join_room`."""

    user: str
    name: str
    connects_at: float
    rooms: tuple[str, ...]
    acts: tuple[Act, ...]
    view: str
    gives_up: bool
    seed: int


class NodePicker(Protocol):
    """Chooses the node of a new connection, as a load balancer does."""

    def pick(self, chance: random.Random) -> tuple[NodeLife, int] | None:
        """A node that accepts clients, and its port."""


class ScriptedClient:
    """Runs a script. `socket` is the present connection; `half_open` has those left half open."""

    def __init__(self, script: Script, history: History, nodes: NodePicker, bans: BanRecords) -> None:
        self.script, self._history, self._nodes, self._bans = script, history, nodes, bans
        self.socket: ClientSocket | None = None
        self.half_open: list[ClientSocket] = []
        self._wanted = set(script.rooms)
        self._silent_until = 0.0
        self._away_until: float | None = 0.0
        self._chance = random.Random(script.seed)
        self._latest: ClientSocket | None = None
        self._former: ClientSocket | None = None  # the one before the latest
        self._resumes = self._chance.random() < 0.7  # whether it says what it returns to
        self.sockets = 0
        self._began = 0.0
        self._acts = list(script.acts)

    @property
    def gone(self) -> bool:
        """Whether it does not return."""
        return self._away_until is None

    @property
    def waits(self) -> bool:
        """Whether it should be connected and is not, or should be in a room and is not yet."""
        wanted = {room for room in self._wanted if not self._bans.holds(self.script.user, room)}
        if self.gone or not wanted:
            return False
        return self.socket is None or not self.socket.alive or bool(wanted - self.socket.inside.keys())

    @property
    def last_heard(self) -> tuple[str, ...]:
        """The last messages of its socket and the rooms that it is missing, as evidence."""
        if self.socket is None:
            return (
                f"wants {self._wanted}, has no socket, connects at {self._away_until}, now {self._now()}",
            )
        missing = self._wanted - self.socket.inside.keys()
        return (
            *list(self.socket.recent)[-12:],
            f"missing {missing}, alive {self.socket.alive}, failed {self.socket.failed}",
        )

    async def live(self, over: asyncio.Event) -> None:
        """Run the script, then stay connected until `over`."""
        self._began = asyncio.get_running_loop().time()
        heartbeats = asyncio.create_task(self._send_heartbeats(over))
        await self._sleep_until(self.script.connects_at)
        try:
            while not over.is_set():
                await self._connect()
                while self._acts and self._acts[0].at <= self._now():
                    self._do(self._acts.pop(0))
                self._retry()
                nearest = self._acts[0].at if self._acts else self._now() + 0.2
                await asyncio.sleep(min(max(nearest - self._now(), 0.01), 0.2))
        finally:
            heartbeats.cancel()
            with suppress(asyncio.CancelledError):
                await heartbeats

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    async def _sleep_until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._now()))

    async def _connect(self) -> None:
        """Connect and join the rooms, unless the client is disconnected on purpose at this time."""
        while self.socket is not None and self.socket.removed_from:
            self._stop_wanting(self.socket.removed_from.pop())
        if (
            self.socket is not None
            and not self.socket.closed.is_set()
            and self.socket.node_life.ended_at is None
        ):
            return
        if self.socket is not None:
            self.socket.discard()
            self.socket = None
            if not self.gone:
                back_in = self._now() + self._chance.uniform(0.02, 0.3)
                self._away_until = max(self._away_until or 0.0, back_in)
        if self._away_until is None or self._now() < self._away_until or not self._wanted:
            return
        found = self._nodes.pick(self._chance)
        if found is None:
            return
        node_life, port = found
        self.sockets += 1
        try:
            name = f"{self.script.name}.{self.sockets}@{node_life.name}"
            self.socket = await ClientSocket.open(
                self._history, self._bans, self.script.user, name, node_life, port
            )
        except OSError:
            self._away_until = self._now() + self._chance.uniform(0.05, 0.3)
            return
        self._former, self._latest = self._latest, self.socket
        for room in sorted(self._wanted):
            self._join(room)

    def _stop_wanting(self, room: str) -> None:
        self._wanted.discard(room)
        if self._former is not None:
            self._former.joined_at.pop(room, None)  # a later join does not return to it

    def _join(self, room: str) -> None:
        if self.socket is not None:
            extra: dict[str, Any] = {} if self.script.view == "members" else {"view": self.script.view}
            former = None if room in self.socket.memberships else self._former
            if self._resumes and former is not None and (joining := former.joining(room)) is not None:
                extra["resume"] = joining
                self.socket.returns_to[room] = former.memberships[room]
                self.socket.former_views[room] = former.views[room]
            self.socket.send(
                "join_room", room, userId=self.script.user, username=self.script.user.upper(), **extra
            )

    def _do(self, act: Act) -> None:
        socket = self.socket
        if act.kind == "join":
            self._wanted.add(act.room)
            if socket is not None and act.room not in socket.inside:
                self._join(act.room)
        elif socket is not None and socket.alive:
            self._act(socket, act)

    def _act(self, socket: ClientSocket, act: Act) -> None:
        match act.kind:
            case "leave":
                self._stop_wanting(act.room)
                if act.room in socket.inside:
                    socket.send("leave_room", act.room)
            case "update" if act.room in socket.inside:
                socket.send("room:update", act.room, data={"n": self._chance.randrange(1000)})
            case "away" | "back" | "members" | "count" if act.room in socket.inside:
                socket.send(f"room:{act.kind}", act.room)
            case "silence":
                self._silent_until = self._now() + (1000.0 if act.rest is None else act.rest)
            case "drop" | "close" | "half-open":
                self.lose(act.kind, act.rest)

    def lose(self, how: str, rest: float | None) -> None:
        """Lose the present connection, if any, and reconnect after `rest` seconds (None: never)."""
        socket = self.socket
        if socket is None or not socket.alive or self.gone:
            return
        self._away_until = None if rest is None else self._now() + rest
        if how == "half-open":
            socket.mute()
            self.half_open.append(socket)
            self.socket = None
        elif how == "close":
            socket.close()
        else:
            socket.cut()
            self.socket = None

    def _retry(self) -> None:
        """Repeat requests that were refused temporarily; an impatient client drops a silent socket."""
        socket = self.socket
        if socket is None or not socket.alive:
            return
        for kind, room in socket.pop_refused():
            if kind == "leave_room" and room not in self._wanted and room in socket.inside:
                socket.send("leave_room", room)
        # The join was refused, or the client wants to be in the room again before its leave was answered.
        for room in sorted(self._wanted - socket.inside.keys() - socket.rooms_requested):
            self._join(room)
        waits = socket.oldest_request_at
        if self.script.gives_up and waits is not None and now_ms() - waits > GIVES_UP_AFTER:
            socket.give_up()
            self.socket = None
            self._away_until = self._now() + self._chance.uniform(0.02, 0.3)

    async def _send_heartbeats(self, over: asyncio.Event) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, HEARTBEAT_EVERY))
        while not over.is_set():
            if self.socket is not None and self.socket.alive and self._now() >= self._silent_until:
                self.socket.send("room:heartbeat")
            await asyncio.sleep(HEARTBEAT_EVERY)

    # The end of the schedule.

    def leave(self, how: str) -> None:
        """Leave for good: with `leave_room`, with a close frame (`close`), or by an abort (`drop`)."""
        self._away_until, self._acts = None, []
        self._wanted.clear()
        socket, self.socket = self.socket, None
        if socket is None:
            return
        self.half_open.append(socket)
        if how == "leave" and socket.inside:
            for room in list(socket.inside):
                socket.send("leave_room", room)
        elif how == "drop":
            socket.cut()
        else:
            socket.close()

    def discard(self) -> None:
        """Abort all sockets."""
        for socket in [*self.half_open, *([self.socket] if self.socket else [])]:
            socket.discard()
