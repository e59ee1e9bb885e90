"""Channels of a cluster: each primary is listened to by a connection and a task of its own."""

from asyncio import gather
from collections.abc import Callable, Iterable

import anyio
from redis.asyncio import Redis

from reactor.backend.connect import client_at
from reactor.backend.primaries import LoopPerPrimary
from reactor.backend.subscription import Subscription
from reactor.backend.target import Target
from reactor.backend.topology import Address, Topology
from reactor.histogram import SECONDS, Histogram

NO_OWNER_PAUSE = 0.05


class ClusterChannels:
    """Listens to sharded channels, each on the node that has its slot; or to one channel on every primary.

    Seen from outside it is one subscription: whatever happens to a part of it is a gap.
    """

    def __init__(
        self, target: Target, topology: Topology, *, everywhere: bool,
        on_message: Callable[[bytes, bytes], None], on_gap: Callable[[bool], None],
        on_lost: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._target, self._topology, self._everywhere = target, topology, everywhere
        self._on_message, self._on_gap, self._on_lost = on_message, on_gap, on_lost
        self._parts: dict[Address, Subscription] = {}
        self._clients: dict[Address, Redis] = {}
        self._homes: dict[str, Address] = {}
        self._channels: dict[str, anyio.Event] = {}
        self._loops = LoopPerPrimary[Subscription]()
        self._started = anyio.Event()
        self._told_first = False
        self.lags = Histogram(SECONDS)

    @property
    def listening(self) -> bool:
        """Whether every primary is listened to."""
        return self._parts.keys() >= self._topology.primaries and all(
            part.listening for address, part in self._parts.items() if address in self._topology.primaries
        )

    async def subscribed(self) -> None:
        """Return once every channel asked for so far is confirmed."""
        await self._started.wait()
        await gather(*(part.subscribed() for part in list(self._parts.values())))

    async def subscribe(self, channel: str) -> None:
        """Return once the channel is confirmed where it is at home now."""
        self._channels.setdefault(channel, anyio.Event())
        while True:
            try:
                home = self._topology.owner_of(channel)
            except LookupError:
                await anyio.sleep(NO_OWNER_PAUSE)
                continue
            self._homes[channel] = home
            await self._part(home).subscribe(channel)
            if self._homes.get(channel, home) == home:
                return

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to the channel."""
        self._channels.pop(channel, None)
        home = self._homes.pop(channel, None)
        if home in self._parts:
            self._parts[home].unsubscribe(channel)

    def reconcile(self) -> None:
        """The topology changed: listen where the slots are now."""
        for address in self._parts.keys() - self._topology.primaries:
            del self._parts[address]
        for address in self._topology.primaries:
            self._part(address)
        if not self._everywhere:
            for channel, home in list(self._homes.items()):
                self._move(channel, home)
        self._loops.reconcile()
        if self._told_first:
            self._on_gap(False)

    def _move(self, channel: str, home: Address) -> None:
        try:
            owner = self._topology.owner_of(channel)
        except LookupError:
            return
        if owner != home or home not in self._parts:
            if home in self._parts:
                self._parts[home].unsubscribe(channel)
            self._homes[channel] = owner
            self._part(owner).want(channel)

    def _part(self, address: Address) -> Subscription:
        part = self._parts.get(address)
        if part is None:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = client_at(self._target, address, waits=True)
            part = self._parts[address] = Subscription(
                client,
                on_message=self._on_message,
                on_gap=self._on_part_gap,
                on_lost=self._on_lost,
                sharded=not self._everywhere,
                lags=self.lags,
            )
            for channel in self._channels if self._everywhere else ():
                part.want(channel)
            self._loops.reconcile()
        return part

    def _on_part_gap(self, _first: bool) -> None:
        if self._told_first:
            self._on_gap(False)
        elif self.listening:
            self._told_first = True
            self._on_gap(True)

    async def serve(self, channels: Iterable[str] = ()) -> None:
        """Listen until cancelled."""
        for channel in channels:
            self._channels.setdefault(channel, anyio.Event())
            if not self._everywhere:
                home = self._homes[channel] = self._topology.owner_of(channel)
                self._part(home).want(channel)
        for address in self._topology.primaries:
            self._part(address)
        self._started.set()
        await self._loops.serve(lambda: set(self._parts.values()), Subscription.serve)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()
