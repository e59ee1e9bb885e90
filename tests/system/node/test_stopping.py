"""A node is stopped while something delays it, and a deploy of all nodes."""

import signal
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from scripts.benchmarks.fleet.deploy import measure_deploy
from scripts.benchmarks.server import Bench
from tests.support import redis_state
from tests.support.nodes import NodeProcess
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.mark.slow
async def test_a_node_ends_with_0_within_10_seconds_though_redis_and_a_client_are_frozen(
    bundled_server: Server,
) -> None:
    async with (
        NodeProcess.start(bundled_server, drain_seconds=5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as deaf,
    ):
        await ann.join("lobby", "ann")
        await deaf.join("lobby", "deaf")
        deaf.socket.transport.pause_reading()
        bundled_server.pause()
        began = time.monotonic()
        assert await node.stop() == 0
        assert time.monotonic() - began < 10
        assert await ann.closed() == 1012


async def test_a_connection_to_a_stopping_node_is_refused(bundled_server: Server) -> None:
    async with (
        NodeProcess.start(bundled_server, drain_seconds=2) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        node.send(signal.SIGTERM)
        assert await ann.closed() == 1012
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            async with RawClient.connect(node):
                pass
        assert await bob.closed() == 1012
        assert await node.ended() == 0


async def test_a_rolling_restart_of_every_node_sends_no_leave_and_no_join(
    bundled_server: Server,
) -> None:
    bench = Bench(bundled_server.socket_url, Redis.from_url(bundled_server.url), "reactor", owned=False)
    settings: dict[str, Any] = {"drain_seconds": 0.5, "max_per_address": 0, "new_per_second": 0}
    async with bench.redis:
        seen = await measure_deploy(bench, clients=60, nodes=3, settings=settings)
    assert (seen["leaves_seen"], seen["joins_seen"]) == (0, 0), seen["examples"]
    assert seen["whole_at_the_end"]
    assert seen["members_in_redis"] == 60
    assert [one["exit_code"] for one in seen["restarts"]] == [0, 0, 0]
    assert seen["closings"] == {1012: sum(one["connections"] for one in seen["restarts"])}


async def test_a_stopping_node_applies_pending_heartbeats_and_gives_up_lease_and_leadership(
    bundled_server: Server,
) -> None:
    control: Any = bundled_server.control
    async with (
        NodeProcess.start(bundled_server, drain_seconds=0.5) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        await until(lambda: control.exists("{reactor:fleet}:turn:pacemaker"))
        assert control.hlen("{reactor:fleet}:registry") == 1
        before = redis_state.members(bundled_server, "lobby")["ann"]["lastActiveAt"]
        control.execute_command("CLIENT", "PAUSE", 700, "ALL")
        await ann.send("room:heartbeat", roomId="lobby")
        await ann.barrier()
        assert await node.stop() == 0
        assert await ann.closed() == 1012
        assert redis_state.members(bundled_server, "lobby")["ann"]["lastActiveAt"] > before
        for kept in ("registry", "lease:*", "turn:*"):
            assert control.keys(f"{{reactor:fleet}}:{kept}") == []
