"""A server in a process of its own, people who behave, and an attacker in another process."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.nodes import NodeProcess
from tests.support.raw_client import RawClient
from tests.support.servers import Server

PEOPLE = 8
BEAT = 0.15  # seconds between heartbeats of one of them
ARENA = "arena"


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def processor_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Person:
    """Sends heartbeats and changes its data now and then; all of it has to come through."""

    def __init__(self, client: RawClient, user: str) -> None:
        self.client = client
        self.user = user
        self.waits: list[float] = []
        self.said = 0

    async def live(self) -> None:
        while True:
            began = time.monotonic()
            async with asyncio.timeout(10):
                await self.client.ask("room:heartbeat", "room:heartbeat:ack", roomId=ARENA)
            self.waits.append(time.monotonic() - began)
            if len(self.waits) % 3 == 0:
                self.said += 1
                await self.client.ask("room:update", "room:updated", roomId=ARENA, data=self.said)
            await asyncio.sleep(BEAT)


class Field:
    """What a test looks at."""

    def __init__(self, server: NodeProcess, people: list[Person]) -> None:
        self.server = server
        self.pid: int = server._child.pid
        self.people = people

    async def attacked(self, name: str, seconds: float = 2.0, addresses: int = 1) -> dict[str, int]:
        """Let one attacker loose; what it met. The server's memory has to stay within bounds meanwhile."""
        before = resident(self.pid)
        attacker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.attack.attackers", name,
            str(self.server.port), str(seconds), str(addresses),
            cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        peak = before
        ended = asyncio.ensure_future(attacker.communicate())
        try:
            async with asyncio.timeout(seconds + 20):
                while not ended.done():
                    peak = max(peak, resident(self.pid))
                    await asyncio.wait([ended], timeout=0.05)
        finally:
            if attacker.returncode is None:
                attacker.kill()
        assert attacker.returncode == 0
        grown = (peak - before) / 1e6
        assert grown < 80, f"the server grew by {grown:.0f} MB"
        met: dict[str, int] = json.loads((await ended)[0])
        sys.stdout.write(f"{name}: {met}, memory + {grown:.1f} MB\n")
        return met

    async def unharmed(self) -> None:
        """Nobody noticed: each heartbeat was answered in time, each change reached everyone."""
        waits = [wait for person in self.people for wait in person.waits]
        assert len(waits) > 5 * len(self.people)
        sys.stdout.write(
            f"acks: median {statistics.median(waits) * 1000:.1f}, worst {max(waits) * 1000:.0f} ms\n"
        )
        assert max(waits) < 2.0
        for person in self.people:
            for other in self.people:
                said = other.said
                await person.client.until(lambda: _last_said(person, other.user) >= said)  # noqa: B023
            assert person.client.of("error", "room:force-leave", "service:degraded") == []
            assert person.client.open


def _last_said(person: Person, user: str) -> int:
    for message in reversed(person.client.of("room:diff")):
        for member in message["updated"]:
            if member["userId"] == user:
                return int(member["data"])
    return 0


@asynccontextmanager
async def field(server: Server, token: Any = None, **options: Any) -> AsyncIterator[Field]:
    """People in a room of a server that takes nobody's word for where it comes from."""
    defaults = {
        "trusted_proxies": "none",
        "open_timeout": 1,
        "max_per_address": 100,
        "close_timeout": 1,
        "messages_per_second": 20,
    }
    async with NodeProcess.start(server, **(defaults | options)) as process, AsyncExitStack() as stack:
        people = []
        for number in range(PEOPLE):
            user = f"person {number}"
            headers = {"additional_headers": {"Authorization": f"Bearer {token(user)}"}} if token else {}
            client = await stack.enter_async_context(RawClient.connect(process, **headers))
            await client.join(ARENA, user)
            people.append(Person(client, user))
        living = [asyncio.create_task(person.live()) for person in people]
        try:
            await asyncio.sleep(0.5)  # in peace, for comparison
            there = Field(process, people)
            yield there
            for task in living:
                assert not task.done(), task.exception()
            await there.unharmed()
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)
