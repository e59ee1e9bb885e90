"""Redis loses its data, or comes back older, without any sign of it: what must not be sent then."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from reactor.membership import recovery
from reactor.membership.recovery_state import RecoveryState
from reactor.presence.keys import Entry
from reactor.presence.replies import Joined, JoinRefused
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until


def present(client: RawClient) -> set[str]:
    """The members of the lobby at the start of its latest epoch, as the client received them."""
    fresh = [m for m in client.received if m["type"] == "room:diff" and m["from"] == 0]
    return {member["userId"] for member in fresh[-1]["joined"]} if fresh else set()


@pytest.mark.parametrize("on_first", [4, 1], ids=["half", "one"])
async def test_after_flushall_no_client_receives_an_empty_room(redis_server: Server, on_first: int) -> None:
    """FLUSHALL cuts no connection. The first member to be registered again is alone in Redis for a while.

    on_first: how many members its node has. With one, no member of the node's own is missing.
    """
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(served(redis_server, lease=1.5)) for _ in range(2)]
        clients = []
        for i in range(8):
            client = await stack.enter_async_context(RawClient.connect(nodes[i >= on_first]))
            await client.join("lobby", f"u{i}")
            clients.append(client)
        everybody = {f"u{i}" for i in range(8)}
        redis_server.control.flushall()
        await clients[0].send("room:heartbeat", roomId="lobby")
        await until(lambda: set(redis_state.members(redis_server, "lobby")) == everybody)
        for client in clients:
            await client.has_received("room:diff", **{"from": 0})
            counts = [m["count"] for m in client.received if m["type"] == "room:diff" and m["from"] == 0]
            assert counts == [8]
            assert present(client) == everybody
            assert departures(client.received) == []


async def test_no_diff_is_sent_before_the_slowest_node_has_registered_its_members(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as quick,
        served(redis_server) as slow,
        RawClient.connect(quick) as ann,
        RawClient.connect(slow) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await ann.receive("room:diff")
        enter, may_enter = slow.reconciler.reregister_all, anyio.Event()

        async def later() -> None:
            await may_enter.wait()
            await enter()

        slow.reconciler.reregister_all = later  # type: ignore[method-assign]
        redis_server.kill()
        await ann.receive("service:degraded")
        redis_server.start()
        await until(lambda: set(redis_state.members(redis_server, "lobby")) == {"ann"})
        await anyio.sleep(2.5)  # longer than the floor of the recovery barrier
        assert len(ann.of("service:restored", "room:diff")) == 1, "other than the join of bob"
        ready, sentence = quick.readiness.status()
        assert not ready, "joins wait"
        assert sentence.startswith("recovering: ")
        may_enter.set()
        await ann.receive("service:restored")
        assert quick.readiness.status()[0]
        await ann.receive("room:diff", **{"from": 0})
        assert present(ann) == {"ann", "bob"}
        assert departures(ann.received) == []


async def test_the_recovery_barrier_waits_for_a_missing_node_no_longer_than_a_lease(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, lease=1.5) as node,
        served(bundled_server, lease=1.5) as gone,
        RawClient.connect(node) as ann,
        RawClient.connect(gone) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")

        async def never() -> None:
            await anyio.sleep_forever()

        gone.reconciler.reregister_all = never  # type: ignore[method-assign]
        bundled_server.kill()
        await ann.receive("service:degraded")
        bundled_server.start()
        await ann.receive("service:restored")
        assert await ann.receive_departure_of("bob") == "disconnected"


async def test_a_node_fenced_in_some_shards_only_continues_under_another_name(
    bundled_server: Server,
) -> None:
    """Redis went away while another node was about it: the registry still knows the name."""
    async with served(bundled_server, lease=1.0) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        former = node.name()
        await node.store.fence_node(redis_state.shard("lobby"), former)
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        assert node.name() != former
        async with RawClient.connect(node) as bob:
            assert (await bob.join("lobby", "bob"))["count"] == 2


async def test_a_client_that_connects_during_an_outage_receives_degraded_and_restored(
    bundled_server: Server,
) -> None:
    async with served(bundled_server, lease=1.0) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        bundled_server.kill()
        await ann.receive("service:degraded")
        async with RawClient.connect(node) as bob:
            await bob.receive("service:degraded")
            bundled_server.start()
            await bob.receive("service:restored")
        await ann.receive("service:restored")


async def test_a_join_in_flight_while_the_node_is_renamed_is_kept(bundled_server: Server) -> None:
    """What has the former name is detached; the join must not be among it."""
    async with served(bundled_server, lease=1.0, grace=0.5) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        join = node.store.join
        renamed = False

        async def rename_before_the_reply(*args: Any, **fields: Any) -> Joined | JoinRefused:
            nonlocal renamed
            reply = await join(*args, **fields)
            if not renamed:
                renamed = True
                node.recovery.on_data_lost("lobby")
                await until(lambda: node.recovery.state is RecoveryState.HEALTHY)
            return reply

        node.store.join = rename_before_the_reply  # type: ignore[method-assign]
        async with RawClient.connect(node) as again:
            joined = await again.join("lobby", "ann")
            shadow: Any = bundled_server.control.hgetall(redis_state.shadow_key("lobby", "ann"))
            connections = {name for name in shadow if "." in name}
            assert len(connections) == 2
            assert joined["socketId"] in connections
            assert {name.partition(".")[0] for name in connections} == {node.name()}


async def test_departures_are_remembered_up_to_a_number(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MAX_REMEMBERED", 3)
    async with served(bundled_server) as node:
        for number in range(5):
            node.recovery.remember(Entry("lobby", f"u{number}"), number, "left", number)
        assert [departed[1].user_id for departed in node.recovery._departed] == ["u2", "u3", "u4"]
