"""What only Sentinels do: name the primary, be away themselves, and let a former primary come back as one."""

import re

import pytest

from reactor.errors import RedisMisconfigured, RedisUnreachable
from tests.fleet.serving import TOLD_WITHIN, aside, crowd, in_step, is_listened_to, said, serving
from tests.support.raw_client import RawClient, departures
from tests.support.server_sets import SentinelSet
from tests.support.servers import Server
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # failovers take their time

BEAT, ACK = "room:heartbeat", "room:heartbeat:ack"


@pytest.mark.slow
async def test_a_former_primary_that_comes_back_as_one_does_no_harm(sentinels: SentinelSet) -> None:
    async with (
        serving(sentinels) as one,
        serving(sentinels) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as late,
    ):
        old = sentinels.primary
        await aside(old.kill_saved)
        new = await aside(sentinels.promoted, old)
        for client in clients:
            await client.hear("service:restored")
        await clients[3].ask("leave_room", "room:left", roomId="lobby")
        await late.join("lobby", "late")
        late.beat()
        await aside(old.start)
        assert old.is_primary  # and has u3, and not the one who came late
        for kind in ("pubsub", "normal"):  # so that all look for the primary anew
            new.control.execute_command("CLIENT", "KILL", "TYPE", kind)
        async with serving(sentinels) as three, RawClient.connect(three) as newest:
            assert old.is_primary
            joined = await newest.join("lobby", "newest")
            everybody = ["u0", "u1", "u2", "late", "newest"]
            assert {member["userId"] for member in joined["members"]} == set(everybody)
            newest.beat()
            await aside(sentinels.wait_whole)
            assert sentinels.primary is new
            for client in (*clients[:3], late, newest):
                await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
                assert set(departures(client.heard)) <= {("u3", "left")}
            await in_step([*clients[:3], late, newest], sentinels, "lobby", everybody)


async def test_one_sentinel_is_enough_to_start_and_none_is_needed_to_go_on(sentinels: SentinelSet) -> None:
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
            await aside(sentinel.start)
        await aside(sentinels.wait_whole)
        await said(ann)
        assert not ann.of("service:degraded", "service:restored")
        new = await aside(sentinels.failover)
        await until(lambda: is_listened_to(new), patience=TOLD_WITHIN)
        for client in (ann, bob):
            await client.ask(BEAT, ACK, roomId="lobby", id="after all")


async def test_what_is_wrong_with_the_address_is_said_in_one_line(
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


async def test_sentinels_with_a_password_of_their_own_are_asked_with_it(sentinels: SentinelSet) -> None:
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
