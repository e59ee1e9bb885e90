"""What the application is notified of: only true changes, once, and eventually all of them."""

from collections.abc import Iterable

from reactor.client.reported_room import ReportedRoom
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import CountReply, Departed, Member, MembersReply, RoomDiff, RoomJoined

ME = "me"


def make_member(user_id: str, joined_at: int = 1, **overrides: object) -> Member:
    fields: dict[str, object] = {"username": user_id.title(), "last_active_at": joined_at, **overrides}
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


def state(room: ReportedRoom) -> ReportedRoom:
    """The same, but no type checker takes what was asserted of it before for still so."""
    return room


def summary(events: list[RoomEvent]) -> list[tuple[str, str | None, str | None]]:
    return [(event.kind, event.member.user_id if event.member else None, event.reason) for event in events]


def room_of(*members: Member, version: int = 1, epoch: str = "e1") -> ReportedRoom:
    room = ReportedRoom("r", ME)
    events = room.snapshot(epoch, version, members)
    assert summary(events) == [("sync", None, None)]
    assert events[0].members == members
    return room


def test_each_change_is_an_event_with_the_member_and_the_reason():
    room = room_of(make_member(ME), make_member("ann"))
    events = room.diff(change(1, 2, joined=[make_member("bob", 2)]))
    assert summary(events) == [("join", "bob", None)]
    assert events[0].count == room.count == 3
    assert summary(room.diff(change(2, 3, updated=[make_member("bob", 2, away=True)]))) == [
        ("update", "bob", None)
    ]
    events = room.diff(change(3, 4, left=[("bob", "inactivity_timeout")]))
    assert summary(events) == [("leave", "bob", "inactivity_timeout")]
    assert events[0].member == make_member("bob", 2, away=True), "as it was last known"
    assert room.members.keys() == {ME, "ann"}


def test_what_a_snapshot_held_is_not_reported_again():
    room = room_of(make_member(ME), make_member("ann", 5), version=5)
    assert room.diff(change(3, 5, joined=[make_member("ann", 5)])) == []
    overlapping = change(3, 6, joined=[make_member("ann", 5), make_member("bob", 6)], left=[("cy", "left")])
    assert summary(room.diff(overlapping)) == [("join", "bob", None)]


def test_a_member_that_left_and_joined_again_makes_both_events():
    room = room_of(make_member(ME), make_member("ann", 1))
    again = change(1, 3, left=[("ann", "left")], joined=[make_member("ann", 3)])
    assert summary(room.diff(again)) == [("leave", "ann", "left"), ("join", "ann", None)]


def test_a_heartbeat_and_unchanged_visible_fields_make_no_event():
    room = room_of(make_member(ME), make_member("ann"))
    assert room.diff(change(1, 2, updated=[make_member("ann", last_active_at=999)])) == []
    assert room.members["ann"].last_active_at == 999


def test_after_a_gap_a_snapshot_reports_only_the_difference():
    room = room_of(make_member(ME), make_member("ann"), make_member("bob"))
    assert not state(room).needs_snapshot
    assert room.diff(change(2, 3, joined=[make_member("dan", 3)])) == []
    assert state(room).needs_snapshot
    assert room.diff(change(3, 4, left=[("bob", "kicked")])) == []
    assert room.members.keys() == {ME, "ann", "bob"}
    snapshot = MembersReply(
        "r",
        "e1",
        3,
        5,
        [
            make_member(ME),
            make_member("ann"),
            make_member("bob"),
            make_member("cy", 2),
            make_member("dan", 3),
        ],
    )
    assert summary(room.listed(snapshot)) == [
        ("leave", "bob", "kicked"),
        ("join", "cy", None),
        ("join", "dan", None),
    ]
    assert not state(room).needs_snapshot


def test_a_snapshot_older_than_the_deferred_diffs_needs_another_one():
    room = room_of(make_member(ME))
    room.diff(change(4, 5, joined=[make_member("ann", 5)]))
    room.snapshot("e1", 3, [make_member(ME)])
    assert state(room).needs_snapshot
    assert summary(room.snapshot("e1", 5, [make_member(ME), make_member("ann", 5)])) == [
        ("join", "ann", None)
    ]


def test_members_that_stayed_during_a_reconnect_make_no_event():
    room = room_of(make_member(ME), make_member("ann"), make_member("bob"), make_member("cy"))
    room.connection_lost()
    assert room.members.keys() == {ME, "ann", "bob", "cy"}
    now = [
        make_member(ME, last_active_at=50),
        make_member("ann"),
        make_member("cy", away=True),
        make_member("dan", 9),
    ]
    assert summary(room.snapshot("e1", 30, now)) == [
        ("leave", "bob", "disconnected"),
        ("join", "dan", None),
        ("update", "cy", None),
    ]


def test_a_client_whose_own_member_is_registered_again_gets_no_event():
    room = room_of(make_member(ME), make_member("ann"))
    assert room.diff(change(1, 2, left=[(ME, "disconnected")])) == []
    assert room.diff(change(2, 3, joined=[make_member("bob", 60)])) == []
    assert summary(room.diff(change(3, 4, joined=[make_member(ME, 61)]))) == [("join", "bob", None)]
    assert not state(room).unsettled


class TestAnotherEpoch:
    """Redis has lost the room, and the nodes register their members again."""

    def test_a_list_without_the_own_member_is_withheld(self):
        room = room_of(make_member(ME), make_member("ann"))
        assert room.diff(change(0, 0, epoch="", left=[(ME, "disconnected"), ("ann", "disconnected")])) == []
        assert state(room).unsettled
        assert room.members.keys() == {ME, "ann"}

    def test_members_registered_again_make_no_event(self):
        room = room_of(make_member(ME), make_member("ann"), make_member("bob"))
        room.diff(change(0, 0, epoch=""))
        assert room.diff(change(0, 1, epoch="e2", joined=[make_member("ann", 70)])) == []
        assert room.diff(change(1, 2, epoch="e2", joined=[make_member(ME, 71)])) == []
        assert state(room).unsettled, "bob is still missing"
        assert room.diff(change(2, 3, epoch="e2", joined=[make_member("bob", 72)])) == []
        assert not state(room).unsettled
        assert room.members["ann"].joined_at == 70
        assert summary(room.diff(change(3, 4, epoch="e2", left=[("ann", "left")]))) == [
            ("leave", "ann", "left")
        ]

    def test_changed_visible_fields_are_reported(self):
        room = room_of(make_member(ME), make_member("ann"))
        events = room.snapshot("e2", 2, [make_member(ME, 70), make_member("ann", 71, username="Anna")])
        assert summary(events) == [("update", "ann", None)]

    def test_new_members_are_reported_at_once_and_missing_ones_after_settling(self):
        room = room_of(make_member(ME), make_member("ann"), make_member("bob"))
        fresh = change(0, 2, epoch="e2", joined=[make_member(ME, 70), make_member("new", 71)])
        assert summary(room.diff(fresh)) == [("join", "new", None)]
        assert summary(room.diff(change(2, 3, epoch="e2", joined=[make_member("ann", 72)]))) == []
        assert summary(room.settle()) == [("leave", "bob", "disconnected")]
        assert not state(room).unsettled
        assert room.settle() == []

    def test_a_member_that_leaves_after_it_was_registered_again_is_reported(self):
        room = room_of(make_member(ME), make_member("ann"), make_member("bob"))
        room.snapshot("e2", 2, [make_member(ME, 70), make_member("ann", 70)])
        assert summary(room.diff(change(2, 3, epoch="e2", left=[("ann", "kicked")]))) == [
            ("leave", "ann", "kicked")
        ]
        assert state(room).unsettled, "bob is still missing"

    def test_a_list_without_the_own_member_is_reported_after_settling(self):
        room = room_of(make_member(ME), make_member("ann"))
        room.diff(change(1, 2, left=[(ME, "disconnected")]))
        assert summary(room.settle()) == [("leave", ME, "disconnected")]

    def test_nothing_settles_while_a_snapshot_is_awaited(self):
        room = room_of(make_member(ME), make_member("ann"))
        room.snapshot("e2", 1, [make_member(ME, 70)])
        room.connection_lost()
        assert room.settle() == []
        assert state(room).unsettled


class TestCounts:
    def joined(self, view: str, count: int) -> RoomJoined:
        return RoomJoined("r", ME, "s", 1, 1, False, "e1", 5, count, view)  # type: ignore[arg-type]

    def test_a_count_view_reports_each_new_count_once(self):
        room = ReportedRoom("r", ME)
        assert [event.count for event in room.joined(self.joined("count", 7))] == [7]
        assert [event.count for event in room.count_changed(CountReply("r", "e1", 6, 8))] == [8]
        assert room.count_changed(CountReply("r", "e1", 7, 8)) == []
        assert room.count_changed(CountReply("r", "e1", 5, 3)) == [], "an older one"
        assert room.count == 8
        assert not state(room).needs_snapshot
        assert room.diff(change(7, 8, joined=[make_member("ann")])) == []

    def test_a_room_that_grows_too_large_is_a_count_and_becomes_a_list_again(self):
        room = room_of(make_member(ME), make_member("ann"))
        events = room.count_changed(CountReply("r", "e1", 9, 2000))
        assert [(event.kind, event.count, event.members) for event in events] == [("sync", 2000, ())]
        assert room.members == {}
        assert room.served == "count"
        members = [make_member(ME), make_member("bob", 9)]
        (event,) = room.listed(MembersReply("r", "e1", 20, 2, members))
        assert (event.kind, event.members) == ("sync", tuple(members))
        assert summary(room.diff(change(20, 21, left=[("bob", "left")]))) == [("leave", "bob", "left")]

    def test_a_requested_list_that_is_too_large_becomes_a_count(self):
        room = room_of(make_member(ME))
        room.diff(change(5, 6))
        assert state(room).needs_snapshot
        room.listed(MembersReply("r", "e1", 9, 1500))
        assert (room.served, room.count, room.needs_snapshot) == ("count", 1500, False)


def test_withheld_changes_are_dropped_when_the_room_becomes_a_count():
    room = room_of(make_member(ME), make_member("ann"))
    assert room.diff(change(0, 1, epoch="e2", joined=[make_member(ME, 5)])) == []
    assert room.unsettled
    assert [event.kind for event in room.count_changed(CountReply("r", "e2", 2, 5000))] == ["sync"]
    assert room.settle() == []
    assert room.members == {}
