"""A server that is started from standalone.conf has everything that a node needs."""

from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

CONF = Path(__file__).parents[2] / "redis-conf"


def start_from(kind: str, **config: str) -> Server:
    binary, missing = servers.find(kind)
    if binary is None:
        pytest.skip(missing)
    return Server(kind, binary, config).start()


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_node_works_on_a_server_started_from_standalone_conf(kind: str) -> None:
    server = start_from(kind, **{"notify-keyspace-events": "", "include": str(CONF / "standalone.conf")})
    try:
        flags: Any = server.control.config_get("notify-keyspace-events")
        assert set(flags["notify-keyspace-events"]) == set("xE")
        async with served(server, ttl=1.0) as node:
            assert node.events.kind == "ok"
            async with RawClient.connect(node) as ann:
                await ann.join("lobby", "ann")
                assert await ann.closed() == 4003
            assert node.reaper.found_by["event"] == 1
    finally:
        server.stop()
