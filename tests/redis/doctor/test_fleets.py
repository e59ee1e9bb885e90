"""The doctor on Sentinel sets and clusters: replicas, Sentinels, slots, timeouts of failovers."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from anyio import to_thread

from reactor.backend.clients import client_at
from reactor.backend.target import parse_url
from reactor.doctor.apply import apply, commands_of, config_rewrites
from reactor.doctor.checks.clocks import clocks
from reactor.doctor.checks.replicas import replicas
from reactor.doctor.deployment import ClockOffset, Deployment, InspectedServer
from reactor.doctor.report import examined
from reactor.settings import Settings
from tests.redis.doctor.examination import apply_fixes, examine, flags, untouched
from tests.support.cluster_set import ClusterSet
from tests.support.sentinel_set import SentinelSet
from tests.support.server_sets import ServerSet
from tests.support.servers import free_port
from tests.support.waiting import until_blocking

NAME = "notify-keyspace-events"


async def test_a_healthy_sentinel_set(sentinels: SentinelSet):
    with untouched(*sentinels.servers):
        found = await examine(sentinels.admin_url)
    assert found.problems == []
    assert len(found.all("reachable")) == 6
    assert sum(finding.found.startswith("online") for finding in found.all("replicas")) == 2
    assert found.one("sentinels").found == "3"
    assert len(found.all("timeouts", "down-after-milliseconds")) == 3


async def test_the_user_of_the_nodes_has_all_permissions(sentinels: SentinelSet, cluster: ClusterSet):
    for fleet in (sentinels, cluster):
        with untouched(*fleet.servers):
            found = await examine(fleet.url)
        assert found.problems == []
        assert [finding.found for finding in found.all("permissions")] == ["all, as user reactor"] * len(
            fleet.servers
        )


async def test_a_replica_without_expired_events(sentinels: SentinelSet):
    replica = next(server for server in sentinels.servers if not server.is_primary)
    replica.control.config_set(NAME, "")
    found = await examine(sentinels.admin_url)
    assert found.problems == ["events"]
    (finding,) = [finding for finding in found.all("events") if finding.severity == "problem"]
    assert finding.where == f"127.0.0.1:{replica.port}"
    async with examined(Settings(redis_url=sentinels.admin_url)) as (report, deployment):
        assert deployment is not None
        sentinels.primary.control.execute_command("CLIENT", "KILL", "TYPE", "normal")
        applied = await apply(deployment, commands_of(report.findings))
        assert [(fix.command.where, fix.refused) for fix in applied] == [(replica.address, "")]
        assert list(config_rewrites(deployment, applied).values()) == [str(replica.folder / "server.conf")]
    assert flags(replica) == set("Ex")
    assert (await examine(sentinels.admin_url)).problems == []


async def test_a_long_down_after_milliseconds_is_a_problem(sentinels: SentinelSet):
    for sentinel in sentinels.sentinels:
        sentinel.control.execute_command("SENTINEL", "SET", "main", "down-after-milliseconds", "30000")
    try:
        found = await examine(sentinels.admin_url)
        assert found.problems == ["timeouts"]
        long = [finding for finding in found.all("timeouts") if finding.severity == "problem"]
        assert len(long) == 3
        assert {finding.fix for finding in long} == {"SENTINEL SET main down-after-milliseconds 5000"}
        await apply_fixes(sentinels.admin_url)
        assert (await examine(sentinels.admin_url)).problems == []
    finally:
        for sentinel in sentinels.sentinels:
            sentinel.control.execute_command("SENTINEL", "SET", "main", "down-after-milliseconds", "1000")


async def test_disconnected_replicas(sentinels: SentinelSet):
    primary = sentinels.primary
    with sentinels.unreplicated(primary):
        found = await examine(sentinels.admin_url)
    assert "replicas" in found.problems
    assert found.one("replicas", "replicas").found == "none: no failover is possible"
    assert len(found.all("replicas", "connection to the primary")) == 2


async def test_a_replica_that_hangs(sentinels: SentinelSet, monkeypatch):
    monkeypatch.setattr("reactor.backend.clients.COMMAND_TIMEOUT", 1.0)
    monkeypatch.setattr("reactor.backend.diagnose._PROBE_TIMEOUT", 1.0)
    replica = next(server for server in sentinels.servers if not server.is_primary)
    replica.pause()
    try:
        found = await examine(sentinels.admin_url)
    finally:
        replica.resume()
    silent = found.one("reachable", "replica", f"127.0.0.1:{replica.port}")
    assert (silent.severity, "did not answer in time" in silent.found) == ("problem", True)


async def test_a_sentinel_that_is_down(sentinels: SentinelSet):
    port = free_port()
    found = await examine(sentinels.admin_url.replace("/main", f",127.0.0.1:{port}/main"))
    assert found.one("reachable", "Sentinel", f"127.0.0.1:{port}").found == "nothing listens there"
    found = await examine(f"redis+sentinel://127.0.0.1:{port}/main")
    assert found.report.exit_code == 2
    found = await examine(sentinels.admin_url.replace("/main", "/other"))
    assert found.report.exit_code == 2
    assert "SENTINEL MASTERS" in found.one("reachable").fix


async def test_a_single_server_with_a_replica(sentinels: SentinelSet):
    found = await examine(f"redis://127.0.0.1:{sentinels.primary.port}")
    assert found.problems == []
    assert [finding.what for finding in found.all("reachable")] == ["primary", "replica", "replica"]


async def test_a_healthy_cluster(cluster: ClusterSet):
    with untouched(*cluster.servers):
        found = await examine(cluster.admin_url)
    assert found.problems == []
    assert len(found.all("reachable")) == 6
    assert found.one("coverage", "slots").found == "all 16384"
    assert len(found.all("expiry", "expiry of a touched")) == 3


async def test_a_primary_and_a_replica_of_a_cluster_without_expired_events(cluster: ClusterSet):
    primary = cluster.primary_of("lobby")
    lacking = [primary, cluster.replica_of(primary)]
    for server in lacking:
        server.control.config_set(NAME, "")
    found = await examine(cluster.admin_url)
    assert found.problems == ["events", "expiry"]
    assert {finding.where for finding in found.all("events") if finding.severity == "problem"} == {
        server.address for server in lacking
    }
    await apply_fixes(cluster.admin_url)
    assert [flags(server) for server in lacking] == [set("Ex")] * 2
    assert (await examine(cluster.admin_url)).problems == []


@contextmanager
def slots_without_owner(cluster: ClusterSet, first: int, last: int) -> Iterator[None]:
    owner = cluster.owner_of(first)
    others = [server for server in cluster.servers if server is not owner]
    for server in [owner, *others]:
        server.control.execute_command("CLUSTER", "DELSLOTSRANGE", first, last)
    try:
        yield
    finally:
        owner.control.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        cluster.wait_whole()


async def test_slots_that_no_primary_serves(cluster: ClusterSet):
    for server in cluster.servers:
        server.control.config_set("cluster-require-full-coverage", "yes")
    with slots_without_owner(cluster, 100, 102):
        await to_thread.run_sync(_until_broken, cluster)
        found = await examine(cluster.admin_url)
    assert "coverage" in found.problems
    assert found.one("coverage", "slots").found == "3 of 16384 are served by no primary: 100-102"
    assert found.one("coverage", "cluster_state").found == "fail"


async def test_a_dead_server_of_a_cluster(cluster: ClusterSet):
    replica = cluster.replica_of(cluster.primary_of("lobby"))
    replica.kill()
    try:
        found = await examine(cluster.admin_url)
    finally:
        cluster.restart(replica)
    dead = found.one("reachable", "", replica.address)
    assert (dead.found, dead.severity) == ("nothing listens there", "problem")


async def test_an_unreachable_address_in_the_url_of_a_cluster(cluster: ClusterSet):
    port = free_port()
    found = await examine(f"{cluster.admin_url},127.0.0.1:{port}")
    assert found.problems == ["reachable"]
    assert found.one("reachable", "address in the URL").where == f"127.0.0.1:{port}"


@pytest.mark.parametrize("endpoint", ["hostname", "unknown-endpoint"])
async def test_a_cluster_whose_servers_have_no_names_is_examined(cluster: ClusterSet, endpoint: str):
    """CLUSTER SLOTS then lists `?` with an IP behind it, or null for the host that was asked."""
    for server in cluster.servers:
        server.control.config_set("cluster-preferred-endpoint-type", endpoint)
    try:
        found = await examine(cluster.admin_url)
    finally:
        for server in cluster.servers:
            server.control.config_set("cluster-preferred-endpoint-type", "ip")
    assert found.problems == []
    assert {one.where for one in found.all("reachable")} == {server.address for server in cluster.servers}


async def test_servers_behind_an_address_map_are_listed_once_and_tried(cluster: ClusterSet):
    for server in cluster.servers:
        server.control.config_set("cluster-announce-hostname", "inside.invalid")
        server.control.config_set("cluster-preferred-endpoint-type", "hostname")
    try:
        await to_thread.run_sync(_until_named, cluster)
        found = await examine(cluster.admin_url, redis_address_map="inside.invalid=127.0.0.1")
    finally:
        for server in cluster.servers:
            server.control.config_set("cluster-announce-hostname", "")
            server.control.config_set("cluster-preferred-endpoint-type", "ip")
    assert found.problems == []
    assert sorted(one.where for one in found.all("reachable")) == sorted(
        server.address for server in cluster.servers
    )
    assert len(found.all("expiry", "expiry of a touched")) == 3


async def test_a_long_cluster_node_timeout_is_a_problem(cluster: ClusterSet):
    for server in cluster.servers:
        server.control.config_set("cluster-node-timeout", "30000")
    try:
        assert (await examine(cluster.admin_url)).problems == ["timeouts"]
        await apply_fixes(cluster.admin_url)
        assert (await examine(cluster.admin_url)).problems == []
    finally:
        for server in cluster.servers:
            server.control.config_set("cluster-node-timeout", server._config["cluster-node-timeout"])


def _until_named(cluster: ServerSet) -> None:
    until_blocking(
        lambda: all(
            "?" not in str(server.control.execute_command("CLUSTER SLOTS")) for server in cluster.servers
        ),
        what="all names are known to all",
    )


def _until_broken(cluster: ServerSet) -> None:
    until_blocking(
        lambda: "cluster_state:fail" in cluster.servers[0].control.execute_command("CLUSTER", "INFO"),
        what="the cluster sees that slots are missing",
    )


def deployment_of(*servers: InspectedServer) -> Deployment:
    target = parse_url("redis+sentinel://127.0.0.1:1/main")
    return Deployment(target, Settings(redis_url=target.url), servers=list(servers))


def server_with(name: str, **facts: object) -> InspectedServer:
    address = ("127.0.0.1", 1)
    server = InspectedServer(name, address, client_at(parse_url("redis://127.0.0.1:1"), address))
    for field, value in facts.items():
        setattr(server, field, value)
    return server


@pytest.mark.parametrize(
    ("ahead", "severities"),
    [((0.0, 0.02), ["ok", "ok"]), ((30.0, 30.1), ["note", "note"]), ((0.0, 3.0), ["ok", "ok", "problem"])],
)
async def test_clocks_are_compared(ahead: tuple[float, ...], severities: list[str]):
    servers = [server_with(f"s{i}", clock=ClockOffset(by, 0.001)) for i, by in enumerate(ahead)]
    assert [finding.severity for finding in clocks(deployment_of(*servers))] == severities


@pytest.mark.parametrize(
    ("follower", "severity"),
    [
        ({"state": "online", "lag": 1, "offset": 100}, "ok"),
        ({"state": "online", "lag": 45, "offset": 100}, "problem"),
        ({"state": "wait_bgsave", "lag": 0, "offset": 0}, "problem"),
        ({"state": "online", "lag": 0, "offset": 100 - (64 << 20)}, "note"),
    ],
)
async def test_the_lag_of_a_replica_is_judged(follower: dict[str, object], severity: str):
    info = {"master_repl_offset": 100, "slave0": {"ip": "10.0.0.1", "port": 6379, **follower}}
    (finding,) = replicas(deployment_of(server_with("s", info=info)))
    assert finding.severity == severity
