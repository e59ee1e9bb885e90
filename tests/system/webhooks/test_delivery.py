"""An endpoint hears of everything, in order, whatever happens to it or to the servers."""

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support import plain
from tests.support.running import Process, RawClient, served
from tests.support.servers import Server
from tests.system.webhooks.receiver import SECRET, Receiver, hooked

pytestmark = pytest.mark.usefixtures("_short_pauses")


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.webhooks.sender.FIRST_PAUSE", 0.1)


async def test_each_coming_and_going_is_told_with_its_reason(redis_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(redis_server, ttl=0.8, grace=0.3, **hooked(receiver)) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as cy,
    ):
        joined = await ann.join("lobby", "ann", username="Ann", data={"team": 7})
        await bob.join("lobby", "bob")
        await cy.join("lobby", "cy")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        ann.vanish()
        await cy.closed()  # silent for its whole time
        await receiver.until(lambda: len(receiver.taken) == 8)
        assert receiver.told[0] == ("room_occupied", "lobby", 1)
        assert receiver.told[-1] == ("room_vacated", "lobby", 0)
        left = {e["userId"]: e["reason"] for e in receiver.taken if e["type"] == "member_left"}
        assert left == {"bob": "left", "ann": "disconnected", "cy": "inactivity_timeout"}
        first = receiver.taken[1]
        assert first == {
            "id": first["id"], "type": "member_joined", "timestamp": first["timestamp"], "roomId": "lobby",
            "userId": "ann", "username": "Ann", "data": {"team": 7}, "count": 1,
            "joinedAt": joined["members"][0]["joinedAt"],
            "epoch": joined["epoch"], "version": joined["version"],
        }  # fmt: skip
        assert abs(first["timestamp"] - plain.now(redis_server)) < 15_000
        for request in receiver.requests:
            assert request.headers["content-type"] == "application/json"
            assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 30
            assert request.headers["webhook-signature"].startswith("v1,")


async def test_only_the_events_that_are_wanted_are_sent(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **hooked(receiver, webhook_events="room_vacated,member_left")) as node,
        RawClient.connect(node) as ann,
    ):
        for room in ("a", "b"):
            await ann.join(room, "ann")
            await ann.ask("leave_room", "room:left", roomId=room)
        await receiver.until(lambda: len(receiver.taken) == 4)
        assert [kind for kind, *_ in receiver.told] == ["member_left", "room_vacated"] * 2


async def test_an_endpoint_that_fails_gets_the_same_again_until_it_takes_it(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **hooked(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        receiver.answers = ["500 Oh", "302 Found\r\nlocation: /elsewhere", "429 Slow\r\nretry-after: 0"]
        await ann.join("lobby", "ann")
        await receiver.until(lambda: len(receiver.requests) == 4)
        assert [request.status for request in receiver.requests] == [500, 302, 429, 204]
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        assert len({request.body for request in receiver.requests}) == 1
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await receiver.until(lambda: len(receiver.taken) == 4)
        assert receiver.requests[-1].headers["webhook-id"] != receiver.requests[0].headers["webhook-id"]
        assert [kind for kind, *_ in receiver.told] == [
            "room_occupied", "member_joined", "member_left", "room_vacated",
        ]  # fmt: skip


async def test_what_happens_while_it_is_away_and_servers_die_is_told_later_in_order(
    bundled_server: Server,
) -> None:
    async with Receiver.listening() as receiver:
        options = hooked(receiver, grace=0.3, lease=0.5, sweep_interval=0.5)
        options["webhook_urls"] = receiver.url
        options["webhook_secrets"] = SECRET
        receiver.failing = "503 Down"
        async with Process.start(bundled_server, **options) as first, RawClient.connect(first) as ann:
            await ann.join("lobby", "ann")
            await receiver.until(lambda: receiver.requests)
            await first.kill()
        assert receiver.taken == []
        receiver.failing = ""
        async with Process.start(bundled_server, **options) as second, RawClient.connect(second) as bob:
            await bob.join("lobby", "bob")
            await receiver.until(lambda: len(receiver.taken) >= 4)
        assert receiver.told == [
            ("room_occupied", "lobby", 1), ("member_joined", "lobby", "ann"), *receiver.told[2:],
        ]  # fmt: skip
        assert sorted(receiver.told[2:]) == [
            ("member_joined", "lobby", "bob"),
            ("member_left", "lobby", "ann"),
        ]


async def test_one_server_of_the_fleet_sends_and_another_takes_over(bundled_server: Server) -> None:
    async with Receiver.listening() as receiver:
        options = hooked(receiver) | {"webhook_urls": receiver.url, "webhook_secrets": SECRET}
        async with (
            Process.start(bundled_server, **options) as one,
            Process.start(bundled_server, **options) as two,
            RawClient.connect(one) as ann,
            RawClient.connect(two) as bob,
        ):
            for n in range(20):
                await ann.join(f"a{n}", "ann")
                await bob.join(f"b{n}", "bob")
            await receiver.until(lambda: len(receiver.taken) == 80)
            assert len({event["id"] for event in receiver.taken}) == 80
            assert receiver.sockets == 1
            # The first that asked has the turn.
            await one.kill()
            await bob.join("last", "bob")
            await receiver.until(lambda: ("member_joined", "last", "bob") in receiver.told)


async def test_410_ends_it_and_says_how_to_mend_it(bundled_server: Server) -> None:
    with capture_logs() as logs:
        async with (
            Receiver.listening() as receiver,
            Receiver.listening() as other,
            served(bundled_server, **hooked(receiver, other)) as node,
            RawClient.connect(node) as ann,
        ):
            receiver.answers = ["410 Gone"]
            await ann.join("lobby", "ann")
            await receiver.until(lambda: receiver.requests)
            await ann.ask("leave_room", "room:left", roomId="lobby")
            await other.until(lambda: len(other.taken) == 4)
            assert len(receiver.requests) == 1
    (line,) = (line for line in logs if line["event"] == "webhook_gone")
    assert "webhook_urls" in line["mend"]


async def test_an_endpoint_that_hangs_holds_up_no_other(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as slow,
        Receiver.listening() as quick,
        served(bundled_server, **hooked(slow, quick)) as node,
        RawClient.connect(node) as ann,
    ):
        slow.held.clear()
        await ann.join("lobby", "ann")
        await quick.until(lambda: len(quick.taken) == 2)
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await quick.until(lambda: len(quick.taken) == 4)
        assert slow.requests == []
        slow.held.set()
        await slow.until(lambda: len(slow.taken) == 4)


async def test_what_the_cap_took_away_is_counted(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, departures_kept=1, **hooked(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        receiver.failing = "503 Down"
        (sender,) = node.webhooks.senders
        await ann.join("first", "ann")
        await receiver.until(lambda: receiver.requests)
        shard, changes = plain.shard("lobby"), 0
        while bundled_server.control.xlen(f"{{reactor:{shard}}}:changes") >= changes * 0.9:  # whole nodes go
            await ann.join("lobby", "ann")
            await ann.ask("leave_room", "room:left", roomId="lobby")
            changes += 2
        receiver.failing = ""
        await ann.join("lobby", "ann")
        await receiver.until(lambda: receiver.told[-1:] == [("member_joined", "lobby", "ann")])
        told = sum(1 for kind, room, _ in receiver.told if kind.startswith("member_") and room == "lobby")
        assert sender.missed > 0
        assert sender.missed + told == changes + 1


async def test_nothing_is_left_for_ever(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **hooked(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        await receiver.until(lambda: receiver.taken)
        for name in ("changes", "places"):
            left: Any = bundled_server.control.ttl(f"{{reactor:{plain.shard('lobby')}}}:{name}")
            assert 6 * 86_400 < left <= 7 * 86_400


async def test_without_webhooks_there_is_no_log(bundled_server: Server) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        assert bundled_server.control.exists(f"{{reactor:{plain.shard('lobby')}}}:changes") == 0
