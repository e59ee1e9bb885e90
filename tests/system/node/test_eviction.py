"""Redis evicts keys: no member with heartbeats leaves, and counts are right again soon after."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

POLICIES = (
    "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random",
    "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
)  # fmt: skip


async def test_an_evicted_member_is_restored_and_no_client_sees_a_leave(redis_server: Server) -> None:
    """Whatever vanished: the presence key, what belongs to it, or the indexes of the room."""
    control = redis_server.control
    control.config_set("maxmemory", "100mb")
    control.config_set("maxmemory-policy", "allkeys-lru")
    async with (
        served(redis_server, ttl=60, sweep_interval=0.3) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann", data={"x": 1})
        await bob.join("lobby", "bob")
        assert "noeviction" in node.readiness.status()[1]
        assert node.readiness.status()[0]
        shard = redis_state.prefix("lobby")
        presence = redis_state.presence_key("lobby", "ann")
        shadow = redis_state.shadow_key("lobby", "ann")
        for lost in (
            [presence], [shadow], [presence, shadow], [f"{shard}:members:lobby"], [f"{shard}:rooms"],
            [f"{shard}:nodes", f"{shard}:node:{node.name()}", f"{shard}:node:{node.name()}:lobby"],
            [presence, f"{shard}:members:lobby"], [f"{shard}:pulse"],
        ):  # fmt: skip
            control.delete(*lost)
            await until(lambda lost=lost: control.exists(*lost) == len(lost))  # type: ignore[misc]
            assert redis_state.members(redis_server, "lobby").keys() == {"ann", "bob"}, lost
            assert control.hget(presence, "data") == '{"x":1}', lost
            assert control.hexists(shadow, "j"), lost
            here = await bob.ask("room:members", "room:members", roomId="lobby")
            assert {member["userId"] for member in here["members"]} == {"ann", "bob"}, lost
        for client in (ann, bob):
            assert not departures(client.received)
            assert not client.of("room:force-leave")


async def test_an_inactive_member_leaves_also_where_redis_may_evict(redis_server: Server) -> None:
    redis_server.control.config_set("maxmemory", "100mb")
    redis_server.control.config_set("maxmemory-policy", "volatile-ttl")
    async with (
        served(redis_server, ttl=1, sweep_interval=0.5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as silent,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        await silent.join("lobby", "silent")
        assert await ann.receive_departure_of("silent") == "inactivity_timeout"


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
async def test_under_pressure_no_member_leaves_and_counts_are_right_one_sweep_later(
    bundled_server: Server, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """30 MB, 90,000 foreign keys, 200 members with heartbeats. Prints what was evicted and restored."""
    control = bundled_server.control
    control.config_set("maxmemory", "30mb")
    control.config_set("maxmemory-policy", policy)
    async with served(bundled_server, ttl=60, sweep_interval=2) as node, AsyncExitStack() as stack:
        clients = []
        for number in range(200):
            client = await stack.enter_async_context(RawClient.connect(node))
            await client.join(f"room {number % 20}", f"u{number}")
            clients.append(client.start_heartbeats(2.0))
        await asyncio.to_thread(_press, bundled_server, 90_000)
        evicted = int(control.info("stats")["evicted_keys"])
        control.config_set("maxmemory", "0")
        rounds, sweeps = node.roster_audit.rounds, node.sweep.rounds
        await until(lambda: node.roster_audit.rounds > rounds + 1 and node.sweep.rounds > sweeps + 1)
        await until(lambda: all(_count(bundled_server, n) == 10 for n in range(20)), what="10 in each room")
        for client in clients:
            assert not departures(client.received)
            assert not client.of("room:force-leave")
        counts = [
            (await clients[n].ask("room:count", "room:count", roomId=f"room {n}"))["count"] for n in range(20)
        ]
        assert counts == [10] * 20
    with capsys.disabled():
        print(f"\n{policy}: {evicted} keys evicted, {node.roster_audit.restored} restored")  # noqa: T201


def _press(server: Server, number: int) -> None:
    """Write foreign keys, half of them with a TTL, over what fits."""
    with redis.Redis(unix_socket_path=str(server.socket), protocol=2) as client:
        for start in range(0, number, 500):
            pipeline: Any = client.pipeline(transaction=False)
            for i in range(start, start + 500):
                pipeline.set(f"app:{i}", "x" * 500, ex=3600 if i % 2 else None)
            pipeline.execute(raise_on_error=False)


def _count(server: Server, number: int) -> int:
    room = f"room {number}"
    return len(redis_state.members(server, room))


async def test_no_member_leaves_whose_node_could_not_restore_it_while_redis_was_full(
    redis_server: Server,
) -> None:
    """The nodes are asked for members found gone; while writes are refused, none of them can answer."""
    control, everyone = redis_server.control, {f"user {number}" for number in range(20)}

    def stored() -> set[str]:
        return {user for room in redis_state.everywhere(redis_server).values() for user in room}

    def is_due() -> bool:
        """Whether all stored deadlines have passed."""
        rows = [redis_state.rows(redis_server, f"room {number}") for number in range(4)]
        return max(deadline for room in rows for deadline in room.values()) < redis_state.now(redis_server)

    async with served(redis_server, ttl=3, sweep_interval=0.3) as node, AsyncExitStack() as stack:
        clients = []
        for number, user in enumerate(sorted(everyone)):
            client = await stack.enter_async_context(RawClient.connect(node))
            await client.join(f"room {number % 4}", user)
            client.start_heartbeats()
            clients.append(client)
        for _ in range(2):
            control.config_set("maxmemory-policy", "volatile-random")
            control.config_set("maxmemory", "1")
            await until(lambda: not stored() and is_due())
            for _ in range(2):
                await until(lambda: any(node.reaper._asked.values()))
                await until(lambda: node.reaper.pending)
            control.config_set("maxmemory", "0")
            control.config_set("maxmemory-policy", "noeviction")
            await until(lambda: stored() == everyone)
        assert [departures(client.received) for client in clients] == [[]] * 20
        assert not [client for client in clients if client.of("room:force-leave")]
