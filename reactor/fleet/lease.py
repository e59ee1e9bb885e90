"""Nodes watch each other: a dead one's members go under the grace, and nobody is judged by a stalled Redis.

Each node moves its counter in the registry, a few times a lease. A judge holds a node dead when it has
seen the counter unchanged for a whole lease by its own steady clock, all the while Redis answered it: if
Redis was away, everybody looked dead, so the judge begins to count anew.
"""

import secrets
import socket
from asyncio import gather
from collections.abc import Callable, Mapping
from functools import partial
from os import getpid
from time import monotonic

import anyio
import structlog

from reactor.errors import Unavailable
from reactor.fleet.registry import NOWHERE, Fleet, NodeRecord
from reactor.presence.attachment import Terms
from reactor.presence.keys import SHARDS
from reactor.presence.store import Store

log = structlog.get_logger()

LONGEST_GAP = 0.6
"""Of a lease, between two of our own renewals; a longer one means that one of them failed or was late."""


def new_node_name() -> str:
    """A name for one life of a node: new at each start, and after each time it was judged lost."""
    return secrets.token_hex(4)


class Companions:
    """The nodes that are there. One is taken for gone when the registry was without it for a whole lease (s).

    A registry that Redis lost has to fill again, and meanwhile nobody is forgotten.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._missing: dict[str, float] = {}
        self._looked_at = 0.0
        self.lives: set[str] = set()

    def saw(self, registry: Mapping[str, NodeRecord], now: float) -> None:
        """Note who is in the registry. now: seconds of a steady clock."""
        if now - self._looked_at > self._lease * LONGEST_GAP:
            self._missing.clear()
        self._looked_at = now
        there = {record.life for record in registry.values()}
        self.lives |= there
        self._missing = {life: self._missing.get(life, now) for life in self.lives - there}
        self.lives -= {life for life, since in self._missing.items() if now - since > self._lease}


class Leases:
    """This node's lease, and its eye on the others'. `serve` has to run.

    lease: seconds. policy: a room's terms, for the grace of a lost node's members. on_renamed(old) is called
    when this node was judged lost, or Redis lost its data: all its connections have to be entered again
    under the new name. on_held(seconds) is called when ends by time do not count for so long at most, and
    with 0 when they count again.

    entered_in, servers, all_there are what the roll call has come to.
    """

    def __init__(
        self, store: Store, fleet: Fleet, *, lease: float, policy: Callable[[str], Terms],
        on_renamed: Callable[[str], None], on_held: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._store, self._fleet = store, fleet
        self._lease, self._policy = lease, policy
        self._on_renamed, self._on_held = on_renamed, on_held
        self._about = f"{socket.gethostname()}:{getpid()}"
        self._companions = Companions(lease)
        self._counter = 0
        self._registered = False
        self._renewed_at = 0.0
        self._renewing = anyio.Lock()
        self._resigned = False
        self._held = False
        self._seen: dict[str, tuple[int, float]] = {}
        self._former: str | None = None
        self.name = self.life = new_node_name()
        self.entered_in = NOWHERE
        self.servers, self.all_there = "", False

    @property
    def companions(self) -> set[str]:
        """The nodes that are there, by their lives, as far as was seen before Redis last lost data."""
        return self._companions.lives | {self.life}

    def now(self) -> int:
        """Redis's time (ms), guessed: what clients are told never comes from this machine's clock."""
        return self._fleet.now()

    async def register(self) -> None:
        """Take the name. Raises Unavailable."""
        await self._renew()

    async def renew_now(self) -> None:
        """Find out at once whether this node was judged lost, and take another name if so.

        Raises Unavailable.
        """
        async with self._renewing:
            await self._renew()

    async def rename(self) -> str:
        """Take another name, since Redis may know things of this one that are not so; the former name.

        Raises Unavailable; then it can be done again.
        """
        async with self._renewing:
            self._drop_name()
            await self._take_name()
            former, self._former = self._former or self.name, None
        return former

    async def renounce(self, name: str) -> None:
        """Take another name, unless that was done already: some shard refuses this one.

        Whoever judged this node lost may have got no further than to some shards, so that the registry still
        knows it. Raises Unavailable.
        """
        async with self._renewing:
            if self.name == name:
                self._drop_name()
            await self._renew()

    async def serve(self) -> None:
        """Renew, pulse and judge, until cancelled."""
        while True:
            await anyio.sleep(self._lease / 3)
            try:
                await self.renew_now()
            except Unavailable:
                continue

    async def resign(self) -> None:
        """Give the name up for good; its members were detached before. Raises Unavailable, then and later."""
        async with self._renewing:
            self._resigned = True
            await self._fleet.resign(self.name)

    async def _renew(self) -> None:
        registry = await self._take_name()
        if self._former is not None:
            former, self._former = self._former, None
            log.warning("node_renamed", old=former, new=self.name)
            self._on_renamed(former)
        self._companions.saw(registry, monotonic())
        await self._pulse()
        await self._judge(registry)

    async def _take_name(self) -> dict[str, NodeRecord]:
        """Renew the lease under the present name, or take another one where that is lost; the registry."""
        if self._resigned:  # a renewal behind it would find the name gone, and take another one
            raise Unavailable("the server is shutting down")
        while True:
            self._counter += 1
            registry = await self._fleet.renew(
                self.name,
                NodeRecord(self._counter, self.life, self.entered_in, self._about),
                lease=int(self._lease * 1000),
                first=not self._registered,
            )
            if registry is not None:
                self._registered = True
                return registry
            self._drop_name()

    def _drop_name(self) -> None:
        # A name that Redis never took is no former name, and may still become one.
        if self._registered:
            self._former, self.name, self._registered = self.name, new_node_name(), False
            self.entered_in = NOWHERE

    async def _pulse(self) -> None:
        lease = int(self._lease * 1000)
        pulse = partial(self._store.pulse, lease=lease, servers=self.servers, all_there=self.all_there)
        held = any(await gather(*map(pulse, range(SHARDS))))
        if held and not self._held:
            log.warning("ends_by_time_held", seconds=self._lease)
            self._on_held(self._lease)
        if self._held and not held:
            self._on_held(0.0)
        self._held = held

    async def _judge(self, registry: dict[str, NodeRecord]) -> None:
        now = monotonic()
        if now - self._renewed_at > self._lease * LONGEST_GAP:
            self._seen.clear()  # Redis was away, or we were: nothing seen before counts
        self._renewed_at = now
        for node, record in registry.items():
            counter, since = self._seen.get(node, (None, now))
            if counter != record.counter:
                self._seen[node] = (record.counter, now)
            elif node != self.name and now - since > self._lease:
                log.warning("node_lost", node=node, about=record.about)
                await self.lose(node)
        for node in self._seen.keys() - registry.keys():
            del self._seen[node]

    async def lose(self, node: str) -> None:
        """Put all members of a node under the grace, and forget it.

        Raises Unavailable; then it can be done again.
        """
        for shard in range(SHARDS):
            await self._lose_in_shard(shard, node)
        await self._fleet.resign(node)
        self._seen.pop(node, None)

    async def end_leftovers(self, shard: int) -> None:
        """Lose the nodes that the shard knows and the registry does not: a failover can bring them back."""
        nodes = await self._fleet.nodes_of_shard(shard)
        if not nodes:
            return
        registry = await self._fleet.registry()
        for node in nodes:
            if node not in registry:
                await self._lose_in_shard(shard, node)

    async def _lose_in_shard(self, shard: int, node: str) -> None:
        while rooms := await self._store.fence_node(shard, node):
            for room_id in rooms:
                terms = self._policy(room_id)
                await self._store.lose_node(node, room_id, grace=terms.grace, away_grace=terms.away_grace)
