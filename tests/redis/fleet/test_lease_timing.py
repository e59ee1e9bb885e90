"""Leases in real time: a dead node is judged lost, and a stall of Redis makes no node lost."""

from time import monotonic

import anyio
import pytest

from reactor.backend import clients
from tests.redis.fleet.nodes import fleet
from tests.support.servers import Server
from tests.support.waiting import until

LEASE = 1.5
"""Seconds; long enough for renewals every third of it to be on time on a busy machine."""


async def test_a_dead_node_is_judged_lost_within_two_leases_and_a_live_one_is_not(
    redis_server: Server,
) -> None:
    async with fleet(redis_server) as it:
        judge, living, dead = [await it.node(LEASE) for _ in range(3)]
        it.redis.tasks.start_soon(judge.lease.serve)
        it.redis.tasks.start_soon(living.lease.serve)
        living.joins("ann")
        dead.joins("bob")
        died = monotonic()
        await until(lambda: it.in_grace("bob"))
        assert LEASE * 0.9 < monotonic() - died < 2 * LEASE + 5
        assert not it.in_grace("ann")
        # The judges continue with the other shards.
        await until(lambda: not it.probe.client.hexists("{t:fleet}:registry", dead.name))


async def test_a_stall_of_redis_longer_than_the_lease_makes_no_node_lost(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 0.5)
    async with fleet(redis_server) as it:
        nodes = [await it.node(LEASE) for _ in range(3)]
        names = [node.name for node in nodes]
        for number, node in enumerate(nodes):
            node.joins(f"u{number}")
            it.redis.tasks.start_soon(node.lease.serve)
        first = await it.redis.registry.nodes()
        await until(lambda: all(it.counter(name) > first[name].counter for name in names))
        redis_server.pause()
        try:
            await anyio.sleep(1.8 * LEASE)
        finally:
            redis_server.resume()
        await anyio.sleep(1.8 * LEASE)  # no node is judged lost
        assert [node.name for node in nodes] == names
        assert not any(it.in_grace(f"u{number}") for number in range(3))
        assert set(await it.redis.registry.nodes()) == set(names)
