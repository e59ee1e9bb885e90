"""Measures what a published diff costs a process that follows its room, by step.

    python scripts/bench_diffs.py
    python scripts/bench_diffs.py --messages 5000

Every worker with a member in a room receives each of its diffs, so this is what a join costs with each
further worker. One process publishes, one at a time or twenty together; the reading process counts its own
CPU time: with redis-py's `read_response` for each message (former), with the reactor's subscription, and with
that and the view of a room. Then the cost of decoding, of the view and of the frame alone.
"""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich.table import Table

from reactor.backend.interface import ChannelCallbacks
from reactor.backend.subscription import Subscription
from reactor.gateway.framing import frame
from reactor.presence.rows import DiffRow, MemberRow, decode_diff
from reactor.protocol.codec import JSON
from reactor.protocol.room import RoomView
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.running import ROOT, TRIAL, benchmark_parser, console, parse_sizes, run_benchmark
from scripts.benchmarks.server import Bench, bench_server, server_facts, server_name

CHANNEL = "{bench:0}:diff:room"
ROOM_SIZE = 50
_PUBLISH = """
import sys, time
from redis import Redis
client, payloads = Redis.from_url(sys.argv[1]), [bytes.fromhex(text) for text in sys.argv[4].split(",")]
count, together = int(sys.argv[2]), int(sys.argv[3])
for start in range(0, count, together):
    pipe = client.pipeline(transaction=False)
    for number in range(start, start + together):
        pipe.publish(sys.argv[5], payloads[number % len(payloads)])
    pipe.execute()
"""


def read_arguments(given: Sequence[str] | None = None) -> Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "diffs.json", redis_url=False, quick=TRIAL)
    parser.add_argument("--messages", type=int, default=20_000, help="messages of each measurement (20000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the lowest counts (3)")
    return parse_sizes(parser, given, messages=400, rounds=1)


def diffs() -> list[bytes]:
    """Return two diffs as the scripts publish them: a member joins, and leaves."""
    member = MemberRow("user-77", "User 77", "", 1_700_000_000_000, 1_700_000_000_000, 0, 1)
    joined = DiffRow("1700000000000000", 50, 51, 51, [member], [], [])
    left = ["1700000000000000", 51, 52, 50, [], [], [["user-77", "left", 1_700_000_000_000, ""]]]
    return [msgspec.msgpack.encode(joined), msgspec.msgpack.encode(left)]


class Follower:
    """Applies diffs to the view of a room, and makes the frame that members would receive."""

    def __init__(self) -> None:
        self.view = RoomView("room")
        self._one, self._other = (decode_diff(payload).diff("room") for payload in diffs())
        self.restart()

    def restart(self) -> None:
        """Begin with the room's list again, since the versions of the diffs repeat."""
        self.view = RoomView("room")
        self.view.reset("1700000000000000", 50, self._one.joined)

    def apply(self, payload: bytes) -> None:
        """Do for a diff what a worker does."""
        diff = decode_diff(payload).diff("room")
        self.view.apply(diff)
        frame(JSON.encode(diff), binary=False)
        if self.view.version == 52:
            self.restart()


async def received(bench: Bench, arguments: Namespace, together: int, read: Callable[..., Any]) -> float:
    """Return the microseconds of CPU time of one received message."""
    counted, complete = 0, asyncio.Event()

    def count() -> None:
        nonlocal counted
        counted += 1
        if counted == arguments.messages:
            complete.set()

    reading = asyncio.create_task(read(bench, count))
    await asyncio.sleep(0.5)
    payloads = ",".join(payload.hex() for payload in diffs())
    began = time.process_time()
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PUBLISH, bench.url, str(arguments.messages), str(together), payloads, CHANNEL,
        cwd=ROOT,
    )  # fmt: skip
    try:
        await asyncio.wait_for(complete.wait(), 60 + arguments.messages / 200)
    finally:
        used = time.process_time() - began
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await publisher.wait()
    cost: float = used / arguments.messages * 1e6
    return cost


async def by_library(bench: Bench, count: Callable[[], None]) -> None:
    """Read each message with redis-py's `read_response`."""
    pool: Any = bench.redis.connection_pool
    connection = pool.make_connection()
    await connection.connect()
    await connection.send_command("SUBSCRIBE", CHANNEL)
    try:
        while True:
            if (await connection.read_response(timeout=float("inf")))[0] == b"message":
                count()
    finally:
        await connection.disconnect()


async def by_subscription(bench: Bench, count: Callable[[], None]) -> None:
    """Read each message with the reactor's subscription."""
    callbacks = ChannelCallbacks(
        lambda _channel, _payload: count(), lambda _first: None, lambda _reason: None
    )
    await Subscription(bench.redis, callbacks).serve([CHANNEL])


async def with_view(bench: Bench, count: Callable[[], None]) -> None:
    """The same, and apply it."""
    follower = Follower()

    def on_message(_channel: bytes, payload: bytes) -> None:
        follower.apply(payload)
        count()

    callbacks = ChannelCallbacks(on_message, lambda _first: None, lambda _reason: None)
    await Subscription(bench.redis, callbacks).serve([CHANNEL])


READERS = {
    "read_response of redis-py": by_library,
    "the subscription": by_subscription,
    "the subscription, the view and the frame": with_view,
}


def applied(arguments: Namespace) -> dict[str, float]:
    """Return the microseconds of decoding, of the view and of the frame."""
    payload = diffs()[0]
    diff = decode_diff(payload).diff("room")
    follower = Follower()

    def view() -> None:
        follower.restart()
        follower.view.apply(diff)

    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: decode_diff(payload).diff("room"),
        "view": view,
        "encode and frame": lambda: frame(JSON.encode(diff), binary=False),
    }
    costs = {}
    for name, step in steps.items():
        began = time.process_time()
        for _ in range(arguments.messages):
            step()
        costs[name] = round((time.process_time() - began) / arguments.messages * 1e6, 2)
    return costs


async def benchmark(arguments: Namespace) -> None:
    """Measure, print a table, write the file."""
    result: dict[str, Any] = {"benchmark": "diffs", "machine": machine_facts(), "us_a_message": {}}
    async with bench_server(None, arguments.server) as bench:
        result["server_name"] = server_name(await server_facts(bench.redis))
        for together in (1, 20):
            lowest: dict[str, float] = {}
            for _ in range(arguments.rounds):
                for name, read in READERS.items():
                    cost = await received(bench, arguments, together, read)
                    lowest[name] = round(min(cost, lowest.get(name, cost)), 1)
            result["us_a_message"][str(together)] = lowest
    result["us_alone"] = applied(arguments)
    table = Table("a diff received by", "one at a time", "20 together")
    for name in READERS:
        table.add_row(name, *(f"{lowest[name]} us" for lowest in result["us_a_message"].values()))
    console.print(table)
    console.print(", ".join(f"{name} {cost} us" for name, cost in result["us_alone"].items()))
    write_json(arguments.output / "diffs.json", result)
    console.print(f"written: {arguments.output / 'diffs.json'}")


if __name__ == "__main__":
    sys.exit(run_benchmark(benchmark(read_arguments())))
