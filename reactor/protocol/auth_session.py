"""A session that requires authentication: it binds each request to an identity, or refuses it. PURE.

The authentication of a connection is in one of five states:

    UNAUTHENTICATED   No token has arrived: every request but `auth` is refused.
    AUTHENTICATING    The first token is being checked: requests are deferred until the outcome.
    AUTHENTICATED     The identity is known, and requests are bound to it.
    REAUTHENTICATING  As AUTHENTICATED, while a fresh token is being checked.
    REJECTED          The first token was refused, or the connection is closed: requests are ignored.

AUTH comes from the client. ACCEPTED and REFUSED are the outcome of a check, exactly one for each AUTH. CLOSED
says that the connection is closed. A fresh token that is refused changes nothing: the previous identity stays
valid until its token expires.

A request is bound when it is received: the user, the name and the data that the identity fixes are filled in
where the request leaves them out, and a request with other values is refused. The room must be one that the
identity allows. Requests that only a member can send (heartbeat, update, away, back, leave) need no check of
the room, since the join was checked.
"""

from enum import Enum
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from reactor.protocol import requests
from reactor.protocol.identity import Identity
from reactor.protocol.ids import clean_id
from reactor.protocol.intents import Intent
from reactor.protocol.limits import Limits
from reactor.protocol.membership import IllegalEvent, Membership
from reactor.protocol.messages import ProtocolError
from reactor.protocol.session import Session, in_reply_to


class AuthState(Enum):
    """The state of a connection's authentication."""

    UNAUTHENTICATED = "unauthenticated"
    AUTHENTICATING = "authenticating"
    AUTHENTICATED = "authenticated"
    REAUTHENTICATING = "reauthenticating"
    REJECTED = "rejected"


class AuthEvent(Enum):
    """What can happen to a connection's authentication."""

    AUTH = "auth"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    CLOSED = "closed"


AUTH_TRANSITIONS: dict[AuthState, dict[AuthEvent, AuthState]] = {
    AuthState.UNAUTHENTICATED: {
        AuthEvent.AUTH: AuthState.AUTHENTICATING,
        AuthEvent.CLOSED: AuthState.REJECTED,
    },
    AuthState.AUTHENTICATING: {
        AuthEvent.ACCEPTED: AuthState.AUTHENTICATED,
        AuthEvent.REFUSED: AuthState.REJECTED,
        AuthEvent.CLOSED: AuthState.REJECTED,
    },
    AuthState.AUTHENTICATED: {
        AuthEvent.AUTH: AuthState.REAUTHENTICATING,
        AuthEvent.CLOSED: AuthState.REJECTED,
    },
    AuthState.REAUTHENTICATING: {
        AuthEvent.ACCEPTED: AuthState.AUTHENTICATED,
        AuthEvent.REFUSED: AuthState.AUTHENTICATED,
        AuthEvent.CLOSED: AuthState.REJECTED,
    },
    # A check may still be under way when the connection closes.
    AuthState.REJECTED: {
        AuthEvent.ACCEPTED: AuthState.REJECTED,
        AuthEvent.REFUSED: AuthState.REJECTED,
        AuthEvent.CLOSED: AuthState.REJECTED,
    },
}

_AUTHENTICATED = frozenset({AuthState.AUTHENTICATED, AuthState.REAUTHENTICATING})
_OF_MEMBERS = frozenset({requests.Heartbeat, requests.Away, requests.Back, requests.LeaveRoom})


class AuthSession(Session):
    """The memberships of one connection, and the identity that it has proved.

    Attributes:
        auth_state: The state of the authentication.
        identity: The identity; None until the first token is accepted.

    """

    __slots__ = ("_until_authenticated", "auth_state", "identity")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.auth_state = AuthState.UNAUTHENTICATED
        self.identity: Identity | None = None
        self._until_authenticated: list[requests.Request] = []

    # Requests of the client.

    def receive(self, request: requests.Request) -> Intent | None:
        """Return the intent of this request, or None when it is deferred, or ignored after a rejection.

        Raises:
            ProtocolError: The request is invalid or not allowed; it changed nothing.

        """
        kind = type(request)
        if kind in _OF_MEMBERS and self.auth_state in _AUTHENTICATED:
            return super().receive(request)
        if self.auth_state is AuthState.REJECTED:
            return None
        try:
            if kind is requests.Auth:
                self._begin_check()
            elif self.identity is None:
                self._defer_until_authenticated(request)
                return None
            else:
                request = self._bound(request, self.identity)
        except ProtocolError as error:
            raise in_reply_to(error, request) from None
        return super().receive(request)

    def _begin_check(self) -> None:
        if AuthEvent.AUTH not in AUTH_TRANSITIONS[self.auth_state]:
            raise ProtocolError(
                "too_many_pending", "a token is already being checked: wait for the reply to it"
            )
        self._advance(AuthEvent.AUTH)

    def _defer_until_authenticated(self, request: requests.Request) -> None:
        if self.auth_state is AuthState.UNAUTHENTICATED:
            raise ProtocolError("unauthorized", 'this server requires a token: send "auth" with one first')
        deferred = len(self._until_authenticated)
        if deferred >= self._limits.max_pending:
            raise ProtocolError(
                "too_many_pending",
                f"{deferred} requests are waiting for the token's check: wait for the reply to auth",
            )
        self._until_authenticated.append(request)

    def _bound(self, request: Any, identity: Identity) -> Any:
        kind = type(request)
        if kind is not requests.Update and not identity.allows(self._room_id(request)):
            raise ProtocolError("forbidden", "the token does not allow this room")
        if kind is requests.JoinRoom:
            if request.user_id is UNSET:
                request = replace(request, user_id=identity.user_id)
            elif clean_id(request.user_id, "userId", self._limits.max_id) != identity.user_id:
                raise ProtocolError("forbidden", "the token is for another userId: leave userId out")
        if kind is requests.JoinRoom or kind is requests.Update:
            request = self._with_fixed_fields(request, identity)
        return request

    def _with_fixed_fields(self, request: Any, identity: Identity) -> Any:
        if identity.name is not None and request.username != identity.name:
            if request.username:
                raise ProtocolError("forbidden", "the token fixes another username: leave username out")
            request = replace(request, username=identity.name)
        if identity.data is not None:
            if request.data is not UNSET and request.data != identity.data:
                raise ProtocolError("forbidden", "the token fixes other data: leave data out")
            request = replace(request, data=identity.data)
        return request

    # Outcomes of checks.

    def token_accepted(self, identity: Identity) -> list[requests.Request]:
        """Set the identity; return the deferred requests, to be received again in this order.

        Raises:
            ProtocolError: `forbidden`: the connection already has another user's identity, and keeps it.
            IllegalEvent: No token was being checked.

        """
        known = self.identity
        if known is not None and known.user_id != identity.user_id:
            self._advance(AuthEvent.REFUSED)
            raise ProtocolError("forbidden", "the token is for another user: open a second connection")
        if self._advance(AuthEvent.ACCEPTED) is AuthState.AUTHENTICATED:
            self.identity = identity
        deferred, self._until_authenticated = self._until_authenticated, []
        return deferred

    def token_refused(self) -> bool:
        """Drop the deferred requests; return True when the connection must be closed.

        Raises:
            IllegalEvent: No token was being checked.

        """
        self._until_authenticated = []
        return self._advance(AuthEvent.REFUSED) is AuthState.REJECTED

    def forbidden_room(self) -> str | None:
        """Return a room of this connection that its identity does not allow any more, or None."""
        identity = self.identity
        if identity is None:
            return None
        return next((room_id for room_id in self.rooms if not identity.allows(room_id)), None)

    def close(self) -> list[Membership]:
        """Note that the connection is closed; return the memberships to detach, pending ones included."""
        self._advance(AuthEvent.CLOSED)
        self._until_authenticated = []
        return super().close()

    def _advance(self, event: AuthEvent) -> AuthState:
        after = AUTH_TRANSITIONS[self.auth_state].get(event)
        if after is None:
            raise IllegalEvent(f"{event.name} while {self.auth_state.name}")
        self.auth_state = after
        return after
