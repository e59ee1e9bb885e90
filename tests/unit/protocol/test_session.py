"""A session: each request and each answer in each state."""

import itertools
from collections.abc import Callable

import pytest

from reactor.protocol import requests
from reactor.protocol.intents import (
    AskPresent,
    Authenticate,
    CountMembers,
    Join,
    Leave,
    ListMembers,
    Refresh,
    SetAway,
    UpdateMember,
)
from reactor.protocol.limits import Limits
from reactor.protocol.membership import MembershipState
from reactor.protocol.session import Session
from reactor.protocol.state_table import IllegalEvent
from tests.unit.protocol.sessions import (
    IN,
    JOINING,
    LEAVING,
    OUT,
    PENDING,
    REJOINING,
    contents,
    join,
    lobby,
    refused,
    session_in,
)

# Each request in each state.

INTENTS: dict[str, tuple[requests.Request, Callable[[Session], object]]] = {
    "join": (join(id=1), lambda session: Join("lobby", "ann", "", None, "members", 1)),
    "heartbeat": (requests.Heartbeat("lobby", 1), lambda session: Refresh((lobby(session),), "lobby", 1)),
    "update": (
        requests.Update("lobby", "Ann", [1], 1),
        lambda session: UpdateMember(lobby(session), "Ann", b"[1]", 1),
    ),
    "away": (requests.Away("lobby", 1), lambda session: SetAway((lobby(session),), True, "lobby", 1)),
    "back": (requests.Back("lobby", 1), lambda session: SetAway((lobby(session),), False, "lobby", 1)),
    "members": (requests.Members("lobby", 1), lambda session: ListMembers("lobby", 1)),
    "count": (requests.Count("lobby", 1), lambda session: CountMembers("lobby", 1)),
    "is_present": (requests.IsPresent("lobby", 7, 1), lambda session: AskPresent("lobby", "7", 1)),
    "leave": (requests.LeaveRoom("lobby", 1), lambda session: Leave(lobby(session), 1)),
}
OPEN_TO_ALL = ("join", "members", "count", "is_present")


@pytest.mark.parametrize("state", MembershipState, ids=lambda state: state.name)
@pytest.mark.parametrize("name", INTENTS)
def test_every_request_in_every_state(state: MembershipState, name: str):
    request, intent = INTENTS[name]
    session = session_in(state)
    if state in PENDING:
        assert session.receive(request) is None
        assert session._deferred == {"lobby": [request]}
        assert lobby(session).state is state
    elif state is OUT and name not in OPEN_TO_ALL:
        error = refused(session, request)
        assert (error.code, error.id, error.room_id) == ("not_joined", 1, "lobby")
    else:
        assert session.receive(request) == intent(session)
        after = {"join": JOINING if state is OUT else REJOINING, "leave": LEAVING}.get(name, state)
        place = session.rooms.get("lobby")
        assert (place.state if place else OUT) is after


ANSWERS: dict[str, tuple[Callable[[Session], object], dict[MembershipState, MembershipState]]] = {
    "joined": (lambda session: session.joined("lobby"), {JOINING: IN, REJOINING: IN}),
    "refused": (lambda session: session.refused("lobby"), {JOINING: OUT, REJOINING: IN, LEAVING: IN}),
    "left": (lambda session: session.left("lobby"), {LEAVING: OUT}),
}


@pytest.mark.parametrize(("name", "state"), list(itertools.product(ANSWERS, MembershipState)), ids=str)
def test_every_outcome_in_every_state(name: str, state: MembershipState):
    answer, after = ANSWERS[name]
    session = session_in(state)
    if state in PENDING:
        session.receive(requests.Heartbeat("lobby"))
        session.receive(requests.LeaveRoom("lobby"))
    if state not in after:
        before = contents(session)
        with pytest.raises(IllegalEvent):
            answer(session)
        assert contents(session) == before
        return
    assert answer(session) == [requests.Heartbeat("lobby"), requests.LeaveRoom("lobby")]
    assert (session._deferred, session._deferred_count) == ({}, 0)
    place = session.rooms.get("lobby")
    assert (place.state if place else OUT) is after[state]
    assert not session._joins


# Particular requests.


def test_ids_are_converted_to_text():
    session = Session(Limits())
    assert session.receive(join(5, 7)) == Join("5", "7", "", None, "members", None)
    session.joined("5")
    (place,) = session.rooms.values()
    for room in (5, "5"):
        assert session.receive(requests.Heartbeat(room)) == Refresh((place,), "5", None)


def test_a_join_carries_name_data_and_view():
    session = Session(Limits())
    intent = session.receive(join(username="Ann", data={"a": None}, view="count", id="x"))
    assert intent == Join("lobby", "ann", "Ann", b'{"a":null}', "count", "x")
    session.joined("lobby")
    assert (lobby(session).username, lobby(session).view) == ("Ann", "count")
    assert session.receive(join(data=None)) == Join("lobby", "ann", "", b"null", "members", None)


def test_a_refused_rejoin_changes_nothing():
    session = Session(Limits())
    session.receive(join(username="Ann", view="count"))
    session.joined("lobby")
    session.receive(join(username="Other", view="none"))
    session.refused("lobby")
    place = lobby(session)
    assert (place.state, place.username, place.view) == (IN, "Ann", "count")
    assert not session._joins
    session.receive(join(view="none"))
    session.joined("lobby")
    assert (place.username, place.view) == ("Ann", "none")


def test_another_user_needs_another_connection():
    session = session_in(IN)
    error = refused(session, join(user="bob", id=3))
    assert (error.code, error.id, error.room_id) == ("already_joined", 3, "lobby")
    assert "second connection" in error.message
    session.receive(join("other", "bob"))
    assert set(session.rooms) == {"lobby", "other"}


def test_a_deferred_join_of_another_user_is_decided_by_the_outcome():
    for answer, joins in ((Session.joined, False), (Session.refused, True)):
        session = session_in(JOINING)
        session.receive(join(user="bob"))
        (waited,) = answer(session, "lobby")
        if joins:
            assert session.receive(waited) == Join("lobby", "bob", "", None, "members", None)
            assert lobby(session).user_id == "bob"
        else:
            assert refused(session, waited).code == "already_joined"


def test_what_an_update_may_change():
    session = session_in(IN)
    place = lobby(session)
    assert session.receive(requests.Update("lobby")) == UpdateMember(place, None, None, None)
    assert session.receive(requests.Update("lobby", data=None)) == UpdateMember(place, None, b"null", None)
    assert session.receive(requests.Update("lobby", "")) == UpdateMember(place, "ann", None, None)


def test_a_token_is_passed_on():
    assert Session(Limits()).receive(requests.Auth("secret", 1)) == Authenticate("secret", 1)


BAD = [
    (join(""), "bad_id", "roomId is empty", None),
    (join("lobby", ""), "bad_id", "userId is empty", None),
    (join("a\nb"), "bad_id", "roomId holds a control", None),
    (join("lobby", "x" * 257), "bad_id", "userId is longer than 256 bytes", None),
    (join(2**70), "bad_id", "64 bits", None),
    (join(5, username="a\x7f"), "bad_message", "username holds a control", "5"),
    (join(username="é" * 129), "bad_message", "username is longer than 256 bytes", "lobby"),
    (join(data="x" * 4095), "data_too_big", "data takes 4097 bytes as JSON, the limit is 4096", "lobby"),
    (join(data={1: 2}), "bad_message", "data must be JSON", "lobby"),
    (join(data=[2**64]), "bad_message", "64 bits", "lobby"),
    (requests.Heartbeat(""), "bad_id", "roomId is empty", None),
    (requests.Heartbeat(2**70), "bad_id", "64 bits", None),
    (requests.Heartbeat(5), "not_joined", "send join_room first", "5"),
    (requests.Update("lobby", data="x" * 5000), "data_too_big", "send less", "lobby"),
    (requests.Update("lobby", "\x00"), "bad_message", "username", "lobby"),
    (requests.Away(""), "bad_id", "roomId is empty", None),
    (requests.Members(""), "bad_id", "roomId is empty", None),
    (requests.Count("x" * 257), "bad_id", "roomId is longer", None),
    (requests.IsPresent("lobby", ""), "bad_id", "userId is empty", None),
    (requests.LeaveRoom("\x80"), "bad_id", "control", None),
]


@pytest.mark.parametrize("state", [OUT, JOINING], ids=lambda state: state.name)
@pytest.mark.parametrize(("request_", "code", "words", "room"), BAD, ids=lambda value: repr(value)[:40])
def test_invalid_values_are_refused_in_every_state(
    state: MembershipState, request_, code: str, words: str, room
):
    if state is JOINING and code == "not_joined":
        return
    error = refused(session_in(state), request_)
    assert (error.code, error.room_id) == (code, room)
    assert words in error.message


def test_a_join_needs_a_user_where_no_token_names_one():
    error = refused(Session(Limits()), requests.JoinRoom("lobby", id=1))
    assert (error.code, error.id, error.room_id) == ("bad_message", 1, "lobby")
    assert 'join_room needs "userId"' in error.message
