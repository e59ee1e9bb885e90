"""Leases in real time: who is dead is lost, and a Redis that stalls kills nobody."""

from time import monotonic

import anyio
import pytest

from reactor.backend import clients
from tests.redis.expiry.nodes import LEASE, fleet
from tests.support.servers import Server
from tests.support.waiting import until


async def test_in_real_time_a_dead_node_is_lost_within_two_leases_and_a_living_one_is_not(
    redis_server: Server,
) -> None:
    async with fleet(redis_server) as it:
        judge, living, dead = await it.node(), await it.node(), await it.node()
        it.redis.tasks.start_soon(judge.lease.serve)
        it.redis.tasks.start_soon(living.lease.serve)
        living.joins("ann")
        dead.joins("bob")
        died = monotonic()
        await until(lambda: it.in_grace("bob"))
        assert LEASE * 0.9 < monotonic() - died < 2 * LEASE + 1
        assert not it.in_grace("ann")
        # The judges go on through the other shards.
        await until(lambda: not it.probe.client.hexists("{t:fleet}:registry", dead.name))


async def test_in_real_time_a_redis_that_stalls_for_longer_than_the_lease_kills_nobody(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 0.5)
    async with fleet(redis_server) as it:
        nodes = [await it.node() for _ in range(3)]
        names = [node.name for node in nodes]
        for number, node in enumerate(nodes):
            node.joins(f"u{number}")
            it.redis.tasks.start_soon(node.lease.serve)
        await anyio.sleep(LEASE)  # each has renewed its lease, at some time in it
        redis_server.pause()
        try:
            await anyio.sleep(1.8 * LEASE)
        finally:
            redis_server.resume()
        await anyio.sleep(1.8 * LEASE)  # nobody is judged lost
        assert [node.name for node in nodes] == names
        assert not any(it.in_grace(f"u{number}") for number in range(3))
        assert set(await it.redis.registry.nodes()) == set(names)
