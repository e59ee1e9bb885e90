"""Measures what the counts of many rooms cost a node whose pages watch them.

    python scripts/bench_watch.py                                a minute, on the bundled server
    python scripts/bench_watch.py --server /usr/bin/redis-server

One node has the members, another the pages, each of which watches the counts of all rooms. Members join and
leave all the time, so many of them a second. Measured is the processor time of the node with the pages; the
same without pages, in the same run, says what of it is the node's own. The messages that pages receive
are counted, and each page's counts are compared with Redis's at the end.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reactor.errors import ReactorError
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.machine import machine_facts
from scripts.benchmarks.node import NodeProcess, node_process
from scripts.benchmarks.running import TRIAL, benchmark_parser, console, parse_sizes, run_benchmark
from scripts.benchmarks.server import bench_server, server_facts, server_name
from scripts.benchmarks.timed_socket import Socket

EQUAL_WITHIN = 30.0


def read_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__, "watch.json", quick=TRIAL)
    add = parser.add_argument
    add("--rooms", type=int, default=100, help="rooms, all of which each page watches (100)")
    add("--pages", type=int, default=1000, help="pages (1000)")
    add("--joins", type=int, default=100, help="joins a second, and as many leaves (100)")
    add("--seconds", type=float, default=20.0, help="seconds of each of the two parts (20)")
    return parse_sizes(parser, given, rooms=10, pages=20, joins=20, seconds=2.0)


class Page:
    """A page that watches the counts of all rooms."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.received = 0
        self.socket: Socket

    async def open(self, port: int, rooms: list[str]) -> None:
        """Connect, and watch."""
        self.socket = await Socket.open(port, self._take)
        answer = await self.socket.ask({"type": "room:watch", "roomIds": rooms, "view": "count"})
        self._note(answer)

    def _take(self, message: dict[str, Any], _at: float) -> None:
        if message["type"] == "room:counts":
            self.received += 1
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        for room in message["rooms"]:
            self.counts[room["roomId"]] = room["count"]


class Crowd:
    """Members who join and leave: in turns, so that about half of them are in their rooms."""

    def __init__(self, port: int, rooms: list[str], joins: int) -> None:
        self._port, self._rooms, self._joins = port, rooms, joins
        self._sockets: list[Socket] = []
        self.joined = 0

    async def open(self) -> None:
        """Connect all members."""
        for _ in range(2 * self._joins):
            self._sockets.append(await Socket.open(self._port, lambda _message, _at: None))

    async def live(self, seconds: float) -> None:
        """Join and leave for some seconds; each tenth of a second a tenth of a second's joins and leaves."""
        loop = asyncio.get_running_loop()
        began, step = loop.time(), 0
        each = max(1, self._joins // 10)
        while loop.time() < began + seconds:
            for place in range(each):
                number = (step * each + place) % len(self._sockets)
                other = (number + self._joins) % len(self._sockets)
                self._send(number, "join_room")
                self._send(other, "leave_room")
                self.joined += 1
            step += 1
            await asyncio.sleep(max(0.0, began + step / 10 - loop.time()))
        for number in range(len(self._sockets)):
            self._send(number, "leave_room")

    def _send(self, number: int, kind: str) -> None:
        room, user = self._rooms[number % len(self._rooms)], f"member {number}"
        who = {"userId": user, "view": "none"} if kind == "join_room" else {}
        self._sockets[number].send({"type": kind, "roomId": room, **who})

    def close(self) -> None:
        """Close all connections."""
        for socket in self._sockets:
            socket.close()


async def _share(node: NodeProcess, crowd: Crowd, seconds: float) -> float:
    """Return the share of a core, in percent, that the node takes while the crowd lives."""
    before, began = (await node.status())["cpu"], time.monotonic()
    await crowd.live(seconds)
    return float(100 * ((await node.status())["cpu"] - before) / (time.monotonic() - began))


async def measure(arguments: argparse.Namespace) -> None:
    """Measure, and write the figures."""
    rooms = [f"room {number}" for number in range(arguments.rooms)]
    async with bench_server(arguments.redis_url, arguments.server) as bench:
        facts = await server_facts(bench.redis)
        settings = {
            "redis_url": bench.url, "namespace": bench.namespace, "port": 0, "max_per_address": 0,
            "new_per_second": 0, "messages_per_second": 0,
        }  # fmt: skip
        async with node_process(settings) as with_members, node_process(settings) as with_pages:
            crowd = Crowd(with_members.port, rooms, arguments.joins)
            await crowd.open()
            without = await _share(with_pages, crowd, arguments.seconds)
            pages = [Page() for _ in range(arguments.pages)]
            for start in range(0, len(pages), 50):
                await asyncio.gather(
                    *(page.open(with_pages.port, rooms) for page in pages[start : start + 50])
                )
            received, joined = sum(page.received for page in pages), crowd.joined
            watched = await _share(with_pages, crowd, arguments.seconds)
            received, joined = sum(page.received for page in pages) - received, crowd.joined - joined
            await _until_equal(pages)
            crowd.close()
            for page in pages:
                page.socket.close()
    found = {
        "without_pages_percent": without,
        "with_pages_percent": watched,
        "joins_a_second": joined / arguments.seconds,
        "messages_a_second_and_page": received / arguments.seconds / arguments.pages,
    }
    sizes = {"rooms": arguments.rooms, "pages": arguments.pages, "seconds": arguments.seconds}
    machine = machine_facts()
    write_json(arguments.output / "watch.json", {"machine": machine, "server": facts, **sizes, **found})
    console.print(f"{server_name(facts)}, {arguments.pages} pages watch {arguments.rooms} rooms")
    for name, value in found.items():
        console.print(f"{name}: {value:.2f}")


async def _until_equal(pages: list[Page]) -> None:
    """Wait until all pages show that everyone has left. Raises ReactorError."""
    ends = time.monotonic() + EQUAL_WITHIN
    while any(any(page.counts.values()) for page in pages):
        if time.monotonic() > ends:
            wrong = next(page.counts for page in pages if any(page.counts.values()))
            raise ReactorError(f"a page shows members who have left: {wrong}")
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure(read_arguments())))
