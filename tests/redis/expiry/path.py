"""The expiry path on one of the test servers, made of the parts that a test starts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from reactor.backend.interface import ChannelCallbacks
from reactor.expiry.listener import Listener
from reactor.expiry.pacemaker import Pacemaker
from reactor.expiry.reaper import Reaper
from reactor.expiry.sweep import Sweep
from reactor.fleet.registry import NodeRecord
from reactor.presence.bans import Bans
from tests.redis.presence.probe import Probe
from tests.support.keyspace import SHARDS, wake_channel
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, Connected, connected


class ExpiryPath:
    """The parts of one node. The probe changes Redis beside them, with Redis's active expiry switched off."""

    def __init__(self, redis: Connected, probe: Probe) -> None:
        self.redis, self.probe = redis, probe
        self.reaper = Reaper(redis.store)
        self.gaps: list[bool] = []
        self.listener = Listener(
            redis.backend, keys=redis.store.keys, reaper=self.reaper, on_gap=self.gaps.append
        )
        self.swept: list[int] = []
        self._deadlines: dict[tuple[str, str], int] = {}

    # Changes of members.

    def join(self, user: str, *, room: str = "lobby", ttl: int) -> None:
        _, now, *_ = self.probe.join(user, room=room, ttl=ttl)
        self._deadlines[room, user] = now + ttl

    def detach(self, user: str, *, room: str = "lobby", grace: int) -> None:
        self._deadlines[room, user] = self.probe.detach(user, room=room, grace=grace)[2]

    def lateness(self, expected: int) -> list[int]:
        """Return how late (ms) each departure was; `expected` of them have to be recorded, each once."""
        shards = {self.probe.key("", room): room for room, _ in self._deadlines}
        found = [row for room in shards.values() for row in self.probe.departures(room)]
        assert len(found) == len({(row["room"], row["user"]) for row in found}) == expected
        return [int(row["leftAt"]) - self._deadlines[row["room"], row["user"]] for row in found]

    # The parts.

    async def listen(self) -> None:
        self.redis.tasks.start_soon(self.listener.serve)
        await self.listener.subscribed()

    async def pace(self, node: str = "n1", *, events: bool = True) -> "Pacing":
        record = NodeRecord(1, "life", "-", "")
        await self.redis.registry.renew(node, record, lease_ms=60_000, first=True)
        pacing = Pacing(self, node, events=events)
        self.redis.tasks.start_soon(pacing.serve)
        await pacing.subscribed()
        return pacing

    def sweep(self, node: str = "n1", *, interval: float = 0.0) -> Sweep:
        bans = Bans(self.redis.backend.runner, self.redis.store.keys)
        return Sweep(
            self.redis.store, self.redis.registry, self.reaper, node=lambda: node, interval=interval,
            detach_unregistered=self._detach_unregistered,
            repair_bans=lambda: bans.repair(self.redis.registry.now()),
        )  # fmt: skip

    async def _detach_unregistered(self, shard: int) -> None:
        self.swept.append(shard)


class Pacing:
    """One node's pacemaker and its wake-ups, which can be stopped without the rest of the node."""

    def __init__(self, path: ExpiryPath, node: str, *, events: bool) -> None:
        redis = path.redis
        self.pacemaker = Pacemaker(
            redis.store, redis.registry, path.reaper, node=lambda: node, events_flow=lambda: events
        )
        self._shards = {wake_channel(NAMESPACE, shard).encode(): shard for shard in range(SHARDS)}
        self._channels = redis.backend.channels(
            ChannelCallbacks(self._on_message, self._on_gap, lambda _reason: None)
        )
        self.scope = anyio.CancelScope()
        self.drops_wakeups = False

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        if not self.drops_wakeups:
            self.pacemaker.wake(self._shards[channel], int(payload))

    def _on_gap(self, first: bool) -> None:
        if not first:
            self.pacemaker.scan_all()

    async def subscribed(self) -> None:
        await self._channels.subscribed()

    async def serve(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._channels.serve, [channel.decode() for channel in self._shards])
                tasks.start_soon(self.pacemaker.serve)


@asynccontextmanager
async def expiry_path(server: Server, *, reaps: bool = True) -> AsyncIterator[ExpiryPath]:
    probe = Probe(server)
    try:
        async with connected(server) as redis:
            path = ExpiryPath(redis, probe)
            if reaps:
                redis.tasks.start_soon(path.reaper.serve)
            yield path
    finally:
        probe.close()
