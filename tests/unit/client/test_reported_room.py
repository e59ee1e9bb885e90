"""What a reader is told of a room: only what is true, once, and in the end all of it."""

from collections.abc import Iterable

from reactor.client.reported_room import ReportedRoom
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import CountReply, Departed, Member, MembersReply, RoomDiff, RoomJoined

ME = "me"


def person(user_id: str, joined_at: int = 1, **face: object) -> Member:
    fields: dict[str, object] = {"username": user_id.title(), "last_active_at": joined_at, **face}
    return Member(user_id=user_id, joined_at=joined_at, **fields)  # type: ignore[arg-type]


def change(
    from_: int,
    version: int,
    *,
    epoch: str = "e1",
    joined: Iterable[Member] = (),
    updated: Iterable[Member] = (),
    left: Iterable[tuple[str, str]] = (),
) -> RoomDiff:
    departed = [Departed(user_id, reason) for user_id, reason in left]
    return RoomDiff("r", epoch, from_, version, 0, list(joined), list(updated), departed)


def state(listing: ReportedRoom) -> ReportedRoom:
    """The same, but no type checker takes what was asserted of it before for still so."""
    return listing


def told(events: list[RoomEvent]) -> list[tuple[str, str | None, str | None]]:
    return [(event.kind, event.member.user_id if event.member else None, event.reason) for event in events]


def listing_of(*members: Member, version: int = 1, epoch: str = "e1") -> ReportedRoom:
    listing = ReportedRoom("r", ME)
    events = listing.snapshot(epoch, version, members)
    assert told(events) == [("sync", None, None)]
    assert events[0].members == members
    return listing


def test_each_change_is_an_event_with_the_member_and_the_reason():
    listing = listing_of(person(ME), person("ann"))
    events = listing.diff(change(1, 2, joined=[person("bob", 2)]))
    assert told(events) == [("join", "bob", None)]
    assert events[0].count == listing.count == 3
    assert told(listing.diff(change(2, 3, updated=[person("bob", 2, away=True)]))) == [
        ("update", "bob", None)
    ]
    events = listing.diff(change(3, 4, left=[("bob", "inactivity_timeout")]))
    assert told(events) == [("leave", "bob", "inactivity_timeout")]
    assert events[0].member == person("bob", 2, away=True), "as it was last known"
    assert listing.members.keys() == {ME, "ann"}


def test_what_a_snapshot_held_is_not_reported_again():
    listing = listing_of(person(ME), person("ann", 5), version=5)
    assert listing.diff(change(3, 5, joined=[person("ann", 5)])) == []
    overlapping = change(3, 6, joined=[person("ann", 5), person("bob", 6)], left=[("cy", "left")])
    assert told(listing.diff(overlapping)) == [("join", "bob", None)]


def test_a_member_that_left_and_joined_again_makes_both_events():
    listing = listing_of(person(ME), person("ann", 1))
    again = change(1, 3, left=[("ann", "left")], joined=[person("ann", 3)])
    assert told(listing.diff(again)) == [("leave", "ann", "left"), ("join", "ann", None)]


def test_a_heartbeat_and_unchanged_visible_fields_make_no_event():
    listing = listing_of(person(ME), person("ann"))
    assert listing.diff(change(1, 2, updated=[person("ann", last_active_at=999)])) == []
    assert listing.members["ann"].last_active_at == 999


def test_after_a_gap_a_snapshot_reports_only_the_difference():
    listing = listing_of(person(ME), person("ann"), person("bob"))
    assert not state(listing).needs_snapshot
    assert listing.diff(change(2, 3, joined=[person("dan", 3)])) == []
    assert state(listing).needs_snapshot
    assert listing.diff(change(3, 4, left=[("bob", "kicked")])) == []
    assert listing.members.keys() == {ME, "ann", "bob"}
    snapshot = MembersReply(
        "r", "e1", 3, 5, [person(ME), person("ann"), person("bob"), person("cy", 2), person("dan", 3)]
    )
    assert told(listing.listed(snapshot)) == [
        ("leave", "bob", "kicked"),
        ("join", "cy", None),
        ("join", "dan", None),
    ]
    assert not state(listing).needs_snapshot


def test_a_snapshot_older_than_the_deferred_diffs_needs_another_one():
    listing = listing_of(person(ME))
    listing.diff(change(4, 5, joined=[person("ann", 5)]))
    listing.snapshot("e1", 3, [person(ME)])
    assert state(listing).needs_snapshot
    assert told(listing.snapshot("e1", 5, [person(ME), person("ann", 5)])) == [("join", "ann", None)]


def test_members_that_stayed_during_a_reconnect_make_no_event():
    listing = listing_of(person(ME), person("ann"), person("bob"), person("cy"))
    listing.connection_lost()
    assert listing.members.keys() == {ME, "ann", "bob", "cy"}
    now = [person(ME, last_active_at=50), person("ann"), person("cy", away=True), person("dan", 9)]
    assert told(listing.snapshot("e1", 30, now)) == [
        ("leave", "bob", "disconnected"),
        ("join", "dan", None),
        ("update", "cy", None),
    ]


def test_a_client_whose_own_member_is_registered_again_gets_no_event():
    listing = listing_of(person(ME), person("ann"))
    assert listing.diff(change(1, 2, left=[(ME, "disconnected")])) == []
    assert listing.diff(change(2, 3, joined=[person("bob", 60)])) == []
    assert told(listing.diff(change(3, 4, joined=[person(ME, 61)]))) == [("join", "bob", None)]
    assert not state(listing).unsettled


class TestAnotherEpoch:
    """Redis has lost the room, and the servers enter their members anew."""

    def test_a_list_without_the_own_member_is_withheld(self):
        listing = listing_of(person(ME), person("ann"))
        assert (
            listing.diff(change(0, 0, epoch="", left=[(ME, "disconnected"), ("ann", "disconnected")])) == []
        )
        assert state(listing).unsettled
        assert listing.members.keys() == {ME, "ann"}

    def test_members_registered_again_make_no_event(self):
        listing = listing_of(person(ME), person("ann"), person("bob"))
        listing.diff(change(0, 0, epoch=""))
        assert listing.diff(change(0, 1, epoch="e2", joined=[person("ann", 70)])) == []
        assert listing.diff(change(1, 2, epoch="e2", joined=[person(ME, 71)])) == []
        assert state(listing).unsettled, "bob is still missing"
        assert listing.diff(change(2, 3, epoch="e2", joined=[person("bob", 72)])) == []
        assert not state(listing).unsettled
        assert listing.members["ann"].joined_at == 70
        assert told(listing.diff(change(3, 4, epoch="e2", left=[("ann", "left")]))) == [
            ("leave", "ann", "left")
        ]

    def test_changed_visible_fields_are_reported(self):
        listing = listing_of(person(ME), person("ann"))
        events = listing.snapshot("e2", 2, [person(ME, 70), person("ann", 71, username="Anna")])
        assert told(events) == [("update", "ann", None)]

    def test_new_members_are_reported_at_once_and_missing_ones_after_settling(self):
        listing = listing_of(person(ME), person("ann"), person("bob"))
        fresh = change(0, 2, epoch="e2", joined=[person(ME, 70), person("new", 71)])
        assert told(listing.diff(fresh)) == [("join", "new", None)]
        assert told(listing.diff(change(2, 3, epoch="e2", joined=[person("ann", 72)]))) == []
        assert told(listing.settle()) == [("leave", "bob", "disconnected")]
        assert not state(listing).unsettled
        assert listing.settle() == []

    def test_a_member_that_leaves_after_it_was_registered_again_is_reported(self):
        listing = listing_of(person(ME), person("ann"), person("bob"))
        listing.snapshot("e2", 2, [person(ME, 70), person("ann", 70)])
        assert told(listing.diff(change(2, 3, epoch="e2", left=[("ann", "kicked")]))) == [
            ("leave", "ann", "kicked")
        ]
        assert state(listing).unsettled, "bob is still missing"

    def test_a_list_without_the_own_member_is_reported_after_settling(self):
        listing = listing_of(person(ME), person("ann"))
        listing.diff(change(1, 2, left=[(ME, "disconnected")]))
        assert told(listing.settle()) == [("leave", ME, "disconnected")]

    def test_nothing_settles_while_a_snapshot_is_awaited(self):
        listing = listing_of(person(ME), person("ann"))
        listing.snapshot("e2", 1, [person(ME, 70)])
        listing.connection_lost()
        assert listing.settle() == []
        assert state(listing).unsettled


class TestCounts:
    def joined(self, view: str, count: int) -> RoomJoined:
        return RoomJoined("r", ME, "s", 1, 1, False, "e1", 5, count, view)  # type: ignore[arg-type]

    def test_a_count_view_reports_each_new_count_once(self):
        listing = ReportedRoom("r", ME)
        assert [event.count for event in listing.joined(self.joined("count", 7))] == [7]
        assert [event.count for event in listing.count_changed(CountReply("r", "e1", 6, 8))] == [8]
        assert listing.count_changed(CountReply("r", "e1", 7, 8)) == []
        assert listing.count_changed(CountReply("r", "e1", 5, 3)) == [], "an older one"
        assert listing.count == 8
        assert not state(listing).needs_snapshot
        assert listing.diff(change(7, 8, joined=[person("ann")])) == []

    def test_a_room_that_grows_too_large_is_a_count_and_becomes_a_list_again(self):
        listing = listing_of(person(ME), person("ann"))
        events = listing.count_changed(CountReply("r", "e1", 9, 2000))
        assert [(event.kind, event.count, event.members) for event in events] == [("sync", 2000, ())]
        assert listing.members == {}
        assert listing.served == "count"
        members = [person(ME), person("bob", 9)]
        (event,) = listing.listed(MembersReply("r", "e1", 20, 2, members))
        assert (event.kind, event.members) == ("sync", tuple(members))
        assert told(listing.diff(change(20, 21, left=[("bob", "left")]))) == [("leave", "bob", "left")]

    def test_a_requested_list_that_is_too_large_becomes_a_count(self):
        listing = listing_of(person(ME))
        listing.diff(change(5, 6))
        assert state(listing).needs_snapshot
        listing.listed(MembersReply("r", "e1", 9, 1500))
        assert (listing.served, listing.count, listing.needs_snapshot) == ("count", 1500, False)


def test_withheld_changes_are_dropped_when_the_room_becomes_a_count():
    listing = listing_of(person(ME), person("ann"))
    assert listing.diff(change(0, 1, epoch="e2", joined=[person(ME, 5)])) == []
    assert listing.unsettled
    assert [event.kind for event in listing.count_changed(CountReply("r", "e2", 2, 5000))] == ["sync"]
    assert listing.settle() == []
    assert listing.members == {}
