"""The users in users.acl have the permissions that they need, and no others."""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import redis

from reactor.errors import ReactorError, Unavailable
from reactor.presence.api import Presence
from reactor.settings import Settings
from tests.deploy.test_redis_conf import CONF, start_from
from tests.support import redis_state, servers
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.server_sets import open_users
from tests.support.servers import Server
from tests.support.waiting import until

CLUSTER_COMMANDS = {"ssubscribe", "sunsubscribe", "spublish", "cluster|info", "cluster|slots"}
"""Commands that only tests/fleet uses, which runs as the same users."""


def commands_of(user: str) -> set[str]:
    (line,) = re.findall(rf"^user {user} (.*)$", (CONF / "users.acl").read_text(), re.MULTILINE)
    return set(re.findall(r" \+([a-z|]+)", line))


def start_with_users(kind: str, folder: Path) -> Server:
    users = folder / "users.acl"
    users.write_text(open_users())
    return start_from(kind, aclfile=str(users))


def url_of(server: Server, user: str) -> str:
    return f"redis://{user}:change-this-password@127.0.0.1:{server.port}/0"


def test_the_user_reactor_has_no_unused_permission() -> None:
    granted = commands_of("reactor")
    in_scripts = {
        call.lower()
        for path in (CONF.parent / "reactor" / "presence" / "lua").rglob("*.lua")
        for call in re.findall(r"call\(\s*'([A-Z]+)'", path.read_text())
    }
    direct = {"evalsha", "script|load", "subscribe", "unsubscribe", "publish", "info"}
    for_departures = {"xread", "xrange", "xrevrange", "hgetall"}
    assert granted == in_scripts | direct | for_departures | CLUSTER_COMMANDS


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_the_user_reactor_can_do_all_that_is_needed_and_nothing_else(kind: str, tmp_path: Path) -> None:
    server = start_with_users(kind, tmp_path)
    url = url_of(server, "reactor")
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
            await ann.receive("room:diff", left=[{"userId": "bob", "reason": "left"}])
            rounds = node.sweep.rounds
            async with Presence.open(Settings(redis_url=url)) as presence:
                assert await presence.count("lobby") == 1
                assert [room.room_id for room in await presence.rooms()] == ["lobby"]
                assert [departure.reason async for departure in presence.departures()] == ["left"]
                assert (await presence.totals())["left"] == 1
                assert await presence.kick("lobby", "ann")
            assert await ann.closed() == 4003
            while node.sweep.rounds < rounds + 2:
                await node.registry.nodes()
            await node.detector.detach_node("unknown")
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


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_a_node_without_config_get_knows_of_events_from_its_start_on(kind: str, tmp_path: Path) -> None:
    server = start_with_users(kind, tmp_path)
    try:
        async with served(server, redis_url=url_of(server, "reactor"), ttl=0.3, sweep_interval=0) as node:
            assert node.events.kind == "unknown"
            await until(lambda: node.readiness.status() == (True, "ok"))
            for _ in range(2):
                async with RawClient.connect(node) as ann:
                    await ann.join("lobby", "ann")
                    await ann.receive("room:force-leave", reason="inactivity_timeout")
                await until(lambda: node.listener.received)
            assert node.readiness.status() == (True, "ok")
            assert node.reaper.found_by["event"] >= 1
    finally:
        server.stop()


@pytest.mark.parametrize("user", ["reactor", "reader", "replica", "sentinel", "default"])
def test_every_user_has_a_password(user: str) -> None:
    (line,) = re.findall(rf"^user {user} (.*)$", (CONF / "users.acl").read_text(), re.MULTILINE)
    assert line.startswith("on >change-this-password ")


@asynccontextmanager
async def reading(kind: str, folder: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server with a room that ann is in, bob has left, and carl has expired from without an event.

    With the address for the user reader.
    """
    server = start_with_users(kind, folder)
    server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    off: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0}
    try:
        async with (
            served(server, redis_url=url_of(server, "reactor"), ttl=600, **off) as node,
            RawClient.connect(node) as ann,
            RawClient.connect(node) as bob,
            RawClient.connect(node) as carl,
        ):
            for client, name in ((ann, "ann"), (bob, "bob"), (carl, "carl")):
                await client.join("lobby", name)
            await bob.ask("leave_room", "room:left", roomId="lobby")
            server.control.pexpire(redis_state.presence_key("lobby", "carl"), 1)
            rows = f"{redis_state.prefix('lobby')}:members:lobby"
            server.control.zadd(rows, {"carl": 1, "ann": 1})  # deadlines are lower bounds; both have passed
            await until(lambda: server.control.exists(redis_state.presence_key("lobby", "carl")) == 0)
            yield server, url_of(server, "reader")
    finally:
        server.stop()


async def read_all(url: str) -> None:
    """Assert that every read gives the right answer."""
    async with Presence.open(url) as presence:
        assert [(room.room_id, room.count) for room in await presence.rooms()] == [("lobby", 1)]
        assert [member.user_id for member in await presence.members("lobby")] == ["ann"]
        assert await presence.count("lobby") == 1
        assert await presence.is_present("lobby", "ann")
        assert not await presence.is_present("lobby", "carl")
        assert [departure.user_id async for departure in presence.departures()] == ["bob"]
        assert await presence.totals() == {"left": 1}
        async with aclosing(cast("Any", presence.departures(follow=True))) as followed:
            assert (await anext(followed)).user_id == "bob"
            with anyio.move_on_after(1):  # it asks for more, which a busy machine takes a while to do
                await anext(followed)
        async with aclosing(cast("Any", presence.watch("lobby"))) as events:
            assert (await anext(events)).count == 1


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_the_user_reader_gets_exact_answers_and_changes_nothing(kind: str, tmp_path: Path) -> None:
    async with reading(kind, tmp_path) as (server, url):
        before = {key: server.control.dump(key) for key in server.control.keys("*lobby*")}
        await read_all(url)
        async with Presence.open(url) as presence:
            with pytest.raises(Unavailable, match="Redis refused kick"):
                await presence.kick("lobby", "ann")
        assert {key: server.control.dump(key) for key in server.control.keys("*lobby*")} == before
        async with Presence.open(url_of(server, "reactor")) as presence:
            assert await presence.totals() == {"left": 1}
            assert await presence.count("lobby") == 1  # this user may remove expired members
            assert await presence.totals() == {"left": 1, "inactivity_timeout": 1}


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_the_user_reader_needs_each_of_its_permissions(kind: str, tmp_path: Path) -> None:
    async with reading(kind, tmp_path) as (server, url):
        unneeded = set()
        for command in commands_of("reader") - CLUSTER_COMMANDS:
            server.control.execute_command("ACL", "SETUSER", "reader", f"-{command}")
            try:
                with anyio.fail_after(4):
                    await read_all(url)
            except (ReactorError, redis.RedisError, TimeoutError, AssertionError):
                pass
            else:
                unneeded.add(command)
            server.control.execute_command("ACL", "SETUSER", "reader", f"+{command}")
        await read_all(url)
        # Without `info` the version is not checked; without `unsubscribe` more messages are received.
        assert unneeded == {"info", "unsubscribe"}


STOPPING = [
    ("EVAL", "while true do end", "0"), ("EVAL_RO", "while true do end", "0"),
    ("SCRIPT", "LOAD", "while true do end"), ("SCRIPT", "FLUSH"), ("SCRIPT", "KILL"),
    ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() while true do end end)"),
    ("FCALL", "x", "0"), ("FCALL_RO", "x", "0"), ("FUNCTION", "FLUSH"), ("EVALSHA_RO", "0" * 40, "0"),
    ("CLIENT", "PAUSE", "10000"), ("CLIENT", "KILL", "TYPE", "normal"), ("DEBUG", "SLEEP", "1"),
    ("CONFIG", "SET", "maxmemory", "1"), ("SHUTDOWN", "NOSAVE"), ("REPLICAOF", "127.0.0.1", "1"),
    ("FLUSHALL",), ("SAVE",), ("KEYS", "*"), ("SORT", "x"), ("SCAN", "0"), ("MONITOR",), ("MULTI",),
    ("BLPOP", "{reactor:0lf}:x", "0"), ("PSUBSCRIBE", "*"),
]  # fmt: skip


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_the_user_reader_cannot_stop_redis(kind: str, tmp_path: Path) -> None:
    async with reading(kind, tmp_path) as (_, url):
        client = redis.Redis.from_url(url)
        for command in STOPPING:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
        client.close()
        await read_all(url)


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_without_a_server_the_user_reader_learns_what_loads_the_scripts(
    kind: str, tmp_path: Path
) -> None:
    server = start_with_users(kind, tmp_path)
    try:
        with pytest.raises(Unavailable, match="a running `reactor serve` of the same release loads them"):
            async with Presence.open(url_of(server, "reader")):
                pass
        async with Presence.open(url_of(server, "reactor")) as presence:
            await presence.rooms()
        async with Presence.open(url_of(server, "reader")) as presence:
            assert await presence.rooms() == []
    finally:
        server.stop()
