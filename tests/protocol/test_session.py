"""A session: each request in each state, and any order of requests and answers."""

import itertools
from collections.abc import Callable

import pytest

from reactor.protocol import requests as ask
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
from reactor.protocol.membership import IllegalEvent, State
from reactor.protocol.messages import ProtocolError
from reactor.protocol.session import Session

OUT, JOINING, IN, REJOINING, LEAVING = State
PENDING = (JOINING, REJOINING, LEAVING)


def join(room: str | int = "lobby", user: str | int = "ann", **fields) -> ask.JoinRoom:
    return ask.JoinRoom(room, user, **fields)


def session_in(state: State, limits: Limits | None = None) -> Session:
    """A session whose connection stands so with the lobby."""
    session = Session(limits or Limits())
    if state is not OUT:
        session.receive(join())
    if state in (IN, REJOINING, LEAVING):
        session.joined("lobby")
    if state is REJOINING:
        session.receive(join())
    if state is LEAVING:
        session.receive(ask.LeaveRoom("lobby"))
    return session


def picture(session: Session) -> object:
    places = [(place.room_id, place.user_id, place.state, place.asked) for place in session.rooms.values()]
    return (
        places,
        {room: list(held) for room, held in session._waiting.items()},
        session._held,
        session.closed,
    )


def refused(session: Session, request: ask.Request) -> ProtocolError:
    before = picture(session)
    with pytest.raises(ProtocolError) as caught:
        session.receive(request)
    assert picture(session) == before
    return caught.value


def lobby(session: Session):
    return session.rooms["lobby"]


# Each request in each state.

INTENTS: dict[str, tuple[ask.Request, Callable[[Session], object]]] = {
    "join": (join(id=1), lambda session: Join("lobby", "ann", "", None, "members", 1)),
    "heartbeat": (ask.Heartbeat("lobby", 1), lambda session: Refresh((lobby(session),), "lobby", 1)),
    "update": (
        ask.Update("lobby", "Ann", [1], 1),
        lambda session: UpdateMember(lobby(session), "Ann", b"[1]", 1),
    ),
    "away": (ask.Away("lobby", 1), lambda session: SetAway((lobby(session),), True, "lobby", 1)),
    "back": (ask.Back("lobby", 1), lambda session: SetAway((lobby(session),), False, "lobby", 1)),
    "members": (ask.Members("lobby", 1), lambda session: ListMembers("lobby", 1)),
    "count": (ask.Count("lobby", 1), lambda session: CountMembers("lobby", 1)),
    "is_present": (ask.IsPresent("lobby", 7, 1), lambda session: AskPresent("lobby", "7", 1)),
    "leave": (ask.LeaveRoom("lobby", 1), lambda session: Leave(lobby(session), 1)),
}
OPEN_TO_ALL = ("join", "members", "count", "is_present")


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
@pytest.mark.parametrize("name", INTENTS)
def test_every_request_in_every_state(state: State, name: str):
    request, intent = INTENTS[name]
    session = session_in(state)
    if state in PENDING:
        assert session.receive(request) is None
        assert session._waiting == {"lobby": [request]}
        assert lobby(session).state is state
    elif state is OUT and name not in OPEN_TO_ALL:
        error = refused(session, request)
        assert (error.code, error.id, error.room_id) == ("not_joined", 1, "lobby")
    else:
        assert session.receive(request) == intent(session)
        after = {"join": JOINING if state is OUT else REJOINING, "leave": LEAVING}.get(name, state)
        place = session.rooms.get("lobby")
        assert (place.state if place else OUT) is after


ANSWERS: dict[str, tuple[Callable[[Session], object], dict[State, State]]] = {
    "joined": (lambda session: session.joined("lobby"), {JOINING: IN, REJOINING: IN}),
    "refused": (lambda session: session.refused("lobby"), {JOINING: OUT, REJOINING: IN, LEAVING: IN}),
    "left": (lambda session: session.left("lobby"), {LEAVING: OUT}),
}


@pytest.mark.parametrize(("name", "state"), list(itertools.product(ANSWERS, State)), ids=str)
def test_every_answer_in_every_state(name: str, state: State):
    answer, after = ANSWERS[name]
    session = session_in(state)
    if state in PENDING:
        session.receive(ask.Heartbeat("lobby"))
        session.receive(ask.LeaveRoom("lobby"))
    if state not in after:
        before = picture(session)
        with pytest.raises(IllegalEvent):
            answer(session)
        assert picture(session) == before
        return
    assert answer(session) == [ask.Heartbeat("lobby"), ask.LeaveRoom("lobby")]
    assert (session._waiting, session._held) == ({}, 0)
    place = session.rooms.get("lobby")
    assert (place.state if place else OUT) is after[state]
    assert place is None or place.asked is None


# Particular requests.


def test_ids_become_text_and_a_number_is_its_text():
    session = Session(Limits())
    assert session.receive(join(5, 7)) == Join("5", "7", "", None, "members", None)
    session.joined("5")
    (place,) = session.rooms.values()
    for room in (5, "5"):
        assert session.receive(ask.Heartbeat(room)) == Refresh((place,), "5", None)


def test_a_join_carries_name_data_and_view():
    session = Session(Limits())
    intent = session.receive(join(username="Ann", data={"a": None}, view="count", id="x"))
    assert intent == Join("lobby", "ann", "Ann", b'{"a":null}', "count", "x")
    session.joined("lobby")
    assert (lobby(session).username, lobby(session).view) == ("Ann", "count")
    assert session.receive(join(data=None)) == Join("lobby", "ann", "", b"null", "members", None)


def test_a_refused_rejoin_leaves_all_as_it_was():
    session = Session(Limits())
    session.receive(join(username="Ann", view="count"))
    session.joined("lobby")
    session.receive(join(username="Other", view="none"))
    session.refused("lobby")
    place = lobby(session)
    assert (place.state, place.username, place.view, place.asked) == (IN, "Ann", "count", None)
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


def test_another_user_who_waits_is_judged_by_the_answer():
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
    assert session.receive(ask.Update("lobby")) == UpdateMember(place, None, None, None)
    assert session.receive(ask.Update("lobby", data=None)) == UpdateMember(place, None, b"null", None)
    assert session.receive(ask.Update("lobby", "")) == UpdateMember(place, "ann", None, None)


def test_a_token_is_passed_on():
    assert Session(Limits()).receive(ask.Auth("secret", 1)) == Authenticate("secret", 1)


BAD = [
    (join(""), "bad_id", "roomId is empty", None),
    (join("lobby", ""), "bad_id", "userId is empty", None),
    (join("a\nb"), "bad_id", "roomId holds a control", None),
    (join("lobby", "x" * 257), "bad_id", "userId is longer than 256 bytes", None),
    (join(2**70), "bad_id", "64 bits", None),
    (join(5, username="a\x7f"), "bad_message", "username holds a control", "5"),
    (join(username="é" * 129), "bad_message", "username is longer than 256 bytes", "lobby"),
    (join(data="x" * 4095), "data_too_big", "data takes 4097 bytes as JSON, the most is 4096", "lobby"),
    (join(data={1: 2}), "bad_message", "data must be JSON", "lobby"),
    (join(data=[2**64]), "bad_message", "64 bits", "lobby"),
    (ask.Heartbeat(""), "bad_id", "roomId is empty", None),
    (ask.Heartbeat(2**70), "bad_id", "64 bits", None),
    (ask.Heartbeat(5), "not_joined", "send join_room first", "5"),
    (ask.Update("lobby", data="x" * 5000), "data_too_big", "send less", "lobby"),
    (ask.Update("lobby", "\x00"), "bad_message", "username", "lobby"),
    (ask.Away(""), "bad_id", "roomId is empty", None),
    (ask.Members(""), "bad_id", "roomId is empty", None),
    (ask.Count("x" * 257), "bad_id", "roomId is longer", None),
    (ask.IsPresent("lobby", ""), "bad_id", "userId is empty", None),
    (ask.LeaveRoom("\x80"), "bad_id", "control", None),
]


@pytest.mark.parametrize("state", [OUT, JOINING], ids=lambda state: state.name)
@pytest.mark.parametrize(("request_", "code", "words", "room"), BAD, ids=lambda value: repr(value)[:40])
def test_wrong_values_are_refused_before_anything_else(state: State, request_, code: str, words: str, room):
    if state is JOINING and code == "not_joined":
        return
    error = refused(session_in(state), request_)
    assert (error.code, error.room_id) == (code, room)
    assert words in error.message


# All rooms at once.


def test_a_heartbeat_for_all_rooms():
    session = Session(Limits())
    assert session.receive(ask.Heartbeat(id=1)) == Refresh((), None, 1)
    for room in "abc":
        session.receive(join(room))
    assert session.receive(ask.Heartbeat()) == Refresh((), None, None)
    session.joined("a")
    session.joined("c")
    assert session.receive(ask.Heartbeat()) == Refresh((session.rooms["a"], session.rooms["c"]), None, None)


@pytest.mark.parametrize(("kind", "away"), [(ask.Away, True), (ask.Back, False)])
def test_away_from_all_rooms_waits_for_those_on_their_way(kind, away: bool):
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


def test_what_waited_is_received_again_in_order():
    session = session_in(JOINING)
    later: list[ask.Request] = [
        ask.Update("lobby", "A"),
        ask.LeaveRoom("lobby"),
        join(user="bob"),
        ask.Members("lobby"),
    ]
    for request in later:
        assert session.receive(request) is None
    waited = session.joined("lobby")
    assert waited == later
    intents = [session.receive(request) for request in waited]
    assert [type(intent) for intent in intents] == [UpdateMember, Leave, type(None), type(None)]
    waited = session.left("lobby")
    assert waited == later[2:]
    assert session.receive(waited[0]) == Join("lobby", "bob", "", None, "members", None)
    assert session.receive(waited[1]) is None


def test_only_so_many_wait_in_all_rooms_together():
    session = Session(Limits(max_pending=3))
    session.receive(join("a"))
    session.receive(join("b"))
    for room in "aab":
        session.receive(ask.Heartbeat(room))
    more: list[ask.Request] = [ask.Heartbeat("b", 1), ask.Away(None, 1), join("a", id=1), ask.Count("a", 1)]
    for request in more:
        error = refused(session, request)
        assert (error.code, error.id) == ("too_many_pending", 1)
    assert session.receive(ask.Count("c")) == CountMembers("c", None)
    session.joined("a")
    assert session.receive(ask.Heartbeat("b")) is None


def test_only_so_many_rooms():
    session = Session(Limits(max_rooms=2))
    session.receive(join("a"))
    session.receive(join("b"))
    assert refused(session, join("c")).code == "too_many_rooms"
    session.joined("a")
    assert session.receive(join("a"))
    session.refused("b")
    assert session.receive(join("c"))


# The end of a membership, and of the connection.


def test_a_force_leave_of_the_last_room():
    session = session_in(IN)
    session.receive(join("other"))
    session.joined("other")
    assert session.expelled("lobby") is False
    assert session.expelled("lobby") is False
    assert session.expelled("other") is True
    assert session.rooms == {}
    assert session.expelled("other") is False
    assert refused(session, ask.Heartbeat("lobby")).code == "not_joined"


def test_a_force_leave_that_crosses_a_join_or_a_leave():
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


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_the_end_hands_over_what_is_to_be_detached(state: State):
    session = session_in(state)
    places = list(session.rooms.values())
    if state in PENDING:
        session.receive(ask.Heartbeat("lobby"))
    assert session.close() == places
    assert all(place.state is OUT for place in places)
    assert session.closed
    assert session.close() == []
    assert (session.joined("lobby"), session.refused("lobby"), session.left("lobby")) == ([], [], [])
    assert session.expelled("lobby") is False
    assert session.receive(join()) is None
    assert session.receive(ask.Heartbeat()) == Refresh((), None, None)
    assert (session.rooms, session._waiting, session._held) == ({}, {}, 0)
