"""The events of a change of a room; each carries the room's count after it."""

from hypothesis import given
from hypothesis import strategies as st

from reactor.presence.changes import Change
from reactor.presence.rows import DiffRow, LeftRow, MemberRow
from reactor.protocol.reasons import DISCONNECTED
from reactor.webhooks.payload import WebhookEvent, events_of


def change(before: int, joined: int, left: int) -> Change:
    rows = [MemberRow(f"j{n}", f"J {n}", "", 5, 5, 0, 1) for n in range(joined)]
    gone = [LeftRow(f"l{n}", DISCONNECTED, 9, "") for n in range(left)]
    return Change(
        3, "1700000000000-2", 1, "lobby", DiffRow("e", 1, 2, before + joined - left, rows, [], gone)
    )


def test_the_last_of_several_departures_vacates_the_room() -> None:
    events = list(events_of(change(2, 0, 2)))
    assert [(e.type, e.user_id, e.count, e.reason) for e in events] == [
        ("member_left", "l0", 1, "disconnected"),
        ("member_left", "l1", 0, "disconnected"),
        ("room_vacated", None, 0, None),
    ]
    assert {e.timestamp for e in events} == {1700000000000}
    assert [e.id for e in events] == [f"3-1700000000000-2-{n}" for n in (1, 2, 3)]


def test_the_first_member_to_join_occupies_the_room() -> None:
    events = list(events_of(change(0, 1, 0)))
    assert [(e.type, e.count) for e in events] == [("room_occupied", 1), ("member_joined", 1)]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_each_count_follows_from_the_one_before(before: int, joined: int, left: int) -> None:
    left = min(left, before)
    events = list(events_of(change(before, joined, left)))
    count = before
    for event in events:
        count += {"member_joined": 0, "member_left": -1}.get(event.type, 0)
        if event.type == "member_joined":
            count += 1
        elif event.type == "room_occupied":
            assert count == 0
            assert event.count == 1
            continue
        assert event.count == count
    assert count == before + joined - left
    assert len({event.id for event in events}) == len(events)
    _occupied_and_vacated_alternate(before, events)


def _occupied_and_vacated_alternate(before: int, events: list[WebhookEvent]) -> None:
    types = [event.type for event in events if event.type.startswith("room_")]
    expected = "room_occupied" if before == 0 else "room_vacated"
    for event_type in types:
        assert event_type == expected
        expected = "room_vacated" if expected == "room_occupied" else "room_occupied"
