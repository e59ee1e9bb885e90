"""Every event reaches the endpoint, in order, through failures of the endpoint and of servers."""

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.system.webhooks.receiver import SECRET, Receiver, webhook_settings

pytestmark = pytest.mark.usefixtures("_short_retry_delay")


@pytest.fixture
def _short_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.webhooks.sender.MIN_RETRY_DELAY", 0.1)


async def test_joins_and_departures_are_sent_with_their_reasons(redis_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(redis_server, ttl=3, grace=0.3, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as cy,
    ):
        joined = await ann.join("lobby", "ann", username="Ann", data={"team": 7})
        await bob.join("lobby", "bob")
        await cy.join("lobby", "cy")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        ann.vanish()
        await cy.closed()  # by its expiry: it sends no heartbeat
        await receiver.until(lambda: len(receiver.accepted) == 8)
        assert receiver.summary[0] == ("room_occupied", "lobby", 1)
        assert receiver.summary[-1] == ("room_vacated", "lobby", 0)
        left = {e["userId"]: e["reason"] for e in receiver.accepted if e["type"] == "member_left"}
        assert left == {"bob": "left", "ann": "disconnected", "cy": "inactivity_timeout"}
        first = receiver.accepted[1]
        assert first == {
            "id": first["id"], "type": "member_joined", "timestamp": first["timestamp"], "roomId": "lobby",
            "userId": "ann", "username": "Ann", "data": {"team": 7}, "count": 1,
            "joinedAt": joined["members"][0]["joinedAt"],
            "epoch": joined["epoch"], "version": joined["version"],
        }  # fmt: skip
        assert abs(first["timestamp"] - redis_state.now(redis_server)) < 15_000
        for request in receiver.requests:
            assert request.headers["content-type"] == "application/json"
            assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 30
            assert request.headers["webhook-signature"].startswith("v1,")


async def test_only_the_configured_event_types_are_sent(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(
            bundled_server, **webhook_settings(receiver, webhook_events="room_vacated,member_left")
        ) as node,
        RawClient.connect(node) as ann,
    ):
        for room in ("a", "b"):
            await ann.join(room, "ann")
            await ann.ask("leave_room", "room:left", roomId=room)
        await receiver.until(lambda: len(receiver.accepted) == 4)
        assert [kind for kind, *_ in receiver.summary] == ["member_left", "room_vacated"] * 2


async def test_a_failed_request_is_repeated_until_the_endpoint_accepts_it(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        receiver.answers = ["500 Oh", "302 Found\r\nlocation: /elsewhere", "429 Slow\r\nretry-after: 0"]
        await ann.join("lobby", "ann")
        await receiver.until(lambda: len(receiver.requests) == 4)
        assert [request.status for request in receiver.requests] == [500, 302, 429, 204]
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        assert len({request.body for request in receiver.requests}) == 1
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await receiver.until(lambda: len(receiver.accepted) == 4)
        assert receiver.requests[-1].headers["webhook-id"] != receiver.requests[0].headers["webhook-id"]
        assert [kind for kind, *_ in receiver.summary] == [
            "room_occupied", "member_joined", "member_left", "room_vacated",
        ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    ["200 OK\r\ntransfer-encoding: chunked", "200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
    ids=["never ends", "is malformed"],
)
async def test_a_request_is_accepted_by_its_status_whatever_becomes_of_the_body(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("reactor.webhooks.endpoint.BODY_TIMEOUT", 0.2)
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        receiver.answers = [answer]
        await ann.join("lobby", "ann")
        await receiver.until(lambda: len(receiver.requests) == 1)
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await receiver.until(lambda: len(receiver.accepted) >= 4)
        assert [kind for kind, *_ in receiver.summary] == [
            "room_occupied", "member_joined", "member_left", "room_vacated",
        ]  # fmt: skip


async def test_events_during_an_outage_of_endpoint_and_servers_are_sent_later_in_order(
    bundled_server: Server,
) -> None:
    async with Receiver.listening() as receiver:
        options = webhook_settings(receiver, grace=0.3, lease=0.5, sweep_interval=0.5)
        options["webhook_urls"] = receiver.url
        options["webhook_secrets"] = SECRET
        receiver.failing = "503 Down"
        async with NodeProcess.start(bundled_server, **options) as first, RawClient.connect(first) as ann:
            await ann.join("lobby", "ann")
            await receiver.until(lambda: receiver.requests)
            await first.kill()
        assert receiver.accepted == []
        receiver.failing = ""
        async with NodeProcess.start(bundled_server, **options) as second, RawClient.connect(second) as bob:
            await bob.join("lobby", "bob")
            await receiver.until(lambda: len(receiver.accepted) >= 4)
        assert receiver.summary == [
            ("room_occupied", "lobby", 1), ("member_joined", "lobby", "ann"), *receiver.summary[2:],
        ]  # fmt: skip
        assert sorted(receiver.summary[2:]) == [
            ("member_joined", "lobby", "bob"),
            ("member_left", "lobby", "ann"),
        ]


async def test_one_node_sends_and_another_takes_over_when_it_dies(bundled_server: Server) -> None:
    async with Receiver.listening() as receiver:
        options = webhook_settings(receiver) | {"webhook_urls": receiver.url, "webhook_secrets": SECRET}
        async with (
            NodeProcess.start(bundled_server, **options) as one,
            NodeProcess.start(bundled_server, **options) as two,
            RawClient.connect(one) as ann,
            RawClient.connect(two) as bob,
        ):
            for n in range(20):
                await ann.join(f"a{n}", "ann")
                await bob.join(f"b{n}", "bob")
            await receiver.until(lambda: len(receiver.accepted) == 80)
            assert len({event["id"] for event in receiver.accepted}) == 80
            assert receiver.connections == 1
            # The node that started first is the leader.
            await one.kill()
            await bob.join("last", "bob")
            await receiver.until(lambda: ("member_joined", "last", "bob") in receiver.summary)


async def test_after_410_nothing_more_is_sent_and_the_log_names_the_fix(bundled_server: Server) -> None:
    with capture_logs() as logs:
        async with (
            Receiver.listening() as receiver,
            Receiver.listening() as other,
            served(bundled_server, **webhook_settings(receiver, other)) as node,
            RawClient.connect(node) as ann,
        ):
            receiver.answers = ["410 Gone"]
            await ann.join("lobby", "ann")
            await receiver.until(lambda: receiver.requests)
            await ann.ask("leave_room", "room:left", roomId="lobby")
            await other.until(lambda: len(other.accepted) == 4)
            assert len(receiver.requests) == 1
    (line,) = (line for line in logs if line["event"] == "webhook_gone")
    assert "webhook_urls" in line["fix"]


async def test_an_endpoint_that_hangs_does_not_delay_another(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as slow,
        Receiver.listening() as quick,
        served(bundled_server, **webhook_settings(slow, quick)) as node,
        RawClient.connect(node) as ann,
    ):
        slow.answering.clear()
        await ann.join("lobby", "ann")
        await quick.until(lambda: len(quick.accepted) == 2)
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await quick.until(lambda: len(quick.accepted) == 4)
        assert slow.requests == []
        slow.answering.set()
        await slow.until(lambda: len(slow.accepted) == 4)


async def test_changes_removed_by_the_length_limit_are_counted(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, departures_kept=1, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        receiver.failing = "503 Down"
        (sender,) = node.webhooks.senders
        await ann.join("first", "ann")
        await receiver.until(lambda: receiver.requests)
        shard, changes = redis_state.shard("lobby"), 0
        log = f"{{reactor:{redis_state.TAGS[shard]}}}:changes"
        while bundled_server.control.xlen(log) >= changes * 0.9:  # Redis trims whole nodes of a stream
            await ann.join("lobby", "ann")
            await ann.ask("leave_room", "room:left", roomId="lobby")
            changes += 2
        receiver.failing = ""
        await ann.join("lobby", "ann")
        await receiver.until(lambda: receiver.summary[-1:] == [("member_joined", "lobby", "ann")])
        delivered = sum(
            1 for kind, room, _ in receiver.summary if kind.startswith("member_") and room == "lobby"
        )
        assert sender.missed > 0
        assert sender.missed + delivered == changes + 1


async def test_the_keys_of_the_change_log_expire(bundled_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        await receiver.until(lambda: receiver.accepted)
        for name in ("changes", "places"):
            left: Any = bundled_server.control.ttl(f"{redis_state.prefix('lobby')}:{name}")
            assert 6 * 86_400 < left <= 7 * 86_400


async def test_without_webhooks_there_is_no_change_log(bundled_server: Server) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        assert bundled_server.control.exists(f"{redis_state.prefix('lobby')}:changes") == 0


@pytest.mark.parametrize("place", ["x 5", "x", "99999999999999-0 5", f"{2**64 - 1}-{2**64 - 1} 5"])
async def test_where_a_place_is_unreadable_an_endpoint_gets_what_the_log_still_has(
    bundled_server: Server, place: str
) -> None:
    """Another program has overwritten how far it has read: no event is lost, some are sent again."""
    control = bundled_server.control
    places = f"{redis_state.prefix('lobby')}:places"
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        await receiver.until(lambda: receiver.accepted)
        receiver.failing = "503 Unavailable"
        await ann.ask("leave_room", "room:left", roomId="lobby")
        stored: Any = control.hgetall(places)
        [endpoint] = [name for name in stored if not name.endswith(" dropped")]
        control.hset(places, endpoint, place)
        receiver.failing = ""
        await receiver.until(lambda: ("member_left", "lobby", "ann") in receiver.summary)
