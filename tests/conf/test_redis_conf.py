"""The files in redis-conf/ start a server as they stand, and the server in them is enough for everything."""

import re
from pathlib import Path
from typing import Any

import pytest
import redis

from reactor.presence.api import Presence
from reactor.settings import Settings
from tests import servers
from tests.servers import Server
from tests.system.running import RawClient, served

CONF = Path(__file__).parents[2] / "redis-conf"


def start_from(kind: str, **config: str) -> Server:
    binary, missing = servers.find(kind)
    if binary is None:
        pytest.skip(missing)
    return Server(kind, binary, config).start()


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_server_from_standalone_conf_serves(kind: str) -> None:
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


def test_the_acl_user_has_no_command_that_nothing_uses() -> None:
    granted = set(re.findall(r" \+([a-z|]+)", (CONF / "users.acl").read_text()))
    in_scripts = {
        call.lower()
        for path in (CONF.parent / "reactor" / "presence" / "lua").glob("*.lua")
        for call in re.findall(r"redis\.call\(\s*'([A-Z]+)'", path.read_text())
    }
    by_hand = {"evalsha", "script|load", "subscribe", "unsubscribe", "publish", "info"}
    of_departures = {"xread", "xrange", "xrevrange", "hgetall"}
    assert granted == in_scripts | by_hand | of_departures


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_the_acl_user_can_do_all_that_is_needed_and_nothing_else(kind: str, tmp_path: Path) -> None:
    users = tmp_path / "users.acl"
    users.write_text((CONF / "users.acl").read_text() + "user default on nopass ~* &* +@all\n")
    server = start_from(kind, aclfile=str(users))
    url = f"redis://reactor:change-this-password@127.0.0.1:{server.port}/0"
    try:
        async with (
            served(server, redis_url=url, ttl=60, sweep_interval=0.2, lease=0.5) as node,
            RawClient.connect(node) as ann,
            RawClient.connect(node) as bob,
        ):
            await ann.join("lobby", "ann", data={"x": 1})
            await bob.join("lobby", "bob")
            await bob.ask("room:update", "room:updated", roomId="lobby", username="Bob")
            await bob.ask("room:away", "room:away:ok")
            await bob.ask("room:heartbeat", "room:heartbeat:ack")
            await bob.ask("room:members", "room:members", roomId="lobby")
            await bob.ask("leave_room", "room:left", roomId="lobby")
            await ann.hear("room:diff", left=[{"userId": "bob", "reason": "left"}])
            rounds = node.sweep.rounds
            async with Presence.open(Settings(redis_url=url)) as presence:
                assert await presence.count("lobby") == 1
                assert [room.room_id for room in await presence.rooms()] == ["lobby"]
                assert [one.reason async for one in presence.departures()] == ["left"]
                assert (await presence.totals())["left"] == 1
                assert await presence.kick("lobby", "ann")
            assert await ann.closed() == 4003
            while node.sweep.rounds < rounds + 2:
                await node.fleet.registry()
            await node.leases.lose("nobody")
            assert node.backend.healthy
        client: Any = redis.Redis.from_url(url)
        server.control.set("foreign", "1")
        for forbidden in (
            lambda: client.get("foreign"),
            lambda: client.keys("*"),
            client.flushall,
            lambda: client.config_get("*"),
            lambda: client.publish("foreign", "1"),
            lambda: client.client_kill("127.0.0.1:1"),
            client.acl_list,
            lambda: client.shutdown(nosave=True),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()
        client.close()
    finally:
        server.stop()
