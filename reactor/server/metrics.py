"""A node's metrics for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/).

The parts of a node keep plain numbers, which are read only for a scrape, so that counting costs next to
nothing. No label holds the id of a room or a user. Each metric is this node's own and can be summed over the
nodes, except `reactor_departures_total`: Redis counts departures for the whole namespace, and every node
exposes the same numbers.
"""

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Protocol, get_args

import anyio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from reactor import __version__
from reactor.errors import Unavailable
from reactor.gateway.admission import REJECTIONS
from reactor.histogram import Histogram
from reactor.log import lines_lost
from reactor.presence.recent_diffs import RESULTS
from reactor.presence.room_feed import CAUSES
from reactor.protocol.messages import ErrorCode
from reactor.protocol.reasons import REASONS
from reactor.server.node import Node
from reactor.webhooks.sender import ATTEMPTS

TOTALS_TIMEOUT = 1.0
"""Seconds a scrape waits for the departure counts; after that it exposes the last ones read."""
PAGE_MAX_AGE = 1.0
"""Seconds for which a page is served again, so that requests cost no more than one page a second."""
OPEN_METRICS = "application/openmetrics-text"

PATHS = ("event", "pacemaker", "sweep")


class Totals(Protocol):
    """The departure counts of a namespace."""

    async def totals(self) -> Counter[str]:
        """Return the number of departures by reason. Raises Unavailable."""
        ...


class Metrics:
    """The metrics of one node and its process."""

    def __init__(self, node: Node) -> None:
        self._collector = NodeCollector(node)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        self._departures: Totals = node.departures
        self._pages: dict[str, tuple[bytes, float]] = {}
        self._building = asyncio.Lock()

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text, and its content type: OpenMetrics where the Accept header names it.

        A page is at most `PAGE_MAX_AGE` old, and older while the next one is being built.
        """
        # Of the formats and versions that a client may name, two are kept.
        encode, kind = choose_encoder(f"{OPEN_METRICS}; version=1.0.0" if OPEN_METRICS in accept else "")
        page, built_at = self._pages.get(kind, (b"", -PAGE_MAX_AGE))
        if monotonic() - built_at >= PAGE_MAX_AGE and not (page and self._building.locked()):
            async with self._building:
                page = await self._page_now(kind, encode)
        return page, kind

    async def _page_now(self, kind: str, encode: Callable[[Collector], bytes]) -> bytes:
        page, built_at = self._pages.get(kind, (b"", -PAGE_MAX_AGE))
        if monotonic() - built_at >= PAGE_MAX_AGE:  # else it was built while this request waited
            with anyio.move_on_after(TOTALS_TIMEOUT):
                await self._read_totals()
            page = encode(self._registry)
            self._pages[kind] = page, monotonic()
        return page

    async def _read_totals(self) -> None:
        try:
            self._collector.departures = await self._departures.totals()
        except Unavailable:
            return


class NodeCollector(Collector):
    """Reads a node's numbers. `departures` are the namespace's counts by reason, as last read."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.departures: Mapping[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        """Yield every metric with its present value."""
        yield from self._connections_and_members()
        yield from self._joins_and_departures()
        yield from self._redis()
        yield from self._webhooks()
        lost = "Lines of the log that could not be written: a full disk, a slow or closed reader."
        yield _counter("log_lines_lost", lost, lines_lost())
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("reactor_build", "Version of the reactor and of Python.", build)

    def _connections_and_members(self) -> Iterator[Metric]:
        node = self._node
        counts = node.gateway.counts
        yield _gauge("connections", "Open WebSockets.", len(node.gateway.connections))
        yield _counter("connections_opened", "WebSockets opened since the start.", counts.opened)
        yield _counter("received_bytes", "Bytes received from clients, without TLS.", counts.received)
        yield _counter("sent_bytes", "Bytes sent to clients, without TLS.", counts.sent)
        late = "Time by which a timer of the event loop was late."
        yield _histogram("loop_lag_seconds", late, [((), node.loop_lag.histogram)])
        members = "Members with a connection to this node; one with connections to two nodes counts on both."
        yield _gauge("members", members, node.roster.members)
        yield _gauge("rooms", "Rooms that have a member with a connection to this node.", len(node.roster))
        watched = "Rooms that are watched by a connection that need not be in them, summed over connections."
        yield _gauge("watched_rooms", watched, node.handler.observers.watched)
        people = "Users whom clients of this node watch."
        yield _gauge("watched_people", people, len(node.handler.people))
        changed = (
            "Messages to clients about the users whom they watch, without the replies to their requests."
        )
        yield _counter("people_changes_sent", changed, node.handler.people.sent)
        repaired = "Rooms that this node corrected in the index of people, since a crash or a loss of data."
        yield _counter("people_repaired", repaired, node.people.index.repaired)
        yield _counter(
            "slow_clients_closed", "Connections closed because the client read too slowly.", counts.too_slow
        )
        lost = "Messages to rooms that were not sent, since too many came within one window of a room."
        yield _counter("room_messages_lost", lost, node.fanout.messages_lost)
        held = "Bytes that wait for clients which do not read as fast as they are sent."
        yield _gauge("send_buffered_bytes", held, node.gateway.buffered)
        anew = "Rooms sent anew to a client that had read too slowly to be sent each change."
        yield _counter("rooms_sent_anew", anew, node.fanout.lists_anew)
        away = "Handshakes that were rejected, by HTTP status of the response, or closed without one."
        yield _by_label("turned_away", away, "status", _declared(REJECTIONS, counts.rejected))
        cut = "Connections of the admin port that were closed: late, or for want of places."
        yield _by_label("admin_connections_cut", cut, "reason", node.admin_connections_cut)
        refused = "Errors sent to clients, by error code."
        yield _by_label("refusals", refused, "code", _declared(get_args(ErrorCode), counts.errors))
        overdrawn = "Requests refused for what was asked for before, by the account that was overdrawn."
        yield _by_label("cost_refusals", overdrawn, "account", node.handler.costs.refused)

        expires = GaugeMetricFamily(
            "reactor_tls_certificate_expires_seconds", "When the TLS certificate expires (s since 1970)."
        )
        if (certificate := node.gateway.certificate) is not None:
            expires.add_metric([], certificate.expires)
        yield expires

    def _joins_and_departures(self) -> Iterator[Metric]:
        node = self._node
        yield _counter(
            "joins",
            "Members that joined through this node; a client that returns is not counted again.",
            node.handler.joins,
        )
        refused = "Joins that were refused since their user is banned."
        yield _counter("joins_refused_by_ban", refused, node.handler.refused_banned)
        check = node.ban_check
        logins = "Logins that were refused since their user is banned from every room."
        yield _counter("logins_refused_by_ban", logins, check.logins)
        watches = "Rooms that were not watched or listed, or no longer, since their user is banned."
        yield _counter("watches_refused_by_ban", watches, check.watches)
        yield _gauge("bans", "Bans that this node knows, with some that have ended.", len(node.known_bans))
        returns = "Joins by members that were present already: after a lost connection, or on another one."
        yield _counter("returns", returns, node.handler.returns)
        recent = node.feed.recent
        by_position = "Clients that returned with a position, by answer: diffs, or a list, and why."
        yield _by_label("returns_by_position", by_position, "answer", _declared(RESULTS, recent.results))
        yield _gauge("recent_diffs_bytes", "Bytes of recent changes that are kept for clients.", recent.bytes)
        reasons = _declared(REASONS, self.departures)
        of_all = "Departures of the whole namespace by reason; the same on every node: use max, not sum."
        yield _by_label("departures", of_all, "reason", reasons)
        found = {path: node.reaper.found_by[path] for path in PATHS}
        by_path = "Expired members whose departure this node made, by what found them."
        yield _by_label("departures_found", by_path, "path", found)
        late = "Time from a member's deadline to its departure, by Redis's clock."
        yield _histogram("expiry_lateness_seconds", late, [((), node.reaper.lateness)])
        beats = node.heartbeats
        yield _counter("heartbeats", "Heartbeats applied in Redis.", beats.acknowledged)
        sizes = "Members refreshed by one call of the script."
        yield _histogram("heartbeat_batch_size", sizes, [((), beats.sizes)])

    def _redis(self) -> Iterator[Metric]:
        node = self._node
        yield _gauge("redis_up", "1 while Redis answers commands.", int(node.backend.healthy))
        yield _gauge("ready", "1 while the node is ready, as /readyz says.", int(node.readiness.status()[0]))
        yield _gauge(
            "pacemaker_leading", "1 on the node that leads the pacemaker.", int(node.pacemaker.leading)
        )
        yield _counter("sweeps", "Sweep rounds that this node completed.", node.sweep.rounds)
        took = "Time from a script's call to its reply, including the time it waits to be sent."
        by_script = [((name,), histogram) for name, histogram in sorted(node.backend.times.items())]
        yield _histogram("script_seconds", took, by_script, ["script"])
        lanes = node.backend.lanes
        waiting = "Calls of scripts that wait for Redis, by lane: heartbeats and departures are urgent."
        yield _gauge_by_label(
            "redis_calls_waiting", waiting, "lane", {n: lane.waiting for n, lane in lanes.items()}
        )
        refused = "Calls refused since too many waited for Redis; their clients received `unavailable`."
        yield _by_label(
            "redis_calls_refused", refused, "lane", {n: lane.refused for n, lane in lanes.items()}
        )
        lag = (
            "Round trip of a ping on a pub/sub connection, sent each second; includes messages not read yet."
        )
        links = [(("diffs",), node.channels.lags), (("events",), node.listener.lags)]
        yield _histogram("pubsub_lag_seconds", lag, links, ["link"])
        refused = "Calls of scripts that Redis refused, by script."
        yield _by_label("redis_refusals", refused, "command", node.backend.refusals)
        evicted = "Keys that Redis evicted, of all programs; the same on every node: use max, not sum."
        yield _counter("redis_evicted_keys", evicted, node.evictions.state.evicted)
        damaged = "Own keys of a wrong type that were renamed aside; every node counts each."
        yield _counter("damaged_keys", damaged, node.roster_audit.damaged.total())
        restored = "Connections registered again because Redis had lost them without a departure."
        yield _counter("connections_restored", restored, node.roster_audit.restored)
        relisted = "Rooms listed again because diffs were missed, by cause."
        yield _by_label("resyncs", relisted, "cause", _declared(CAUSES, node.feed.resyncs))

    def _webhooks(self) -> Iterator[Metric]:
        senders = self._node.webhooks.senders
        attempts = {kind: sum(sender.attempts[kind] for sender in senders) for kind in ATTEMPTS}
        yield _by_label("webhook_attempts", "Requests to webhook endpoints, by outcome.", "outcome", attempts)
        delivered = sum(sender.delivered for sender in senders)
        yield _counter("webhook_events_delivered", "Events accepted by an endpoint.", delivered)
        refused = sum(sender.refused for sender in senders)
        yield _counter("webhook_events_refused", "Events that an endpoint refused for good.", refused)
        missed = sum(sender.missed for sender in senders)
        yield _counter(
            "webhook_changes_missed", "Changes that were trimmed before they could be sent.", missed
        )


def _declared(labels: Iterable[str], values: Mapping[str, float]) -> Mapping[str, float]:
    """The values, with 0 for labels without one: `rate()` does not see the first event of a new series."""
    return {**dict.fromkeys(labels, 0), **values}


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"reactor_{name}", about, value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"reactor_{name}", about, value)


def _by_label(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"reactor_{name}", about, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family


def _gauge_by_label(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"reactor_{name}", about, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family


def _histogram(
    name: str, about: str, series: Iterable[tuple[tuple[str, ...], Histogram]], labels: Iterable[str] = ()
) -> Metric:
    family = HistogramMetricFamily(f"reactor_{name}", about, labels=list(labels))
    for words, histogram in series:
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count)
            for bound, count in histogram.cumulative()
        ]
        family.add_metric(list(words), buckets, histogram.total)
    return family
