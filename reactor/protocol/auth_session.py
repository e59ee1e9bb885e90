"""A session that requires authentication: it binds each request to an identity, or refuses it. PURE.

The authentication of a connection is in one of five states:

    UNAUTHENTICATED   No token has arrived: every request but `auth` is refused.
    AUTHENTICATING    The first token is being checked: the caller keeps valid requests until the outcome.
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

from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from reactor.protocol import requests
from reactor.protocol.identity import OWN_ROOM, Identity
from reactor.protocol.ids import clean_id
from reactor.protocol.intents import FormerJoining, Intent
from reactor.protocol.limits import Limits
from reactor.protocol.membership import Membership
from reactor.protocol.messages import ProtocolError
from reactor.protocol.session import Session, in_reply_to
from reactor.protocol.state_table import IllegalEvent, TableKey


class AuthState(TableKey):
    """The state of a connection's authentication."""

    UNAUTHENTICATED = "unauthenticated"
    AUTHENTICATING = "authenticating"
    AUTHENTICATED = "authenticated"
    REAUTHENTICATING = "reauthenticating"
    REJECTED = "rejected"


class AuthEvent(TableKey):
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
_CHECKED_BY_JOIN = frozenset({requests.Update, requests.Send})
_OF_PEOPLE = frozenset({requests.WatchPeople, requests.UnwatchPeople})
_OF_MEMBERS = frozenset(
    {requests.Heartbeat, requests.Away, requests.Back, requests.LeaveRoom, requests.Closing}
)
_OF_OBSERVERS = frozenset({requests.Watch, requests.Unwatch})


class AuthSession(Session):
    """The memberships of one connection, and the identity that it has proved.

    Attributes:
        auth_state: The state of the authentication.
        identity: The identity; None until the first token is accepted.

    """

    __slots__ = ("auth_state", "identity")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.auth_state = AuthState.UNAUTHENTICATED
        self.identity: Identity | None = None

    @property
    def checks_first_token(self) -> bool:
        """Whether the first token is being checked: a request that `receive` ignores is to be kept."""
        return self.auth_state is AuthState.AUTHENTICATING

    @property
    def proved_user(self) -> str | None:
        """The user that a token has proved; None until then."""
        return self.identity.user_id if self.identity is not None else None

    # Requests of the client.

    def receive(self, request: requests.Request) -> Intent | None:
        """Return the intent of this request; None when it is deferred, to be kept, or ignored.

        While the first token is being checked, a request is to be kept as it was received: decoded requests
        take more memory, and the client has not proved its identity. After a rejection requests are ignored.

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
                self._check_may_wait()
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

    def _check_may_wait(self) -> None:
        if self.auth_state is AuthState.UNAUTHENTICATED:
            raise ProtocolError("unauthorized", 'this server requires a token: send "auth" with one first')

    def _bound(self, request: Any, identity: Identity) -> Any:
        kind = type(request)
        if kind is requests.Send and not identity.send:
            raise ProtocolError("forbidden", "the token does not allow messages to other members")
        if kind in _OF_OBSERVERS:
            return request  # checked for each room, by `_why_not_watch`
        if kind in _OF_PEOPLE:
            return request  # whom the identity does not allow, its watcher sees as offline
        if kind not in _CHECKED_BY_JOIN and not identity.allows(self._room_id(request)):
            raise ProtocolError("forbidden", _not_allowed(self._room_id(request), "this room", "rooms"))
        if kind is requests.JoinRoom:
            if request.user_id is UNSET:
                request = replace(request, user_id=identity.user_id)
            elif clean_id(request.user_id, "userId", self._limits.max_id) != identity.user_id:
                raise ProtocolError("forbidden", "the token is for another userId: leave userId out")
        if kind is requests.JoinRoom or kind is requests.Update:
            request = self._with_fixed_fields(request, identity)
        return request

    def _why_not_watch(self, room_id: str) -> str | None:
        if self.identity is not None and self.identity.allows_watching(room_id):
            return None
        return _not_allowed(room_id, "watching this room", "watch")

    def _with_fixed_fields(self, request: Any, identity: Identity) -> Any:
        if identity.name is not None and request.username != identity.name:
            if request.username:
                raise ProtocolError("forbidden", "the token fixes another username: leave username out")
            request = replace(request, username=identity.name)
        if identity.data is not None:
            if getattr(request, "patch", UNSET) is not UNSET:
                raise ProtocolError("forbidden", "the token fixes the data: leave patch out")
            if request.data is not UNSET and request.data != identity.data:
                raise ProtocolError("forbidden", "the token fixes other data: leave data out")
            request = replace(request, data=identity.data)
        return request

    def _former(self, resume: requests.Resume) -> FormerJoining:
        former, identity = super()._former(resume), self.identity
        if identity is None:
            return former
        # What the token fixes is never older than what Redis has.
        return replace(former, keep_username=identity.name is None, keep_data=identity.data is None)

    # Outcomes of checks.

    def token_accepted(self, identity: Identity) -> None:
        """Set the identity; the requests that were kept are to be received again.

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

    def token_refused(self) -> bool:
        """Return True when the connection must be closed.

        Raises:
            IllegalEvent: No token was being checked.

        """
        return self._advance(AuthEvent.REFUSED) is AuthState.REJECTED

    def forbidden_room(self) -> str | None:
        """Return a room that the connection is in, or watches, and may not any more; None without one."""
        identity = self.identity
        if identity is None:
            return None
        joined = (room_id for room_id in self.rooms if not identity.allows(room_id))
        watched = (room_id for room_id in self.watched if not identity.allows_watching(room_id))
        return next(joined, None) or next(watched, None)

    def close(self) -> list[Membership]:
        """Note that the connection is closed; return the memberships to detach, pending ones included."""
        self._advance(AuthEvent.CLOSED)
        return super().close()

    def _advance(self, event: AuthEvent) -> AuthState:
        after = AUTH_TRANSITIONS[self.auth_state].get(event)
        if after is None:
            raise IllegalEvent(f"{event.name} while {self.auth_state.name}")
        self.auth_state = after
        return after


def _not_allowed(room_id: str, what: str, claim: str) -> str:
    if room_id.startswith(OWN_ROOM):
        return f"a room {OWN_ROOM}USER is for that user alone: name another"
    return f"the token does not allow {what}: add it to the claim {claim}"
