"""Many clients in a process of their own, that join, send heartbeats and return when they are disconnected.

As a program (`python -m scripts.benchmarks.scale.clients PLAN`) it writes one line of JSON when all have
joined, answers each line on its standard input with its counters, and exits at the end of its standard input.
PLAN is a `Plan` as JSON.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import uvloop
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from scripts.benchmarks.child import answer_status_requests, write_line
from scripts.benchmarks.running import allow_many_files

_TICK = 0.02
_RETURN_AFTER = 3.0
"""Seconds within which a client that lost its connection tries again, at random."""
_ATTEMPTS_AT_A_TIME = 100
_SAMPLE = 50
"""Of this number of heartbeats one is timed."""


@dataclass(frozen=True)
class Plan:
    """The clients of one process.

    address: their own address. first, count: numbers of the clients. room_size: members of a room. rooms: the
    beginning of its name. beats: whether they send heartbeats; those that do not are expected to expire.
    """

    port: int
    address: str
    first: int
    count: int
    room_size: int
    rooms: str
    beats: bool = True
    heartbeat_every: float = 25.0


class _Joined(msgspec.Struct):
    ttl: int
    members: list[dict[str, Any]] = []


class ScaleClient(WSListener):
    """One client in one room."""

    def __init__(self, crowd: "ScaleCrowd", number: int) -> None:
        self._crowd, self.number = crowd, number
        self.room = f"{crowd.plan.rooms}-{number // crowd.plan.room_size}"
        self.transport: Any = None
        self.joined = False
        self.deadline = 0.0
        self.beat_at = 0.0
        self.lost_at = 0.0

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Join."""
        self.transport = transport
        request = f'{{"type":"join_room","roomId":"{self.room}","userId":"u{self.number}"}}'
        transport.send(WSMsgType.TEXT, request.encode())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Count a message."""
        if frame.msg_type is WSMsgType.CLOSE:
            self._crowd.closed[frame.get_close_code().value] += 1
            transport.disconnect()
        elif frame.msg_type is WSMsgType.TEXT:
            self._on_message(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """Return after a while, unless it was to end."""
        if self.joined:
            self.joined = False
            self.lost_at = time.monotonic()
            self._crowd.present -= 1
        self.transport = None
        self._crowd.lost(self)

    def beat(self, *, timed: bool) -> None:
        """Send a heartbeat."""
        if self.joined and self.transport is not None:
            self.beat_at = time.perf_counter() if timed else 0.0
            self.transport.send(WSMsgType.TEXT, b'{"type":"room:heartbeat"}')

    def _on_message(self, message: bytes) -> None:
        crowd = self._crowd
        if message.startswith(b'{"type":"room:heartbeat:ack"'):
            crowd.acks += 1
            if self.beat_at:
                crowd.delays.append(time.perf_counter() - self.beat_at)
                self.beat_at = 0.0
        elif message.startswith(b'{"type":"room:diff"'):
            crowd.diffs += 1
            crowd.leaves += message.count(b'"reason":')
        elif message.startswith(b'{"type":"room:joined"'):
            self._on_joined(message)
        elif message.startswith(b'{"type":"room:force-leave"'):
            crowd.late.append(time.time() - self.deadline)
        else:
            crowd.others[message[:60].decode(errors="replace")] += 1
            if message.startswith(b'{"type":"error"') and not self.joined and self.transport is not None:
                self.transport.disconnect()  # the join was refused, as by a node that stops: return later

    def _on_joined(self, message: bytes) -> None:
        crowd = self._crowd
        self.joined = True
        crowd.present += 1
        crowd.joins += 1
        if self.lost_at:
            crowd.away.append(time.monotonic() - self.lost_at)
            self.lost_at = 0.0
        if not crowd.plan.beats:
            joined = msgspec.json.decode(message, type=_Joined)
            own = next(one for one in joined.members if one["userId"] == f"u{self.number}")
            self.deadline = (own["joinedAt"] + joined.ttl) / 1000
        if crowd.present == crowd.plan.count:
            crowd.all_joined.set()


class ScaleCrowd:
    """All clients of this process, and what they have counted.

    acks, joins, diffs, leaves: messages received; leaves counts each departure in a diff. late: seconds from
    the deadline of each silent client to its `room:force-leave`. away: seconds without a connection.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clients = [ScaleClient(self, plan.first + number) for number in range(plan.count)]
        self.present = self.acks = self.joins = self.diffs = self.leaves = 0
        self.late: list[float] = []
        self.away: list[float] = []
        self.delays: list[float] = []
        self.closed: Counter[int] = Counter()
        self.others: Counter[str] = Counter()
        self.all_joined = asyncio.Event()
        self._returning: set[asyncio.Task[None]] = set()
        self._attempts = asyncio.Semaphore(_ATTEMPTS_AT_A_TIME)

    async def run(self) -> None:
        """Join, then send heartbeats until cancelled."""
        await asyncio.gather(*(self._connect(client) for client in self.clients))
        await self.all_joined.wait()
        listening = answer_status_requests(self.status)
        write_line({"port": 0})
        if self.plan.beats:
            await self._beat()
        await listening
        await asyncio.Event().wait()

    def status(self) -> dict[str, Any]:
        """Return the counters; the lists begin anew."""
        lists = {"late": self.late, "away": self.away, "delays": self.delays}
        self.late, self.away, self.delays = [], [], []
        return {
            "present": self.present, "acks": self.acks, "joins": self.joins, "diffs": self.diffs,
            "leaves": self.leaves, "closed": dict(self.closed), "others": dict(self.others),
            "unconnected": sum(client.transport is None for client in self.clients),
            "unanswered": sum(client.transport is not None and not client.joined for client in self.clients),
            "cpu": time.process_time(), **lists,
        }  # fmt: skip

    def lost(self, client: ScaleClient) -> None:
        """Return after a while; a silent client that was removed does not."""
        if self.plan.beats:
            task = asyncio.get_running_loop().create_task(self._return(client))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def _return(self, client: ScaleClient) -> None:
        await asyncio.sleep(random.uniform(0, _RETURN_AFTER))
        await self._connect(client)

    async def _connect(self, client: ScaleClient) -> None:
        url, local = f"ws://127.0.0.1:{self.plan.port}/ws", (self.plan.address, 0)
        while client.transport is None:
            async with self._attempts:
                with suppress(OSError, WSError, TimeoutError):
                    await ws_connect(lambda: client, url, websocket_handshake_timeout=30, local_addr=local)
                    return
            await asyncio.sleep(random.uniform(0.2, 1.0))

    async def _beat(self) -> None:
        """Send the heartbeats of all clients, spread evenly over the interval."""
        loop, clients = asyncio.get_running_loop(), self.clients
        a_second, began, sent = len(clients) / self.plan.heartbeat_every, loop.time(), 0
        while True:
            due = int((loop.time() - began) * a_second)
            for number in range(sent, due):
                clients[number % len(clients)].beat(timed=number % _SAMPLE == 0)
            sent = due
            await asyncio.sleep(_TICK)


def main() -> int:
    """Run the plan in the first argument."""
    allow_many_files()
    plan = Plan(**json.loads(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(KeyboardInterrupt):
        runner.run(ScaleCrowd(plan).run())
    return 0


def as_argument(plan: Plan) -> str:
    """Return a plan as the program's argument."""
    return json.dumps(asdict(plan))


if __name__ == "__main__":
    sys.exit(main())
