"""What managed services restrict: commands that are renamed or refused, and idle connections that are cut."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reactor.errors import RedisMisconfigured
from tests.redis.doctor.examination import examine
from tests.support import servers
from tests.support.managed_proxy import ManagedProxy
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server, without
from tests.support.waiting import until


@pytest.fixture
def restricted() -> Iterator[Server]:
    """A server without CONFIG, on which events are on."""
    binary, reason = servers.find("redis7")
    if binary is None:
        pytest.skip(reason)
    server = WithoutConfig("redis7", binary, {"notify-keyspace-events": "Ex"})
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def another_server() -> Iterator[Server]:
    """A server beside the bundled one."""
    with without((), "redis7") as server:
        yield server


class WithoutConfig(Server):
    """A server whose default user may use everything but CONFIG, as with a managed service."""

    def start(self) -> "WithoutConfig":
        super().start()
        self.control.execute_command("ACL", "SETUSER", "default", "-config")
        return self


async def leaves_in_time(server: Server, **options: Any) -> None:
    """A member joins, sends heartbeats, and another one expires."""
    async with (
        served(server, ttl=1.0, **options) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        await bob.join("lobby", "bob")
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        await until(lambda: node.readiness.status() == (True, "ok"))


async def test_without_config_events_are_known_from_the_first_one_on(restricted: Server) -> None:
    await leaves_in_time(restricted)


async def test_without_config_the_start_finds_out_whether_events_arrive(restricted: Server) -> None:
    async with served(restricted) as node:
        await until(lambda: node.readiness.status() == (True, "ok"))
        assert not list(restricted.control.scan_iter("*:doctor:*"))
    restricted.control.execute_command("ACL", "SETUSER", "default", "+config")
    restricted.control.config_set("notify-keyspace-events", "Kx")
    restricted.control.execute_command("ACL", "SETUSER", "default", "-config")
    async with served(restricted) as node:
        ready, sentence = node.readiness.status()
        assert ready
        assert "expired events are not confirmed" in sentence


async def test_without_config_and_info_everything_works(restricted: Server) -> None:
    restricted.control.execute_command("ACL", "SETUSER", "default", "-info")
    await leaves_in_time(restricted)


async def test_idle_connections_that_are_cut_are_not_noticed(redis_server: Server) -> None:
    redis_server.control.config_set("timeout", "1")
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        began = redis_server.control.time()[0]
        await until(lambda: redis_server.control.time()[0] > began + 3)
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 1
        assert ann.of("service:degraded") == []


def refusing(*commands: bytes) -> Callable[[list[bytes]], bytes | None]:
    """Refuse commands in a service's own words."""
    refusal = b"-PLAN this command is not included in your plan, see https://service.example\r\n"
    return lambda words: refusal if words[0].upper() in commands else None


async def test_config_and_info_that_are_refused_in_other_words(redis_server: Server) -> None:
    async with ManagedProxy.to(redis_server.port) as proxy:
        proxy.answer = refusing(b"CONFIG", b"INFO")
        await leaves_in_time(redis_server, redis_url=proxy.url)
        found = await examine(proxy.url)
        assert found.problems == []
        assert found.one("version").found == "not shown to this user"


async def test_an_info_that_the_service_answers_itself(redis_server: Server) -> None:
    """Scripts then see another run id than clients, for which expiry must not be suspended for ever."""

    def with_own_id(words: list[bytes], reply: bytes) -> bytes:
        return (
            re.sub(rb"run_id:.{40}", b"run_id:" + b"5" * 40, reply) if words[0].upper() == b"INFO" else reply
        )

    async with ManagedProxy.to(redis_server.port) as proxy:
        proxy.change = with_own_id
        await leaves_in_time(redis_server, redis_url=proxy.url)


async def test_a_proxy_that_keeps_its_clients_connected_through_a_failover(
    bundled_server: Server, another_server: Server
) -> None:
    async with (
        ManagedProxy.to(another_server.port) as proxy,
        served(another_server, redis_url=proxy.url, ttl=2.0, lease=2.0, sweep_interval=1.0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        await bob.join("lobby", "bob")
        proxy.go_to(bundled_server.port)
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        await until(lambda: node.readiness.status() == (True, "ok"))
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 1


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_config_and_info_that_are_renamed_away(kind: str) -> None:
    with without(("CONFIG", "INFO"), kind) as server:
        await leaves_in_time(server)
        found = await examine(server.url)
        assert found.problems == []
        assert found.one("permissions", "permission: INFO").severity == "note"


async def test_an_info_that_is_cut(redis_server: Server) -> None:
    def cut(words: list[bytes], reply: bytes) -> bytes:
        if words[0].upper() != b"INFO" or reply[:1] != b"$":
            return reply
        fields = (b"# Server", b"os:", b"uptime", b"used_memory_human:", b"connected_clients:")
        shown = b"\r\n".join(line for line in reply.split(b"\r\n") if line.startswith(fields))
        shown += b"\r\nmaxmemory:\r\nevicted_keys:-\r\n"
        return b"$%d\r\n%b\r\n" % (len(shown), shown)

    async with ManagedProxy.to(redis_server.port) as proxy:
        proxy.change = cut
        await leaves_in_time(redis_server, redis_url=proxy.url)
        assert (await examine(proxy.url)).problems == []


async def test_an_endpoint_that_divides_its_keys_over_servers_is_not_served(
    bundled_server: Server, another_server: Server
) -> None:
    async with ManagedProxy.to(another_server.port, bundled_server.port) as proxy:
        with pytest.raises(RedisMisconfigured, match=r"divides its keys over .* redis\+cluster://"):
            async with served(another_server, redis_url=proxy.url):
                pass
        found = await examine(proxy.url)
        finding = found.one("scripts")
        assert finding.severity == "problem"
        assert "not found" in finding.found
        assert "redis+cluster://" in finding.fix
    for server in (another_server, bundled_server):
        for key in server.control.scan_iter():
            assert ":doctor:" in key, "nothing else is written before the check"
            assert server.control.pttl(key) > 0


async def test_an_endpoint_of_a_cluster_that_shows_no_info_is_not_served_as_one_server() -> None:
    binary, reason = servers.find("redis7")
    if binary is None:
        pytest.skip(reason)
    server = Server("redis7", binary, {"cluster-enabled": "yes", "notify-keyspace-events": "Ex"})
    try:
        server.start()
        server.control.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: "cluster_state:ok" in str(server.control.execute_command("CLUSTER", "INFO")))
        async with ManagedProxy.to(server.port) as proxy:
            proxy.answer = refusing(b"INFO", b"CONFIG")
            with pytest.raises(RedisMisconfigured, match="a command on keys of two shards is refused"):
                async with served(server, redis_url=proxy.url):
                    pass
        assert server.control.dbsize() == 0
    finally:
        server.stop()


async def test_a_user_without_the_right_to_rename_is_not_taken_for_a_divided_endpoint(
    redis_server: Server,
) -> None:
    redis_server.control.execute_command("ACL", "SETUSER", "default", "-rename")
    try:
        await leaves_in_time(redis_server, redis_url=redis_server.url)
    finally:
        redis_server.control.execute_command("ACL", "SETUSER", "default", "+rename")
