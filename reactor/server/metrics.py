"""A node's metrics for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/).

The parts of a node keep plain numbers, which are read only for a scrape, so that counting costs next to
nothing. No label holds the id of a room or a user. Each metric is this node's own and can be summed over the
nodes, except `reactor_departures_total`: Redis counts departures for the whole namespace, and every node
exposes the same numbers.
"""

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import Protocol

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
from reactor.histogram import Histogram
from reactor.log import lines_lost
from reactor.protocol.reasons import REASONS
from reactor.server.node import Node

TOTALS_TIMEOUT = 1.0
"""Seconds a scrape waits for the departure counts; after that it exposes the last ones read."""
TOTALS_MAX_AGE = 1.0
"""Seconds for which the departure counts are not read again."""

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
        self._totals_read_at = -TOTALS_MAX_AGE

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text, and its content type, in the format that the Accept header names."""
        if monotonic() - self._totals_read_at >= TOTALS_MAX_AGE:
            self._totals_read_at = monotonic()
            with anyio.move_on_after(TOTALS_TIMEOUT):
                await self._read_totals()
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

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
        members = "Members with a connection to this node; one with connections to two nodes counts on both."
        yield _gauge("members", members, node.roster.members)
        yield _gauge("rooms", "Rooms that have a member with a connection to this node.", len(node.roster))
        yield _counter(
            "slow_clients_closed", "Connections closed because the client read too slowly.", counts.too_slow
        )
        away = "Handshakes that were rejected, by HTTP status of the response, or closed without one."
        yield _by_label("turned_away", away, "status", counts.rejected)
        refused = "Errors sent to clients, by error code."
        yield _by_label("refusals", refused, "code", counts.errors)

    def _joins_and_departures(self) -> Iterator[Metric]:
        node = self._node
        yield _counter(
            "joins",
            "Members that joined through this node; a client that returns is not counted again.",
            node.handler.joins,
        )
        reasons = {**dict.fromkeys(REASONS, 0), **self.departures}
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
        yield _gauge("ready", "1 while the node is ready, as /readyz says.", int(node.ready()[0]))
        yield _gauge(
            "pacemaker_leading", "1 on the node that leads the pacemaker.", int(node.pacemaker.leading)
        )
        yield _counter("sweeps", "Sweep rounds that this node completed.", node.sweep.rounds)
        took = "Time from a script's call to its reply, including the time it waits to be sent."
        by_script = [((name,), histogram) for name, histogram in sorted(node.backend.times.items())]
        yield _histogram("script_seconds", took, by_script, ["script"])
        lag = (
            "Round trip of a ping on a pub/sub connection, sent each second; includes messages not read yet."
        )
        links = [(("diffs",), node.channels.lags), (("events",), node.listener.lags)]
        yield _histogram("pubsub_lag_seconds", lag, links, ["link"])
        relisted = "Rooms listed again because diffs were missed, by cause."
        yield _by_label("resyncs", relisted, "cause", node.feed.resyncs)

    def _webhooks(self) -> Iterator[Metric]:
        senders = self._node.webhooks.senders
        attempts: Counter[str] = sum((sender.attempts for sender in senders), Counter())
        yield _by_label("webhook_attempts", "Requests to webhook endpoints, by outcome.", "outcome", attempts)
        delivered = sum(sender.delivered for sender in senders)
        yield _counter("webhook_events_delivered", "Events accepted by an endpoint.", delivered)
        missed = sum(sender.missed for sender in senders)
        yield _counter(
            "webhook_changes_missed", "Changes that were trimmed before they could be sent.", missed
        )


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"reactor_{name}", about, value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"reactor_{name}", about, value)


def _by_label(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"reactor_{name}", about, labels=[label])
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
