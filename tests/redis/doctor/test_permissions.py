"""The doctor names each missing permission, and the ACL rule that it proposes is enough."""

import re
from pathlib import Path
from typing import Any

import pytest

from reactor.doctor.permissions import try_permissions
from reactor.presence import rights
from reactor.presence.rights import acl_rule
from reactor.presence.tags import shard_tags
from tests.redis.doctor.examination import examine, inspected_server, untouched
from tests.support.keyspace import keyspace
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

ROOT = Path(__file__).parents[3]
LUA = ROOT / "reactor" / "presence" / "lua"
RULE = acl_rule("reactor", 0, cluster=False)
COMMANDS = [word for word in RULE.split() if word.startswith("+") and word != "+@connection"]


def make_user(server: Server, rule: str, name: str = "ann") -> str:
    """Create a user with only these permissions; its address."""
    server.control.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rule.split())
    return server.url.replace("redis://", f"redis://{name}:secret@")


async def missing(url: str, *, cluster: bool = False) -> list[str]:
    async with inspected_server(url) as server:
        await try_permissions(server, keyspace(), cluster=cluster)
        assert not server.refused
        return sorted(permission.rule for permission in server.missing_permissions)


def test_every_command_of_the_scripts_is_tried():
    in_scripts = {
        call.lower()
        for path in LUA.rglob("*.lua")
        for call in re.findall(r"call\(\s*'([A-Z]+)'", path.read_text())
    }
    assert in_scripts <= rights.KEY_COMMANDS.keys() | rights.OTHER_COMMANDS.keys()
    assert not rights.KEY_COMMANDS.keys() - in_scripts - {"xread", "xrevrange"}


def test_users_acl_has_the_same_rule():
    (line,) = re.findall(
        r"^user reactor on >\S+ (.*)$", (ROOT / "redis-conf" / "users.acl").read_text(), re.MULTILINE
    )
    assert sorted(line.split()) == sorted(acl_rule("reactor", 0, cluster=True).split())


async def test_the_rule_is_enough(redis_server: Server):
    with untouched(redis_server):
        assert await missing(make_user(redis_server, RULE)) == []
    url = make_user(redis_server, acl_rule("reactor", 0, cluster=True))
    assert await missing(url, cluster=True) == []


@pytest.mark.parametrize("right", COMMANDS)
async def test_each_missing_command_is_named(redis_server: Server, right: str):
    url = make_user(redis_server, f"{RULE} -{right[1:]}")
    with untouched(redis_server):
        assert await missing(url) == [right]


@pytest.mark.parametrize(
    "right", ["+spublish", "+ssubscribe", "+sunsubscribe", "+cluster|info", "+cluster|slots"]
)
async def test_each_missing_cluster_command_is_named(redis_server: Server, right: str):
    url = make_user(redis_server, f"{acl_rule('reactor', 0, cluster=True)} -{right[1:]}")
    assert await missing(url, cluster=True) == [right]


@pytest.mark.parametrize("right", ["~{reactor:*", "&{reactor:*", "&__keyevent@0__:expired"])
async def test_missing_keys_and_channels_are_named(redis_server: Server, right: str):
    kept = " ".join(word for word in RULE.split() if word != right)
    url = make_user(redis_server, kept)
    with untouched(redis_server):
        assert await missing(url) == [right]


async def test_a_single_missing_shard_is_named(redis_server: Server):
    tags = shard_tags("reactor", 16)
    shards = " ".join(f"~{{reactor:{tag}}}*" for tag in tags if tag != "9fnq") + " ~{reactor:fleet}*"
    url = make_user(redis_server, RULE.replace("~{reactor:*", shards))
    found = await examine(url)
    assert found.one("permissions", "permission:").what == "permission: keys {reactor:9fnq}:…"


async def test_the_proposed_rule_makes_a_limited_user_sufficient(redis_server: Server):
    url = make_user(redis_server, "~other:* -@all +@connection +get +subscribe +info +time")
    with untouched(redis_server):
        found = await examine(url)
    assert found.report.exit_code == 1
    named = {finding.wanted for finding in found.all("permissions")}
    assert {"+hset", "+evalsha", "+script|load", "~{reactor:*", "&__keyevent@0__:expired"} <= named
    assert "+get" not in named
    assert found.one("permissions", "permission: HSET").fix == "ACL SETUSER ann +hset"
    redis_server.control.execute_command(*found.one("permissions", "all permissions").fix.split())
    others: Any = redis_server.control.acl_getuser("ann")
    assert "~other:*" in str(others["keys"]), "the user may be shared: what it may do otherwise stays"
    with untouched(redis_server):
        found = await examine(url)
    assert found.report.exit_code == 0
    assert found.one("events").found.endswith("but events arrive")
    async with served(redis_server, redis_url=url) as node, RawClient.connect(node) as client:
        await client.join("lobby", "ann")
        await client.ask("leave_room", "room:left", roomId="lobby")


@pytest.mark.parametrize(
    "given", ["+ping", "+ping +subscribe &*", "+ping +info", "+ping +@write ~{reactor:* -srem"]
)
async def test_a_user_with_almost_no_permissions(redis_server: Server, given: str):
    url = make_user(redis_server, f"-@all {given}")
    with untouched(redis_server):
        found = await examine(url)
    assert found.report.exit_code == 1
    assert found.one("permissions", "permission: EVALSHA").wanted == "+evalsha"
    redis_server.control.execute_command(*found.one("permissions", "all permissions").fix.split())
    assert (await examine(url)).report.exit_code == 0


async def test_the_rules_for_single_permissions_are_enough_too(redis_server: Server):
    url = make_user(redis_server, f"{RULE} -hset -publish")
    found = await examine(url)
    for finding in found.all("permissions"):
        if finding.what.startswith("permission:"):
            redis_server.control.execute_command(*finding.fix.split())
    assert (await examine(url)).report.exit_code == 0


async def test_without_permission_for_config_a_missing_event_shows_the_setting(redis_server: Server):
    url = make_user(redis_server, RULE)
    redis_server.control.config_set("notify-keyspace-events", "")
    found = await examine(url)
    events = found.one("events")
    assert events.severity == "problem"
    assert "config|get" in found.one("config").found
    assert events.found.endswith("no event arrives")
    assert (events.command, "redis.conf" in events.fix) == (None, True)
    assert "not checked" in found.one("keys").found
