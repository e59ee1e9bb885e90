"""Clients that reconnect by themselves and record every join and leave that they receive.

Each keeps the members of its room. A diff or a new snapshot without a former member counts as a leave seen,
one with a new member as a join seen. A member that only reconnects must cause neither at any client.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec
from websockets.exceptions import WebSocketException
from websockets.protocol import State

from reactor.client.backoff import Backoff, ReconnectDelays
from reactor.errors import ReactorError
from scripts.benchmarks.figures import quantile
from scripts.benchmarks.timed_socket import OnMessage, Socket

AT_ONCE = 100
"""Clients that connect at the same time at the start; later reconnections are not limited."""
ABNORMAL = 1006


@dataclass(frozen=True, slots=True)
class Notification:
    """A join or leave that one client received. at: seconds, `time.monotonic()`. reason: of a leave."""

    at: float
    by: str
    user_id: str
    reason: str


class Link(Socket):
    """A connection with an event for its end."""

    def __init__(self, url: str, on_message: OnMessage) -> None:
        super().__init__(url, on_message)
        self.lost = asyncio.Event()

    @property
    def code(self) -> int:
        """The close code after the connection was lost."""
        return self._parser.close_rcvd.code if self._parser.close_rcvd is not None else ABNORMAL

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, unless the connection is closing."""
        if self._parser.state is State.OPEN:
            super().send(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Set the event `lost`."""
        super().connection_lost(exc)
        self.lost.set()


class Client:
    """One client, in one room."""

    def __init__(self, crowd: "Crowd", room_id: str, user_id: str, port: int) -> None:
        self._crowd, self.room_id, self.user_id, self._port = crowd, room_id, user_id, port
        self.members: set[str] = set()
        self.present = self.acked = False
        self._first, self._list_requested = True, False
        self._epoch, self._version, self._joined_at = "", -1, 0
        self._early_diffs: list[dict[str, Any]] = []
        self._link: Link | None = None
        self._stopped = False
        self._lost_at: float | None = None

    def stop_reconnecting(self) -> None:
        """Do not reconnect after the next loss of the connection."""
        self._stopped = True

    async def run(self) -> None:
        """Join, send heartbeats, and reconnect after each loss of the connection, until cancelled."""
        delays = ReconnectDelays(Backoff(), random.uniform)
        while True:
            try:
                async with self._crowd.connecting:
                    link = await self._join()
            except (OSError, ReactorError, TimeoutError, WebSocketException):
                await anyio.sleep(delays.after_failure())
                continue
            began = time.monotonic()
            await self._send_heartbeats(link)
            self.present = False
            if self._stopped:
                return
            self._lost_at = time.monotonic()
            self._crowd.closings[link.code] = self._crowd.closings.get(link.code, 0) + 1
            lasted = time.monotonic() - began
            await anyio.sleep(delays.after_connection(link.code, lasted, answered=True))

    async def _join(self) -> Link:
        link = await Link.open(self._port, self._on_message)
        request: dict[str, Any] = {"type": "join_room", "roomId": self.room_id, "userId": self.user_id}
        if self._crowd.by_position and not self._first:
            request["resume"] = {
                "epoch": self._epoch, "version": self._version, "joinedAt": self._joined_at,
                "members": len(self.members),
            }  # fmt: skip
        try:
            joined = await link.ask(request)
        except BaseException:
            link.close()
            raise
        self._joined_at = joined["joinedAt"]
        rooms = joined.get("members", joined.get("diffs"))
        self._crowd.room_bytes += len(msgspec.json.encode(rooms))
        self._crowd.by_diffs += "diffs" in joined
        self._link, self.present, self._list_requested = link, True, False
        if self._lost_at is not None:
            self._crowd.away.append(time.monotonic() - self._lost_at)
        if "diffs" in joined:
            for diff in joined["diffs"]:
                self._diff({**diff, "epoch": joined["epoch"]})
            self._replay_early_diffs()
        else:
            self._snapshot(joined)
        return link

    async def _send_heartbeats(self, link: Link) -> None:
        # The first heartbeat comes after a random part of the interval, so that clients are spread.
        wait = random.uniform(0, self._crowd.heartbeat_every)
        try:
            while not link.lost.is_set():
                with anyio.move_on_after(wait):
                    await link.lost.wait()
                self.send_heartbeat()
                wait = self._crowd.heartbeat_every
        finally:
            link.close()

    def send_heartbeat(self) -> None:
        """Send a heartbeat; `acked` becomes true with the acknowledgement."""
        if self._link is not None:
            self._link.send({"type": "room:heartbeat", "roomId": self.room_id})

    def change(self, data: Any) -> None:
        """Change the member's data, if it is in the room."""
        if self._link is not None and self.present:
            self._link.send({"type": "room:update", "roomId": self.room_id, "data": data})

    def _on_message(self, message: dict[str, Any], _at: float) -> None:
        match message["type"]:
            case "room:heartbeat:ack":
                self.acked = True
            case "room:diff":
                self._diff(message)
            case "room:members":
                self._list_requested = False
                self._crowd.room_bytes += len(msgspec.json.encode(message["members"]))
                self._snapshot(message)
            case "service:degraded" | "service:restored":
                self._crowd.service[self.user_id] = message["type"]
            case "room:force-leave":
                self._crowd.leaves.append(self._notification(self.user_id, message["reason"]))
            case other:
                self._crowd.others[other] = self._crowd.others.get(other, 0) + 1

    def _snapshot(self, message: dict[str, Any]) -> None:
        now = {member["userId"] for member in message["members"]}
        if not self._first:
            self._replace_members(now)
        self._first = False
        self.members, self._epoch, self._version = now, message["epoch"], message["version"]
        self._replay_early_diffs()

    def _replay_early_diffs(self) -> None:
        early, self._early_diffs = self._early_diffs, []
        for diff in early:
            if diff["epoch"] == self._epoch:
                self._diff(diff)

    def _diff(self, message: dict[str, Any]) -> None:
        if message["epoch"] == self._epoch and message["version"] <= self._version:
            return
        joined = {member["userId"] for member in message["joined"]}
        if message["from"] == 0 and message["epoch"] != self._epoch:
            self._replace_members(joined)
            self.members = joined
        elif message["epoch"] != self._epoch or message["from"] > self._version:
            # It arrived before its snapshot, or earlier diffs were lost: keep it for the next snapshot.
            self._early_diffs.append(message)
            if self.present and not self._list_requested and self._link is not None:
                self._crowd.gaps += 1
                self._list_requested = True
                self._link.send({"type": "room:members", "roomId": self.room_id})
            return
        else:
            for left in message["left"]:
                self._crowd.leaves.append(self._notification(left["userId"], left["reason"]))
                self.members.discard(left["userId"])
            self._crowd.joins += [self._notification(user_id) for user_id in joined - self.members]
            self.members |= joined
        self._epoch, self._version = message["epoch"], message["version"]

    def _replace_members(self, now: set[str]) -> None:
        self._crowd.leaves += [self._notification(lost, "missing from a list") for lost in self.members - now]
        self._crowd.joins += [self._notification(user_id) for user_id in now - self.members]

    def _notification(self, user_id: str, reason: str = "") -> Notification:
        return Notification(time.monotonic(), self.user_id, user_id, reason)


class Crowd:
    """Many clients, and the joins and leaves that they received."""

    def __init__(self, heartbeat_every: float, *, by_position: bool = False) -> None:
        self.heartbeat_every, self.by_position = heartbeat_every, by_position
        self.clients: list[Client] = []
        self.connecting = anyio.Semaphore(AT_ONCE)
        self.forget()

    def forget(self) -> None:
        """Reset the record of received joins, leaves and closures."""
        self.joins: list[Notification] = []
        self.leaves: list[Notification] = []
        self.away: list[float] = []
        self.closings: dict[int, int] = {}
        self.service: dict[str, str] = {}
        self.others: dict[str, int] = {}
        self.gaps = self.room_bytes = self.by_diffs = 0

    def not_joined(self) -> int:
        """The number of clients that are not in their rooms now."""
        return sum(not client.present for client in self.clients)

    def wrong(self) -> int:
        """The number of clients whose list differs from the clients of their room."""
        rooms: dict[str, set[str]] = {}
        for client in self.clients:
            rooms.setdefault(client.room_id, set()).add(client.user_id)
        return sum(client.members != rooms[client.room_id] for client in self.clients)

    def summary(self) -> dict[str, Any]:
        """Return counts of the received joins and leaves, and the times without a connection."""
        wrong, away = [*self.leaves[:3], *self.joins[:3]], self.away
        return {
            "leaves_seen": len(self.leaves), "joins_seen": len(self.joins),
            "examples": [f"{one.by}: {one.user_id} {one.reason or 'joined'}" for one in wrong],
            "closings": dict(self.closings), "came_back": len(away),
            "away_p50_s": round(quantile(away, 0.5), 2), "away_max_s": round(max(away, default=0.0), 2),
            "gaps": self.gaps, "others": dict(self.others),
        }  # fmt: skip

    async def converged(self, patience: float) -> float:
        """Wait until all clients are in their rooms with correct lists; return the seconds that took."""
        return await until(lambda: not self.not_joined() and not self.wrong(), patience)


async def until(condition: Callable[[], bool], patience: float, every: float = 0.05) -> float:
    """Wait for a condition; return the seconds that took, or infinity after `patience` seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience:
            return float("inf")
        await anyio.sleep(every)
    return time.monotonic() - began


@asynccontextmanager
async def crowd(
    ports: Sequence[int],
    count: int,
    room_size: int,
    *,
    heartbeat_every: float = 25.0,
    patience: float = 120.0,
    by_position: bool = False,
) -> AsyncIterator[Crowd]:
    """Connect `count` clients, spread evenly over the ports, and wait until all are in their rooms.

    by_position: whether they return with the position of the list that they have.

    Raises ReactorError if they are not within `patience` seconds.
    """
    group = Crowd(heartbeat_every, by_position=by_position)
    for number in range(count):
        place = f"room-{number // room_size}", f"u{number}", ports[number % len(ports)]
        group.clients.append(Client(group, *place))
    async with anyio.create_task_group() as tasks:
        for client in group.clients:
            tasks.start_soon(client.run)
        if await group.converged(patience) == float("inf"):
            raise ReactorError(
                f"{group.not_joined()} of {count} clients are not in their rooms after {patience:g} s"
            )
        group.connecting = anyio.Semaphore(count)
        group.forget()
        yield group
        tasks.cancel_scope.cancel()
