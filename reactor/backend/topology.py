"""Which node of a cluster has which slots (https://redis.io/docs/latest/commands/cluster-slots/).

A cluster publishes no event when a replica takes over or a slot moves, so all nodes are asked twice a
second. One that was cut off may answer with an older state: the answer with the newest epoch counts, of those
whose sender finds the cluster whole.
"""

from collections.abc import Callable
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis
from redis.crc import key_slot

from reactor.backend.connect import LINK_ERRORS, client_at
from reactor.backend.target import Target
from reactor.errors import RedisUnreachable

log = structlog.get_logger()

ASK_EVERY = 0.5
ANSWER_WITHIN = 1.0
OTHERS_WITHIN = 0.1
"""Seconds that the other nodes get for their answers after the first one came."""
DOUBTED_AT_MOST = 6
"""Rounds for which an older state than one that is known is not believed."""
SLOTS = 16384

Address = tuple[str, int]


class Topology:
    """The cluster's primaries and their slots. `serve` keeps it up to date.

    on_change() is called when slots have another owner than before.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._clients: dict[Address, Redis] = {}
        self._nodes: set[Address] = set(target.hosts)
        self._owners: list[tuple[int, int, Address]] = []
        self._epoch = self._doubted = 0
        self._asked = anyio.Event()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def primaries(self) -> set[Address]:
        """The nodes that have slots."""
        return {address for _, _, address in self._owners}

    def client(self, address: Address) -> Redis:
        """The client for commands of a node."""
        if address not in self._clients:
            self._clients[address] = client_at(self._target, address)
        return self._clients[address]

    def owner_of(self, key: str) -> Address:
        """The node that has a key. Raises LookupError while nobody has its slot."""
        slot = key_slot(key.encode())
        for first, last, address in self._owners:
            if first <= slot <= last:
                return address
        raise LookupError(f"no node has slot {slot}")

    async def start(self) -> None:
        """Ask for the first time. Raises RedisUnreachable."""
        if not await self.refresh():
            raise RedisUnreachable(
                f"{self._target}: no node of the cluster answers that it is whole; "
                "see `redis-cli cluster info` on one of them."
            )

    def ask_soon(self) -> None:
        """Something looks different: do not wait for the next time."""
        self._asked.set()

    async def serve(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            with anyio.move_on_after(ASK_EVERY):
                await self._asked.wait()
            self._asked = anyio.Event()
            await self.refresh()

    async def refresh(self) -> bool:
        """Ask every node that is known; whether one of them finds the cluster whole."""
        answers = await self._answers()
        if not answers:
            return False
        newest = max(answers, key=lambda answer: answer.epoch)
        if newest.epoch < self._epoch and self._doubted < DOUBTED_AT_MOST:
            self._doubted += 1  # those that know better may only be slow
            return True
        self._epoch, self._doubted = newest.epoch, 0
        self._nodes = {*self._target.hosts, *newest.nodes}
        if newest.owners != self._owners:
            self._owners = newest.owners
            log.info("cluster_topology", primaries=sorted(f"{host}:{port}" for host, port in self.primaries))
            self.on_change()
        return True

    async def _answers(self) -> "list[_Answer]":
        """What the nodes say; one that is frozen does not hold up what the others say."""
        answers: list[_Answer] = []

        async def ask(address: Address) -> None:
            answer = await self._ask(address)
            if answer is not None:
                answers.append(answer)
                patience.deadline = min(patience.deadline, anyio.current_time() + OTHERS_WITHIN)

        with anyio.move_on_after(ANSWER_WITHIN) as patience:
            async with anyio.create_task_group() as tasks:
                for address in self._nodes:
                    tasks.start_soon(ask, address)
        return answers

    async def _ask(self, address: Address) -> "_Answer | None":
        client = self.client(address)
        try:
            info: Any = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
            slots: Any = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        except LINK_ERRORS:
            return None
        if info["cluster_state"] != "ok":
            return None
        return _Answer(int(info["cluster_current_epoch"]), slots, address[0])

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


class _Answer:
    """What one node says of the cluster."""

    def __init__(self, epoch: int, slots: Any, asked_host: str) -> None:
        self.epoch = epoch
        self.owners: list[tuple[int, int, Address]] = []
        self.nodes: set[Address] = set()
        for first, last, *servers in slots:
            # A node that does not know its own address leaves it empty: it is the one that was asked.
            addresses = [(server[0].decode() if server[0] else asked_host, server[1]) for server in servers]
            self.owners.append((first, last, addresses[0]))
            self.nodes.update(addresses)
        self.owners.sort()
