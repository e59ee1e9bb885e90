"""Redis answers but refuses: it is full, lacks replicas, sends no expired events, or is busy in a script."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest
import redis
import structlog

from reactor.backend.scripts import REFUSAL_HOLDS
from reactor.errors import RedisMisconfigured, RedisUnreachable
from reactor.presence.heartbeats import MAX_WAITING
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until, until_blocking

SCHEDULING = 2.0
"""Seconds that a busy machine may add."""


async def test_a_full_redis_refuses_joins_and_serves_present_members(redis_server: Server) -> None:
    rooms = (RoomRule(match="brief", ttl=1.0),)
    async with (
        served(redis_server, ttl=60, grace=0.3, rooms=rooms) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as cut,
        RawClient.connect(node) as silent,
        RawClient.connect(node) as late,
    ):
        for client, name in ((ann, "ann"), (bob, "bob"), (cut, "cut")):
            await client.join("lobby", name)
        await ann.join("brief", "ann")
        ann.start_heartbeats()
        await silent.join("brief", "silent")
        redis_server.control.config_set("maxmemory", "1")
        refused = await late.answer("join_room", roomId="lobby", userId="late")
        assert (refused["type"], refused["code"]) == ("error", "unavailable")
        assert "memory" in refused["message"]
        ready, sentence = node.readiness.status()
        assert not ready
        assert sentence.startswith("Redis is full")
        await bob.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        await bob.ask("room:away", "room:away:ok", roomId="lobby")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        cut.vanish()
        await ann.receive_departures(3)
        assert set(departures(ann.received)) == {
            ("bob", "left"),
            ("cut", "disconnected"),
            ("silent", "inactivity_timeout"),
        }
        assert not ann.of("service:degraded")
        redis_server.control.config_set("maxmemory", "0")
        await until(lambda: node.readiness.status()[0], what="no join says so, but the node asks")
        assert (await late.join("lobby", "late"))["count"] == 2


async def test_while_writes_are_refused_no_member_expires(
    redis_server: Server,
) -> None:
    """For longer than the lease, the grace and the TTL, in which no heartbeat can be written."""
    async with (
        served(redis_server, lease=0.6, grace=0.6, ttl=1.5) as one,
        served(redis_server, lease=0.6, grace=0.6, ttl=1.5) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        ann.start_heartbeats(), bob.start_heartbeats()
        redis_server.control.config_set("min-replicas-to-write", "1")
        for client in (ann, bob):
            await client.receive("service:degraded")
        await anyio.sleep(2.5)  # longer than their TTL
        redis_server.control.config_set("min-replicas-to-write", "0")
        for client in (ann, bob):
            await client.receive("service:restored")
            await client.send("room:heartbeat", roomId="lobby", id="after")
        for client in (ann, bob):
            await client.has_received("room:heartbeat:ack", id="after")
            assert client.open
            assert not departures(client.received)
        await anyio.sleep(1.0)  # expiry is no longer suspended
        here = await ann.ask("room:members", "room:members", roomId="lobby")
        assert {member["userId"] for member in here["members"]} == {"ann", "bob"}
        assert not redis_state.stream(redis_server, "lobby")


async def test_a_disk_that_is_full_is_an_outage_that_a_start_waits_for(
    redis_server: Server,
) -> None:
    """Redis then refuses pings, too: it keeps its subscriptions, and nothing has to be listed again."""
    control = redis_server.control
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        with cannot_save(redis_server):
            await ann.receive("service:degraded")
            with structlog.testing.capture_logs() as log:
                sentence = node.readiness.status()[1]
                assert sentence.startswith("Redis refuses commands (MISCONF ")
                assert sentence.endswith("unable to persist to disk); see Redis's log, and free its disk")
                with pytest.raises(RedisUnreachable, match=r"see its log, and free its disk\.$"):
                    await node.backend.connect()
                control.config_resetstat()
                await until(lambda: _refused_for_the_disk(control) > 20)
            assert not [line for line in log if "disconnected" in line["event"]]
        await ann.receive("service:restored")
        assert node.readiness.status()[0]


@contextmanager
def cannot_save(server: Server) -> Iterator[None]:
    """Have the server fail to write a snapshot, as on a full disk."""
    control: Any = server.control
    former = control.config_get("save")["save"]
    folder = server.folder / "dump.rdb"  # a folder in place of the file
    folder.unlink(missing_ok=True)
    folder.mkdir()
    try:
        control.config_set("save", "3600 1")
        with suppress(redis.ResponseError):
            control.bgsave()
        until_blocking(lambda: control.info("persistence")["rdb_last_bgsave_status"] == "err")
        yield
    finally:
        folder.rmdir()
        control.config_set("save", former)


def _refused_for_the_disk(control: Any) -> int:
    return int(control.info("errorstats").get("errorstat_MISCONF", {"count": 0})["count"])


async def test_event_flags_are_added_and_none_is_removed(redis_server: Server) -> None:
    redis_server.control.config_set("notify-keyspace-events", "K$")
    async with (
        served(redis_server, ttl=0.6, pacemaker=False, sweep_interval=0) as node,
        RawClient.connect(node) as ann,
    ):
        flags: Any = redis_server.control.config_get("notify-keyspace-events")
        assert set(flags["notify-keyspace-events"]) == set("K$Ex")
        await ann.join("lobby", "ann")
        assert await ann.closed() == 4003
        await until(lambda: node.reaper.found_by)
        assert node.reaper.found_by == {"event": 1}


async def test_events_that_are_switched_off_meanwhile_are_noticed(redis_server: Server) -> None:
    """With `manage_redis` the server switches them on again; without it, /readyz reports them."""
    control = redis_server.control
    async with served(redis_server, sweep_interval=0.2, manage_redis=False) as node:
        assert node.readiness.status() == (True, "ok")
        control.config_set("notify-keyspace-events", "")
        await until(lambda: "no expired events arrive" in node.readiness.status()[1])
        async with served(redis_server, sweep_interval=0.2) as manager:
            await until(lambda: node.readiness.status() == (True, "ok"))
            control.config_set("notify-keyspace-events", "Kx")
            await until(lambda: set(_flags(redis_server)) == set("KxE"))
            assert manager.readiness.status() == (True, "ok")


def _flags(server: Server) -> str:
    found: Any = server.control.config_get("notify-keyspace-events")
    return str(found["notify-keyspace-events"])


async def test_a_script_that_blocks_redis_removes_no_member(redis_server: Server) -> None:
    """Another application's script runs for longer than clients wait; Redis answers BUSY after a while."""
    control = redis_server.control
    control.config_set("busy-reply-threshold", "200")

    def hold_up() -> None:
        # Without a time-out: on a busy machine the script may take longer, and must not be sent again.
        with redis.Redis(unix_socket_path=str(redis_server.socket), protocol=2, socket_timeout=None) as other:
            other.eval(
                "local n = 0; repeat local i = 0; repeat i = i + 1 until i == 1e5; n = n + 1 until n == 900",
                0,
            )

    async with (
        served(redis_server, lease=0.6, grace=0.5, ttl=60) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        began = time.monotonic()
        holding = asyncio.create_task(asyncio.to_thread(hold_up))
        for _ in range(MAX_WAITING - 1):
            await ann.send("room:heartbeat", roomId="lobby")
            await asyncio.wait([holding], timeout=0.1)
        await holding
        await ann.send("room:heartbeat", roomId="lobby", id="after")
        await ann.has_received("room:heartbeat:ack", id="after")
        assert time.monotonic() - began > 0.5
        assert bob.open
        assert not departures(ann.received)
        await bob.ask("leave_room", "room:left", roomId="lobby")
        assert await ann.receive_departure_of("bob") == "left"


EVERYTHING = ("on", "nopass", "allkeys", "allchannels", "allcommands")
REFUSALS = {
    "no right to run scripts": "-evalsha",
    "no right to any key": "resetkeys",
    "no right to publish": "-publish",
    "no right to subscribe": "-subscribe",
    "no right to any channel": "resetchannels",
    "no right to a command of joins": "-zadd",
    "no right to a command of heartbeats": "-pexpireat",
    "no right to a command of the lease": "-set",
}


def _limited(server: Server, *rules: str) -> str:
    """The address for a user who has every right but those that the rules take."""
    server.control.execute_command("ACL", "SETUSER", "limited", *EVERYTHING, *rules)
    return server.socket_url.replace("unix://", "unix://limited:x@")


@pytest.mark.parametrize("rule", REFUSALS.values(), ids=REFUSALS)
async def test_a_right_that_is_taken_away_is_an_outage_until_it_is_back(
    redis_server: Server, rule: str
) -> None:
    """Clients are notified, /readyz says why, nothing is half stored, and afterwards all is as before."""
    control = redis_server.control
    async with (
        served(redis_server, redis_url=_limited(redis_server), ttl=60) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as late,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        began = time.monotonic()
        control.execute_command("ACL", "SETUSER", "limited", rule)
        of_joins = rule not in {"-set", "-subscribe"}  # which joins of a room that is followed do not use
        if of_joins:
            refused = await late.answer("join_room", roomId="lobby", userId="late")
            assert (refused["type"], refused["code"]) == ("error", "unavailable")
            assert not control.keys("*late*")
        await ann.receive("service:degraded")
        assert time.monotonic() - began < 10, "3 s, on a machine with time"
        ready, why = node.readiness.status()
        assert not ready
        assert "limited" in why or "permission" in why or "ACL rule" in why, why
        if not of_joins:
            refused = await late.answer("join_room", roomId="lobby", userId="late")
            assert (refused["type"], refused["code"]) == ("error", "unavailable")
        control.execute_command("ACL", "SETUSER", "limited", *EVERYTHING)
        await ann.receive("service:restored")
        assert node.readiness.status()[0]
        assert (await late.join("lobby", "late"))["count"] == 2
        assert not departures(ann.received)


async def test_a_right_that_is_refused_for_one_shard_alone_is_an_outage_soon(redis_server: Server) -> None:
    """The lease and heartbeats do not need it, so only the check of rights can find it, shard by shard."""
    control = redis_server.control
    async with (
        served(redis_server, redis_url=_limited(redis_server), ttl=60) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        prefixes = (node.store.keys.fleet, *node.store.keys.prefixes[:-1])
        keys = " ".join(f"~{prefix}:*" for prefix in prefixes)
        began = time.monotonic()
        control.execute_command("ACL", "SETUSER", "limited", "-xadd", f"(+xadd {keys})")
        await ann.receive("service:degraded")
        assert time.monotonic() - began < 10, "3 s, on a machine with time"
        assert node.readiness.status() == (
            False,
            "the Redis user limited lacks +xadd; grant it with ACL SETUSER limited +xadd",
        )
        control.execute_command("ACL", "SETUSER", "limited", "clearselectors", *EVERYTHING)
        await ann.receive("service:restored")


@pytest.mark.parametrize("right", ["publish", "subscribe", "zadd", "xadd"])
async def test_a_server_whose_user_lacks_a_right_does_not_start(redis_server: Server, right: str) -> None:
    url = _limited(redis_server, f"-{right}")
    with pytest.raises(RedisMisconfigured, match=rf"lacks \+{right}; grant it with ACL SETUSER limited"):
        async with served(redis_server, redis_url=url):
            pass


@pytest.mark.parametrize(
    ("rules", "lacks", "granted"),
    [
        (("-evalsha",), "+evalsha", "+evalsha"),
        (("-script|load",), "+script|load", "+script|load"),
        (("resetkeys", "~other:*"), "~{reactor:*", "~{reactor:*"),
    ],
    ids=["evalsha", "script load", "keys"],
)
async def test_a_server_that_cannot_even_ask_for_its_rights_does_not_start(
    redis_server: Server, rules: tuple[str, ...], lacks: str, granted: str
) -> None:
    """It would wait for ever: what its user may do is asked for by a script, on its own keys."""
    url = _limited(redis_server, *rules)
    with pytest.raises(RedisMisconfigured) as caught:
        async with served(redis_server, redis_url=url):
            pass
    line = str(caught.value)
    assert f"the Redis user limited lacks {lacks}" in line
    assert line.endswith(f"grant it with ACL SETUSER limited {granted}.")
    redis_server.control.execute_command("ACL", "SETUSER", "limited", granted)
    async with served(redis_server, redis_url=url) as node:
        assert node.readiness.status()[0]


async def test_a_missing_right_to_the_channel_of_events_is_reported_once(redis_server: Server) -> None:
    """Without it a server works by the pacemaker and the sweep; /readyz and one line of the log say why."""
    url = _limited(redis_server, "resetchannels", "&{reactor:*")
    fix = "ACL SETUSER limited &__keyevent@0__:expired"
    with structlog.testing.capture_logs() as log:
        async with served(redis_server, redis_url=url) as node:
            ready, sentence = node.readiness.status()
            assert ready
            assert fix in sentence
            attempts = _refusals_of_channels(redis_server)
            await until(lambda: _refusals_of_channels(redis_server) > attempts + 1, what="it tries again")
            assert len([line for line in log if line["event"] == "expired_events_disconnected"]) == 1
            redis_server.control.execute_command(*fix.split())
            await until(lambda: node.readiness.status() == (True, "ok"))


def _refusals_of_channels(server: Server) -> int:
    entries: Any = server.control.acl_log()
    return sum(entry["count"] for entry in entries if entry["reason"] == "channel")


async def test_a_limit_of_clients_is_named_by_readyz_the_log_and_clients_are_notified(
    redis_server: Server,
) -> None:
    """Redis closes new connections, also those that would replace one that broke."""
    control = redis_server.control
    control.ping()
    with structlog.testing.capture_logs() as log:
        async with served(redis_server, redis_url=redis_server.url) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann")
            control.config_set("maxclients", "1")
            for kind in ("normal", "pubsub"):
                control.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await ann.receive("service:degraded")
            await until(lambda: "raise maxclients" in node.readiness.status()[1])
            assert not node.readiness.status()[0]
            assert any("raise maxclients" in line.get("reason", "") for line in log)
            control.config_set("maxclients", "1000")
            await ann.receive("service:restored")
            assert node.readiness.status()[0]


async def test_a_subscription_that_redis_refuses_is_an_outage_although_commands_are_answered(
    redis_server: Server,
) -> None:
    control = redis_server.control
    control.ping()
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        control.config_set("maxclients", "1")
        began = time.monotonic()
        control.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        await ann.receive("service:degraded")
        assert time.monotonic() - began < 10, "3 s, on a machine with time"
        assert node.backend.healthy
        await until(lambda: "raise maxclients" in node.readiness.status()[1])
        assert node.readiness.status()[1].startswith("not subscribed to Redis")
        control.config_set("maxclients", "1000")
        await ann.receive("service:restored")
        assert node.readiness.status()[0]


async def test_the_reason_of_an_outage_is_that_which_redis_gives_by_now(redis_server: Server) -> None:
    """The connections break first, and only the next ones are refused for want of a password."""
    control = redis_server.control
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        control.config_set("requirepass", "secret")
        control.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        control.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        await ann.receive("service:degraded")
        await until(lambda: "correct the password" in node.readiness.status()[1])
        control.config_set("requirepass", "")
        await ann.receive("service:restored")
        assert node.readiness.status() == (True, "ok")


async def test_the_line_for_a_user_without_channels_grants_nothing_that_it_has(
    redis_server: Server,
) -> None:
    url = _limited(redis_server, "resetchannels")
    with pytest.raises(
        RedisMisconfigured, match=r"or the channels for them; `reactor doctor` shows the rule"
    ):
        async with served(redis_server, redis_url=url):
            pass


async def test_a_user_that_may_not_read_info_is_served_as_others_are(redis_server: Server) -> None:
    async with (
        served(redis_server, redis_url=_limited(redis_server, "-info"), ttl=1, sweep_interval=0.2) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        await bob.join("lobby", "bob")
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        assert node.readiness.status()[0]


async def test_what_redis_refuses_is_counted(redis_server: Server) -> None:
    async with served(redis_server, ttl=60) as node, RawClient.connect(node) as ann:
        redis_server.control.config_set("maxmemory", "1")
        await ann.answer("join_room", roomId="lobby", userId="ann")
        # The index of people is written along with the member.
        assert node.backend.refusals == {"join": 1}
        assert not node.recovery.degraded_message, "members that are present are served"
        redis_server.control.config_set("maxmemory", "0")


async def test_a_user_that_loses_the_keys_of_some_shards_is_one_outage(redis_server: Server) -> None:
    """The other shards' scripts succeed meanwhile, and show nothing."""
    control = redis_server.control
    control.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
    url = f"redis://app:secret@127.0.0.1:{redis_server.port}"
    async with served(redis_server, redis_url=url, lease=30) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        outages: list[bool] = []
        on_health = node.backend.on_health

        def note(healthy: bool, reason: str) -> None:
            outages.append(healthy)
            on_health(healthy, reason)

        node.backend.on_health = note
        kept = [f"~{prefix}*" for prefix in node.keys.prefixes if prefix != node.keys.prefixes[3]]
        began = asyncio.get_running_loop().time()
        control.execute_command("ACL", "SETUSER", "app", "resetkeys", "~{reactor:fleet}*", *kept)
        await ann.receive("service:degraded")
        assert asyncio.get_running_loop().time() - began < 3 + SCHEDULING, "not only with the next lease"
        ready, sentence = node.readiness.status()
        assert not ready
        assert sentence.startswith("Redis refuses commands (")
        await anyio.sleep(2 * REFUSAL_HOLDS + 1)  # in which the shard is asked again, and the others too
        assert outages == [False]
        control.execute_command("ACL", "SETUSER", "app", "~*")
        await ann.receive("service:restored")
        assert outages == [False, True]
