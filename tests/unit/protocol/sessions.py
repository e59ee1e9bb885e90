"""Sessions in a wanted state, and a look at all they hold."""

import pytest

from reactor.protocol import requests
from reactor.protocol.limits import Limits
from reactor.protocol.membership import MembershipState
from reactor.protocol.messages import ProtocolError
from reactor.protocol.session import Session

OUT, JOINING, IN, REJOINING, LEAVING = MembershipState
PENDING = (JOINING, REJOINING, LEAVING)


def join(room: str | int = "lobby", user: str | int = "ann", **fields) -> requests.JoinRoom:
    return requests.JoinRoom(room, user, **fields)


def session_in(state: MembershipState, limits: Limits | None = None) -> Session:
    """A session whose connection stands so with the lobby."""
    session = Session(limits or Limits())
    if state is not OUT:
        session.receive(join())
    if state in (IN, REJOINING, LEAVING):
        session.joined("lobby")
    if state is REJOINING:
        session.receive(join())
    if state is LEAVING:
        session.receive(requests.LeaveRoom("lobby"))
    return session


def contents(session: Session) -> object:
    memberships = [(one.room_id, one.user_id, one.state) for one in session.rooms.values()]
    return (
        memberships,
        dict(session._joins),
        {room: list(deferred) for room, deferred in session._deferred.items()},
        session._deferred_count,
        dict(session._deferred_bytes),
        session.closed,
    )


def refused(session: Session, request: requests.Request) -> ProtocolError:
    before = contents(session)
    with pytest.raises(ProtocolError) as caught:
        session.receive(request)
    assert contents(session) == before
    return caught.value


def lobby(session: Session):
    return session.rooms["lobby"]
