"""A connection's session where clients have to prove who they are: the session behind a door. PURE.

Theory of operation. The door is in one of five states:

    STRANGER   No token yet: each request but `auth` is refused.
    CHECKING   The first token is being checked: requests wait for the outcome.
    KNOWN      The connection is somebody; what it asks for is bound to who that is.
    RECHECKING The same, while a fresh token is being checked.
    SHUT       The first token was refused, or the socket is gone: nothing is heard any more.

AUTH comes from the client; ACCEPTED and REFUSED answer it, one each; CLOSED says that the socket is gone. A
token that is refused to one who is KNOWN changes nothing: the one before holds until it runs out.

A request is bound when it is received: the user, the name and the data that the identity names are filled in
where they are missing, and refused where they differ; the room has to be one that it allows. What only a
member can do (heartbeat, update, away, back, leave) needs no look at the room: the join had it.
"""

from enum import Enum
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from reactor.protocol import requests as ask
from reactor.protocol.identity import Identity
from reactor.protocol.ids import clean_id
from reactor.protocol.intents import Intent
from reactor.protocol.limits import Limits
from reactor.protocol.membership import IllegalEvent, Membership
from reactor.protocol.messages import ProtocolError
from reactor.protocol.session import Session, addressed


class Standing(Enum):
    """Where a connection stands with its proof."""

    STRANGER = "stranger"
    CHECKING = "checking"
    KNOWN = "known"
    RECHECKING = "rechecking"
    SHUT = "shut"


class Knock(Enum):
    """What can happen at the door."""

    AUTH = "auth"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    CLOSED = "closed"


STANDINGS: dict[Standing, dict[Knock, Standing]] = {
    Standing.STRANGER: {Knock.AUTH: Standing.CHECKING, Knock.CLOSED: Standing.SHUT},
    Standing.CHECKING: {
        Knock.ACCEPTED: Standing.KNOWN,
        Knock.REFUSED: Standing.SHUT,
        Knock.CLOSED: Standing.SHUT,
    },
    Standing.KNOWN: {Knock.AUTH: Standing.RECHECKING, Knock.CLOSED: Standing.SHUT},
    Standing.RECHECKING: {
        Knock.ACCEPTED: Standing.KNOWN,
        Knock.REFUSED: Standing.KNOWN,
        Knock.CLOSED: Standing.SHUT,
    },
    Standing.SHUT: {Knock.ACCEPTED: Standing.SHUT, Knock.REFUSED: Standing.SHUT, Knock.CLOSED: Standing.SHUT},
}

_IN = frozenset({Standing.KNOWN, Standing.RECHECKING})
_OF_MEMBERS = frozenset({ask.Heartbeat, ask.Away, ask.Back, ask.LeaveRoom})


class GuardedSession(Session):
    """The memberships of one connection, and who it is.

    Attributes:
        standing: Where it stands with its proof.
        identity: Who it is; None until that is known.

    """

    __slots__ = ("_early", "identity", "standing")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.standing = Standing.STRANGER
        self.identity: Identity | None = None
        self._early: list[ask.Request] = []

    # What the client says.

    def receive(self, request: ask.Request) -> Intent | None:
        """Return what this request comes down to, or None when it is held back or comes too late.

        Raises:
            ProtocolError: The request cannot be, or is not allowed; it changed nothing.

        """
        kind = type(request)
        if kind in _OF_MEMBERS and self.standing in _IN:
            return super().receive(request)
        if self.standing is Standing.SHUT:
            return None
        try:
            if kind is ask.Auth:
                self._knock()
            elif self.identity is None:
                self._wait(request)
                return None
            else:
                request = self._bound(request, self.identity)
        except ProtocolError as error:
            raise addressed(error, request) from None
        return super().receive(request)

    def _knock(self) -> None:
        if Knock.AUTH not in STANDINGS[self.standing]:
            raise ProtocolError("too_many_pending", "a token is being checked already: wait for its answer")
        self._advance(Knock.AUTH)

    def _wait(self, request: ask.Request) -> None:
        if self.standing is Standing.STRANGER:
            raise ProtocolError("unauthorized", 'say who you are first: send "auth" with a token')
        if len(self._early) >= self._limits.max_pending:
            sentence = f"{len(self._early)} requests wait for the token's check already: wait for its answer"
            raise ProtocolError("too_many_pending", sentence)
        self._early.append(request)

    def _bound(self, request: Any, identity: Identity) -> Any:
        kind = type(request)
        if kind is not ask.Update and not identity.allows(self._room_id(request)):
            raise ProtocolError("forbidden", "the token does not allow this room")
        if kind is ask.JoinRoom:
            if request.user_id is UNSET:
                request = replace(request, user_id=identity.user_id)
            elif clean_id(request.user_id, "userId", self._limits.max_id) != identity.user_id:
                raise ProtocolError("forbidden", "the token is for another userId: leave userId out")
        if kind is ask.JoinRoom or kind is ask.Update:
            request = self._with_own_face(request, identity)
        return request

    def _with_own_face(self, request: Any, identity: Identity) -> Any:
        if identity.name is not None and request.username != identity.name:
            if request.username:
                raise ProtocolError("forbidden", "the token names another username: leave username out")
            request = replace(request, username=identity.name)
        if identity.data is not None:
            if request.data is not UNSET and request.data != identity.data:
                raise ProtocolError("forbidden", "the token holds other data: leave data out")
            request = replace(request, data=identity.data)
        return request

    # What the door says.

    def accepted(self, identity: Identity) -> list[ask.Request]:
        """Note who the connection is; return the requests that had waited for it.

        Raises:
            ProtocolError: `forbidden`: it is somebody else already, and stays that.
            IllegalEvent: No token was being checked.

        """
        known = self.identity
        if known is not None and known.user_id != identity.user_id:
            self._advance(Knock.REFUSED)
            raise ProtocolError("forbidden", "the token is for another user: open a second connection")
        if self._advance(Knock.ACCEPTED) is Standing.KNOWN:
            self.identity = identity
        early, self._early = self._early, []
        return early

    def denied(self) -> bool:
        """Note that the token was refused; True when the connection has to go.

        Raises:
            IllegalEvent: No token was being checked.

        """
        self._early = []
        return self._advance(Knock.REFUSED) is Standing.SHUT

    def outside(self) -> str | None:
        """Return a room that the connection has entered, or is entering, and is not allowed any more."""
        identity = self.identity
        if identity is None:
            return None
        return next((room_id for room_id in self.rooms if not identity.allows(room_id)), None)

    def close(self) -> list[Membership]:
        """Note that the socket is gone; return the memberships to detach, also those on their way."""
        self._advance(Knock.CLOSED)
        self._early = []
        return super().close()

    def _advance(self, knock: Knock) -> Standing:
        after = STANDINGS[self.standing].get(knock)
        if after is None:
            raise IllegalEvent(f"{knock.name} while {self.standing.name}")
        self.standing = after
        return after
