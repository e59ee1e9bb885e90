"""Sessions in a wanted state, and a look at all they hold."""

import pytest

from reactor.protocol import requests as ask
from reactor.protocol.limits import Limits
from reactor.protocol.membership import State
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
