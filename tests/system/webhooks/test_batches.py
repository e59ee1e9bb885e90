"""No request grows beyond its limit, and no event holds up the others for ever."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from reactor.server.metrics import Metrics
from reactor.server.node import Node
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.webhooks.receiver import SECRET, Receiver, webhook_settings

DATA = {"text": "x" * 400}
NO_LIMIT = {"max_rooms": 1000}


@pytest.fixture(autouse=True)
def _short_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.webhooks.sender.MIN_RETRY_DELAY", 0.05)


@asynccontextmanager
async def delivering(server: Server, **settings: Any) -> AsyncIterator[tuple[Receiver, Node, RawClient]]:
    """A receiver, a node that delivers to it, and a client of that node."""
    async with (
        Receiver.listening() as receiver,
        served(server, **NO_LIMIT, **settings, **webhook_settings(receiver)) as node,
        RawClient.connect(node) as client,
    ):
        yield receiver, node, client


async def collect(receiver: Receiver, client: RawClient, rooms: int) -> None:
    """Join rooms while the endpoint accepts nothing, so that many changes wait."""
    receiver.failing = "503 Down"
    for n in range(rooms):
        await client.join(f"room {n}", "ann", data=DATA)
    receiver.failing = ""


def joined(receiver: Receiver) -> list[str]:
    return [event["roomId"] for event in receiver.accepted if event["type"] == "member_joined"]


async def test_a_request_holds_as_many_events_as_fit_into_64_kib(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.webhooks.sender.MAX_BODY", 4096)
    async with delivering(bundled_server) as (receiver, _node, ann):
        await collect(receiver, ann, 60)
        await receiver.until(lambda: len(receiver.accepted) >= 120)
        assert sorted(joined(receiver)) == sorted(f"room {n}" for n in range(60))
        assert max(receiver.accepted_sizes) <= 4096
        assert len(receiver.accepted_sizes) < 30


async def test_a_batch_that_is_too_large_for_the_endpoint_is_sent_in_smaller_requests(
    bundled_server: Server,
) -> None:
    async with delivering(bundled_server) as (receiver, _node, ann):
        receiver.decide = lambda body: "413 Too Large" if len(body) > 3000 else "204 No Content"
        await collect(receiver, ann, 40)
        await receiver.until(lambda: len(receiver.accepted) >= 80)
        assert len(receiver.accepted) == 80
        assert max(receiver.accepted_sizes) <= 3000
        refusals = [request for request in receiver.requests if request.status == 413]
        assert len(refusals) < 10  # it remembers the size


async def test_an_endpoint_that_breaks_connections_with_large_requests_gets_smaller_ones(
    bundled_server: Server,
) -> None:
    """As a firewall in front of it may: no status says what is wrong."""
    async with delivering(bundled_server) as (receiver, _node, ann):
        receiver.decide = lambda body: "" if len(body) > 3000 else "204 No Content"
        await collect(receiver, ann, 20)
        await receiver.until(lambda: len(receiver.accepted) >= 40)
        assert len(receiver.accepted) == 40
        assert max(receiver.accepted_sizes) <= 3000
        broken = [request for request in receiver.requests if request.status == 0]
        ids = [request.headers["webhook-id"] for request in broken]
        assert ids[0] == ids[1] == ids[2], "a connection that broke by chance is no reason for another id"


async def test_a_request_that_times_out_is_sent_in_halves(bundled_server: Server) -> None:
    async with delivering(bundled_server) as (receiver, _node, ann):
        receiver.decide = lambda body: "504 Gateway Time-out" if len(body) > 3000 else "204 No Content"
        await collect(receiver, ann, 20)
        await receiver.until(lambda: len(receiver.accepted) >= 40)
        receiver.decide = lambda _body: "204 No Content"
        before = len(receiver.accepted_sizes)
        receiver.failing = "503 Down"
        for n in range(20, 60):
            await ann.join(f"room {n}", "ann", data=DATA)
        receiver.failing = ""
        await receiver.until(lambda: len(joined(receiver)) == 60)
        assert max(receiver.accepted_sizes[before:]) > 3000  # it grows again


async def test_the_events_of_a_change_that_is_larger_than_a_request_are_cut_apart(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.webhooks.sender.MAX_BODY", 600)
    async with delivering(bundled_server, grace=0.5) as (receiver, node, observer):
        await observer.join("lobby", "observer")
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(RawClient.connect(node)) for _ in range(12)]
            for n, client in enumerate(clients):
                await client.join("lobby", f"user {n}")
            for client in clients:
                client.vanish()
            await receiver.until(lambda: sum(e["type"] == "member_left" for e in receiver.accepted) == 12)
        assert len({event["id"] for event in receiver.accepted}) == len(receiver.accepted)
        assert max(receiver.accepted_sizes) <= 600


@pytest.mark.parametrize("answer", ["413 Too Large", "422 Invalid"])
async def test_a_single_event_that_is_refused_goes_to_a_stream_and_the_others_arrive(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("reactor.webhooks.sender._MAX_REFUSALS", {"too_large": 1, "invalid": 3})
    with capture_logs() as logs:
        async with delivering(bundled_server) as (receiver, node, ann):
            receiver.decide = lambda body: answer if b'"poison"' in body else "204 No Content"
            receiver.failing = "503 Down"
            for room in ("one", "two", "poison", "three"):
                await ann.join(room, "ann")
            await receiver.until(lambda: receiver.requests)
            receiver.failing = ""
            await receiver.until(lambda: "three" in joined(receiver))
            await until(lambda: node.webhooks.senders[0].refused == 2)
            assert sorted(joined(receiver)) == ["one", "three", "two"]
            page, _ = await Metrics(node).page()
            assert b"reactor_webhook_events_refused_total 2.0" in page
            entries: Any = bundled_server.control.xrange("{reactor:fleet}:refused")
            kinds = [json.loads(fields["event"])["type"] for _, fields in entries]
            assert kinds == ["room_occupied", "member_joined"]
            assert entries[0][1]["reason"] == f"status {answer[:3]}"
            assert 0 < bundled_server.control.ttl("{reactor:fleet}:refused") <= 7 * 86_400
    assert len([line for line in logs if line["event"] == "webhook_event_refused"]) == 1


async def test_the_stream_of_refused_events_is_bounded(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.presence.changes.MAX_REFUSED", 5)
    async with delivering(bundled_server) as (receiver, node, ann):
        receiver.decide = lambda _body: "413 Too Large"
        for n in range(8):
            await ann.join(f"room {n}", "ann")
        await until(lambda: node.webhooks.senders[0].refused == 16)
        assert bundled_server.control.xlen("{reactor:fleet}:refused") == 5


async def test_a_retry_after_of_zero_seconds_does_not_make_requests_follow_at_once(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.webhooks.sender.MIN_RETRY_DELAY", 0.4)
    async with delivering(bundled_server) as (receiver, _node, ann):
        receiver.failing = "503 Down\r\nretry-after: 0"
        await ann.join("lobby", "ann")
        await receiver.until(lambda: len(receiver.times) == 3)
        assert min(b - a for a, b in zip(receiver.times, receiver.times[1:], strict=False)) > 0.35


async def test_after_the_death_of_the_sender_the_same_request_is_sent_under_the_same_id(
    bundled_server: Server,
) -> None:
    async with Receiver.listening() as receiver:
        options = webhook_settings(receiver) | {"webhook_urls": receiver.url, "webhook_secrets": SECRET}
        receiver.failing = "503 Down\r\nretry-after: 1"
        async with (
            NodeProcess.start(bundled_server, **options) as one,
            NodeProcess.start(bundled_server, **options) as two,
            RawClient.connect(two) as bob,
        ):
            for n in range(10):
                await bob.join(f"b{n}", "bob")
            await receiver.until(lambda: len(receiver.requests) >= 2)
            receiver.answering.clear()
            receiver.failing = ""
            asked = len(receiver.arrived)
            await receiver.until(lambda: len(receiver.arrived) > asked)
            await one.kill()
            for n in range(10, 20):
                await bob.join(f"b{n}", "bob")
            receiver.answering.set()
            repeated = len(receiver.arrived)
            await receiver.until(lambda: len(receiver.arrived) > repeated)
            first, again = receiver.arrived[repeated - 1], receiver.arrived[repeated]
            assert again.headers["webhook-id"] == first.headers["webhook-id"]
            assert again.body == first.body
            await receiver.until(lambda: len(set(joined(receiver))) == 20)
            ids: dict[str, bytes] = {}
            for request in receiver.arrived:
                assert ids.setdefault(request.headers["webhook-id"], request.body) == request.body
