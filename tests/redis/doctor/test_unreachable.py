"""The doctor where Redis cannot be reached, or shows little."""

import asyncio
from itertools import cycle

import pytest

from tests.redis.doctor.examination import examine
from tests.support.servers import KINDS, Server, free_port, without
from tests.support.waiting import PATIENCE


async def test_connection_refused():
    found = await examine(f"redis://127.0.0.1:{free_port()}")
    assert found.report.exit_code == 2
    finding = found.one("reachable")
    assert finding.found.endswith("nothing listens there")
    assert finding.fix == "start Redis, or correct the address"
    assert found.all("settings")


async def test_a_wrong_password(redis_server: Server):
    redis_server.control.execute_command("ACL", "SETUSER", "ann", "on", ">secret", "+@all", "~*")
    found = await examine(redis_server.url.replace("redis://", "redis://ann:wrong@"))
    assert found.report.exit_code == 2
    assert "rejects the user name or password" in found.one("reachable").found
    assert "wrong" not in found.one("reachable").found


async def test_a_replica_is_rejected(redis_server: Server):
    redis_server.control.replicaof("127.0.0.1", str(free_port()))
    try:
        found = await examine(redis_server.url)
    finally:
        redis_server.control.replicaof("NO", "ONE")
    assert found.report.exit_code == 2
    assert "use its primary" in found.one("reachable").fix


async def test_a_server_that_hangs(redis_server: Server, monkeypatch):
    monkeypatch.setattr("reactor.backend.clients.COMMAND_TIMEOUT", 0.2)
    monkeypatch.setattr("reactor.backend.diagnose._PROBE_TIMEOUT", 0.2)
    redis_server.pause()
    try:
        found = await asyncio.wait_for(examine(redis_server.url), PATIENCE)
    finally:
        redis_server.resume()
    assert found.report.exit_code == 2
    assert "did not answer in time" in found.one("reachable").found


async def test_connections_that_are_killed_all_the_time(redis_server: Server):
    async def kill_connections() -> None:
        while True:
            redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "normal")
            redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.003 * next(pauses))

    pauses = cycle([1, 2, 5, 10, 20])
    for _ in range(5):
        killing = asyncio.create_task(kill_connections())
        try:
            found = await asyncio.wait_for(examine(redis_server.url), PATIENCE)
        finally:
            killing.cancel()
        assert found.report.exit_code in {1, 2}
    assert (await examine(redis_server.url)).report.exit_code == 0
    assert redis_server.control.dbsize() == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_without_config(kind: str):
    with without(("CONFIG",), kind) as server:
        found = await examine(server.url)
        assert found.report.exit_code == 0
        events = found.one("events")
        assert "unknown command" in found.one("config").found
        assert events.found.endswith("but events arrive")
        assert found.one("memory").severity == "ok"  # INFO shows it
    with without(
        ("CONFIG",),
        kind,
        **{"notify-keyspace-events": "Kx", "maxmemory": "500mb", "maxmemory-policy": "volatile-ttl"},
    ) as server:
        found = await examine(server.url)
        assert found.problems == ["events", "expiry", "memory"]
        assert not [finding for finding in found.report.findings if finding.command]
        assert found.one("events").fix.startswith('"notify-keyspace-events Ex" in redis.conf')


async def test_a_disabled_command():
    with without(("EVALSHA",), "redis7") as server:
        found = await examine(server.url)
    assert found.one("permissions", "permission: EVALSHA").found == "no such command: renamed or disabled"
