"""A server in its own process, ordinary clients on it, and an attacker in a third process."""

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.attack.attackers import SEED
from tests.support.nodes import NodeProcess
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

CLIENTS = 8
HEARTBEAT_INTERVAL = 0.15  # seconds, for each client
ARENA = "arena"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class OrdinaryClient:
    """Sends heartbeats, which have to be acknowledged, and updates, which have to reach all clients."""

    def __init__(self, client: RawClient, user: str, pids: tuple[int, ...]) -> None:
        self.client = client
        self.user = user
        self.delays: list[float] = []
        self.updates = 0
        self._pids = pids  # of the server and of Redis

    async def run(self) -> None:
        while True:
            began, cpu = time.monotonic(), self._cpu_seconds()
            async with asyncio.timeout(PATIENCE):
                await self.client.ask("room:heartbeat", "room:heartbeat:ack", roomId=ARENA)
            # What exceeds the CPU time of server and Redis is not their delay but that of a busy machine.
            elapsed = time.monotonic() - began
            self.delays.append(min(elapsed, self._cpu_seconds() - cpu))
            if len(self.delays) % 3 == 0:
                self.updates += 1
                await self.client.ask("room:update", "room:updated", roomId=ARENA, data=self.updates)
            await asyncio.sleep(HEARTBEAT_INTERVAL)

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._pids))


class Scenario:
    """The server and the ordinary clients of one test."""

    def __init__(self, server: NodeProcess, clients: list[OrdinaryClient]) -> None:
        self.server = server
        self.pid: int = server._child.pid
        self.clients = clients

    async def attack(
        self, name: str, seconds: float = 2.0, addresses: int = 1, seed: int = SEED
    ) -> Counter[str]:
        """Run one attacker and return its counters. Asserts that the server's memory stays within bounds."""
        before = peak = resident_bytes(self.pid)
        attacker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.attack.attackers", name,
            str(self.server.port), str(seconds), str(addresses), str(seed),
            cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert attacker.stdout is not None
            async with asyncio.timeout(PATIENCE):  # a busy machine takes seconds to start it
                assert await attacker.stdout.readline() == b"begins\n"
            ended = asyncio.ensure_future(attacker.communicate())
            async with asyncio.timeout(seconds + PATIENCE):
                while not ended.done():
                    peak = max(peak, resident_bytes(self.pid))
                    await asyncio.wait([ended], timeout=0.05)
        finally:
            if attacker.returncode is None:
                attacker.kill()
        assert attacker.returncode == 0
        growth = (peak - before) / 1e6
        assert growth < 80, f"the server grew by {growth:.0f} MB"
        counts = Counter[str](json.loads((await ended)[0]))
        sys.stdout.write(f"{name}: {counts}, memory + {growth:.1f} MB\n")
        return counts

    async def assert_unaffected(self) -> None:
        """Assert that every heartbeat was acknowledged in time and every update reached every client."""
        delays = [delay for client in self.clients for delay in client.delays]
        assert len(delays) > 5 * len(self.clients)
        sys.stdout.write(
            f"acks: median {statistics.median(delays) * 1000:.1f}, worst {max(delays) * 1000:.0f} ms\n"
        )
        assert max(delays) < 2.0
        for client in self.clients:
            for other in self.clients:
                updates = other.updates
                await client.client.until(lambda: _last_update(client, other.user) >= updates)  # noqa: B023
            assert client.client.of("error", "room:force-leave", "service:degraded") == []
            assert client.client.open


def _last_update(client: OrdinaryClient, user: str) -> int:
    for message in reversed(client.client.of("room:diff")):
        for member in message["updated"]:
            if member["userId"] == user:
                return int(member["data"])
    return 0


@asynccontextmanager
async def scenario(server: Server, token: Any = None, **options: Any) -> AsyncIterator[Scenario]:
    """Ordinary clients in a room of a server that trusts no proxy."""
    defaults = {
        "trusted_proxies": "none",
        "open_timeout": 1,
        "max_per_address": 100,
        "close_timeout": 1,
        "messages_per_second": 20,
        "cost_per_second": 400,
    }
    async with NodeProcess.start(server, **(defaults | options)) as process, AsyncExitStack() as stack:
        clients = []
        for number in range(CLIENTS):
            user = f"ordinary {number}"
            headers = {"additional_headers": {"Authorization": f"Bearer {token(user)}"}} if token else {}
            raw_client = await stack.enter_async_context(RawClient.connect(process, **headers))
            await raw_client.join(ARENA, user)
            clients.append(OrdinaryClient(raw_client, user, (process._child.pid, server.pid)))
        running = [asyncio.create_task(client.run()) for client in clients]
        try:
            await asyncio.sleep(0.5)  # without an attack, for comparison
            started = Scenario(process, clients)
            yield started
            for task in running:
                assert not task.done(), task.exception()
            await started.assert_unaffected()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
