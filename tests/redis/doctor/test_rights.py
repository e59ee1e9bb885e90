"""A user with few rights: each that is lacking is named, and the rule that the doctor gives is enough."""

import re
from pathlib import Path

import pytest

from reactor.doctor import rights
from reactor.doctor.trials import try_rights
from tests.redis.doctor.examination import examine, seen, untouched
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

ROOT = Path(__file__).parents[3]
LUA = ROOT / "reactor" / "presence" / "lua"
WHOLE = rights.rule("reactor", 0, cluster=False)
COMMANDS = [word for word in WHOLE.split() if word.startswith("+") and word != "+@connection"]


def make_user(server: Server, rule: str, name: str = "ann") -> str:
    """A user with these rights alone; the address to come in by."""
    server.control.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rule.split())
    return server.url.replace("redis://", f"redis://{name}:secret@")


async def lacking(url: str, *, cluster: bool = False) -> list[str]:
    async with seen(url) as server:
        await try_rights(server, "reactor", 0, cluster=cluster)
        assert not server.refused
        return sorted(right.rule for right in server.rights)


def test_every_command_of_the_scripts_is_tried():
    in_scripts = {
        call.lower()
        for path in LUA.rglob("*.lua")
        for call in re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", path.read_text())
    }
    assert in_scripts <= rights.ON_KEYS.keys() | rights.WITHOUT_KEYS.keys()
    assert not rights.ON_KEYS.keys() - in_scripts - {"xread", "xrevrange"}


def test_the_rule_is_that_of_redis_conf():
    (line,) = re.findall(
        r"^user reactor on >\S+ (.*)$", (ROOT / "redis-conf" / "users.acl").read_text(), re.MULTILINE
    )
    assert sorted(line.split()) == sorted(rights.rule("reactor", 0, cluster=True).split())


async def test_the_whole_rule_is_enough(redis_server: Server):
    with untouched(redis_server):
        assert await lacking(make_user(redis_server, WHOLE)) == []
    url = make_user(redis_server, rights.rule("reactor", 0, cluster=True))
    assert await lacking(url, cluster=True) == []


@pytest.mark.parametrize("right", COMMANDS)
async def test_each_command_that_is_lacking_is_named(redis_server: Server, right: str):
    url = make_user(redis_server, f"{WHOLE} -{right[1:]}")
    with untouched(redis_server):
        assert await lacking(url) == [right]


@pytest.mark.parametrize(
    "right", ["+spublish", "+ssubscribe", "+sunsubscribe", "+cluster|info", "+cluster|slots"]
)
async def test_each_command_for_clusters_that_is_lacking_is_named(redis_server: Server, right: str):
    url = make_user(redis_server, f"{rights.rule('reactor', 0, cluster=True)} -{right[1:]}")
    assert await lacking(url, cluster=True) == [right]


@pytest.mark.parametrize("right", ["~{reactor:*", "&{reactor:*", "&__keyevent@0__:expired"])
async def test_keys_and_channels_that_are_lacking_are_named(redis_server: Server, right: str):
    kept = " ".join(word for word in WHOLE.split() if word != right)
    url = make_user(redis_server, kept)
    with untouched(redis_server):
        assert await lacking(url) == [right]


async def test_one_shard_that_is_lacking_is_found(redis_server: Server):
    shards = " ".join(f"~{{reactor:{n}}}*" for n in range(16) if n != 9) + " ~{reactor:fleet}*"
    url = make_user(redis_server, WHOLE.replace("~{reactor:*", shards))
    found = await examine(url)
    assert found.one("rights", "right").what == "right: keys {reactor:9}:…"


async def test_a_poor_user_gets_the_rule_that_works(redis_server: Server):
    url = make_user(redis_server, "~other:* -@all +@connection +get +subscribe +info +time")
    with untouched(redis_server):
        found = await examine(url)
    assert found.report.exit_code == 1
    named = {finding.wanted for finding in found.all("rights")}
    assert {"+hset", "+evalsha", "+script|load", "~{reactor:*", "&__keyevent@0__:expired"} <= named
    assert "+get" not in named
    assert found.one("rights", "right: HSET").mend == "ACL SETUSER ann +hset"
    redis_server.control.execute_command(*found.one("rights", "all rights").mend.split())
    with untouched(redis_server):
        found = await examine(url)
    assert found.report.exit_code == 0
    assert found.one("events").found.endswith("but events come")
    async with served(redis_server, redis_url=url) as node, RawClient.connect(node) as client:
        await client.join("lobby", "ann")
        await client.ask("leave_room", "room:left", roomId="lobby")


@pytest.mark.parametrize(
    "given", ["+ping", "+ping +subscribe &*", "+ping +info", "+ping +@write ~{reactor:* -srem"]
)
async def test_a_user_who_may_do_next_to_nothing(redis_server: Server, given: str):
    url = make_user(redis_server, f"-@all {given}")
    with untouched(redis_server):
        found = await examine(url)
    assert found.report.exit_code == 1
    assert found.one("rights", "right: EVALSHA").wanted == "+evalsha"
    redis_server.control.execute_command(*found.one("rights", "all rights").mend.split())
    assert (await examine(url)).report.exit_code == 0


async def test_single_rights_work_too(redis_server: Server):
    url = make_user(redis_server, f"{WHOLE} -hset -publish")
    found = await examine(url)
    for finding in found.all("rights"):
        if finding.what.startswith("right:"):
            redis_server.control.execute_command(*finding.mend.split())
    assert (await examine(url)).report.exit_code == 0


async def test_what_a_user_may_not_see_is_said_and_proved_by_the_event(redis_server: Server):
    url = make_user(redis_server, WHOLE)
    redis_server.control.config_set("notify-keyspace-events", "")
    found = await examine(url)
    events = found.one("events")
    assert events.severity == "problem"
    assert "config|get" in found.one("config").found
    assert events.found.endswith("no event comes")
    assert (events.fix, "redis.conf" in events.mend) == (None, True)
    assert "not looked at" in found.one("keys").found
