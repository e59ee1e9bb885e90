"""Events of a diff: each true, each once, whatever was known already."""

from reactor.protocol.events import SyncEvent, events_of
from reactor.protocol.messages import Departed, Member, RoomDiff

ANN = Member("ann", "Ann", 1, 1)
ANN_LATER = Member("ann", "Ann", 1, 9)
ANN_AWAY = Member("ann", "Ann", 1, 5, away=True)
ANN_AGAIN = Member("ann", "Ann", 7, 7)
BOB = Member("bob", "Bob", 2, 2)


def summary(
    before: list[Member], *, joined=(), updated=(), left=()
) -> list[tuple[str, Member | None, str | None]]:
    diff = RoomDiff("lobby", "e", 1, 2, 5, [*joined], [*updated], [*left])
    events = events_of(diff, {member.user_id: member for member in before})
    assert all(event.room_id == "lobby" and event.count == 5 for event in events)
    return [(event.kind, event.member, event.reason) for event in events]


def test_each_change_becomes_an_event_in_the_order_of_application():
    assert summary([ANN], joined=[BOB], updated=[ANN_AWAY]) == [
        ("join", BOB, None),
        ("update", ANN_AWAY, None),
    ]
    assert summary([ANN], joined=[BOB], left=[Departed("ann", "kicked")]) == [
        ("leave", ANN, "kicked"),
        ("join", BOB, None),
    ]


def test_known_changes_make_no_event():
    assert summary([ANN], joined=[ANN]) == []
    assert summary([ANN], joined=[ANN_LATER]) == []
    assert summary([ANN_AWAY], updated=[ANN_AWAY]) == []
    assert summary([], left=[Departed("ann", "left")]) == []


def test_the_kind_of_event_follows_from_what_was_known():
    assert summary([ANN], joined=[ANN_AWAY]) == [("update", ANN_AWAY, None)]
    assert summary([], updated=[BOB]) == [("join", BOB, None)]


def test_a_member_that_left_and_joined_again_makes_both_events():
    left = [Departed("ann", "inactivity_timeout")]
    assert summary([ANN], joined=[ANN_AGAIN], left=left) == [
        ("leave", ANN, "inactivity_timeout"),
        ("join", ANN_AGAIN, None),
    ]
    assert summary([], joined=[ANN_AGAIN], left=left) == [("join", ANN_AGAIN, None)]


def test_an_event_is_a_value():
    assert SyncEvent(kind="sync", room_id="r", count=0) == SyncEvent(kind="sync", room_id="r", count=0)
