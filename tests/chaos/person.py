"""Somebody who comes, goes, falls silent and loses the network by a script made beforehand from the seed."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from tests.chaos.history import History, Life, now_ms
from tests.chaos.line import Line

BEAT_EVERY = 0.5
IMPATIENCE = 2000
"""Milliseconds without an answer after which an impatient client gives a socket up."""


@dataclass(frozen=True, slots=True)
class Act:
    """One thing to do, `at` seconds from the beginning. `rest`: how long it lasts; None is for good."""

    at: float
    kind: str
    room: str = ""
    rest: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """All that one person will do. `view` is asked for when joining."""

    user: str
    name: str
    comes_at: float
    rooms: tuple[str, ...]
    acts: tuple[Act, ...]
    view: str
    impatient: bool
    seed: int


class Door(Protocol):
    """Where nodes are found, as behind a balancer."""

    def pick(self, chance: random.Random) -> tuple[Life, int] | None:
        """A node that takes sockets, and its port."""


class Person:
    """Plays a script. `line` is the present socket; `halves` those that were left half open."""

    def __init__(self, script: Script, history: History, door: Door) -> None:
        self.script, self._history, self._door = script, history, door
        self.line: Line | None = None
        self.halves: list[Line] = []
        self._wanted = set(script.rooms)
        self._silent_until = 0.0
        self._away_until: float | None = 0.0
        self._chance = random.Random(script.seed)
        self.sockets = 0
        self._began = 0.0
        self._acts = list(script.acts)

    @property
    def gone(self) -> bool:
        """Whether it does not come back."""
        return self._away_until is None

    @property
    def waits(self) -> bool:
        """Whether it should be on a socket and is not, or asked to be in a room and is not yet."""
        if self.gone or not self._wanted:
            return False
        return self.line is None or not self.line.alive or bool(self._wanted - self.line.inside.keys())

    @property
    def last_heard(self) -> tuple[str, ...]:
        """The last of its socket, and what it lacks, for evidence."""
        if self.line is None:
            return (f"wants {self._wanted}, has no socket, and comes at {self._away_until} of {self._now()}",)
        lacks = self._wanted - self.line.inside.keys()
        return (
            *list(self.line.tail)[-12:],
            f"lacks {lacks}, alive {self.line.alive}, failed {self.line.failed}",
        )

    async def live(self, over: asyncio.Event) -> None:
        """Play until `over`. When all is done it stays, and comes back where it was cut off."""
        self._began = asyncio.get_running_loop().time()
        beats = asyncio.create_task(self._beat(over))
        await self._sleep_until(self.script.comes_at)
        try:
            while not over.is_set():
                await self._come()
                while self._acts and self._acts[0].at <= self._now():
                    self._do(self._acts.pop(0))
                self._try_again()
                nearest = self._acts[0].at if self._acts else self._now() + 0.2
                await asyncio.sleep(min(max(nearest - self._now(), 0.01), 0.2))
        finally:
            beats.cancel()
            with suppress(asyncio.CancelledError):
                await beats

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    async def _sleep_until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._now()))

    async def _come(self) -> None:
        """Be on a socket, unless this is a time to be away."""
        while self.line is not None and self.line.put_out:
            self._wanted.discard(self.line.put_out.pop())
        if self.line is not None and not self.line.closed.is_set() and self.line.life.ended_at is None:
            return
        if self.line is not None:
            self.line.discard()
            self.line = None
            if not self.gone:
                back_in = self._now() + self._chance.uniform(0.02, 0.3)
                self._away_until = max(self._away_until or 0.0, back_in)
        if self._away_until is None or self._now() < self._away_until or not self._wanted:
            return
        found = self._door.pick(self._chance)
        if found is None:
            return
        life, port = found
        self.sockets += 1
        try:
            name = f"{self.script.name}.{self.sockets}@{life.name}"
            self.line = await Line.open(self._history, self.script.user, name, life, port)
        except OSError:
            self._away_until = self._now() + self._chance.uniform(0.05, 0.3)
            return
        for room in sorted(self._wanted):
            self._join(room)

    def _join(self, room: str) -> None:
        if self.line is not None:
            extra: dict[str, Any] = {} if self.script.view == "members" else {"view": self.script.view}
            self.line.say(
                "join_room", room, userId=self.script.user, username=self.script.user.upper(), **extra
            )

    def _do(self, act: Act) -> None:
        line = self.line
        if act.kind == "join":
            self._wanted.add(act.room)
            if line is not None and act.room not in line.inside:
                self._join(act.room)
        elif line is not None and line.alive:
            self._act(line, act)

    def _act(self, line: Line, act: Act) -> None:
        match act.kind:
            case "leave":
                self._wanted.discard(act.room)
                if act.room in line.inside:
                    line.say("leave_room", act.room)
            case "update" if act.room in line.inside:
                line.say("room:update", act.room, data={"n": self._chance.randrange(1000)})
            case "away" | "back" | "members" | "count" if act.room in line.inside:
                line.say(f"room:{act.kind}", act.room)
            case "silence":
                self._silent_until = self._now() + (1000.0 if act.rest is None else act.rest)
            case "drop" | "close" | "half-open":
                self.lose(act.kind, act.rest)

    def lose(self, how: str, rest: float | None) -> None:
        """Lose the present socket, if any, and come back over another after `rest` seconds (None: never)."""
        line = self.line
        if line is None or not line.alive or self.gone:
            return
        self._away_until = None if rest is None else self._now() + rest
        if how == "half-open":
            line.mute()
            self.halves.append(line)
            self.line = None
        elif how == "close":
            line.close()
        else:
            line.cut()
            self.line = None

    def _try_again(self) -> None:
        """Ask again for what was refused for the moment; give up a socket that does not answer."""
        line = self.line
        if line is None or not line.alive:
            return
        for kind, room in line.take_refused():
            if kind == "leave_room" and room not in self._wanted and room in line.inside:
                line.say("leave_room", room)
        # Refused, or wanted again before the leave was answered.
        for room in sorted(self._wanted - line.inside.keys() - line.rooms_asked_for):
            self._join(room)
        waits = line.waits_since
        if self.script.impatient and waits is not None and now_ms() - waits > IMPATIENCE:
            line.give_up()
            self.line = None
            self._away_until = self._now() + self._chance.uniform(0.02, 0.3)

    async def _beat(self, over: asyncio.Event) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, BEAT_EVERY))
        while not over.is_set():
            if self.line is not None and self.line.alive and self._now() >= self._silent_until:
                self.line.say("room:heartbeat")
            await asyncio.sleep(BEAT_EVERY)

    # The end.

    def leave(self, how: str) -> None:
        """Go: `leave` says so to each room, `close` and `drop` go with the socket."""
        self._away_until, self._acts = None, []
        self._wanted.clear()
        line, self.line = self.line, None
        if line is None:
            return
        self.halves.append(line)
        if how == "leave" and line.inside:
            for room in list(line.inside):
                line.say("leave_room", room)
        elif how == "drop":
            line.cut()
        else:
            line.close()

    def discard(self) -> None:
        """Let go of all sockets."""
        for line in [*self.halves, *([self.line] if self.line else [])]:
            line.discard()
