"""The recent diffs that a node keeps: within their bound, and to the same effect as a list."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.presence import recent_diffs
from reactor.presence.recent_diffs import MAX_DIFFS, Merged, RecentDiffs
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.intents import FormerJoining
from reactor.protocol.messages import Departed, Member, RoomChanges, RoomDiff
from reactor.protocol.room import DiffResult, RoomView


class Room:
    """A view with random changes, whose diffs are kept, as the feed does."""

    def __init__(self, recent: RecentDiffs, room_id: str = "lobby", members: int = 20, seed: int = 0) -> None:
        self.recent, self.random, self.number = recent, random.Random(seed), 0
        self.view = RoomView(room_id)
        self.view.reset("e", 7, [self.member(f"u{number}") for number in range(members)])
        recent.begin(self.view)

    def member(self, user_id: str) -> Member:
        self.number += 1
        return Member(user_id, user_id, 1, self.number, data={"n": self.number})

    def change(self, *, published: bool = False) -> None:
        """Let one user of thirty join, change or leave."""
        user_id = f"u{self.random.randrange(30)}"
        joined, updated, left = list[Member](), list[Member](), list[Departed]()
        if user_id not in self.view.members:
            joined = [self.member(user_id)]
        elif self.random.random() < 0.5:
            updated = [self.member(user_id)]
        else:
            left = [Departed(user_id, "left")]
        count = len(self.view.members) + len(joined) - len(left)
        version = self.view.version
        diff = RoomDiff(self.view.room_id, "e", version, version + 1, count, joined, updated, left)
        self.view.apply(diff)
        self.recent.add(self.view, diff, as_published(diff) if published else b"")

    def position(self) -> FormerJoining:
        return FormerJoining(self.view.epoch, self.view.version, 1, len(self.view.members))

    def copy(self) -> RoomView:
        """The list of a client that is lost now."""
        view = RoomView(self.view.room_id)
        view.reset(self.view.epoch, self.view.version, self.view.members.values())
        view.invalidate()
        return view


def as_published(diff: RoomDiff) -> bytes:
    def row(one: Member) -> list[object]:
        data = msgspec.json.encode(one.data).decode()
        return [one.user_id, one.username, data, one.joined_at, one.last_active_at, 0, one.connections]

    left = [[one.user_id, one.reason, 1, ""] for one in diff.left]
    rows = [[row(one) for one in several] for several in (diff.joined, diff.updated)]
    return msgspec.msgpack.encode([diff.epoch, diff.from_, diff.version, diff.count, *rows, left])


def decoded(merged: Merged, room: Room) -> list[RoomDiff]:
    """What a client makes of the answer, in either encoding."""
    found = [
        [library.decode(one, type=RoomChanges) for one in merged.encoded(codec)]
        for library, codec in ((msgspec.json, JSON), (msgspec.msgpack, MSGPACK))
    ]
    assert found[0] == found[1]
    return [
        RoomDiff(room.view.room_id, "e", one.from_, one.version, one.count, one.joined, one.updated, one.left)
        for one in found[0]
    ]


@given(st.integers(0, 2**32), st.lists(st.integers(0, 59), min_size=1, max_size=12), st.booleans())
def test_the_diffs_since_any_position_make_the_list_of_that_client_the_present_one(seed, returns, published):
    room = Room(RecentDiffs(1 << 20), seed=seed)
    clients = [(room.position(), room.copy())]
    for number in range(60):
        room.change(published=published)
        clients.append((room.position(), room.copy()))
        if number not in returns:
            continue
        for position, view in clients:
            merged = room.recent.since(room.view, position)
            if merged is None:
                continue
            returned = RoomView("lobby")
            returned.reset(view.epoch, view.version, view.members.values())
            returned.invalidate()
            result = returned.resume("e", room.view.version, decoded(merged, room))
            assert result is DiffResult.APPLIED
            assert (returned.version, returned.count) == (room.view.version, len(room.view.members))
            assert returned.members == room.view.members
    assert room.recent.results["diffs"]
    assert room.recent.results.keys() <= {"diffs", "larger"}


def test_diffs_of_a_position_are_read_once_and_only_the_newer_ones_for_the_next_client():
    room = Room(RecentDiffs(1 << 20))
    position = room.position()
    for _ in range(9):
        room.change()
    first = room.recent.since(room.view, position)
    assert first is not None
    assert room.recent.read == 9
    again = room.recent.since(room.view, position)
    assert again is first
    assert room.recent.read == 0
    assert again.encoded(JSON)[0] is first.encoded(JSON)[0]
    room.change()
    later = room.recent.since(room.view, position)
    assert later is not None
    assert room.recent.read == 1


def test_diffs_that_were_read_in_vain_are_counted_too():
    room = Room(RecentDiffs(1 << 20), members=1)
    position = room.position()
    for _ in range(100):
        room.change()
    assert room.recent.since(room.view, position) is None  # not smaller than the list
    assert room.recent.results == {"larger": 1}
    assert room.recent.read == 100


def test_what_is_merged_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recent_diffs, "MAX_MERGED", 20_000)
    room = Room(RecentDiffs(1 << 20), members=30)
    positions = []
    for _ in range(40):
        positions.append(room.position())
        room.change()
    for position in positions:
        room.recent.since(room.view, position)
        assert room.recent._merged_bytes <= 20_000
    assert room.recent._merged_bytes == sum(one.size for one in room.recent._merged.values())


def test_a_room_keeps_a_number_of_diffs():
    room = Room(RecentDiffs(1 << 20))
    first = room.position()
    room.change()
    second = room.position()
    for _ in range(MAX_DIFFS):
        room.change()
    assert room.recent.since(room.view, first) is None
    room.recent.since(room.view, second)
    assert room.recent.results["forgotten"] == 1


def test_the_bound_is_that_of_all_rooms_and_those_without_a_change_for_longest_lose_theirs_first():
    recent = RecentDiffs(16 * 1024)
    rooms = [Room(recent, f"room {number}", seed=number) for number in range(4)]
    positions = [room.position() for room in rooms]
    for room in rooms:
        room.change()
    for _ in range(100):
        rooms[3].change()
        rooms[2].change()
        assert recent.bytes <= 16 * 1024
    assert recent.since(rooms[0].view, positions[0]) is None
    assert recent.since(rooms[1].view, positions[1]) is None
    assert recent.since(rooms[0].view, rooms[0].position()) is not None, "nothing has changed since"
    for room in rooms:
        recent.forget(room.view.room_id)
    assert recent.bytes == 0
    assert not recent._changed


def test_one_room_alone_loses_its_oldest_diffs():
    recent = RecentDiffs(8 * 1024)
    room = Room(recent, members=30)
    late = room.position()
    for _ in range(100):
        late = room.position() if room.view.version == 7 + 95 else late
        room.change()
        assert recent.bytes <= 8 * 1024
    assert recent.since(room.view, late) is not None


def test_a_diff_that_does_not_continue_begins_anew():
    room = Room(RecentDiffs(1 << 20))
    before = room.position()
    room.change()
    view = room.view
    view.reset("another", 3, list(view.members.values()))
    room.recent.add(view, RoomDiff("lobby", "another", 2, 3, 1, [], [], []))
    assert room.recent.since(view, before) is None
    assert room.recent.since(view, room.position()) is not None
