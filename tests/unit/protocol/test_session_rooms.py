"""A session with several rooms: what waits, what is bounded, and how it ends."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw, UnsetType

from reactor.protocol import requests
from reactor.protocol.intents import (
    CountMembers,
    Join,
    Leave,
    Refresh,
    SetAway,
    UpdateMember,
)
from reactor.protocol.limits import Limits
from reactor.protocol.membership import MembershipState
from reactor.protocol.session import Session
from tests.unit.protocol.sessions import (
    IN,
    JOINING,
    LEAVING,
    OUT,
    PENDING,
    REJOINING,
    join,
    lobby,
    refused,
    session_in,
)

# All rooms at once.


def test_a_heartbeat_for_all_rooms():
    session = Session(Limits())
    assert session.receive(requests.Heartbeat(id=1)) == Refresh((), None, 1)
    for room in "abc":
        session.receive(join(room))
    assert session.receive(requests.Heartbeat()) == Refresh((), None, None)
    session.joined("a")
    session.joined("c")
    assert session.receive(requests.Heartbeat()) == Refresh(
        (session.rooms["a"], session.rooms["c"]), None, None
    )


@pytest.mark.parametrize(("kind", "away"), [(requests.Away, True), (requests.Back, False)])
def test_away_for_all_rooms_is_deferred_by_pending_joins(kind, away: bool):
    session = Session(Limits())
    assert session.receive(kind()) == SetAway((), away, None, None)
    for room in "abc":
        session.receive(join(room))
    session.joined("b")
    assert session.receive(kind(id=4)) is None
    (waited,) = session.joined("a")
    assert session.receive(waited) is None
    (waited,) = session.refused("c")
    places = tuple(session.rooms[room] for room in "ab")
    assert session.receive(waited) == SetAway(places, away, None, 4)


# What waits.


def test_deferred_requests_are_returned_in_order():
    session = session_in(JOINING)
    later: list[requests.Request] = [
        requests.Update("lobby", "A"),
        requests.LeaveRoom("lobby"),
        join(user="bob"),
        requests.Members("lobby"),
    ]
    for request in later:
        assert session.receive(request) is None
    waited = session.joined("lobby")
    assert waited == later
    received = [session.receive(request) for request in waited]
    assert [type(intent) for intent in received] == [UpdateMember, Leave, type(None), type(None)]
    waited = session.left("lobby")
    assert waited == later[2:]
    assert session.receive(waited[0]) == Join("lobby", "bob", "", None, "members", None)
    assert session.receive(waited[1]) is None


def test_deferred_requests_are_limited_over_all_rooms():
    session = Session(Limits(max_pending=3))
    session.receive(join("a"))
    session.receive(join("b"))
    for room in "aab":
        session.receive(requests.Heartbeat(room))
    more: list[requests.Request] = [
        requests.Heartbeat("b", 1),
        requests.Away(None, 1),
        join("a", id=1),
        requests.Count("a", 1),
    ]
    for request in more:
        error = refused(session, request)
        assert (error.code, error.id) == ("too_many_pending", 1)
    assert session.receive(requests.Count("c")) == CountMembers("c", None)
    session.joined("a")
    assert session.receive(requests.Heartbeat("b")) is None


def test_the_number_of_rooms_is_limited():
    session = Session(Limits(max_rooms=2))
    session.receive(join("a"))
    session.receive(join("b"))
    assert refused(session, join("c")).code == "too_many_rooms"
    session.joined("a")
    assert session.receive(join("a"))
    session.refused("b")
    assert session.receive(join("c"))


# The end of a membership, and of the connection.


def test_an_expulsion_from_the_last_room_is_reported():
    session = session_in(IN)
    session.receive(join("other"))
    session.joined("other")
    assert session.expelled("lobby") is False
    assert session.expelled("lobby") is False
    assert session.expelled("other") is True
    assert session.rooms == {}
    assert session.expelled("other") is False
    assert refused(session, requests.Heartbeat("lobby")).code == "not_joined"


def test_an_expulsion_that_crosses_a_join_or_a_leave():
    session = session_in(JOINING)
    assert session.expelled("lobby") is False
    session.joined("lobby")
    assert lobby(session).state is IN

    session = session_in(REJOINING)
    assert session.expelled("lobby") is False
    session.refused("lobby")
    assert session.rooms == {}

    session = session_in(LEAVING)
    session.receive(join())
    assert session.expelled("lobby") is False
    assert session.left("lobby") == [join()]


@pytest.mark.parametrize("state", MembershipState, ids=lambda state: state.name)
def test_close_returns_the_memberships_to_detach(state: MembershipState):
    session = session_in(state)
    places = list(session.rooms.values())
    if state in PENDING:
        session.receive(requests.Heartbeat("lobby"))
    assert session.close() == places
    assert all(place.state is OUT for place in places)
    assert session.closed
    assert session.close() == []
    assert (session.joined("lobby"), session.refused("lobby"), session.left("lobby")) == ([], [], [])
    assert session.expelled("lobby") is False
    assert session.receive(join()) is None
    assert session.receive(requests.Heartbeat()) == Refresh((), None, None)
    assert (session.rooms, session._deferred, session._deferred_count) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("waiting", "departs"),
    [
        ([], False),
        ([requests.LeaveRoom("lobby")], True),
        ([requests.LeaveRoom("lobby"), requests.Heartbeat("lobby"), requests.Count("lobby")], True),
        ([requests.LeaveRoom("lobby"), join("lobby")], False),
        ([join("lobby"), requests.LeaveRoom("lobby")], True),
    ],
)
def test_what_was_left_behind_a_join_is_known_when_the_connection_is_closed(
    waiting: list[requests.Request], departs: bool
):
    session = session_in(MembershipState.JOINING)
    for request in waiting:
        assert session.receive(request) is None
    session.close()
    assert session.departing == ({"lobby"} if departs else frozenset())


def test_data_that_waits_for_a_join_waits_as_json():
    many: dict[str, Any] = {f"field{number}": [] for number in range(20)}
    session = Session(Limits())
    session.receive(join("lobby"))
    waiting: list[requests.Request] = [
        requests.Update("lobby", data=many),
        requests.Update("lobby", patch=many),
        requests.Send("lobby", many),
    ]
    assert [session.receive(request) for request in waiting] == [None, None, None]
    deferred: list[Any] = session.joined("lobby")
    assert [type(request.data) for request in deferred] == [Raw, UnsetType, Raw]
    assert type(deferred[1].patch) is Raw
    intents: list[Any] = [session.receive(request) for request in deferred]
    whole, patched, sent = intents
    assert whole.data_json == patched.patch_json == sent.data_json == msgspec.json.encode(many)


def test_requests_that_wait_for_a_join_take_a_bounded_number_of_bytes():
    session = Session(Limits())
    session.receive(join("a"))
    send = requests.Send("a", "x" * 4000, ["y" * 256] * 100)
    assert session.receive(send) is None
    error = refused(session, send)
    assert error.code == "too_many_pending"
    assert 32 * 1024 < session._deferred_bytes["a"] <= 64 * 1024
    assert len(session.joined("a")) == 1
    assert session._deferred_bytes == {}


def test_one_request_of_any_size_may_wait_for_a_join():
    session = Session(Limits(max_data=200_000))
    session.receive(join("a"))
    assert session.receive(requests.Update("a", data="x" * 100_000)) is None
    assert refused(session, requests.Count("a")).code == "too_many_pending"
    assert len(session.refused("a")) == 1
