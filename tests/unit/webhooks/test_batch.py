"""Requests are bounded in size, hold whole changes where they fit, and lose and repeat nothing."""

import json

from hypothesis import given
from hypothesis import strategies as st

from reactor.presence.changes import Change
from reactor.presence.rows import DiffRow, LeftRow, MemberRow
from reactor.protocol.reasons import DISCONNECTED
from reactor.settings.webhooks import EVENTS
from reactor.webhooks.batch import Backlog, Batch

ALL = frozenset(EVENTS)


def change(shard: int, at: int, *, left: int = 0, data: int = 0) -> Change:
    """A change with one joined member, or with `left` departures; data: bytes of the member's data."""
    gone = [LeftRow(f"u{n}", DISCONNECTED, at, "") for n in range(left)]
    joined = [] if gone else [MemberRow("u", "U", json.dumps("x" * data), 5, 5, 0, 1)]
    return Change(shard, f"{at}-0", at, f"room {shard}", DiffRow("e", 1, 2, 7, joined, [], gone))


def drain(backlog: Backlog, max_bytes: int) -> list[Batch]:
    batches = []
    while backlog:
        batches.append(backlog.next_batch(max_bytes))
        backlog.remove(batches[-1])
    return batches


CHANGES = st.lists(
    st.builds(
        change, st.integers(0, 3), st.integers(1, 10_000), left=st.integers(0, 9), data=st.integers(0, 900)
    ),
    max_size=12,
)


@given(CHANGES, st.integers(1, 4000))
def test_each_event_is_in_one_batch_and_no_batch_of_several_is_larger_than_its_limit(
    changes: list[Change], max_bytes: int
) -> None:
    backlog = Backlog(ALL)
    backlog.add(changes)
    ordered = [change for change, _ in backlog._waiting]
    expected = [event.id for _, events in backlog._waiting for event in events]
    batches = drain(backlog, max_bytes)
    assert [event.id for batch in batches for event in batch.events] == expected
    assert [change for batch in batches for change in batch.completed] == ordered
    for batch in batches:
        assert batch.events
        assert len(batch.events) == 1 or len(batch.body) <= max_bytes
        assert [event["id"] for event in json.loads(batch.body)["events"]] == [e.id for e in batch.events]
        if len(batch.completed) < len(batch.changes):
            assert len(batch.changes) == 1, "only a change that does not fit into a batch is cut apart"


@given(CHANGES.filter(bool), st.integers(1, 4000))
def test_a_batch_is_made_again_from_its_record(changes: list[Change], max_bytes: int) -> None:
    changes = [one._replace(id=f"{one.at}-{n}", place=n) for n, one in enumerate(changes)]
    backlog, again = Backlog(ALL), Backlog(ALL)
    backlog.add(changes)
    batch = backlog.next_batch(max_bytes)
    record = batch.record(max_bytes)
    assert sum(1 for _ in record.ranges) == len({one.shard for one in batch.changes})
    again.add(batch.changes)
    assert again.next_batch(record.max_bytes) == batch


def test_changes_without_a_selected_event_are_completed_without_a_request() -> None:
    backlog = Backlog(frozenset({"room_vacated"}))
    backlog.add([change(0, 1), change(1, 2)])
    batch = backlog.next_batch(1000)
    assert batch.events == []
    assert len(batch.completed) == 2
    backlog.remove(batch)
    assert not backlog
