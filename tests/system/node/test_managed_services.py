"""What managed services restrict: commands that are renamed or refused, and idle connections that are cut."""

from collections.abc import Iterator

import pytest

from tests.support import servers
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
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


class WithoutConfig(Server):
    """A server whose default user may use everything but CONFIG, as with a managed service."""

    def start(self) -> "WithoutConfig":
        super().start()
        self.control.execute_command("ACL", "SETUSER", "default", "-config")
        return self


async def leaves_in_time(server: Server) -> None:
    """A member joins, sends heartbeats, and another one expires."""
    async with (
        served(server, ttl=1.0) as node,
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
