"""Cuts changes into requests of a bounded size."""

from collections import deque
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

import msgspec

from reactor.errors import UNREADABLE
from reactor.presence.changes import Change, RequestRange, RequestRecord
from reactor.protocol.data import json_of
from reactor.webhooks.payload import events_of

_encode = msgspec.json.Encoder(enc_hook=json_of).encode
_HEAD, _TAIL = b'{"events":[', b"]}"


class EncodedEvent(NamedTuple):
    """An event's id, and the event as JSON."""

    id: str
    json: bytes


class Batch(NamedTuple):
    """The content of one request.

    changes: those with an event in it. completed: those of which nothing is left to send after it; only the
    last change can be missing there, if its events do not fit into one request.
    """

    events: list[EncodedEvent]
    changes: list[Change]
    completed: list[Change]

    @property
    def body(self) -> bytes:
        """The request's body."""
        return _HEAD + b",".join(event.json for event in self.events) + _TAIL

    @property
    def message_id(self) -> str:
        """The same for the same events, so that the endpoint recognises a repeated request."""
        ids = ",".join(event.id for event in self.events)
        return f"msg_{sha256(ids.encode()).hexdigest()[:32]}"

    def record(self, max_bytes: int) -> RequestRecord:
        """What another sender needs to make the same batch."""
        by_shard: dict[int, list[Change]] = {}
        for change in self.changes:
            by_shard.setdefault(change.shard, []).append(change)
        ranges = [
            RequestRange(shard, changes[0].id, changes[-1].id, changes[-1].place)
            for shard, changes in by_shard.items()
        ]
        return RequestRecord(max_bytes, ranges)


class Backlog:
    """Changes that are still to be sent, oldest first."""

    def __init__(self, event_types: frozenset[str]) -> None:
        self._event_types = event_types
        self._waiting: deque[tuple[Change, list[EncodedEvent]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, changes: Iterable[Change]) -> None:
        """Add changes that are newer than those in the backlog; those of one shard are in order."""
        # All changes of a room are in one shard, so this stable sort by time keeps the order within a room.
        for change in sorted(changes, key=lambda change: change.at):
            self._waiting.append((change, self._events(change)))

    def _events(self, change: Change) -> list[EncodedEvent]:
        try:
            return [
                EncodedEvent(event.id, _encode(event))
                for event in events_of(change)
                if event.type in self._event_types
            ]
        except UNREADABLE:  # edited externally, so that the data is no JSON
            return []

    def next_batch(self, max_bytes: int) -> Batch:
        """The oldest events that fit into a body of `max_bytes`, and at least one of them.

        The events of one change are in the same batch, unless they do not fit into one.
        """
        batch = Batch([], [], [])
        free = max_bytes - len(_HEAD) - len(_TAIL) + 1
        for change, events in self._waiting:
            fitting: list[EncodedEvent] = []
            for event in events:
                free -= len(event.json) + 1
                if free < 0 and (batch.events or fitting):
                    break
                fitting.append(event)
            if len(fitting) < len(events) and batch.events:
                break
            batch.events.extend(fitting)
            batch.changes.append(change)
            if len(fitting) < len(events):
                break
            batch.completed.append(change)
        return batch

    def remove(self, batch: Batch) -> None:
        """Remove what the batch contains; it must be the last one returned."""
        for _ in batch.completed:
            self._waiting.popleft()
        if len(batch.completed) < len(batch.changes):
            change, events = self._waiting[0]
            sent = {event.id for event in batch.events}
            self._waiting[0] = change, [event for event in events if event.id not in sent]
