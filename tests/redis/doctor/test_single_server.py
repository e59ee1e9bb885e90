"""The doctor on one server: what is wrong with it, and that the fix is enough."""

import pytest

from reactor.doctor.expiry_probe import measure_expiry
from tests.redis.doctor.examination import apply_fixes, examine, inspected_server, untouched
from tests.redis.doctor.examination import flags as flags_of
from tests.support.keyspace import shard_prefix
from tests.support.servers import Server


async def test_a_healthy_server_has_no_problems_and_no_notes(redis_server: Server):
    with untouched(redis_server):
        found = await examine(redis_server.socket_url)
    assert (found.problems, found.notes, found.report.exit_code) == ([], [], 0)
    assert found.one("expiry", "expiry of a touched").found.startswith("event after ")
    facts = redis_server.control.info("server")
    name = "Valkey" if "valkey_version" in facts else "Redis"
    version = facts.get("valkey_version", facts["redis_version"])
    assert found.one("version").found.startswith(f"{name} {version}")


async def test_disabled_events_are_a_problem_and_are_switched_on(redis_server: Server):
    redis_server.control.config_set("notify-keyspace-events", "")
    with untouched(redis_server):
        found = await examine(redis_server.url)
    assert (found.problems, found.report.exit_code) == (["events", "expiry"], 1)
    events = found.one("events")
    assert (events.found, events.fix) == ('"" (nothing)', "CONFIG SET notify-keyspace-events Ex")
    assert events.where == f"127.0.0.1:{redis_server.port}"
    assert "no event" in found.one("expiry").found
    await apply_fixes(redis_server.url)
    with untouched(redis_server):
        assert (await examine(redis_server.url)).report.exit_code == 0
    assert flags_of(redis_server) == set("Ex")


@pytest.mark.parametrize(("flags", "after"), [("Kg", "KgEx"), ("K$x", "K$xE"), ("AK", "AKE"), ("E$", "E$x")])
async def test_other_flags_are_kept(redis_server: Server, flags: str, after: str):
    redis_server.control.config_set("notify-keyspace-events", flags)
    await apply_fixes(redis_server.url)
    assert flags_of(redis_server) == set(after)


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lfu", "volatile-ttl"])
async def test_an_eviction_policy_is_a_problem_with_maxmemory(redis_server: Server, policy: str):
    redis_server.control.config_set("maxmemory-policy", policy)
    assert (await examine(redis_server.url)).one("memory").severity == "note"
    redis_server.control.config_set("maxmemory", "200mb")
    found = await examine(redis_server.url)
    assert found.problems == ["memory"]
    assert (
        found.one("memory", "maxmemory-policy").found == f"{policy}: when memory is full, members are evicted"
    )
    await apply_fixes(redis_server.url)
    assert redis_server.control.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert (await examine(redis_server.url)).report.exit_code == 0


async def test_a_full_server_refuses_writes(redis_server: Server):
    redis_server.control.config_set("maxmemory", "1mb")
    found = await examine(redis_server.url)
    assert found.one("memory", "memory in use").severity == "problem"
    write = found.one("writes", "a write")
    assert "refused" in write.found
    assert write.fix.startswith("raise maxmemory")


async def test_small_output_buffers(redis_server: Server):
    for limit, severity in (
        ("pubsub 262144 65536 60", "problem"),
        ("pubsub 16777216 8388608 60", "note"),
        ("pubsub 0 0 0", "note"),
    ):
        redis_server.control.config_set("client-output-buffer-limit", limit)
        found = await examine(redis_server.url)
        assert found.one("buffers").severity == severity
    await apply_fixes(redis_server.url)
    assert (await examine(redis_server.url)).one("buffers").severity == "ok"


async def test_timeout_and_keepalive(redis_server: Server):
    redis_server.control.config_set("timeout", "5")
    redis_server.control.config_set("tcp-keepalive", "0")
    found = await examine(redis_server.url)
    assert found.one("timeouts", "timeout").severity == "note"
    assert found.one("timeouts", "tcp-keepalive").severity == "note"
    await apply_fixes(redis_server.url)
    assert "timeouts" not in (await examine(redis_server.url)).notes


async def test_persistence_is_explained(redis_server: Server):
    assert (await examine(redis_server.url)).one("persistence").found.startswith("none:")
    redis_server.control.config_set("save", "3600 1")
    assert (await examine(redis_server.url)).one("persistence").found.startswith("snapshots:")
    redis_server.control.config_set("appendonly", "yes")
    assert "appendfsync everysec" in (await examine(redis_server.url)).one("persistence").found
    redis_server.control.config_set("appendonly", "no")


async def test_refused_writes(redis_server: Server):
    redis_server.control.config_set("min-replicas-to-write", "1")
    found = await examine(redis_server.url)
    assert found.problems == ["writes"]
    assert "1, but 0 replicas" in found.one("writes", "min-replicas-to-write").found
    assert found.one("writes", "a write").fix == "start the replicas; or CONFIG SET min-replicas-to-write 0"


@pytest.mark.parametrize(
    ("key", "severity", "word"),
    [
        ("room:lobby:user:42", "note", "older versions"),
        ("reactor:room:lobby:user:42", "note", "older versions"),
        ("reactor:session", "note", "older versions"),
        ("{reactor:3gbg}:strange", "note", "kind that this version does not know"),
        ("{reactor:99bcd}:room:lobby:user:42", "problem", "shard that the namespace does not have"),
        ("{reactor:7}:room:lobby:user:42", "problem", "development version before format 1"),
        ("{reactor:0lf}:room:lobby:user:42", "problem", "belongs to another shard"),
    ],
)
async def test_keys_of_another_format(redis_server: Server, key: str, severity: str, word: str):
    redis_server.control.set(key, "1")
    redis_server.control.set("key of another program", "1")
    with untouched(redis_server):
        found = await examine(redis_server.url)
    keys = found.one("keys")
    assert (keys.severity, word in keys.found, key in keys.found) == (severity, True, True)
    assert redis_server.control.dbsize() == 2


async def test_keys_of_a_wrong_type_are_reported(redis_server: Server):
    redis_server.control.set("{reactor:3gbg}:pulse", "x")
    redis_server.control.zadd("{reactor:4xb}:rooms", {"lobby": 1})
    redis_server.control.set("{reactor:5yb}:damaged:rooms", "x")
    with untouched(redis_server):
        found = await examine(redis_server.url)
    damaged, aside = found.all("keys")
    assert (damaged.severity, damaged.found) == ("problem", "1 of a wrong type, such as {reactor:3gbg}:pulse")
    assert (aside.severity, "{reactor:5yb}:damaged:rooms" in aside.found) == ("note", True)


async def test_without_the_active_cycle_only_a_touched_key_expires(redis_server: Server, monkeypatch):
    for module in ("expiry_probe", "checks.expiry"):
        monkeypatch.setattr(f"reactor.doctor.{module}.UNTOUCHED_TIMEOUT", 0.5)
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    with untouched(redis_server):
        found = await examine(redis_server.url)
    assert found.one("expiry", "expiry of a touched").found.startswith("event after")
    untouched_key = found.one("expiry", "expiry of another")
    assert (untouched_key.found, untouched_key.severity) == ("no event in 500 ms", "ok")
    found = await examine(redis_server.url, pacemaker=False)
    assert found.one("expiry", "expiry of another").severity == "problem"


async def test_the_temporary_keys_are_removed_when_no_event_arrives(redis_server: Server):
    async with inspected_server(redis_server.url) as server:
        redis_server.control.config_set("notify-keyspace-events", "")
        redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        with untouched(redis_server):
            await measure_expiry(server, shard_prefix("reactor", 0), 0)
            await server.client.connection_pool.disconnect()
    assert server.expiry is not None
    assert (server.expiry.touched, server.expiry.untouched, server.expiry.refused) == (None, None, "")


async def test_the_proposed_user_is_limited_to_its_database_and_namespace(redis_server: Server):
    found = await examine(redis_server.url.replace("/0", "/7"), namespace="chat")
    assert found.report.exit_code == 0
    fix = found.one("access").fix
    assert "~{chat:* resetchannels &{chat:* &__keyevent@7__:expired " in fix
    redis_server.control.execute_command(*fix.split())
    url = f"redis://reactor:PASSWORD@127.0.0.1:{redis_server.port}/7"
    assert (await examine(url, namespace="chat")).problems == []
    assert (await examine(url)).problems == ["permissions", "writes"]


async def test_a_server_without_a_password(redis_server: Server):
    found = await examine(redis_server.url)
    assert found.one("access").severity == "note"
    redis_server.control.config_set("protected-mode", "no")
    redis_server.control.config_set("bind", "0.0.0.0")
    found = await examine(redis_server.url)
    assert found.problems == ["access"]
    fix = found.one("access").fix
    assert fix.startswith("ACL SETUSER reactor on >PASSWORD resetkeys ~{reactor:*")
    redis_server.control.execute_command(*fix.split())
    url = redis_server.url.replace("://", "://reactor:PASSWORD@")
    found = await examine(url)
    assert found.one("access").severity == "note"  # that user may not read `bind` and `protected-mode`
    redis_server.control.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
    try:
        found = await examine(url)
    finally:
        redis_server.control.execute_command("ACL", "SETUSER", "default", "nopass")
    assert (found.one("access").found, found.notes, found.report.exit_code) == ("required", [], 0)
