"""The table of a connection's place in a room: every state and every event."""

import itertools

import pytest

from reactor.protocol.membership import (
    PENDING,
    TRANSITIONS,
    Membership,
    MembershipEvent,
    MembershipState,
)
from reactor.protocol.state_table import IllegalEvent

# Written out once more, so that a slip in the table shows: what each event leads to, "" where it is illegal.
EXPECTED = """
            OUT      JOINING  IN         REJOINING  LEAVING
JOIN        JOINING  .        REJOINING  .          .
USE         .        .        IN         .          .
LEAVE       .        .        LEAVING    .          .
JOINED      .        IN       .          IN         .
REFUSED     .        OUT      .          IN         IN
LEFT        .        .        .          .          OUT
EXPELLED    OUT      JOINING  OUT        JOINING    LEAVING
CLOSED      OUT      OUT      OUT        OUT        OUT
"""


def rows() -> dict[tuple[MembershipState, MembershipEvent], MembershipState | None]:
    head, *lines = [line.split() for line in EXPECTED.strip().splitlines()]
    return {
        (MembershipState[state], MembershipEvent[event]): None if after == "." else MembershipState[after]
        for event, *afters in lines
        for state, after in zip(head, afters, strict=True)
    }


def test_the_table_has_every_state_and_event():
    assert rows().keys() == set(itertools.product(MembershipState, MembershipEvent))
    assert set(TRANSITIONS) == set(MembershipState)


@pytest.mark.parametrize(
    ("state", "event"),
    list(itertools.product(MembershipState, MembershipEvent)),
    ids=lambda value: value.name,
)
def test_every_event_in_every_state(state: MembershipState, event: MembershipEvent):
    membership = Membership("lobby", "ann")
    membership.state = state
    before = {name: getattr(membership, name) for name in Membership.__slots__}
    after = rows()[state, event]
    if after is None:
        with pytest.raises(IllegalEvent, match=f"{event.name} while {state.name} in room 'lobby'"):
            membership.advance(event)
        assert {name: getattr(membership, name) for name in Membership.__slots__} == before
    else:
        assert membership.advance(event) is after
        assert membership.state is after


def test_in_a_pending_state_the_client_changes_nothing():
    for state in PENDING:
        assert (
            not {MembershipEvent.JOIN, MembershipEvent.USE, MembershipEvent.LEAVE} & TRANSITIONS[state].keys()
        )


def test_from_every_state_there_is_a_way_out():
    for state in MembershipState:
        assert MembershipState.OUT in TRANSITIONS[state].values()
