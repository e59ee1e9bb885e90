"""Attackers, each in its own process: `python -m tests.attack.attackers NAME PORT SECONDS ADDRESSES SEED`.

An attacker connects from ADDRESSES (1) addresses of 127.1.0.0/16. It prints a line when it begins, and at
its end its counters as one line of JSON. The same seed makes the same messages.
"""

import asyncio
import itertools
import json
import random
import sys
import time
import typing
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count

import msgspec
import uvloop
from websockets.frames import Opcode

from reactor.protocol import requests
from tests.attack.fuzzing import Frames
from tests.support.gateway import Raw, client_frame, request, text

SEED = 7
HOSTILE = [
    "\u202egnirts", "\u2066\u2069" * 20, "a\u0300" * 80, "\ufeff", "\u200b", "\U000e0041", "\ufdfa" * 60,
    "\U0001f3f4\u200d\u2620\ufe0f" * 10,
    "*", "?", "[", "]", "{x}", "{", "}", ":", "user:", "a:user:b", "..", "../../etc/passwd", "%00", "%s%n",
    "__proto__", "constructor", "'; DROP TABLE users; --", "<script>alert(1)</script>", "${jndi:ldap://x}",
    "\r\n", "\x00", "\x1b[2J", "\x7f", "\x85", "\u2028", "-1", "1e400", "NaN", "null", "true", " ", "\\", '"',
]  # fmt: skip


class Attack:
    """The attacks, and what they share: the target, the time, the source addresses, and the counters."""

    def __init__(self, port: int, seconds: float, addresses: int, seed: int) -> None:
        self.port = port
        self.end = time.monotonic() + seconds
        self.addresses = addresses
        self.counts: Counter[str] = Counter()
        self.random = random.Random(seed)
        self._number = count()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.end

    async def connect(self) -> Raw:
        number = next(self._number) % self.addresses
        source = f"127.1.{number >> 8}.{number & 255}"
        self.counts["attempts"] += 1
        return Raw(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0)))

    async def opened(self, **headers: str) -> Raw:
        client = await self.connect()
        client.write(request(**headers))
        head = await client.reader.readuntil(b"\r\n\r\n")
        self.counts[f"http {head[9:12].decode()}"] += 1
        if not head.startswith(b"HTTP/1.1 101 "):
            client.writer.transport.abort()
            raise ConnectionRefusedError
        self.counts["opened"] += 1
        return client

    async def read(self, client: Raw) -> None:
        """Read until the end of the stream; count errors and the close code."""
        while True:
            opcode, data = await client.frame()
            if opcode == Opcode.TEXT:
                message = msgspec.json.decode(data)
                self.counts[message.get("code", message["type"])] += 1
            elif opcode == Opcode.CLOSE:
                self.counts[f"closed {int.from_bytes(data[:2])}"] += 1
            elif opcode == -1:
                return

    async def repeat(self, clients: int, run_client: Callable[[], Awaitable[None]]) -> None:
        """Run some clients at a time, one after the other, until the attack is over."""

        async def run_clients() -> None:
            while not self.over:
                try:
                    async with asyncio.timeout(max(0.1, self.end - time.monotonic())):
                        await run_client()
                except (OSError, RuntimeError, asyncio.IncompleteReadError, TimeoutError) as error:
                    self.counts[type(error).__name__] += 1
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(run_clients() for _ in range(clients)))

    async def flood(self, client: Raw, make: Callable[[], bytes], pause: float = 0.0) -> None:
        """Send as fast as the transport accepts data, and read the replies."""
        reading = asyncio.ensure_future(self.read(client))
        try:
            while not self.over and not reading.done():
                client.write(make())
                self.counts["sent"] += 1
                await client.writer.drain()
                await asyncio.sleep(pause)
            await asyncio.sleep(0)
        finally:
            client.writer.transport.abort()
            await asyncio.wait([reading], timeout=1)
            reading.cancel()

    # The attacks

    async def slow_handshakes(self) -> None:
        head = request(**{f"X_{number}": "y" * 60 for number in range(100)})

        async def run_client() -> None:
            client = await self.connect()
            try:
                for byte in head:
                    client.write(bytes((byte,)))
                    await asyncio.sleep(0.05)
                    if client.reader.at_eof():
                        self.counts["aborted"] += 1
                        return
            finally:
                client.writer.transport.abort()

        await self.repeat(200, run_client)

    async def silent_connections(self) -> None:
        async def run_client() -> None:
            client = await self.connect()
            try:
                await client.reader.read()
                self.counts["aborted"] += 1
            finally:
                client.writer.transport.abort()

        await self.repeat(200, run_client)

    async def half_open(self) -> None:
        """Open, join, and send nothing more, not even a pong."""

        async def run_client() -> None:
            client = await self.opened()
            user = f"unresponsive {next(self._number)}"
            client.write(text({"type": "join_room", "roomId": "arena", "userId": user}))
            try:
                while await client.reader.read(65536):
                    pass
            finally:
                client.writer.transport.abort()
                self.counts["aborted"] += not self.over

        await self.repeat(50, run_client)

    async def connections(self) -> None:
        async def run_client() -> None:
            client = await self.opened()
            client.writer.transport.abort()

        await self.repeat(50, run_client)

    async def messages(self) -> None:
        batch = text({"type": "room:heartbeat"}) * 200

        async def run_client() -> None:
            await self.flood(await self.opened(), lambda: batch)

        await self.repeat(10, run_client)

    async def joins(self) -> None:
        def make() -> bytes:
            number = next(self._number)
            return b"".join(
                text(
                    {
                        "type": kind,
                        "roomId": f"room {number}",
                        "userId": f"user {number}",
                        "data": {"n": number},
                    }
                )
                for kind in ("join_room", "leave_room", "room:members")
            )

        async def run_client() -> None:
            await self.flood(await self.opened(), make)

        await self.repeat(10, run_client)

    async def pings(self) -> None:
        batch = client_frame(Opcode.PING, bytes(125)) * 100

        async def run_client() -> None:
            await self.flood(await self.opened(), lambda: batch)

        await self.repeat(10, run_client)

    async def fragments(self) -> None:
        batch = client_frame(Opcode.TEXT, fin=False) + client_frame(Opcode.CONT, fin=False) * 1000

        async def run_client() -> None:
            await self.flood(await self.opened(), lambda: batch)

        await self.repeat(10, run_client)

    async def half_messages(self) -> None:
        """A message of the maximum size without its last byte, again and again."""
        part = client_frame(Opcode.TEXT, b"x" * 65_000, fin=False) + client_frame(
            Opcode.CONT, b"x" * 535, fin=False
        )

        async def run_client() -> None:
            client = await self.opened()
            client.write(part)
            await self.read(client)

        await self.repeat(100, run_client)

    async def decompression_bombs(self) -> None:
        deflate = zlib.compressobj(wbits=-12)
        bomb = deflate.compress(b" " * 40_000_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
        frame = bytearray(client_frame(Opcode.TEXT, bomb[:60_000]))
        frame[0] |= 0x40

        async def run_client() -> None:
            client = await self.opened(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
            await self.flood(client, lambda: bytes(frame))

        await self.repeat(10, run_client)

    async def random_bytes(self) -> None:
        async def run_client() -> None:
            data = self.random.randbytes(self.random.randrange(1, 5000))
            if self.random.random() < 0.5:
                client = await self.connect()
                client.write(self.random.choice([b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"]) + data)
                await client.reader.read()
                client.writer.transport.abort()
            else:
                await self.flood(await self.opened(), lambda: self.random.randbytes(2000), pause=0.01)

        await self.repeat(20, run_client)

    async def hostile_values(self) -> None:
        """Valid frames and valid JSON with hostile values in every field."""

        def value() -> object:
            return self.random.choice(
                [*HOSTILE, "x" * 60_000, "💣" * 15_000, -1, 2**63, 1.5, None, True, [], {}, ["a"] * 9000]
            )

        def make() -> bytes:
            message: dict[str, object] = {
                "type": self.random.choice(
                    ["join_room", "leave_room", "room:heartbeat", "room:update", "room:members", "auth", "x"]
                ),
                **{
                    field: value()
                    for field in ("roomId", "userId", "username", "data", "view", "token", "id")
                    if self.random.random() < 0.5
                },
            }
            return client_frame(Opcode.TEXT, json.dumps(message).encode()[:70_000])

        async def run_client() -> None:
            await self.flood(await self.opened(), make, pause=0.05)

        await self.repeat(20, run_client)

    async def not_reading(self) -> None:
        """Request large replies, and read nothing."""

        async def run_client() -> None:
            client = await self.opened()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            query = text({"type": "room:members", "roomId": "arena"})
            client.write(
                text({"type": "join_room", "roomId": "arena", "userId": f"not reading {next(self._number)}"})
            )
            try:
                while not client.writer.transport.is_closing():
                    client.write(query * 5)
                    self.counts["sent"] += 1
                    await asyncio.sleep(0.3)
            finally:
                client.writer.transport.abort()

        await self.repeat(20, run_client)

    async def tokens(self) -> None:
        """Guess tokens, one a connection, in all three ways of sending one."""

        async def run_client() -> None:
            guess = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.{self.random.randbytes(20).hex()}"
            method = self.random.randrange(3)
            if method == 0:
                await self.opened(Authorization=f"Bearer {guess}")
                return
            subprotocols = "reactor.json" if method == 1 else f"reactor.json, reactor.token.{guess}"
            client = await self.opened(Sec_WebSocket_Protocol=subprotocols)
            client.write(
                text({"type": "auth", "token": guess}), text({"type": "join_room", "roomId": "arena"})
            )
            await self.read(client)
            client.writer.transport.abort()

        await self.repeat(20, run_client)

    async def requests_at_their_limits(self) -> None:
        """Each of 100 clients sends one type of request, every field of it as large as it may be."""
        kinds = itertools.cycle(typing.get_args(requests.Request))

        async def run_client() -> None:
            kind, number = next(kinds), next(self._number)
            join = text(largest(requests.JoinRoom, f"room {number}"))
            messages = [text(largest(kind, f"room {room}")) for room in (number, number + 1)]
            client = await self.opened()
            client.write(join)
            await self.flood(client, lambda: self.random.choice(messages), pause=0.2)

        await self.repeat(100, run_client)

    async def mutated_frames(self) -> None:
        """Frames of all types of which some bytes were changed, in the payload or anywhere."""
        kinds = typing.get_args(requests.Request) * 2  # some have fields of which they take one
        messages = [largest(kind, "arena", 40) for kind in kinds]

        def make(opcode: Opcode, payloads: list[bytes]) -> bytes:
            frames = []
            for _ in range(50):
                payload = bytearray(self.random.choice(payloads))
                for _ in range(self.random.randrange(1, 4)):
                    # Text that is not UTF-8 closes the connection, and the frames behind it are not read.
                    first, end = (32, 127) if opcode is Opcode.TEXT else (0, 256)
                    changed = self.random.randrange(first, end)
                    payload[self.random.randrange(len(payload))] = changed
                frame = bytearray(client_frame(opcode, bytes(payload)))
                if self.random.random() < 0.002:
                    frame[self.random.randrange(len(frame))] = self.random.randrange(256)
                frames.append(bytes(frame))
            self.counts["frames"] += len(frames)
            return b"".join(frames)

        async def run_client() -> None:
            if self.random.random() < 0.5:
                client = await self.opened(Sec_WebSocket_Protocol="reactor.msgpack")
                binary = [msgspec.msgpack.encode(message) for message in messages]
                await self.flood(client, lambda: make(Opcode.BINARY, binary), pause=0.05)
            else:
                text = [msgspec.json.encode(message) for message in messages]
                await self.flood(await self.opened(), lambda: make(Opcode.TEXT, text), pause=0.05)

        await self.repeat(10, run_client)

    async def structured_frames(self) -> None:
        """Requests that do something, of which some are wrong in one place."""

        def make(frames: Frames) -> bytes:
            self.counts["frames"] += 50
            return frames.batch(50)

        async def run_client() -> None:
            binary = self.random.random() < 0.5
            headers = {"Sec_WebSocket_Protocol": "reactor.msgpack"} if binary else {}
            frames = Frames(self.random, binary=binary)
            client = await self.opened(**headers)
            await self.flood(client, lambda: make(frames), pause=0.05)

        await self.repeat(10, run_client)


def largest(kind: typing.Any, room: str, size: int = 4000) -> dict[str, typing.Any]:
    """A request of this type whose fields are as large as they may be; `size` is in bytes of data."""
    ids = {"roomId": room.ljust(256, "x"), "userId": room.ljust(256, "u"), "username": "n" * 256}
    known = ids | {
        "id": "i" * 128, "token": "t" * 16_384, "view": "members", "data": [[]] * (size // 3),
        "patch": {str(number): [] for number in range(size // 10)},
        "to": [f"{number}".ljust(256, "x") for number in range(size // 40)],
        "limit": 1000, "cursor": "9" * 19,
        "userIds": [f"{room} {number}".ljust(60, "x") for number in range(size // 4)],
        "roomIds": [f"{room} {number}".ljust(200, "x") for number in range(size // 16)],
        "resume": {"epoch": "e" * 64, "version": 2**53 - 1, "joinedAt": 2**53 - 1, "members": 2**53 - 1},
    }  # fmt: skip
    fields = [field.encode_name for field in msgspec.structs.fields(kind)]
    message = {name: known[name] for name in fields if name in known}
    for either, other in (("data", "patch"), ("roomId", "roomIds")):
        if {either, other} <= message.keys():
            del message[random.choice((either, other))]
    if "roomIds" in message and "view" in message:
        message["view"] = "count"
    return {"type": kind.__struct_config__.tag, **message}


async def main(name: str, port: int, seconds: float, addresses: int = 1, seed: int = SEED) -> None:
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    attack = Attack(port, seconds, addresses, seed)
    await getattr(attack, name)()
    sys.stdout.write(json.dumps(attack.counts) + "\n")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *map(int, sys.argv[4:])))
