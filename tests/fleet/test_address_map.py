"""Servers behind address translation: a cluster and Sentinels name addresses that cannot be reached."""

from collections.abc import Iterator
from typing import Any

import pytest

from reactor.errors import SettingError
from reactor.server.process import serve_node
from reactor.settings import Settings
from tests.fleet.conftest import ServerSets
from tests.support.cluster_set import ClusterSet
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.sentinel_set import SentinelSet
from tests.support.server_sets import SetServer
from tests.support.waiting import until_blocking


@pytest.fixture
def translated(running_sets: ServerSets) -> Iterator[ClusterSet]:
    """A cluster whose servers name hosts that do not exist here."""
    cluster = running_sets(ClusterSet, "valkey")
    assert isinstance(cluster, ClusterSet)
    for server in cluster.servers:
        server.control.config_set("cluster-announce-hostname", "inside.invalid")
        server.control.config_set("cluster-preferred-endpoint-type", "hostname")
    until_blocking(
        lambda: all(b"?" not in hosts_of(server) for server in cluster.servers), what="all names known to all"
    )
    yield cluster
    for server in cluster.servers:
        server.control.config_set("cluster-announce-hostname", "")
        server.control.config_set("cluster-preferred-endpoint-type", "ip")


def hosts_of(server: SetServer) -> set[bytes | None]:
    """All hosts that a server of a cluster names."""
    slots: Any = server.control.execute_command("CLUSTER SLOTS")
    return {host for _first, _last, *servers in slots for host, *_ in servers}


@pytest.mark.parametrize("endpoint", ["hostname", "unknown-endpoint"])
async def test_a_cluster_whose_servers_have_no_names_is_reached(
    running_sets: ServerSets, endpoint: str
) -> None:
    """CLUSTER SLOTS then lists `?` with an IP behind it, or null for the host that was asked."""
    cluster = running_sets(ClusterSet, "valkey")
    assert isinstance(cluster, ClusterSet)
    try:
        for server in cluster.servers:
            server.control.config_set("cluster-preferred-endpoint-type", endpoint)
        settings = Settings(redis_url=cluster.url, port=0, drain_seconds=0)
        async with serve_node(settings) as node, RawClient.connect(node) as ann:
            for room in ("a", "b", "c", "d"):
                await ann.join(room, "ann")
    finally:
        for server in cluster.servers:
            server.control.config_set("cluster-preferred-endpoint-type", "ip")


async def test_a_cluster_is_reached_under_the_mapped_addresses(translated: ClusterSet) -> None:
    settings = Settings(
        redis_url=translated.url, port=0, drain_seconds=0, ttl=1.0,
        redis_address_map="inside.invalid=127.0.0.1",  # type: ignore[arg-type]
    )  # fmt: skip
    async with serve_node(settings) as node, RawClient.connect(node) as ann, RawClient.connect(node) as bob:
        for room in ("a", "b", "c", "d"):
            await ann.join(room, "ann")
        ann.start_heartbeats()
        await bob.join("a", "bob")
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"


async def test_the_primary_that_sentinels_name_is_reached_under_the_mapped_address(
    running_sets: ServerSets,
) -> None:
    sentinels = running_sets(SentinelSet, "valkey")
    assert isinstance(sentinels, SentinelSet)
    primary = sentinels.primary
    async with Proxy.to(primary.port) as proxy:
        pair = f"127.0.0.1:{primary.port}=127.0.0.1:{proxy.port}"
        settings = Settings(
            redis_url=sentinels.url, port=0, drain_seconds=0, redis_address_map=pair,  # type: ignore[arg-type]
        )  # fmt: skip
        async with serve_node(settings) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann")
            proxy.withhold()
            await ann.receive("service:degraded")
            proxy.release()
            await ann.receive("service:restored")


@pytest.mark.parametrize("value", ["a", "a:1=", "a=b:1", "=b", "a:x=b:1"])
def test_a_wrong_map_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match="redis_address_map"):
        Settings(redis_address_map=value)  # type: ignore[arg-type]


def test_a_map_is_shown_as_it_was_given() -> None:
    value = "10.0.0.5:6379=redis.example:7001, [fe80::1]=h"
    pairs = Settings(redis_address_map=value).redis_address_map  # type: ignore[arg-type]
    assert pairs == ((("10.0.0.5", 6379), ("redis.example", 7001)), (("fe80::1", None), ("h", None)))
