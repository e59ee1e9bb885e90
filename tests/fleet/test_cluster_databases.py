"""A cluster with several databases, and what is said of a database that a cluster lacks."""

import pytest

from reactor.errors import RedisMisconfigured
from reactor.presence.api import Presence
from tests.fleet.serving import in_thread, serving
from tests.redis.doctor.examination import examine
from tests.support import servers
from tests.support.cluster_set import ClusterSet, DatabasesClusterSet, slot_of
from tests.support.raw_client import RawClient, departures
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # a cluster of six servers starts

ROOMS = [f"room {number}" for number in range(12)]


async def test_fleets_in_two_databases_of_a_cluster_do_not_hear_each_other(
    databases_cluster: DatabasesClusterSet,
) -> None:
    cluster, other_url = databases_cluster, f"{databases_cluster.admin_url}/2"
    async with (
        serving(cluster, redis_url=cluster.admin_url) as zero,
        serving(cluster, redis_url=other_url) as two,
        RawClient.connect(zero) as ann,
        RawClient.connect(two) as bob,
        RawClient.connect(two) as silent,
        Presence.open(other_url) as presence,
    ):
        for room in ROOMS:
            await ann.join(room, "ann")
            await bob.join(room, "bob")
            assert await presence.count(room) == 1
        ann.start_heartbeats()
        bob.start_heartbeats()
        await silent.join(ROOMS[0], "silent")
        assert await presence.kick(ROOMS[0], "silent")
        assert await bob.receive_departure_of("silent") == "kicked"
        to = cluster.another_primary(await in_thread(cluster.owner_of, slot_of(ROOMS[0])))
        await in_thread(lambda: cluster.move_slot(slot_of(ROOMS[0]), to, atomic=True))
        async with RawClient.connect(two) as late:
            await late.join(ROOMS[0], "late")
            await late.ask("leave_room", "room:left", roomId=ROOMS[0])
        assert await bob.receive_departure_of("late") == "left"
        for room in ROOMS:
            assert (await ann.ask("room:count", "room:count", roomId=room))["count"] == 1
            assert (await bob.ask("room:count", "room:count", roomId=room))["count"] == 1
        assert departures(ann.received) == []
        assert not ann.of("error", "service:degraded", "room:force-leave")
        assert two.feed.resyncs.total() == two.feed.resyncs["moved"]


async def test_a_member_in_another_database_expires_by_its_event(
    databases_cluster: DatabasesClusterSet,
) -> None:
    url = f"{databases_cluster.admin_url}/3"
    async with (
        serving(databases_cluster, redis_url=url, ttl=1.0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as silent,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        before = node.listener.received
        await silent.join("lobby", "silent")
        assert await ann.receive_departure_of("silent") == "inactivity_timeout"
        await until(lambda: node.listener.received > before)
    found = await examine(url)
    assert found.problems == []
    assert len(found.all("expiry", "expiry of a touched")) == 3


async def test_a_database_that_a_cluster_lacks_is_named_with_the_remedy(cluster: ClusterSet) -> None:
    with pytest.raises(RedisMisconfigured) as caught:
        async with serving(cluster, redis_url=f"{cluster.url}/1"):
            pass
    wanted = "set cluster-databases" if servers.is_valkey(cluster.kind, 9) else "has only database 0"
    assert wanted in str(caught.value)
