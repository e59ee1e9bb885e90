"""Makes the spans of an expiry, which begins on one node and ends on every node that shows the room.

No context travels through Redis. Every node knows room, user and time of a departure, and computes from these
the ids of its trace and of its first span. So their spans are parts of one trace, and a sampler that decides
by the trace's id, as the standard ones do, decides alike everywhere.
"""

from collections.abc import Mapping
from hashlib import sha256
from time import time_ns
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from reactor import __version__
from reactor.presence.keys import Entry

EXPIRED = frozenset({"inactivity_timeout", "disconnected"})
"""The reasons of departures that follow from a TTL that has ended."""

_MAX_KEPT = 10_000
"""Names that are kept of members found gone, for the span of their departure."""


class DepartureIds:
    """Generates ids: random ones, or those of a departure within `of`."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self._next: tuple[int, int] | None = None

    def use_once(self, trace_id: int, span_id: int) -> None:
        """Give the next span these ids. It has to be a root, and started at once."""
        self._next = trace_id, span_id

    def generate_trace_id(self) -> int:
        """Return the id of a trace."""
        usual: int = self._random.generate_trace_id()
        return usual if self._next is None else self._next[0]

    def generate_span_id(self) -> int:
        """Return the id of a span; the SDK asks for it after the trace's."""
        given, self._next = self._next, None
        usual: int = self._random.generate_span_id()
        return usual if given is None else given[1]

    def is_trace_id_random(self) -> bool:
        """Whether samplers may rely on the bits of the id: those of a digest are as good as random ones."""
        return True


def ids_of(room_id: str, user_id: str, at: int) -> tuple[int, int]:
    """Return the ids of the trace of a departure, and of its first span. at: ms, as in its diff."""
    digest = sha256(f"{room_id}\0{user_id}\0{at}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1


class Traces:
    """The spans of one node. provider: of the SDK, built with `ids`; see `provider_with`."""

    def __init__(self, provider: TracerProvider, ids: DepartureIds) -> None:
        self.tracer = provider.get_tracer("reactor", __version__)
        self._sampler, self._ids = provider.sampler, ids
        self._touched: dict[str, tuple[int, int]] = {}
        self._found: dict[str, int] = {}
        self._unsent: dict[str, list[tuple[Any, int]]] = {}

    def touched(self, suffixes: list[str], began: int) -> None:
        """Note the call that made Redis expire these members' keys. began: ns."""
        ended = time_ns()
        for suffix in suffixes:
            _keep(self._touched, suffix, (began, ended))

    def found(self, suffix: str) -> None:
        """Note that a member was found gone: by its event, by the pacemaker or by the sweep."""
        if suffix not in self._found:
            _keep(self._found, suffix, time_ns())

    def claimed(self, entry: Entry, claimed: Any, found_by: str, began: int, ended: int) -> None:
        """Record the departure of a member, from its deadline on. claimed: see `Store.claim`."""
        touched, found = self._touched.pop(claimed.suffix, None), self._found.pop(claimed.suffix, began)
        attributes: dict[str, str | float] = {
            "reactor.room_id": entry.room_id,
            "reactor.reason": claimed.reason,
            "reactor.found_by": found_by,
            "reactor.lateness_ms": claimed.lateness,
        }
        # By this node's clock: Redis's own may be another.
        deadline = ended - round(claimed.lateness * 1_000_000)
        self._ids.use_once(*ids_of(*entry, claimed.at))
        root = self.tracer.start_span("room.expiry", Context(), attributes=attributes, start_time=deadline)
        if root.is_recording():
            within = set_span_in_context(root, Context())
            if touched is not None:
                self._child(within, "room.expiry.touch", touched, SpanKind.CLIENT)
            self._child(within, "room.expiry.find", (deadline, max(found, deadline)))
            self._child(within, "room.expiry.claim", (began, ended), SpanKind.CLIENT)
        root.end(ended)

    def forget(self, suffixes: list[str]) -> None:
        """Forget members whose claim has ended, on whichever node they departed."""
        for suffix in suffixes:
            self._touched.pop(suffix, None)
            self._found.pop(suffix, None)

    def departed(self, room_id: str, row: Any) -> None:
        """Note that the departure of a member was received. row: see `LeftRow`."""
        if row.reason in EXPIRED:
            unsent = self._unsent.setdefault(room_id, [])
            if len(unsent) < _MAX_KEPT:
                unsent.append((row, time_ns()))

    def sent(self, room_id: str) -> None:
        """Record that the departures received in this room were sent to its connections."""
        for row, received in self._unsent.pop(room_id, ()):
            self.record(Entry(room_id, row.user_id), row.at, "room.expiry.fanout", received)

    def dropped(self, room_id: str) -> None:
        """Forget the departures received in a room that has no connection here."""
        self._unsent.pop(room_id, None)

    def record(self, entry: Entry, at: int, name: str, began: int) -> None:
        """Record a part of a departure, on whichever node. at: ms, of the departure. began: ns."""
        trace_id, span_id = ids_of(*entry, at)
        sampled = self._sampler.should_sample(None, trace_id, "room.expiry")
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return
        first = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        within = set_span_in_context(NonRecordingSpan(first), Context())
        attributes = {"reactor.room_id": entry.room_id}
        self._child(within, name, (began, time_ns()), attributes=attributes)

    def _child(
        self, within: Context, name: str, times: tuple[int, int],
        kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        began, ended = times
        span = self.tracer.start_span(name, within, kind, attributes, start_time=began)
        span.end(ended)


def _keep(kept: dict[str, Any], key: str, value: Any) -> None:
    if len(kept) >= _MAX_KEPT:
        del kept[next(iter(kept))]
    kept[key] = value


def provider_with(ids: DepartureIds, **options: Any) -> TracerProvider:
    """Return a provider of the SDK with these ids. options: as it takes them."""
    return TracerProvider(id_generator=cast("Any", ids), **options)
