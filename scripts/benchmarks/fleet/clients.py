"""Clients that want to stay: they come back by themselves, and keep every change that they are told of.

Each holds the room as it was told it. A diff, or a snapshot taken anew, that takes somebody out of it counts
as a leave seen, and one that puts somebody in as a join seen: who only came back must be neither to anybody.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from websockets.exceptions import WebSocketException
from websockets.protocol import State

from reactor.client.backoff import Backoff, ReconnectDelays
from reactor.errors import ReactorError
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.timed_socket import Heard, Socket

AT_ONCE = 100
"""Clients that connect at the same time while a crowd is gathered; later each comes when it wants to."""
ABNORMAL = 1006


@dataclass(frozen=True, slots=True)
class Told:
    """What one client was told of another. at: s, `time.monotonic()`. reason: of a leave."""

    at: float
    by: str
    user_id: str
    reason: str


class Link(Socket):
    """A connection whose end can be waited for."""

    def __init__(self, url: str, heard: Heard) -> None:
        super().__init__(url, heard)
        self.lost = asyncio.Event()

    @property
    def code(self) -> int:
        """The close code, when it is lost."""
        return self._parser.close_rcvd.code if self._parser.close_rcvd is not None else ABNORMAL

    def say(self, message: dict[str, Any]) -> None:
        """Send a message; a connection that closes sends none."""
        if self._parser.state is State.OPEN:
            super().say(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so."""
        super().connection_lost(exc)
        self.lost.set()


class Person:
    """One client, in one room."""

    def __init__(self, crowd: "Crowd", room_id: str, user_id: str, port: int) -> None:
        self._crowd, self.room_id, self.user_id, self._port = crowd, room_id, user_id, port
        self.members: set[str] = set()
        self.present = self.acked = False
        self._first, self._asking = True, False
        self._epoch, self._version = "", -1
        self._early: list[dict[str, Any]] = []
        self._link: Link | None = None
        self._gone = False
        self._lost_at: float | None = None

    def give_up(self) -> None:
        """Do not come back when the connection is lost."""
        self._gone = True

    async def stay(self) -> None:
        """Join, send heartbeats, and come back whenever the connection is lost, until cancelled."""
        waits = ReconnectDelays(Backoff(), random.uniform)
        while True:
            try:
                async with self._crowd.gathering:
                    link = await self._join()
            except (OSError, ReactorError, TimeoutError, WebSocketException):
                await anyio.sleep(waits.after_failure())
                continue
            began = time.monotonic()
            await self._beat(link)
            self.present = False
            if self._gone:
                return
            self._lost_at = time.monotonic()
            self._crowd.closings[link.code] = self._crowd.closings.get(link.code, 0) + 1
            await anyio.sleep(waits.after_connection(link.code, time.monotonic() - began))

    async def _join(self) -> Link:
        link = await Link.open(self._port, self._hear)
        try:
            joined = await link.ask({"type": "join_room", "roomId": self.room_id, "userId": self.user_id})
        except BaseException:
            link.close()
            raise
        self._link, self.present, self._asking = link, True, False
        if self._lost_at is not None:
            self._crowd.away.append(time.monotonic() - self._lost_at)
        self._snapshot(joined)
        return link

    async def _beat(self, link: Link) -> None:
        # The first one after a random part of the interval, or all would come together for ever.
        wait = random.uniform(0, self._crowd.beat_every)
        try:
            while not link.lost.is_set():
                with anyio.move_on_after(wait):
                    await link.lost.wait()
                self.beat()
                wait = self._crowd.beat_every
        finally:
            link.close()

    def beat(self) -> None:
        """Send a heartbeat; `acked` tells that one was taken."""
        if self._link is not None:
            self._link.say({"type": "room:heartbeat", "roomId": self.room_id})

    def _hear(self, message: dict[str, Any], _at: float) -> None:
        match message["type"]:
            case "room:heartbeat:ack":
                self.acked = True
            case "room:diff":
                self._diff(message)
            case "room:members":
                self._asking = False
                self._snapshot(message)
            case "service:degraded" | "service:restored":
                self._crowd.service[self.user_id] = message["type"]
            case "room:force-leave":
                self._crowd.leaves.append(self._told(self.user_id, message["reason"]))
            case other:
                self._crowd.others[other] = self._crowd.others.get(other, 0) + 1

    def _snapshot(self, message: dict[str, Any]) -> None:
        now = {member["userId"] for member in message["members"]}
        if not self._first:
            self._becomes(now)
        self._first = False
        self.members, self._epoch, self._version = now, message["epoch"], message["version"]
        early, self._early = self._early, []
        for diff in early:
            if diff["epoch"] == self._epoch:
                self._diff(diff)

    def _diff(self, message: dict[str, Any]) -> None:
        if message["epoch"] == self._epoch and message["version"] <= self._version:
            return
        joined = {member["userId"] for member in message["joined"]}
        if message["from"] == 0 and message["epoch"] != self._epoch:
            self._becomes(joined)
            self.members = joined
        elif message["epoch"] != self._epoch or message["from"] > self._version:
            # It overtook the snapshot, or the ones before it got lost: it waits for the next snapshot.
            self._early.append(message)
            if self.present and not self._asking and self._link is not None:
                self._crowd.gaps += 1
                self._asking = True
                self._link.say({"type": "room:members", "roomId": self.room_id})
            return
        else:
            for left in message["left"]:
                self._crowd.leaves.append(self._told(left["userId"], left["reason"]))
                self.members.discard(left["userId"])
            self._crowd.joins += [self._told(user_id) for user_id in joined - self.members]
            self.members |= joined
        self._epoch, self._version = message["epoch"], message["version"]

    def _becomes(self, now: set[str]) -> None:
        self._crowd.leaves += [self._told(user_id, "missing from a list") for user_id in self.members - now]
        self._crowd.joins += [self._told(user_id) for user_id in now - self.members]

    def _told(self, user_id: str, reason: str = "") -> Told:
        return Told(time.monotonic(), self.user_id, user_id, reason)


class Crowd:
    """Many of them, and what all of them were told."""

    def __init__(self, beat_every: float) -> None:
        self.beat_every = beat_every
        self.people: list[Person] = []
        self.gathering = anyio.Semaphore(AT_ONCE)
        self.forget()

    def forget(self) -> None:
        """Begin anew to count what they are told."""
        self.joins: list[Told] = []
        self.leaves: list[Told] = []
        self.away: list[float] = []
        self.closings: dict[int, int] = {}
        self.service: dict[str, str] = {}
        self.others: dict[str, int] = {}
        self.gaps = 0

    def absent(self) -> int:
        """How many are not in their rooms now."""
        return sum(not person.present for person in self.people)

    def wrong(self) -> int:
        """How many hold another list than the one of all who should be in their room."""
        rooms: dict[str, set[str]] = {}
        for person in self.people:
            rooms.setdefault(person.room_id, set()).add(person.user_id)
        return sum(person.members != rooms[person.room_id] for person in self.people)

    def told(self) -> dict[str, Any]:
        """Sum up what they were told so far, and for how long each was without a connection."""
        wrong, away = [*self.leaves[:3], *self.joins[:3]], self.away
        return {
            "leaves_seen": len(self.leaves), "joins_seen": len(self.joins),
            "examples": [f"{one.by}: {one.user_id} {one.reason or 'joined'}" for one in wrong],
            "closings": dict(self.closings), "came_back": len(away),
            "away_p50_s": round(quantile(away, 0.5), 2), "away_max_s": round(max(away, default=0.0), 2),
            "gaps": self.gaps, "others": dict(self.others),
        }  # fmt: skip

    async def whole(self, patience: float) -> float:
        """Return once all are in their rooms and hold the right lists; the seconds that took."""
        return await until(lambda: not self.absent() and not self.wrong(), patience)


async def until(true: Callable[[], bool], patience: float, every: float = 0.05) -> float:
    """Return once something holds; the seconds that took, or infinity when patience ran out first."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > patience:
            return float("inf")
        await anyio.sleep(every)
    return time.monotonic() - began


@asynccontextmanager
async def crowd(
    ports: Sequence[int], count: int, room_size: int, *, beat_every: float = 25.0, patience: float = 120.0
) -> AsyncIterator[Crowd]:
    """So many clients, spread evenly over the ports, all of them in their rooms.

    Raises ReactorError when they do not get there in time.
    """
    gathered = Crowd(beat_every)
    for number in range(count):
        place = f"room-{number // room_size}", f"u{number}", ports[number % len(ports)]
        gathered.people.append(Person(gathered, *place))
    async with anyio.create_task_group() as tasks:
        for person in gathered.people:
            tasks.start_soon(person.stay)
        if await gathered.whole(patience) == float("inf"):
            raise ReactorError(
                f"{gathered.absent()} of {count} clients are not in their rooms after {patience:g} s"
            )
        gathered.gathering = anyio.Semaphore(count)
        gathered.forget()
        yield gathered
        tasks.cancel_scope.cancel()
