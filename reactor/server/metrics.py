"""What a node counts, as Prometheus reads it (https://prometheus.io/docs/instrumenting/exposition_formats/).

The parts of a node keep plain numbers; this reads them when somebody asks, so that counting costs next to
nothing. No label holds an id of a room or a user. All are this node's own, to be summed over the nodes, but
for `reactor_departures_total`: Redis keeps that one for the whole namespace, and every node tells the same.
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
from reactor.protocol.reasons import REASONS
from reactor.server.node import Node

TOTALS_WITHIN = 1.0
"""Seconds that Redis gets for the sums of departures; then the last known ones stand in."""
TOTALS_KEPT = 1.0
"""Seconds for which they are not asked for again."""

PATHS = ("event", "pacemaker", "sweep")


class Totals(Protocol):
    """What sums up the departures of a namespace."""

    async def totals(self) -> Counter[str]:
        """How many left for each reason. Raises Unavailable."""
        ...


class Metrics:
    """The metrics of one node, in a registry of their own."""

    def __init__(self, node: Node) -> None:
        self._collector = NodeCollector(node)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)
        self._departures: Totals = node.departures
        self._asked_at = -TOTALS_KEPT

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as text, and the type of that text, by what `accept` asks for."""
        if monotonic() - self._asked_at >= TOTALS_KEPT:
            self._asked_at = monotonic()
            with anyio.move_on_after(TOTALS_WITHIN):
                await self._ask_totals()
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    async def _ask_totals(self) -> None:
        try:
            self._collector.departures = await self._departures.totals()
        except Unavailable:
            return


class NodeCollector(Collector):
    """Reads a node. `departures` are the namespace's, as last known."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.departures: Mapping[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        """Every metric with its present value."""
        yield from self._who_is_here()
        yield from self._comings_and_goings()
        yield from self._redis()
        yield from self._webhooks()
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("reactor_build", "Which reactor this is.", build)

    def _who_is_here(self) -> Iterator[Metric]:
        node = self._node
        counts = node.gateway.counts
        yield _gauge("connections", "Open WebSockets.", len(node.gateway.connections))
        yield _counter("connections_opened", "WebSockets that were opened.", counts.opened)
        members = "Members with a connection to this node; one with connections to two nodes is on both."
        yield _gauge("members", members, node.roster.members)
        yield _gauge("rooms", "Rooms with such a member.", len(node.roster))
        yield _counter("slow_clients_closed", "Clients cut off because they did not read.", counts.too_slow)
        away = "WebSockets that were not let in, by the status of the answer; cut off without one."
        yield _by_label("turned_away", away, "status", counts.turned_away)
        refused = "Errors that clients were told, by their code."
        yield _by_label("refusals", refused, "code", counts.refused)

    def _comings_and_goings(self) -> Iterator[Metric]:
        node = self._node
        yield _counter(
            "joins", "Members that joined over this node, returns not counted.", node.dispatch.joins
        )
        reasons = {**dict.fromkeys(REASONS, 0), **self.departures}
        of_all = "Departures of the whole namespace by reason, the same on all nodes: take max, not sum."
        yield _by_label("departures", of_all, "reason", reasons)
        found = {path: node.reaper.found_by[path] for path in PATHS}
        by_path = "Departures by time that this node made, by what had found them."
        yield _by_label("departures_found", by_path, "path", found)
        late = "Time from a deadline to the departure, by Redis's clock."
        yield _histogram("expiry_lateness_seconds", late, [((), node.reaper.lateness)])
        beats = node.heartbeats
        yield _counter("heartbeats", "Heartbeats that Redis has taken.", beats.taken)
        sizes = "Members refreshed by one script call."
        yield _histogram("heartbeat_batch_size", sizes, [((), beats.sizes)])

    def _redis(self) -> Iterator[Metric]:
        node = self._node
        yield _gauge("redis_up", "1 while Redis takes commands.", int(node.backend.healthy))
        yield _gauge("ready", "1 while clients are well served.", int(node.ready()[0]))
        yield _gauge("pacemaker_leading", "1 on the node that keeps time.", int(node.pacemaker.leading))
        yield _counter("sweeps", "Sweeps that this node did.", node.sweep.rounds)
        took = "Time from the asking for a script to its answer, the wait for its turn included."
        by_script = [((name,), histogram) for name, histogram in sorted(node.backend.times.items())]
        yield _histogram("script_seconds", took, by_script, ["script"])
        lag = "Round trip on a pub/sub connection, behind all that was to be read first; pinged each second."
        links = [(("diffs",), node.bus.lags), (("events",), node.listener.lags)]
        yield _histogram("pubsub_lag_seconds", lag, links, ["link"])
        yield _by_label("resyncs", "Rooms listed anew because diffs were missed.", "cause", node.feed.resyncs)

    def _webhooks(self) -> Iterator[Metric]:
        senders = self._node.webhooks.senders
        attempts: Counter[str] = sum((sender.attempts for sender in senders), Counter())
        yield _by_label("webhook_attempts", "Requests to endpoints, by outcome.", "outcome", attempts)
        delivered = sum(sender.delivered for sender in senders)
        yield _counter("webhook_events_delivered", "Events that an endpoint took.", delivered)
        missed = sum(sender.missed for sender in senders)
        yield _counter("webhook_changes_missed", "Changes lost before they could be sent.", missed)


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
