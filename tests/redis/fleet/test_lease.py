"""Leases: members of a dead node get the disconnect grace, and an outage of Redis makes no node dead."""

import asyncio
from typing import Any

import pytest

from reactor.errors import Unavailable
from reactor.fleet import lease
from tests.redis.fleet.nodes import LEASE, Node, fleet
from tests.redis.presence.probe import AWAY_GRACE, GRACE
from tests.support.keyspace import SHARDS
from tests.support.servers import Server


class Clock:
    """The steady clock of every node, which a test moves forward."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease, "monotonic", clock)
    return clock


async def pass_leases(clock: Clock, number: float, *living: Node) -> None:
    """Let a number of leases pass, in which the live nodes renew as usual."""
    for _ in range(round(3 * number)):
        clock.now += LEASE / 3
        for node in living:
            await node.renew()


async def test_the_members_of_a_dead_node_get_the_disconnect_grace_after_its_lease(
    redis_server: Server, clock: Clock
) -> None:
    async with fleet(redis_server) as it:
        judge, dead = await it.node(), await it.node()
        dead.joins("ann")
        dead.joins("bob", room="hall", away=1)
        dead.joins("cy")
        judge.joins("cy")
        judge.joins("dan")
        await pass_leases(clock, 1, judge)
        assert not it.in_grace("ann")
        await pass_leases(clock, 1, judge)
        assert it.in_grace("ann")
        assert it.in_grace("bob", room="hall")
        assert it.probe.remaining("ann") <= GRACE < it.probe.remaining("bob", "hall") <= AWAY_GRACE
        assert not it.in_grace("cy")
        assert not it.in_grace("dan")
        assert it.probe.remaining("cy") > GRACE
        assert set(await it.redis.registry.nodes()) == {judge.name}


async def test_a_node_goes_on_renewing_while_it_detaches_the_members_of_a_lost_one(
    redis_server: Server, clock: Clock
) -> None:
    """That takes a call for each room: its own lease would end meanwhile, and so on through the fleet."""
    rooms = [f"room {number}" for number in range(200)]
    async with fleet(redis_server) as it:
        judge, dead = await it.node(), await it.node()
        for room in rooms:
            dead.joins("ann", room=room)
        await pass_leases(clock, 1, judge)
        counter, renewals = it.counter(judge.name), 0
        while not judge.tasks.running:
            clock.now += LEASE / 3
            await judge.lease.renew()
            renewals += 1
        await judge.lease.renew()
        assert it.counter(judge.name) == counter + renewals + 1
        assert not all(it.in_grace("ann", room=room) for room in rooms)
        await judge.tasks.done()
        assert all(it.in_grace("ann", room=room) for room in rooms)
        assert set(await it.redis.registry.nodes()) == {judge.name}


async def test_a_node_that_renews_is_never_judged_lost(redis_server: Server, clock: Clock) -> None:
    async with fleet(redis_server) as it:
        nodes = [await it.node() for _ in range(3)]
        names = [node.name for node in nodes]
        for number, node in enumerate(nodes):
            node.joins(f"u{number}")
        await pass_leases(clock, 5, *nodes)
        assert [node.name for node in nodes] == names
        assert not any(it.in_grace(f"u{number}") for number in range(3))
        assert all(node.renamed_from == [] for node in nodes)


@pytest.mark.parametrize("gap", [0.7, 1.5, 100.0])
async def test_a_node_that_was_stalled_itself_starts_its_observations_again(
    redis_server: Server, clock: Clock, gap: float
) -> None:
    """No node can renew while Redis is stalled, so each gets a whole lease afterwards."""
    async with fleet(redis_server) as it:
        judge, other = await it.node(), await it.node()
        other.joins("ann")
        await pass_leases(clock, 1, other, judge)  # the judge has observed every renewal of the other one
        clock.now += gap * LEASE
        await judge.renew()
        await pass_leases(clock, 0.67, judge)
        assert not it.in_grace("ann")
        await other.renew()
        assert other.renamed_from == []
        await pass_leases(clock, 1, judge, other)
        assert not it.in_grace("ann")
        await pass_leases(clock, 2, judge)
        assert it.in_grace("ann"), "a node that does not renew after that is dead"


async def test_a_node_that_was_judged_lost_takes_a_new_name_and_reports_it(
    redis_server: Server, clock: Clock
) -> None:
    async with fleet(redis_server) as it:
        judge, sleeper = await it.node(), await it.node()
        old = sleeper.name
        sleeper.joins("ann")
        await pass_leases(clock, 2, judge)
        assert it.in_grace("ann")
        await sleeper.renew()
        assert sleeper.renamed_from == [old]
        assert sleeper.name != old
        assert set(await it.redis.registry.nodes()) == {judge.name, sleeper.name}
        assert it.probe.refresh("ann", node=old)[1] == b"0", "heartbeats under the old name are refused"
        sleeper.joins("ann", replaces=f"{old}.1")
        await pass_leases(clock, 2, judge, sleeper)
        assert not it.in_grace("ann")
        assert sleeper.renamed_from == [old]


async def test_a_flushed_redis_gives_every_node_a_new_name(redis_server: Server, clock: Clock) -> None:
    async with fleet(redis_server) as it:
        nodes = [await it.node() for _ in range(2)]
        names = [node.name for node in nodes]
        it.probe.client.flushall()
        await pass_leases(clock, 1, *nodes)
        assert [node.renamed_from for node in nodes] == [[name] for name in names]
        assert set(await it.redis.registry.nodes()) == {node.name for node in nodes}


@pytest.mark.parametrize("failing", ["renew", "mark_shard_alive"])
async def test_a_new_name_is_reported_although_redis_fails_before_it_is_registered(
    redis_server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async with fleet(redis_server) as it:
        node = await it.node()
        old, calls = node.name, 0
        it.probe.client.flushall()
        renew, mark = it.redis.registry.renew, it.redis.store.mark_shard_alive

        async def fails_once(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == (2 if failing == "renew" else 1):
                raise Unavailable("Redis did not answer")
            return await (renew if failing == "renew" else mark)(*args, **options)

        where = it.redis.registry if failing == "renew" else it.redis.store
        monkeypatch.setattr(where, failing, fails_once)
        with pytest.raises(Unavailable):
            await node.renew()
        await pass_leases(clock, 1, node)
        assert node.renamed_from == [old]
        assert set(await it.redis.registry.nodes()) == {node.name}


async def test_rename_returns_the_former_name_once_however_often_it_is_repeated(
    redis_server: Server, clock: Clock
) -> None:
    async with fleet(redis_server) as it:
        node = await it.node()
        old = node.name
        assert await node.lease.rename() == old
        second = node.name
        redis_server.kill()
        for _ in range(3):
            with pytest.raises(Unavailable):
                await node.lease.rename()
        redis_server.start()
        assert await node.lease.rename() == second, (
            "the name that was registered, and none of those that were not"
        )
        await pass_leases(clock, 1, node)
        assert node.renamed_from == []


async def test_another_node_completes_the_work_of_a_judge_that_died_half_way(
    redis_server: Server, clock: Clock
) -> None:
    async with fleet(redis_server) as it:
        first, second, dead = await it.node(), await it.node(), await it.node()
        rooms = [f"room{number}" for number in range(40)]
        for room in rooms:
            dead.joins("ann", room=room)
        detach_node, done = it.redis.store.detach_node, 0

        async def fails(*args: Any, **options: Any) -> None:
            nonlocal done
            done += 1
            if done == 20:
                raise Unavailable("Redis did not answer")
            await detach_node(*args, **options)

        it.redis.store.detach_node = fails  # type: ignore[method-assign]
        await pass_leases(clock, 1, first, second)
        while done < 20:
            await pass_leases(clock, 1 / 3, first)
        it.redis.store.detach_node = detach_node  # type: ignore[method-assign]
        assert 0 < sum(it.in_grace("ann", room=room) for room in rooms) < len(rooms)
        await pass_leases(clock, 2, second)
        assert all(it.in_grace("ann", room=room) for room in rooms)
        assert set(await it.redis.registry.nodes()) >= {second.name}
        assert dead.name not in await it.redis.registry.nodes()


async def test_a_node_that_only_a_shard_knows_is_detached_by_the_sweep(
    redis_server: Server, clock: Clock
) -> None:
    async with fleet(redis_server) as it:
        node, forgotten = await it.node(), await it.node()
        node.joins("ann")
        forgotten.joins("bob")
        await it.redis.registry.deregister(forgotten.name)
        for shard in range(SHARDS):
            await node.detector.detach_unregistered(shard)
        assert it.in_grace("bob")
        assert not it.in_grace("ann")


async def test_a_node_that_deregistered_is_not_judged_lost(redis_server: Server, clock: Clock) -> None:
    async with fleet(redis_server) as it:
        node, leaving = await it.node(), await it.node()
        await leaving.lease.deregister()
        assert set(await it.redis.registry.nodes()) == {node.name}
        await pass_leases(clock, 3, node)
        assert node.renamed_from == []


async def test_a_renewal_after_deregistering_takes_no_new_name(redis_server: Server) -> None:
    """Where it is the last node, no other would ever remove that name."""
    async with fleet(redis_server) as it:
        leaving = await it.node()
        deregistering = asyncio.ensure_future(leaving.lease.deregister())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await leaving.lease.renew()
        await deregistering
        assert await it.redis.registry.nodes() == {}
        with pytest.raises(Unavailable):
            await leaving.lease.rename()
        assert await it.redis.registry.nodes() == {}


async def test_the_first_renewal_after_a_long_silence_suspends_expiry(
    redis_server: Server, clock: Clock
) -> None:
    async with fleet(redis_server) as it:
        node = await it.node()
        node.joins("ann")
        assert node.suspended == []
        it.probe.client.hincrby(it.probe.key("pulse"), "at", -int(LEASE * 1000) - 1)
        await node.renew()
        await node.renew()
        assert node.suspended == [LEASE]
