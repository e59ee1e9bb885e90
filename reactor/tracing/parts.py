"""The parts of a node that make spans, each the usual part with a measurement around some of its methods."""

from collections.abc import Callable, Iterable
from functools import partial
from time import time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span, use_span

from reactor.expiry.reaper import FoundBy, Reaper
from reactor.gateway.connection import Connection
from reactor.gateway.fanout import Fanout
from reactor.membership.handler import RequestHandler
from reactor.membership.people_watch import PeopleWatches
from reactor.presence.keys import Entry, parse_suffix
from reactor.presence.people_feed import FollowedPerson
from reactor.presence.replies import Claimed, Due, Joined, JoinRefused
from reactor.presence.room_feed import Payer, RoomFeed
from reactor.presence.rows import LeftRow
from reactor.presence.store import Store
from reactor.protocol import intents
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import RoomView
from reactor.tracing.node_parts import Parts
from reactor.tracing.traces import EXPIRED, Traces

_MAX_WAITING = 10_000
"""Joins whose arrival is remembered until they are carried out."""


class TracedStore(Store):
    """The store, with a span for each join and a note of each touch."""

    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traces = traces

    async def join(self, entry: Entry, connection: str, **options: Any) -> Joined | JoinRefused:
        """See `Store.join`."""
        attributes = {"reactor.room_id": entry.room_id, "db.system.name": "redis"}
        with self._traces.tracer.start_as_current_span(
            "room.join.script", kind=SpanKind.CLIENT, attributes=attributes
        ):
            return await super().join(entry, connection, **options)

    async def due(self, shard: int, *, limit: int, retry: int) -> Due:
        """See `Store.due`."""
        began = time_ns()
        found = await super().due(shard, limit=limit, retry=retry)
        if found.gone:
            self._traces.touched(found.gone, began)
        return found


class TracedReaper(Reaper):
    """The reaper, which records each departure that it makes."""

    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traces = traces

    def enqueue(self, shard: int, suffixes: Iterable[str], found_by: FoundBy) -> None:
        """See `Reaper.enqueue`."""
        suffixes = list(suffixes)
        for suffix in suffixes:
            self._traces.found(suffix)
        super().enqueue(shard, suffixes, found_by)

    async def claim(self, shard: int, suffixes: list[str], found_by: dict[str, FoundBy]) -> list[Claimed]:
        """See `Reaper.claim`."""
        began = time_ns()
        made = await super().claim(shard, suffixes, found_by)
        ended = time_ns()
        for claimed in made:
            path = found_by.get(claimed.suffix, "sweep")
            self._traces.claimed(parse_suffix(claimed.suffix), claimed, path, began, ended)
        self._traces.forget(suffixes)
        return made


class TracedFeed(RoomFeed):
    """The feed, with a span for each wait for a room's list, and a note of each departure."""

    def __init__(
        self, traces: Traces, *args: Any, on_left: Callable[[str, LeftRow, Member | None], None],
        **options: Any,
    ) -> None:  # fmt: skip
        def departed(room_id: str, row: LeftRow, member: Member | None) -> None:
            traces.departed(room_id, row)
            on_left(room_id, row, member)

        super().__init__(*args, on_left=departed, **options)
        self._traces = traces

    async def follow(self, room_id: str, payer: Payer | None = None) -> RoomView:
        """See `RoomFeed.follow`."""
        with self._traces.tracer.start_as_current_span("room.join.follow"):
            return await super().follow(room_id, payer)


class TracedFanout(Fanout):
    """The fan-out, which records when departures by expiry were sent."""

    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traces = traces

    def send_diff(self, diff: RoomDiff) -> None:
        """See `Fanout.send_diff`."""
        super().send_diff(diff)
        if diff.room_id not in self._windows:
            self._traces.dropped(diff.room_id)

    def discard_pending(self, room_id: str) -> None:
        """See `Fanout.discard_pending`."""
        super().discard_pending(room_id)
        self._traces.dropped(room_id)

    def force_leave(
        self, room_id: str, user_id: str, message: str, reason: str, timestamp: int, until: int | None = None
    ) -> tuple[Connection, ...]:
        """See `Fanout.force_leave`."""
        began = time_ns()
        connections = super().force_leave(room_id, user_id, message, reason, timestamp, until)
        if connections and reason in EXPIRED:
            self._traces.record(Entry(room_id, user_id), timestamp, "room.expiry.force_leave", began)
        return connections

    def _send(self, room_id: str, diffs: list[RoomDiff]) -> int:
        size = super()._send(room_id, diffs)
        self._traces.sent(room_id)
        return size


class TracedPeopleWatches(PeopleWatches):
    """The watches of people, with a span for each request and for each round in which changes are sent."""

    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traces = traces
        self._waiting_since = 0

    async def watch(self, connection: Connection, intent: intents.FollowPeople) -> None:
        """See `PeopleWatches.watch`."""
        attributes = {"reactor.people": len(intent.user_ids)}
        with self._traces.tracer.start_as_current_span(
            "people.watch", kind=SpanKind.SERVER, attributes=attributes
        ):
            await super().watch(connection, intent)

    def on_changed(self, person: FollowedPerson) -> None:
        """See `PeopleWatches.on_changed`."""
        first = not self._changed
        super().on_changed(person)
        if first and self._changed:
            self._waiting_since = time_ns()

    def _send_changes(self) -> None:
        began, before, sent = self._waiting_since, len(self._changed), self.sent
        super()._send_changes()
        self._waiting_since = time_ns()  # of those that wait for the next round
        if self.sent == sent:
            return
        attributes = {
            "reactor.people": before - len(self._changed), "reactor.connections": self.sent - sent,
        }  # fmt: skip
        tracer = self._traces.tracer
        tracer.start_span("people.fanout", Context(), attributes=attributes, start_time=began).end()


class TracedHandler(RequestHandler):
    """The handler, with a span for each join from its arrival to its answer."""

    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        self._make_people_watches = partial(TracedPeopleWatches, traces)
        super().__init__(*args, **options)
        self._traces = traces
        self._arrived: dict[int, tuple[intents.Join, int]] = {}

    def intent(self, connection: Connection, intent: intents.Intent) -> None:
        """See `RequestHandler.intent`."""
        if type(intent) is intents.Join:
            if len(self._arrived) >= _MAX_WAITING:
                del self._arrived[next(iter(self._arrived))]
            self._arrived[id(intent)] = intent, time_ns()
        super().intent(connection, intent)

    async def _join(self, connection: Connection, intent: intents.Join) -> None:
        began, tracer = time_ns(), self._traces.tracer
        _, arrived = self._arrived.pop(id(intent), (intent, began))
        attributes = {"reactor.room_id": intent.room_id}
        span = tracer.start_span("room.join", kind=SpanKind.SERVER, attributes=attributes, start_time=arrived)
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            tracer.start_span("room.join.queue", start_time=arrived).end(began)
            try:
                await super()._join(connection, intent)
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def _complete_join(self, *args: Any, **options: Any) -> None:
        get_current_span().set_attribute("reactor.outcome", "joined")
        with self._traces.tracer.start_as_current_span("room.join.answer"):
            super()._complete_join(*args, **options)

    def _refuse(self, *args: Any, **options: Any) -> None:
        get_current_span().set_attribute("reactor.outcome", "refused")
        super()._refuse(*args, **options)


def traced_parts(traces: Traces) -> Parts:
    """Return what builds a node whose joins and expiries are traced."""
    return Parts(
        store=partial(TracedStore, traces),
        reaper=partial(TracedReaper, traces),
        feed=partial(TracedFeed, traces),
        fanout=partial(TracedFanout, traces),
        handler=partial(TracedHandler, traces),
    )
