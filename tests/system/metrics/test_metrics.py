"""The metrics of a node: their names, what changes them, and that they hold no ids."""

import inspect
import json
import re
from typing import Any

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from reactor.histogram import Histogram
from reactor.presence import room_feed
from reactor.presence.api import Presence
from reactor.server.metrics import TOTALS_TIMEOUT, Metrics
from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

NAMES = {
    "reactor_connections", "reactor_members", "reactor_rooms", "reactor_joins_total",
    "reactor_departures_total", "reactor_departures_found_total", "reactor_expiry_lateness_seconds",
    "reactor_heartbeats_total", "reactor_heartbeat_batch_size", "reactor_script_seconds",
    "reactor_pubsub_lag_seconds", "reactor_resyncs_total", "reactor_slow_clients_closed_total",
    "reactor_redis_up", "reactor_build_info", "reactor_redis_calls_waiting",
    "reactor_redis_calls_refused_total", "reactor_returns_by_position_total", "reactor_recent_diffs_bytes",
}  # fmt: skip
LABELS = {
    "answer",
    "account",
    "lane",
    "reason",
    "status",
    "path",
    "script",
    "link",
    "cause",
    "code",
    "outcome",
    "le",
    "version",
    "python",
    "command",
}


class Read:
    """The metrics of a node, parsed as Prometheus does."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and these labels."""
        return sum(
            sample.value for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )  # fmt: skip


async def read(node: Node) -> Read:
    page, _ = await Metrics(node).page()
    return Read(page.decode())


async def test_every_metric_is_exported_and_no_label_holds_an_id(bundled_server: Server) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("a-secret-room", "a-secret-user", username="a secret name")
        await ann.answer("room:count", roomId=7.5)
        await ann.ask("leave_room", "room:left", roomId="a-secret-room")
        found = await read(node)
        exported = {sample.name for sample in found.samples}
        for name in NAMES:
            assert exported & {name, f"{name}_bucket"}, name
        assert "reactor_resyncs" in found.families
        assert {label for sample in found.samples for label in sample.labels} <= LABELS
        assert "secret" not in (await Metrics(node).page())[0].decode()


async def test_connections_joins_heartbeats_and_departures_are_counted(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=0.1) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await ann.join("hall", "ann")
        await bob.join("lobby", "bob")
        await bob.join("lobby", "bob")  # a repeated join is no new member
        for _ in range(3):
            await ann.ask("room:heartbeat", "room:heartbeat:ack")
        found = await read(node)
        assert found.value("reactor_connections") == 2
        assert (found.value("reactor_members"), found.value("reactor_rooms")) == (3, 2)
        assert found.value("reactor_joins_total") == 3
        received = sum(len(json.dumps(message)) for client in (ann, bob) for message in client.received)
        assert 0.7 * received < found.value("reactor_sent_bytes_total") < 1.5 * received
        assert found.value("reactor_heartbeats_total") == 6
        assert found.value("reactor_heartbeat_batch_size_count") >= 3
        assert found.value("reactor_heartbeat_batch_size_sum") == 6
        assert found.value("reactor_script_seconds_count", script="join") >= 4
        assert found.value("reactor_script_seconds_count", script="refresh") >= 3
        await bob.answer("room:nonsense")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        ann.vanish()
        await until(lambda: node.reaper.found_by.total() == 2)
        found = await read(node)
        assert found.value("reactor_refusals_total", code="unknown_type") == 1
        assert found.value("reactor_departures_total", reason="left") == 1
        assert found.value("reactor_departures_total", reason="disconnected") == 2
        assert found.value("reactor_departures_found_total", path="event") == 2
        assert found.value("reactor_expiry_lateness_seconds_count") == 2
        assert found.value("reactor_expiry_lateness_seconds_sum") < 10
        assert found.value("reactor_redis_up") == found.value("reactor_ready") == 1


async def test_a_departure_that_a_back_end_made_is_counted(bundled_server: Server) -> None:
    async with (
        served(bundled_server) as node,
        served(bundled_server) as other,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        async with Presence.open(bundled_server.url) as presence:
            await presence.kick("lobby", "ann")
        for each in (node, other):
            assert (await read(each)).value("reactor_departures_total", reason="kicked") == 1


async def test_departures_found_by_the_sweep_have_a_path_of_their_own(bundled_server: Server) -> None:
    options: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0.1, "grace": 0.05}
    async with served(bundled_server, **options) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        ann.vanish()
        await until(lambda: node.reaper.found_by["sweep"] == 1 and node.sweep.rounds)
        found = await read(node)
        assert found.value("reactor_departures_found_total", path="sweep") == 1
        assert found.value("reactor_sweeps_total") >= 1


async def test_lateness_is_the_time_since_the_deadline(bundled_server: Server) -> None:
    options: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0, "grace": 0.05}
    async with served(bundled_server, **options) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        ann.vanish()
        key = "{reactor:7kf}:members:lobby"
        deadline = await until(lambda: bundled_server.control.zrangebyscore(key, 0, 4e12, withscores=True))
        await until(lambda: not bundled_server.control.exists("{reactor:7kf}:room:lobby:user:ann"))
        now = bundled_server.control.time()
        await until(lambda: bundled_server.control.time()[0] > now[0] + 1)
        node.sweep.trigger()
        await until(lambda: node.reaper.found_by["sweep"] == 1)
        assert deadline
        late = (await read(node)).value("reactor_expiry_lateness_seconds_sum")
        assert 1.0 < late < 15.0


async def test_the_lag_of_both_subscriptions_is_measured(redis_server: Server) -> None:
    async with served(redis_server) as node:
        await until(lambda: node.channels.lags.count and node.listener.lags.count)
        found = await read(node)
        for link in ("diffs", "events"):
            assert found.value("reactor_pubsub_lag_seconds_count", link=link) >= 1
            assert 0 < found.value("reactor_pubsub_lag_seconds_sum", link=link) < 5
        redis_server.pause()
        pinged = node.channels.lags.count
        await until(lambda: not node.backend.healthy or node.channels.lags.count == pinged)
        redis_server.resume()
        await until(lambda: node.channels.lags.count > pinged)


async def test_a_frozen_redis_delays_no_scrape_and_resets_no_counter(bundled_server: Server) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        metrics = Metrics(node)
        await metrics.page()
        metrics._pages.clear()
        bundled_server.pause()
        try:
            with anyio.fail_after(TOTALS_TIMEOUT + 2):
                page, _ = await metrics.page()
        finally:
            bundled_server.resume()
        assert Read(page.decode()).value("reactor_departures_total", reason="left") == 1


async def test_slow_clients_are_counted(bundled_server: Server) -> None:
    async with (
        served(bundled_server, send_timeout=3, diff_window=0) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        ann.socket.transport.pause_reading()
        (connection,) = node.gateway.connections
        data = b'"' + b"x" * 60_000 + b'"'
        while not connection.blocked:
            await node.store.publish_message("lobby", data)
        assert (await read(node)).value("reactor_send_buffered_bytes") > 0
        await until(lambda: node.gateway.counts.too_slow)
        found = await read(node)
        assert found.value("reactor_slow_clients_closed_total") == 1
        assert found.value("reactor_send_buffered_bytes") == 0


async def test_rejected_handshakes_are_counted_by_status(bundled_server: Server) -> None:
    async with served(bundled_server, max_connections=1) as node, RawClient.connect(node):
        with pytest.raises(InvalidStatus):
            async with RawClient.connect(node):
                pass
        with pytest.raises(InvalidStatus):
            async with RawClient.connect(node, origin="https://other.example"):
                pass
        assert (await read(node)).value("reactor_turned_away_total") == 2
        assert (await read(node)).value("reactor_turned_away_total", status="503") >= 1


async def test_resynchronisations_are_counted_by_cause(bundled_server: Server) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        bundled_server.control.publish("{reactor:7kf}:diff:lobby", "nonsense")
        await until(lambda: node.feed.resyncs["unreadable"] == 1)
        assert (await read(node)).value("reactor_resyncs_total", cause="unreadable") == 1


async def test_openmetrics_is_served_on_request(bundled_server: Server) -> None:
    async with served(bundled_server) as node:
        page, kind = await Metrics(node).page("application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert page.endswith(b"# EOF\n")


def test_a_histogram_counts_values_at_and_below_its_bounds() -> None:
    histogram = Histogram((1, 2, 5))
    assert histogram.quantile(0.5) is None
    for value in (0.5, 1, 1.5, 2, 6):
        histogram.add(value)
    assert list(histogram.cumulative()) == [(1, 2), (2, 4), (5, 4), (float("inf"), 5)]
    assert (histogram.count, histogram.total) == (5, 11)
    assert [histogram.quantile(share) for share in (0.4, 0.5, 0.8, 1.0)] == [1, 2, 2, float("inf")]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    assert re.fullmatch(r"reactor_[a-z_]+", name)


async def test_series_with_labels_are_there_before_their_first_event(bundled_server: Server) -> None:
    async with served(bundled_server) as node:
        found = await read(node)
    zeros = {(sample.name, *sample.labels.values()) for sample in found.samples if sample.value == 0}
    assert {
        ("reactor_refusals_total", "unavailable"), ("reactor_resyncs_total", "gap"),
        ("reactor_turned_away_total", "503"), ("reactor_departures_total", "kicked"),
        ("reactor_departures_found_total", "sweep"), ("reactor_webhook_attempts_total", "failed"),
    } <= zeros  # fmt: skip


async def test_every_cause_of_a_resync_is_declared() -> None:
    text = inspect.getsource(room_feed)
    assert set(re.findall(r'_start_resync\(room, "(\w+)"', text)) == set(room_feed.CAUSES)
