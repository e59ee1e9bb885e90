"""A cluster that speaks TLS alone, whose certificates have a hostname and no IP."""

from collections.abc import Iterator

import pytest

from reactor.errors import RedisMisconfigured
from reactor.settings import RoomRule
from tests.fleet.serving import converged, crowd, in_thread, same_shard_room, serving
from tests.redis.doctor.examination import examine
from tests.support.cluster_set import TlsClusterSet
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures

pytestmark = pytest.mark.slow  # a cluster of six servers starts, and one fails over

SILENT = same_shard_room("lobby", "silent")


async def test_a_cluster_with_tls_alone_is_followed_through_a_failover(tls_cluster: TlsClusterSet) -> None:
    rules = (RoomRule(match=SILENT, ttl=1.0),)
    async with (
        serving(tls_cluster, rooms=rules) as one,
        serving(tls_cluster, rooms=rules) as two,
        crowd([one, two], ["lobby", "elsewhere"], 4) as clients,
        RawClient.connect(one) as first,
        RawClient.connect(two) as second,
    ):
        await first.join(SILENT, "silent")
        await first.receive("room:force-leave", reason="inactivity_timeout")
        await in_thread(tls_cluster.failover, "lobby")
        for client in clients:
            await client.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby", id="after it")
        await second.join(SILENT, "silent")
        await second.receive("room:force-leave", reason="inactivity_timeout")
        for room in ("lobby", "elsewhere"):
            await converged(clients, tls_cluster, room, ["u0", "u1", "u2", "u3"])
        assert [departures(client.received) for client in clients] == [[], [], [], []]


async def test_the_doctor_finds_each_server_once_under_the_name_of_its_certificate(
    tls_cluster: TlsClusterSet,
) -> None:
    """Primaries list their replicas, and CLUSTER NODES all servers, by IP."""
    for url in (tls_cluster.url, tls_cluster.admin_url):
        found = await examine(url)
        assert found.problems == []
        addresses = {f"{tls_cluster.HOST}:{server.port}" for server in tls_cluster.servers}
        assert [one.where for one in found.all("reachable")] == sorted(addresses)
        assert len(found.all("expiry", "expiry of a touched")) == 3


async def test_the_doctor_names_a_dead_server_as_it_is_reached(tls_cluster: TlsClusterSet) -> None:
    replica = tls_cluster.replica_of(tls_cluster.primary_of("lobby"))
    replica.kill()
    try:
        found = await examine(tls_cluster.admin_url)
    finally:
        tls_cluster.restart(replica)
    dead = found.one("reachable", "replica", f"{tls_cluster.HOST}:{replica.port}")
    assert (dead.found, dead.severity) == ("nothing listens there", "problem")


@pytest.fixture
def named_by_ip(tls_cluster: TlsClusterSet) -> Iterator[TlsClusterSet]:
    """The same cluster with the default for the names of its servers."""
    for server in tls_cluster.servers:
        server.control.config_set("cluster-preferred-endpoint-type", "ip")
    yield tls_cluster
    for server in tls_cluster.servers:
        server.control.config_set("cluster-preferred-endpoint-type", "hostname")


async def test_servers_that_the_cluster_names_by_ip_fail_with_the_setting_that_names_them(
    named_by_ip: TlsClusterSet,
) -> None:
    with pytest.raises(RedisMisconfigured) as caught:
        async with serving(named_by_ip):
            pass
    said = str(caught.value)
    assert "certificate is not valid for '127.0.0.1'" in said
    assert "cluster-preferred-endpoint-type hostname" in said
    assert "redis_address_map" in said
    found = await examine(named_by_ip.url)
    assert found.problems == ["reachable"]
    for one in found.all("reachable"):
        assert "not valid for '127.0.0.1'" in one.found
        assert "cluster-preferred-endpoint-type hostname" in one.fix
    mapped = {"redis_url": named_by_ip.url, "redis_address_map": f"127.0.0.1={named_by_ip.HOST}"}
    async with served(named_by_ip.servers[0], **mapped) as node, RawClient.connect(node) as ann:
        for room in ("a", "b", "c", "d"):
            await ann.join(room, "ann")
    found = await examine(**{"url": mapped.pop("redis_url"), **mapped})
    assert found.problems == []
