"""A room's view against any history: no order, loss or doubling of diffs leaves it wrong and content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.protocol.messages import Departed, Member, RoomDiff
from reactor.protocol.room import MAX_DEFERRED, DiffResult, RoomView, diff_between, merge

USERS = ["ann", "bob", "__proto__", "a:b{c}*"]

State = dict[str, Member]


def diff(version: int, state: State, joined=(), updated=(), left=()) -> RoomDiff:
    return RoomDiff("lobby", "e", version - 1, version, len(state), [*joined], [*updated], [*left])


@st.composite
def histories(draw, *, most: int = 12) -> tuple[list[State], list[RoomDiff]]:
    """States of a room, one for each version, and the diffs that lead from each to the next."""
    start = draw(st.integers(0, 3))
    now: State = {}
    states, diffs = [dict(now)], []
    for number in range(draw(st.integers(1, most))):
        user, clock, away = draw(st.sampled_from(USERS)), number + 100, draw(st.booleans())
        what = draw(st.sampled_from(["update", "leave", "settle"])) if user in now else "join"
        joined, updated, left = [], [], []
        if what == "update":
            before = now[user]
            now[user] = Member(user, before.username, before.joined_at, clock, away=away)
            updated = [now[user]]
        if what in ("leave", "settle"):
            del now[user]
            left = [Departed(user, "left")]
        if what in ("join", "settle"):
            now[user] = Member(user, user.upper(), clock, clock, data=number)
            joined = [now[user]]
        states.append(dict(now))
        diffs.append(diff(start + number + 1, now, joined, updated, left))
    return states, diffs


def view_at(states: list[State], diffs: list[RoomDiff], index: int) -> RoomView:
    view = RoomView("lobby")
    view.reset("e", diffs[0].from_ + index, states[index].values())
    return view


@given(histories())
def test_diffs_applied_one_by_one_lead_to_the_last_state(history):
    states, diffs = history
    view = view_at(states, diffs, 0)
    for one, state in zip(diffs, states[1:], strict=True):
        assert view.apply(one) is DiffResult.APPLIED
        assert view.members == state
        assert view.count == len(state)
        assert view.connections == sum(member.connections for member in state.values())


@given(histories(), st.data())
def test_a_merged_diff_has_the_effect_of_its_parts_from_every_position_in_between(history, data):
    states, diffs = history
    first = data.draw(st.integers(0, len(diffs) - 1))
    last = data.draw(st.integers(first, len(diffs) - 1))
    merged = merge(diffs[first : last + 1])
    assert (merged.from_, merged.version) == (diffs[first].from_, diffs[last].version)
    for position in range(first, last + 1):
        view = view_at(states, diffs, position)
        assert view.apply(merged) is DiffResult.APPLIED
        assert view.members == states[last + 1]
        assert view.count == len(states[last + 1])
    names = [member.user_id for member in merged.joined + merged.updated]
    assert len(names) == len(set(names))


@given(histories(), st.data())
def test_merging_is_associative(history, data):
    states, diffs = history
    cut = data.draw(st.integers(1, len(diffs)))
    parts = [merge(part) for part in (diffs[:cut], diffs[cut:]) if part]
    view, whole = view_at(states, diffs, 0), view_at(states, diffs, 0)
    for part in parts:
        view.apply(part)
    whole.apply(merge(parts))
    assert view.members == whole.members == states[-1]


@given(histories(), st.data())
def test_a_lost_diff_is_detected_by_the_next_one_and_repaired_by_a_snapshot(history, data):
    states, diffs = history
    view = view_at(states, diffs, 0)
    lost = data.draw(st.sets(st.integers(0, len(diffs) - 1)))
    for index, one in enumerate(diffs):
        if index in lost:
            continue
        if view.apply(one) is DiffResult.GAP:
            assert index - 1 in lost
            heal = data.draw(st.integers(index + 1, len(diffs)))
            assert view.reset("e", diffs[0].from_ + heal, states[heal].values()) is DiffResult.APPLIED
        assert view.members == states[view.version - diffs[0].from_]
        assert view.version >= one.version


@given(histories(), st.data())
def test_no_order_of_delivery_leaves_a_wrong_view_without_a_gap(history, data):
    """Lost, doubled, disordered: what a view holds is always the room's state at its version."""
    states, diffs = history
    view = RoomView("lobby")
    for _ in range(data.draw(st.integers(1, 20))):
        if data.draw(st.integers(0, 4)) == 0:
            index = data.draw(st.integers(0, len(diffs)))
            view.reset("e", diffs[0].from_ + index, states[index].values())
        else:
            first = data.draw(st.integers(0, len(diffs) - 1))
            last = data.draw(st.integers(first, min(len(diffs) - 1, first + 3)))
            view.apply(merge(diffs[first : last + 1]))
        if view.epoch:
            assert view.members == states[view.version - diffs[0].from_]
    # Whatever has happened, a snapshot and the newest diff make it right.
    if view.apply(diffs[-1]) is not DiffResult.APPLIED and view.waiting:
        while view.reset("e", diffs[-1].version, states[-1].values()) is DiffResult.GAP:
            pass
    assert view.members == states[-1]
    assert view.version == diffs[-1].version


@given(histories(), st.data())
def test_a_merge_never_hides_a_gap(history, data):
    states, diffs = history
    lost = data.draw(st.sets(st.integers(0, len(diffs) - 1), max_size=len(diffs) - 1))
    came = [one for index, one in enumerate(diffs) if index not in lost]
    view = view_at(states, diffs, 0)
    verdict = view.apply(merge(came))
    if verdict is DiffResult.APPLIED:
        assert view.members == states[view.version - diffs[0].from_]
    else:
        assert verdict is DiffResult.GAP
        assert lost


@given(histories(), st.data())
def test_the_difference_of_two_lists_leads_from_one_to_the_other(history, data):
    states, _ = history
    old, new = data.draw(st.sampled_from(states)), data.draw(st.sampled_from(states))
    joined, updated, left = diff_between(old, new.values())
    view = RoomView("lobby")
    view.reset("e", 1, old.values())
    view.apply(diff(2, new, joined=joined, updated=updated, left=left))
    assert view.members.keys() == new.keys()
    for user, member in view.members.items():
        assert (member.joined_at, member.away) == (new[user].joined_at, new[user].away)
    assert diff_between(new, new.values()) == ([], [], [])


def test_deferred_diffs_are_bounded_and_dropped_ones_show_as_a_gap():
    view = RoomView("lobby")
    ann = Member("ann", "Ann", 1, 1)
    for version in range(1, MAX_DEFERRED + 3):
        assert view.apply(diff(version, {"ann": ann}, updated=[ann])) is DiffResult.DEFERRED
    assert view.reset("e", 1, [ann]) is DiffResult.GAP
    assert view.reset("e", MAX_DEFERRED + 1, [ann]) is DiffResult.APPLIED
    assert view.version == MAX_DEFERRED + 2


def test_an_empty_list_of_diffs_cannot_be_merged():
    with pytest.raises(ValueError, match="no diffs"):
        merge([])
