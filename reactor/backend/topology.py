"""Which primary of a cluster serves which slots (https://redis.io/docs/latest/commands/cluster-slots/).

A cluster publishes no event when a replica takes over or a slot moves, so every server is asked twice a
second. A server that was cut off may answer with an older state: of the answers whose sender reports
`cluster_state:ok`, the one with the highest epoch is used.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis
from redis.crc import key_slot

from reactor.backend.clients import CONNECTION_ERRORS, client_at
from reactor.backend.diagnose import explain
from reactor.backend.target import Target
from reactor.errors import RedisUnreachable

log = structlog.get_logger()

REFRESH_INTERVAL = 0.5
ANSWER_TIMEOUT = 1.0
START_TIMEOUT = 5.0
"""Seconds for the first answers, for which connections have to be made, with TLS perhaps."""
STRAGGLER_TIMEOUT = 0.1
"""Seconds that the other servers have for their answers after the first answer."""
MAX_STALE_ROUNDS = 6
"""Rounds in a row for which answers older than the known state are ignored. Then they are used: an epoch can
go back for good, for example after a restore."""
SLOTS = 16384
UNNAMED = b"?"

Address = tuple[str, int]


class Topology:
    """The primaries of a cluster and their slots. `serve` keeps it up to date.

    on_change() is called when a slot is served by another primary than before.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._clients: dict[Address, Redis] = {}
        self._nodes: set[Address] = set(target.hosts)
        self._owners: list[tuple[int, int, Address]] = []
        self._epoch = self._stale_rounds = 0
        self._answered = False
        self._failure: BaseException | None = None
        self._refresh_now = anyio.Event()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def primaries(self) -> set[Address]:
        """The addresses of the servers that serve slots."""
        return {address for _, _, address in self._owners}

    def client(self, address: Address) -> Redis:
        """The client for commands of a server, made at first use."""
        if address not in self._clients:
            self._clients[address] = client_at(self._target, address)
        return self._clients[address]

    def owner_of(self, key: str) -> Address:
        """The primary that serves the key's slot. Raises LookupError while none does."""
        slot = key_slot(key.encode())
        # A cluster that is being resharded can have thousands of ranges.
        place = bisect_right(self._owners, slot, key=lambda owner: owner[0]) - 1
        if place >= 0 and slot <= self._owners[place][1]:
            return self._owners[place][2]
        raise LookupError(f"no primary serves slot {slot}")

    async def start(self) -> None:
        """Read the topology for the first time. Raises RedisUnreachable or RedisMisconfigured."""
        if await self.refresh(START_TIMEOUT):
            return
        if self._answered:
            raise RedisUnreachable(
                f"{self._target}: no server of the cluster reports cluster_state:ok; "
                "run `redis-cli cluster info` on one of them."
            )
        if self._failure is not None:
            raise await explain(self._failure, self._target) from self._failure
        raise RedisUnreachable(
            f"{self._target}: no server of the cluster answered CLUSTER INFO and CLUSTER SLOTS in "
            f"{START_TIMEOUT:.0f} s; check its load and the network."
        )

    def refresh_soon(self) -> None:
        """Refresh without waiting for the interval: a server answered unexpectedly."""
        self._refresh_now.set()

    async def serve(self) -> None:
        """Refresh twice a second, until cancelled."""
        while True:
            with anyio.move_on_after(REFRESH_INTERVAL):
                await self._refresh_now.wait()
            self._refresh_now = anyio.Event()
            await self.refresh()

    async def refresh(self, timeout: float = ANSWER_TIMEOUT) -> bool:
        """Ask every known server; whether one of them reports `cluster_state:ok` within `timeout` seconds."""
        answers = await self._answers(timeout)
        if not answers:
            return False
        newest = max(answers, key=lambda answer: (answer.epoch, -answer.unnamed))
        if newest.epoch < self._epoch and self._stale_rounds < MAX_STALE_ROUNDS:
            self._stale_rounds += 1  # the servers with the newer state may only be slow
            return True
        self._epoch, self._stale_rounds = newest.epoch, 0
        self._nodes = {*self._target.hosts, *newest.nodes}
        if newest.owners != self._owners:
            former, self._owners = self.primaries, newest.owners
            if self.primaries != former:
                log.info(
                    "cluster_topology", primaries=sorted(f"{host}:{port}" for host, port in self.primaries)
                )
            self.on_change()
        return True

    async def _answers(self, seconds: float) -> "list[_Answer]":
        """The answers of all servers; a frozen one does not delay those of the rest."""
        answers: list[_Answer] = []
        self._answered, self._failure = False, None

        async def ask(address: Address) -> None:
            answer = await self._ask(address)
            if answer is not None:
                answers.append(answer)
                timeout.deadline = min(timeout.deadline, anyio.current_time() + STRAGGLER_TIMEOUT)

        with anyio.move_on_after(seconds) as timeout:
            async with anyio.create_task_group() as tasks:
                for address in self._nodes:
                    tasks.start_soon(ask, address)
        return answers

    async def _ask(self, address: Address) -> "_Answer | None":
        client = self.client(address)
        try:
            info: Any = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
            slots: Any = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        except CONNECTION_ERRORS as error:
            self._failure = error
            return None
        self._answered = True
        if info.get("cluster_state") != "ok":
            return None
        return _Answer(int(info["cluster_current_epoch"]), slots, address[0], self._target)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


class _Answer:
    """The cluster as one server sees it."""

    def __init__(self, epoch: int, slots: Any, asked_host: str, target: Target) -> None:
        self.epoch = epoch
        self.owners: list[tuple[int, int, Address]] = []
        self.nodes: set[Address] = set()
        self.unnamed = 0  # servers whose name has not reached this one yet; another may know it
        for first, last, *servers in slots:
            self.unnamed += sum(server[0] == UNNAMED for server in servers)
            addresses = [target.reachable((host_of(server, asked_host), server[1])) for server in servers]
            self.owners.append((first, last, addresses[0]))
            self.nodes.update(addresses)
        self.owners.sort()


def host_of(server: list[Any], asked_host: str) -> str:
    """The host of a server that CLUSTER SLOTS lists as [host, port, identity, [b"ip", host, ...]].

    With `cluster-preferred-endpoint-type hostname` a server whose name is not set, or not known yet to the
    one that was asked, is `?`, and its IP is behind it. Where the host is empty or null, it is the one that
    was asked (https://redis.io/docs/latest/commands/cluster-slots/).
    """
    host = ip_of(server) if server[0] == UNNAMED else server[0]
    return host.decode() if host else asked_host


def ip_of(server: list[Any]) -> bytes | None:
    """The IP of a server that CLUSTER SLOTS lists by its hostname, or without a host."""
    further = (server[3] if len(server) > 3 else None) or []
    found: bytes | None = dict(zip(further[::2], further[1::2], strict=False)).get(b"ip")
    return found
