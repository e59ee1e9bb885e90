"""Authentication: verifies the clients' tokens, and keeps the time-outs of tokens.

`AuthMiddleware` stands between the connections and the handler: it answers `auth` and passes every other
intent on. What a connection may do before its token is verified is decided by its session
(protocol/auth_session.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import time

import structlog

from reactor.gateway.addresses import counted_address
from reactor.gateway.connection import Connection
from reactor.gateway.context import GatewayContext
from reactor.gateway.early_messages import EarlyBudget, EarlyMessages
from reactor.gateway.handler import Handler
from reactor.gateway.hook_calls import HookCalls, HookStuck
from reactor.gateway.timing_wheel import NOT_SCHEDULED
from reactor.log import RateLimitedLog
from reactor.protocol.auth_session import AuthSession, AuthState
from reactor.protocol.closing import CloseCode
from reactor.protocol.identity import Identity, Unauthorised, checked
from reactor.protocol.intents import Authenticate, Intent
from reactor.protocol.limits import Limits
from reactor.protocol.messages import AuthOk, ErrorCode, ErrorMessage, ProtocolError, RequestId
from reactor.protocol.requests import Auth, Request
from reactor.protocol.session import in_reply_to
from reactor.settings import Settings
from reactor.settings.security import import_function

log = structlog.get_logger(__name__)

_MAX_WAIT = 300.0  # seconds until an expiry is checked again: the wall clock may be set meanwhile
_HOOK_TIMEOUT = "the token could not be verified in time: try again"
_TOO_MANY_CONNECTIONS = "this user has as many connections as it may have: close one first"
_HOOK_STUCK = "no more tokens can be verified at the moment: try again"
_HOOK_FAILED = "the token could not be verified: try again"
_REVOKED = "the token was revoked: send one that was issued later"
_REVOKED_UNDATED = "the user's tokens were revoked, and this one has no iat that says when it was issued"
_REVOKED_THIS_SECOND = (
    "the user's tokens were revoked in the second in which this one was issued: send another"
)

RefusedLogin = Callable[[str, RequestId | None], ErrorMessage | None]
"""Returns the reply to the token of a user who is banned from every room; None for any other.

It is given the user's id, and the id of the request.
"""

Objection = Callable[[str, float | None], ErrorCode | None]
"""Returns the code with which the token of a user is refused as revoked; None where it is not.

It is given the user's id, and when the token was issued (seconds since 1970), or None where that is unknown.
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a hook learns about the connection.

    Attributes:
        address: The client's, or the one that trusted proxies name.
        path: Of the request, with its query.
        headers: Of the request; names in any case.

    """

    address: str
    path: str
    headers: Mapping[str, str]


Hook = Callable[[str, Arrival], Identity | Awaitable[Identity]]


class Authenticator:
    """Verifies tokens, with the configured keys or the operator's hook.

    Attributes:
        uses_hook: Whether tokens are verified by a hook.

    Raises:
        SettingError: The keys or the hook cannot be loaded.

    """

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits(max_id=settings.max_id, max_data=settings.max_data)
        self._rooms = settings.auth_rooms
        self._calls: HookCalls | None = None
        if settings.auth_hook:
            hook: Hook = import_function("auth_hook", settings.auth_hook)
            self._calls = HookCalls(hook, settings.auth_timeout)
        from reactor.gateway.tokens import TokenKeys  # noqa: PLC0415 - cryptography is slow to import

        self._keys = TokenKeys(settings)
        self.uses_hook = self._calls is not None

    def reload(self) -> None:
        """Reload the keys if their file has changed."""
        self._keys.reload()

    def use_secret(self, secret: bytes) -> None:
        """Verify tokens with this secret from now on; connections that are open stay."""
        self._keys.use_secret(secret)

    def verify(self, token: str) -> Identity | None:
        """Return the identity that the token proves; None if the hook has to be called.

        Raises:
            Unauthorised: The token is not valid.

        """
        if self.uses_hook:
            return None
        return checked(self._keys.verify(token), self._limits, self._rooms)

    async def call_hook(self, token: str, arrival: Arrival) -> Identity:
        """Return the identity that the hook returns.

        Raises:
            Unauthorised: The hook rejects the token.
            HookStuck: No call can be made.
            Exception: The hook failed, in whatever way, or took longer than `auth_timeout` (TimeoutError).

        """
        assert self._calls is not None
        identity = await self._calls.call(counted_address(arrival.address), token, arrival)
        if not isinstance(identity, Identity):
            raise TypeError(f"auth_hook returned {type(identity).__name__}, not a reactor.Identity")
        return checked(identity, self._limits, self._rooms)


class AuthContext:
    """The authentication of one connection, with its time-out in the timing wheel.

    Attributes:
        arrival: What the hook learns about the connection; None without a hook.
        early: The messages that wait for the outcome of the first token's check.
        call: The call of the hook that is under way.
        renewal_requested: Whether the client was asked for a new token.

    """

    __slots__ = ("_middleware", "arrival", "call", "connection", "early", "renewal_requested", "slot")

    def __init__(
        self, middleware: "AuthMiddleware", connection: Connection, arrival: Arrival | None,
        early: EarlyMessages,
    ) -> None:  # fmt: skip
        self._middleware = middleware
        self.early = early
        self.call: asyncio.Task[None] | None = None
        self.connection = connection
        self.arrival = arrival
        self.renewal_requested = False
        self.slot = NOT_SCHEDULED

    @property
    def socket_id(self) -> str:
        """The connection's id."""
        return self.connection.socket_id

    def on_timeout(self) -> None:
        """Handle the time-out of a token."""
        self._middleware.on_timeout(self)

    def abort(self) -> None:
        """Abort the connection."""
        self.connection.abort()


class AuthMiddleware:
    """A handler that authenticates connections before another handler.

    Args:
        handler: Receives what is passed on.
        authenticator: Verifies tokens.
        context: Its timing wheel holds the time-outs.
        timeout: Seconds that a client has for its first token.
        grace: Seconds that it has for a new token once the old one has expired.
        max_per_user: Connections of one user; 0 is no limit.
        max_message: Most bytes of one message.
        objection: Whether a token was revoked.
        refused_login: Whether a user is banned.

    """

    def __init__(
        self, handler: Handler, authenticator: Authenticator, context: GatewayContext,
        *, timeout: float, grace: float, max_per_user: int, max_message: int, objection: Objection,
        refused_login: RefusedLogin,
    ) -> None:  # fmt: skip
        self._handler, self._authenticator = handler, authenticator
        self._context = context
        self._timeout, self._grace = timeout, grace
        self._max_per_user, self._objection = max_per_user, objection
        self._refused_login = refused_login
        # Tuples, since most users have one connection, and a set takes 216 bytes.
        self._of_user: dict[str, tuple[Connection, ...]] = {}
        self._contexts: dict[Connection, AuthContext] = {}
        self._early = EarlyBudget(context.limits.max_pending, max_message)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = RateLimitedLog()
        self.ready = handler.ready

    async def stop(self) -> None:
        """Cancel the hooks' calls, and wait until they have ended."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def opened(self, connection: Connection) -> None:
        """Register a new connection, and verify the token of its handshake, if there is one."""
        self._handler.opened(connection)
        handshake = connection.handshake
        assert handshake is not None
        arrival = None
        if self._authenticator.uses_hook:
            arrival = Arrival(handshake.peer, handshake.path, handshake.headers or {})
        early = EarlyMessages(self._early)
        auth = self._contexts[connection] = AuthContext(self, connection, arrival, early)
        self._context.wheel.schedule(auth, self._context.now + self._timeout)
        if handshake.token is None:
            return
        connection.session.receive(Auth(handshake.token))
        if handshake.identity is not None:
            self._accept(auth, handshake.identity, None)
        else:
            self._verify(auth, handshake.token, None)

    def intent(self, connection: Connection, intent: Intent) -> None:
        """Verify a token; pass every other intent on."""
        if type(intent) is Authenticate:
            auth = self._contexts[connection]
            session = _session(auth)
            # A connection has its first token for nothing: there is no one yet who could pay.
            if session.identity is not None and not self._handler.admits_token(connection, intent):
                session.token_refused()
                return
            self._verify(auth, intent.token, intent.id)
        else:
            self._handler.intent(connection, intent)

    def keep_early(self, connection: Connection, request: Request, payload: bytes) -> None:
        """Keep a message until the first token has been checked. Raises ProtocolError beyond the limits."""
        try:
            self._contexts[connection].early.keep(payload)
        except ProtocolError as error:
            raise in_reply_to(error, request) from None

    def admits(self, connection: Connection, payload: bytes) -> bool:
        """Return what the handler says of a message that is not small."""
        return self._handler.admits(connection, payload)

    def charge_reading(self, connection: Connection, payload: bytes, seconds: float) -> None:
        """Pass on what it took to decode such a message."""
        self._handler.charge_reading(connection, payload, seconds)

    def admits_token(self, connection: Connection, intent: Authenticate) -> bool:
        """Return what the handler says of a further token."""
        return self._handler.admits_token(connection, intent)

    def drained(self, connection: Connection) -> None:
        """Pass on that a connection reads again."""
        self._handler.drained(connection)

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        auth = self._contexts.pop(connection, None)
        if auth is not None:
            self._context.wheel.cancel(auth)
            auth.early.take_all()
            if auth.call is not None:
                auth.call.cancel()
            self._remove(connection, _session(auth).identity)
        self._handler.closed(connection)

    def on_timeout(self, auth: AuthContext) -> None:
        """Request a new token, once, when one has expired; close a connection that sent none in time."""
        connection, session = auth.connection, _session(auth)
        identity = session.identity
        if identity is None:
            # While the hook verifies a token, the hook's own time-out applies.
            if session.auth_state is not AuthState.AUTHENTICATING:
                connection.close(CloseCode.UNAUTHORISED, "no token was sent in time")
        elif not _has_expired(identity):
            self._schedule_expiry(auth, identity)
        elif auth.renewal_requested:
            connection.close(CloseCode.UNAUTHORISED, "the token has expired")
        else:
            auth.renewal_requested = True
            sentence = f"the token has expired: send auth with a new one within {self._grace:g} s"
            connection.send(ErrorMessage("token_expired", sentence))
            self._context.wheel.schedule(auth, self._context.now + self._grace)

    def close_revoked(self) -> None:
        """Close the connections whose token was revoked."""
        for auth in list(self._contexts.values()):
            identity = _session(auth).identity
            if identity is not None and self._objection(identity.user_id, identity.issued_at) is not None:
                auth.connection.send(ErrorMessage("unauthorized", _sentence("unauthorized", identity)))
                auth.connection.close(CloseCode.UNAUTHORISED, "the token was revoked")

    def _verify(self, auth: AuthContext, token: str, request_id: RequestId | None) -> None:
        try:
            identity = self._authenticator.verify(token)
        except Unauthorised as error:
            self._reject(auth, ErrorMessage(error.code, error.message, request_id))
            return
        if identity is not None:
            self._accept(auth, identity, request_id)
        elif auth.arrival is not None:
            call = self._call_hook(auth, auth.arrival, token, request_id)
            auth.call = asyncio.get_running_loop().create_task(call)
            self._tasks.add(auth.call)
            auth.call.add_done_callback(self._tasks.discard)

    async def _call_hook(
        self, auth: AuthContext, arrival: Arrival, token: str, request_id: RequestId | None
    ) -> None:
        failed = CloseCode.INTERNAL  # the client may try again with the same token
        try:
            identity = await self._authenticator.call_hook(token, arrival)
        except Unauthorised as error:
            self._reject(auth, ErrorMessage(error.code, error.message, request_id))
        except HookStuck:
            self._log.warning("auth_hook_stuck", self._context.now, address=arrival.address)
            self._reject(auth, ErrorMessage("unavailable", _HOOK_STUCK, request_id), failed)
        except TimeoutError:
            self._log.warning("auth_hook_timeout", self._context.now, socket_id=auth.socket_id)
            self._reject(auth, ErrorMessage("unavailable", _HOOK_TIMEOUT, request_id), failed)
        except Exception:
            if self._log.is_due("auth_hook_failed", self._context.now):
                log.exception("auth_hook_failed", socket_id=auth.socket_id)
            self._reject(auth, ErrorMessage("unavailable", _HOOK_FAILED, request_id), failed)
        else:
            self._accept(auth, identity, request_id)

    def _reject(self, auth: AuthContext, error: ErrorMessage, code: int = CloseCode.UNAUTHORISED) -> None:
        auth.connection.send(error)
        auth.early.take_all()
        if _session(auth).token_refused():
            auth.connection.close(code, error.code)

    def connections_of(self, user_id: str) -> tuple[Connection, ...]:
        """Return the connections whose token proved the user."""
        return self._of_user.get(user_id, ())

    def _remove(self, connection: Connection, identity: Identity | None) -> None:
        if identity is None:
            return
        rest = tuple(one for one in self.connections_of(identity.user_id) if one is not connection)
        if rest:
            self._of_user[identity.user_id] = rest
        else:
            self._of_user.pop(identity.user_id, None)

    def _accept(self, auth: AuthContext, identity: Identity, request_id: RequestId | None) -> None:
        connection, session = auth.connection, _session(auth)
        # Not earlier, since the token may be revoked, or the user banned, while a hook verifies it. From here
        # until the session has the identity, which `close_revoked` looks at, nothing waits.
        if (code := self._objection(identity.user_id, identity.issued_at)) is not None:
            closing = CloseCode.UNAUTHORISED if code == "unauthorized" else CloseCode.INTERNAL
            self._reject(auth, ErrorMessage(code, _sentence(code, identity), request_id), closing)
            return
        if (banned := self._refused_login(identity.user_id, request_id)) is not None:
            self._reject(auth, banned, CloseCode.FORCE_LEAVE)
            return
        is_first = session.identity is None
        others = self.connections_of(identity.user_id)
        if is_first and self._max_per_user and len(others) >= self._max_per_user:
            self._log.warning("user_limit_reached", self._context.now, setting="max_per_user")
            error = ErrorMessage("too_many_connections", _TOO_MANY_CONNECTIONS, request_id)
            self._reject(auth, error, CloseCode.TOO_MANY)
            return
        try:
            session.token_accepted(identity)
        except ProtocolError as error:
            connection.send(ErrorMessage(error.code, error.message, request_id))
            return
        if session.auth_state is not AuthState.AUTHENTICATED:
            return  # the connection has closed meanwhile
        if is_first:
            self._of_user[identity.user_id] = (*others, connection)
            self._context.manager.settled(connection)
        auth.renewal_requested = False
        self._schedule_expiry(auth, identity)
        connection.send(_auth_ok(identity, request_id))
        if (room_id := session.forbidden_room()) is not None:
            sentence = "the new token does not allow this room, which this connection has joined"
            connection.send(ErrorMessage("forbidden", sentence, None, room_id))
            connection.close(CloseCode.UNAUTHORISED, "the new token allows fewer rooms")
            return
        for payload in auth.early.take_all():
            connection.carry_out(payload)

    def _schedule_expiry(self, auth: AuthContext, identity: Identity) -> None:
        if identity.expires_at is None:
            self._context.wheel.cancel(auth)
        else:
            left = max(0.0, identity.expires_at - time())
            self._context.wheel.schedule(auth, self._context.now + min(left, _MAX_WAIT))


def _session(auth: AuthContext) -> AuthSession:
    session = auth.connection.session
    assert isinstance(session, AuthSession)
    return session


def _sentence(code: ErrorCode, identity: Identity) -> str:
    if code != "unauthorized":
        return _REVOKED_THIS_SECOND
    return _REVOKED if identity.issued_at is not None else _REVOKED_UNDATED


def _auth_ok(identity: Identity, request_id: RequestId | None) -> AuthOk:
    if identity.expires_at is None:
        return AuthOk(identity.user_id, id=request_id)
    expires_at = int(identity.expires_at * 1000)
    return AuthOk(identity.user_id, expires_at, max(0, expires_at - int(time() * 1000)), request_id)


def _has_expired(identity: Identity) -> bool:
    return identity.expires_at is not None and identity.expires_at <= time()
