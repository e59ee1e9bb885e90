"""Attackers in a process: `python -m scripts.benchmarks.attacks.attackers NAME PORT SECONDS RATE`.

Each client has one of eight addresses of 127.4.0.0/16. At the end all connections are reset.
"""

import asyncio
import itertools
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

DATA = "x" * 4000
LARGE = "large"
"""A room of many members, which have their connections on another node."""
ADDRESSES = 8
ROOMS = 128
"""Rooms that a connection may join."""


class Attack:
    """Clients that send at a rate; `counts` are the messages that came back."""

    def __init__(self, port: int, seconds: float, rate: float) -> None:
        self._port, self._rate = port, rate
        self._end = time.monotonic() + seconds
        self._number = itertools.count(1)
        self._sockets: list[ClientConnection] = []
        self.counts: Counter[str] = Counter()

    async def client(self, *, reads: bool = True, subprotocol: str = "reactor.json") -> ClientConnection:
        """Open a connection; without `reads` it has a small buffer, and nothing is taken from it."""
        source = f"127.4.0.{next(self._number) % ADDRESSES + 1}"
        sock = socket.socket()
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((source, 0))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        opened = await connect(
            f"ws://127.0.0.1:{self._port}/ws", sock=sock, compression=None, max_size=None, ping_interval=None,
            subprotocols=[Subprotocol(subprotocol)],
        )  # fmt: skip
        self._sockets.append(opened)
        return opened

    async def ask(self, opened: ClientConnection, make: Callable[[int], dict[str, Any] | bytes]) -> None:
        """Send at the rate until the end, and read what comes back."""
        reading = asyncio.ensure_future(self._read(opened))
        try:
            for number in itertools.count():
                if time.monotonic() >= self._end:
                    return
                message = make(number)
                await opened.send(message if isinstance(message, bytes) else json.dumps(message))
                self.counts["sent"] += 1
                await asyncio.sleep(1 / self._rate)
        except ConnectionClosed as closed:
            self.counts[f"closed {closed.rcvd.code if closed.rcvd else ''}"] += 1
        finally:
            reading.cancel()

    async def _read(self, opened: ClientConnection) -> None:
        async for payload in opened:
            head = payload[:80]
            self.counts["error" if '"error"' in str(head) else "answered"] += 1

    def vanish(self) -> None:
        """Reset all connections."""
        for opened in self._sockets:
            opened.transport.abort()

    async def _all(self, clients: int, run: Callable[[int], Any]) -> None:
        await asyncio.gather(*(run(number) for number in range(clients)))

    # The attacks

    async def listings(self) -> None:
        """Ask for the members of a room in which this node has none."""

        async def run(_: int) -> None:
            await self.ask(await self.client(), lambda _: {"type": "room:members", "roomId": LARGE})

        await self._all(20, run)

    async def away(self) -> None:
        """Go away and come back in 128 rooms with each message."""

        async def run(number: int) -> None:
            opened = await self.client()
            await self._join_rooms(opened, number, lambda _: "bad")
            await self.ask(opened, lambda turn: {"type": ("room:away", "room:back")[turn % 2]})

        await self._all(20, run)

    async def updates(self) -> None:
        """Change 4 KB in a room, which every member of it receives; some of them read slowly."""

        async def change(number: int) -> None:
            opened = await self.client()
            join = {"type": "join_room", "roomId": "busy", "userId": f"u{number}", "data": DATA}
            await opened.send(json.dumps(join))
            await self.ask(
                opened, lambda turn: {"type": "room:update", "roomId": "busy", "data": f"{turn}{DATA}"[:4000]}
            )

        await self._all(40, change)

    async def not_reading(self) -> None:
        """Join a large room, send heartbeats, and read nothing."""

        async def run(number: int) -> None:
            await asyncio.sleep(number * 0.05)
            opened = await self.client(reads=False)
            opened.transport.pause_reading()
            join = {"type": "join_room", "roomId": LARGE, "userId": f"reader {number}"}
            await opened.send(json.dumps(join))
            while time.monotonic() < self._end:
                await opened.send('{"type": "room:heartbeat"}')
                self.counts["sent"] += 1
                await asyncio.sleep(1)

        await self._all(80, run)

    async def heartbeats(self) -> None:
        """Renew 128 rooms with each message."""

        async def run(number: int) -> None:
            opened = await self.client()
            await self._join_rooms(opened, number, lambda _: "bad")
            await self.ask(opened, lambda _: {"type": "room:heartbeat"})

        await self._all(20, run)

    async def people(self) -> None:
        """Watch a thousand users each, 128 of whom go away or come back with one message."""
        changing, users = 8, ROOMS

        async def change(number: int) -> None:
            opened = await self.client()
            await self._join_rooms(opened, number, lambda room: f"person {number} {room}")
            await self.ask(opened, lambda turn: {"type": ("room:away", "room:back")[turn % 2]})

        async def watch(number: int) -> None:
            await asyncio.sleep(number * 0.01)
            # Each a set of its own, so that no two are sent the same.
            names = [f"person {one} {room}" for one in range(changing) for room in range(users)]
            del names[number % len(names)]
            opened = await self.client()
            await opened.send(json.dumps({"type": "people:watch", "userIds": names[:1000]}))
            await self._read_until_end(opened)

        await asyncio.gather(self._all(changing, change), self._all(100, watch))

    async def people_churn(self) -> None:
        """Watch other users with each message, as many as it may name, and none with the next."""

        def make(number: int, turn: int) -> dict[str, Any]:
            if turn % 2:
                return {"type": "people:unwatch"}
            return {
                "type": "people:watch",
                "userIds": [f"unknown {number} {turn} {one}" for one in range(1000)],
            }

        async def run(number: int) -> None:
            await self.ask(await self.client(), lambda turn: make(number, turn))

        await self._all(20, run)

    async def watch(self) -> None:
        """Watch other rooms with each message, as many as it may name, and none with the next."""

        def make(number: int, turn: int) -> dict[str, Any]:
            rooms = [f"empty {number} {turn // 2} {one}" for one in range(256)]
            kind = ("room:watch", "room:unwatch")[turn % 2]
            return {"type": kind, "roomIds": rooms} | ({} if turn % 2 else {"view": "count"})

        async def run(number: int) -> None:
            await self.ask(await self.client(), lambda turn: make(number, turn))

        await self._all(20, run)

    async def watch_list(self) -> None:
        """Watch the members of a large room with one message, and not with the next."""

        async def run(_: int) -> None:
            await self.ask(
                await self.client(),
                lambda turn: {"type": ("room:watch", "room:unwatch")[turn % 2], "roomId": LARGE},
            )

        await self._all(20, run)

    async def observers(self) -> None:
        """Change small rooms that many watch, some of whom do not read."""
        rooms = 64

        async def observe(number: int) -> None:
            await asyncio.sleep(number * 0.01)
            opened = await self.client(reads=number % 4 > 0)
            for room in range(rooms):
                await opened.send(json.dumps({"type": "room:watch", "roomId": f"watched {room}"}))
                await asyncio.sleep(0.005)
            if number % 4:
                await self._read_until_end(opened)
            else:
                opened.transport.pause_reading()
                await asyncio.sleep(self._end - time.monotonic())

        async def change(number: int) -> None:
            opened = await self.client()
            room = f"watched {number}"
            await opened.send(json.dumps({"type": "join_room", "roomId": room, "userId": f"u{number}"}))
            await self.ask(
                opened, lambda turn: {"type": "room:update", "roomId": room, "data": f"{turn}{DATA}"[:1000]}
            )

        await asyncio.gather(self._all(100, observe), self._all(rooms, change))

    async def resume(self) -> None:
        """Return by position to a room of many large diffs, each time from another one."""
        positions: list[tuple[str, int]] = []

        async def change() -> None:
            opened = await self.client()
            await opened.send(json.dumps(join("back", "changes")))
            epoch = json.loads(await opened.recv())["epoch"]

            def make(turn: int) -> dict[str, Any]:
                return {"type": "room:update", "roomId": "back", "data": f"{turn}{DATA}"[:4000], "id": turn}

            positions.extend((epoch, version) for version in range(2, 3000))
            await self.ask(opened, make)

        async def run(number: int) -> None:
            await asyncio.sleep(1)
            opened = await self.client()
            user = {"roomId": "back", "userId": f"r{number}"}

            def make(turn: int) -> dict[str, Any]:
                if turn % 2:
                    return {"type": "leave_room", "roomId": "back"}
                epoch, version = positions[turn % 60]
                resume = {"epoch": epoch, "version": version, "joinedAt": 1, "members": 1 + turn % 20}
                return {"type": "join_room", **user, "resume": resume}

            await self.ask(opened, make)

        await asyncio.gather(self._all(1, lambda _: change()), self._all(20, run))

    async def send(self) -> None:
        """Send 4 KB to all members of a room, and then to a hundred of them by name."""
        users = [f"u{one}" for one in range(100)]

        async def run(number: int) -> None:
            opened = await self.client()
            await opened.send(
                json.dumps(
                    {"type": "join_room", "roomId": "messages", "userId": f"u{number}", "view": "none"}
                )
            )

            def make(turn: int) -> dict[str, Any]:
                to = {"to": users} if turn % 2 else {}
                return {"type": "room:send", "roomId": "messages", "data": DATA, **to}

            await self.ask(opened, make)

        await self._all(80, run)

    async def patch(self) -> None:
        """Patch data that is as large, and nested as deep, as it may be; every other patch is too large."""

        async def run(number: int) -> None:
            opened = await self.client()
            room = f"patched {number}"
            await opened.send(json.dumps(join(room, f"u{number}") | {"data": deep(4000, "a")}))
            patches = [deep(4000, "a"), deep(4000, "b")]
            await self.ask(
                opened, lambda turn: {"type": "room:update", "roomId": room, "patch": patches[turn % 2]}
            )

        await self._all(40, run)

    async def keys(self) -> None:
        """Send objects in MessagePack whose keys are lists, which all have the same hash."""
        keys = [bytes((0x99, *key)) + b"\0" for key in itertools.product(b"\xff\xfe", repeat=9)][:360]
        data = b"\xde" + len(keys).to_bytes(2) + b"".join(keys)
        head = {"type": "room:update", "roomId": "a"}
        message = b"\x83" + msgspec.msgpack.encode(head)[1:] + msgspec.msgpack.encode("data") + data

        async def run(_: int) -> None:
            await self.ask(await self.client(subprotocol="reactor.msgpack"), lambda _: message)

        await self._all(20, run)

    async def invalid(self) -> None:
        """Send what is invalid, and takes long to be found so: lists, numbers that are no ids, open texts."""
        lists = msgspec.msgpack.encode({"type": "none", "x": [[1]] * 950})
        objects = {"type": "none", "x": [{}] * 500}
        same_hash = {"type": "people:watch", "userIds": [2 + n * (2**61 - 1) for n in range(8, 1008)]}
        texts = '\\"' * 30_000 + '"id":1'

        async def run(number: int) -> None:
            opened = await self.client(subprotocol=f"reactor.{'msgpack' if number % 2 else 'json'}")
            await self.ask(opened, lambda _: lists if number % 2 else objects)

        async def large(number: int) -> None:
            opened = await self.client()
            reading = asyncio.ensure_future(self._read(opened))
            while time.monotonic() < self._end:  # as slowly as the rate of large messages demands
                await opened.send(json.dumps(same_hash) if number % 2 else texts)
                self.counts["sent"] += 1
                await asyncio.sleep(0.5)
            reading.cancel()

        await asyncio.gather(self._all(100, run), self._all(100, large))

    async def held(self) -> None:
        """Read nothing, and send requests that have to wait for that, as large as they may be."""

        async def run(number: int) -> None:
            await asyncio.sleep(number * 0.02)
            opened = await self.client(reads=False)
            opened.transport.pause_reading()
            await opened.send(json.dumps({"type": "join_room", "roomId": LARGE, "userId": f"held {number}"}))
            users = [f"{number} {one} ".ljust(60, "x") for one in range(1000)]
            request = json.dumps({"type": "people:watch", "userIds": users})
            try:
                while time.monotonic() < self._end:
                    await asyncio.wait_for(opened.send(request), 5)
                    self.counts["sent"] += 1
                    await asyncio.sleep(1 / self._rate)
            except (ConnectionClosed, TimeoutError):
                self.counts["closed"] += 1

        await self._all(100, run)

    async def many(self) -> None:
        """Ask for the cheapest things, from as many connections of each address as there may be."""

        async def run(number: int) -> None:
            opened = await self.client()
            room = f"many {number}"
            await opened.send(
                json.dumps({"type": "join_room", "roomId": room, "userId": "u", "view": "none"})
            )
            await self.ask(opened, lambda _: {"type": "room:is_present", "roomId": room, "userId": "u"})

        await self._all(600, run)

    async def _join_rooms(self, opened: ClientConnection, number: int, user: Callable[[int], str]) -> None:
        for room in range(ROOMS):
            message = {
                "type": "join_room",
                "roomId": f"{number} {room}",
                "userId": user(room),
                "view": "none",
            }
            await opened.send(json.dumps(message))

    async def _read_until_end(self, opened: ClientConnection) -> None:
        reading = asyncio.ensure_future(self._read(opened))
        await asyncio.wait([reading], timeout=self._end - time.monotonic())
        reading.cancel()


def join(room: str, user: str) -> dict[str, Any]:
    """Return a request to join a room without its members."""
    return {"type": "join_room", "roomId": room, "userId": user, "view": "none"}


def deep(size: int, name: str) -> Any:
    """Return an object of about `size` bytes as JSON, nested 30 deep."""
    value: Any = [[]] * ((size - 30 * (len(name) + 5)) // 3)
    for _ in range(30):
        value = {name: value}
    return value


async def main(name: str, port: int, seconds: float, rate: float) -> None:
    """Run one attack and print its counts."""
    attack = Attack(port, seconds, rate)
    await getattr(attack, name)()
    attack.vanish()
    sys.stdout.write(json.dumps(attack.counts) + "\n")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
