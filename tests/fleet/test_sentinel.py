"""Sentinels: naming the primary, being down themselves, and a former primary that returns as a primary."""

import re

import pytest

from reactor.errors import RedisMisconfigured, RedisUnreachable
from tests.fleet.serving import (
    NOTIFIED_WITHIN,
    converged,
    crowd,
    has_listener,
    in_thread,
    round_trip,
    serving,
)
from tests.support.raw_client import RawClient, departures
from tests.support.sentinel_set import SentinelSet
from tests.support.servers import Server, is_valkey
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # a failover takes seconds

BEAT, ACK = "room:heartbeat", "room:heartbeat:ack"


@pytest.mark.slow
async def test_a_former_primary_that_returns_as_a_primary_does_no_harm(sentinels: SentinelSet) -> None:
    async with (
        serving(sentinels) as one,
        serving(sentinels) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as late,
    ):
        old = sentinels.primary
        await in_thread(old.kill_saved)
        new = await in_thread(sentinels.promoted, old)
        for client in clients:
            await client.receive("service:restored")
        await clients[3].ask("leave_room", "room:left", roomId="lobby")
        await late.join("lobby", "late")
        late.start_heartbeats()
        await in_thread(old.start)
        assert old.is_primary  # with its old data: u3 is a member, and late is not
        for kind in ("pubsub", "normal"):  # so that every node asks for the primary again
            new.control.execute_command("CLIENT", "KILL", "TYPE", kind)
        async with serving(sentinels) as three, RawClient.connect(three) as newest:
            assert old.is_primary
            joined = await newest.join("lobby", "newest")
            everyone = ["u0", "u1", "u2", "late", "newest"]
            assert {member["userId"] for member in joined["members"]} == set(everyone)
            newest.start_heartbeats()
            await in_thread(sentinels.wait_whole)
            assert sentinels.primary is new
            for client in (*clients[:3], late, newest):
                await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
                assert set(departures(client.received)) <= {("u3", "left")}
            await converged([*clients[:3], late, newest], sentinels, "lobby", everyone)


async def test_a_node_starts_with_one_sentinel_and_runs_without_any(sentinels: SentinelSet) -> None:
    for sentinel in sentinels.sentinels[:2]:
        sentinel.kill()
    async with serving(sentinels) as node, crowd([node], ["lobby"], 2) as (ann, bob):
        last = sentinels.sentinels[2]
        last.kill()
        with pytest.raises(RedisUnreachable, match="nothing listens there"):
            async with serving(sentinels):
                pass
        for client in (ann, bob):
            await client.ask(BEAT, ACK, roomId="lobby", id="without any")
        for sentinel in sentinels.sentinels:
            await in_thread(sentinel.start)
        await in_thread(sentinels.wait_whole)
        await round_trip(ann)
        assert not ann.of("service:degraded", "service:restored")
        new = await in_thread(sentinels.failover)
        await until(lambda: has_listener(new), patience=NOTIFIED_WITHIN)
        for client in (ann, bob):
            await client.ask(BEAT, ACK, roomId="lobby", id="after all")


async def test_clients_do_not_notice_a_coordinated_failover(sentinels: SentinelSet) -> None:
    """SENTINEL FAILOVER with COORDINATED: Sentinels need the rights to FAILOVER and CLIENT PAUSE."""
    if not is_valkey(sentinels.kind, 9):
        pytest.skip("only Sentinels of Valkey 9 and later coordinate a failover with the primary")
    async with serving(sentinels) as node, crowd([node], ["lobby"], 4) as clients:
        old = sentinels.primary
        sentinels.sentinels[0].control.execute_command("SENTINEL", "FAILOVER", "main", "COORDINATED")
        new = await in_thread(sentinels.promoted, old)
        await until(lambda: has_listener(new))
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="after it")
            assert not client.of("room:force-leave", "error")
            assert departures(client.received) == []
        await converged(clients, sentinels, "lobby", ["u0", "u1", "u2", "u3"])


async def test_a_replica_with_the_documented_rights_copies_over_two_connections(
    sentinels: SentinelSet,
) -> None:
    """With `dual-channel-replication-enabled` a replica sends SYNC over the second connection."""
    if not is_valkey(sentinels.kind, 8):
        pytest.skip("only Valkey 8 and later replicate over two connections")
    name = "dual-channel-replication-enabled"
    primary = sentinels.primary
    replica = next(server for server in sentinels.servers if server is not primary)
    for server in sentinels.servers:
        server.control.config_set(name, "yes")
    try:
        await in_thread(replica.kill)
        replica._config[name] = "yes"
        await in_thread(sentinels.restart, replica)
        assert "Dual channel" in (replica.folder / "server.log").read_text()
    finally:
        del replica._config[name]
        for server in sentinels.servers:
            server.control.config_set(name, "no")


async def test_a_wrong_address_is_an_error_of_one_line(
    sentinels: SentinelSet, bundled_server: Server
) -> None:
    good = sentinels.url
    wrong = {
        good.replace("/main", "/mein"): "the Sentinels know no primary of that name",
        f"redis+sentinel://127.0.0.1:{bundled_server.port}/main": "is not a Sentinel; use redis://",
        f"redis://{sentinels.sentinels[0].address}": "is a Sentinel; use redis+sentinel://",
    }
    for url, line in wrong.items():
        with pytest.raises(RedisMisconfigured, match=re.escape(line)):
            async with serving(sentinels, redis_url=url):
                pass


async def test_sentinels_may_have_a_password_of_their_own(sentinels: SentinelSet) -> None:
    asking = "+sentinel|get-master-addr-by-name"
    for sentinel in sentinels.sentinels:
        acl = sentinel.control.execute_command
        acl("ACL", "SETUSER", "asker", "on", ">a/sk", "resetchannels", "-@all", "+@connection", asking)
        acl("ACL", "SETUSER", "default", f"-{asking[1:]}")
    try:
        with pytest.raises(RedisMisconfigured, match="no permissions"):
            async with serving(sentinels):
                pass
        url = f"{sentinels.url}?sentinel_username=asker&sentinel_password=a%2Fsk"
        async with serving(sentinels, redis_url=url) as node, crowd([node], ["lobby"], 2) as (ann, _):
            await ann.ask(BEAT, ACK, roomId="lobby", id="at the end")
    finally:
        for sentinel in sentinels.sentinels:
            sentinel.control.execute_command("ACL", "SETUSER", "default", asking)
            sentinel.control.execute_command("ACL", "DELUSER", "asker")
