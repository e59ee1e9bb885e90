"""Authentication: verifies the clients' tokens, and keeps the time-outs of tokens.

`AuthMiddleware` stands between the connections and the handler: it answers `auth` and passes every other
intent on. What a connection may do before its token is verified is decided by its session
(protocol/auth_session.py).
"""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from time import time
from typing import Any

import anyio
import anyio.to_thread
import structlog

from reactor.errors import SettingError
from reactor.gateway.connection import Connection
from reactor.gateway.context import GatewayContext
from reactor.gateway.handler import Handler
from reactor.gateway.timing_wheel import NOT_SCHEDULED
from reactor.protocol.auth_session import AuthSession, AuthState
from reactor.protocol.closing import CloseCode
from reactor.protocol.identity import Identity, Unauthorised, checked
from reactor.protocol.intents import Authenticate, Intent
from reactor.protocol.limits import Limits
from reactor.protocol.messages import AuthOk, ErrorMessage, ProtocolError, RequestId
from reactor.protocol.requests import Auth, Request
from reactor.settings import Settings

log = structlog.get_logger(__name__)

HOOK_THREADS = 40
"""Concurrent calls of a hook that is not a coroutine function."""

_MAX_WAIT = 300.0  # seconds until an expiry is checked again: the wall clock may be set meanwhile
_HOOK_TIMEOUT = "the token could not be verified in time: try again"
_HOOK_FAILED = "the token could not be verified: try again"


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
        self._timeout = settings.auth_timeout
        self._hook = load_hook(settings.auth_hook) if settings.auth_hook else None
        from reactor.gateway.tokens import TokenKeys  # noqa: PLC0415 - cryptography is slow to import

        self._keys = TokenKeys(settings)
        self._threads: anyio.CapacityLimiter | None = None
        self.uses_hook = self._hook is not None

    def reload(self) -> None:
        """Reload the keys if their file has changed."""
        self._keys.reload()

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
            Exception: The hook failed, in whatever way, or took longer than `auth_timeout` (TimeoutError).

        """
        with anyio.fail_after(self._timeout):
            identity = await self._call(token, arrival)
        if not isinstance(identity, Identity):
            raise TypeError(f"auth_hook returned {type(identity).__name__}, not a reactor.Identity")
        return checked(identity, self._limits, self._rooms)

    async def _call(self, token: str, arrival: Arrival) -> Any:
        hook = self._hook
        assert hook is not None
        if inspect.iscoroutinefunction(hook):
            return await hook(token, arrival)
        self._threads = self._threads or anyio.CapacityLimiter(HOOK_THREADS)
        identity = await anyio.to_thread.run_sync(
            hook, token, arrival, abandon_on_cancel=True, limiter=self._threads
        )
        return await identity if inspect.isawaitable(identity) else identity


def load_hook(name: str) -> Hook:
    """Import a hook by `module:function`, also from the current folder.

    Raises:
        SettingError: One line that says what is wrong.

    """
    module, _, path = name.partition(":")
    current = str(Path.cwd())
    if current not in sys.path:
        sys.path.append(current)
    try:
        hook = attrgetter(path)(import_module(module))
    except Exception as error:
        raise SettingError(
            f"auth_hook {name} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    if not callable(hook):
        raise SettingError(f"auth_hook {name} is not a function.")
    return hook  # type: ignore[no-any-return]


class AuthContext:
    """The authentication of one connection, with its time-out in the timing wheel.

    Attributes:
        arrival: What the hook learns about the connection; None without a hook.
        renewal_requested: Whether the client was asked for a new token.

    """

    __slots__ = ("_middleware", "arrival", "connection", "renewal_requested", "slot")

    def __init__(self, middleware: "AuthMiddleware", connection: Connection, arrival: Arrival | None) -> None:
        self._middleware = middleware
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

    """

    def __init__(
        self, handler: Handler, authenticator: Authenticator, context: GatewayContext,
        *, timeout: float, grace: float,
    ) -> None:  # fmt: skip
        self._handler, self._authenticator = handler, authenticator
        self._context = context
        self._timeout, self._grace = timeout, grace
        self._contexts: dict[Connection, AuthContext] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
        auth = self._contexts[connection] = AuthContext(self, connection, arrival)
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
            self._verify(self._contexts[connection], intent.token, intent.id)
        else:
            self._handler.intent(connection, intent)

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        auth = self._contexts.pop(connection, None)
        if auth is not None:
            self._context.wheel.cancel(auth)
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

    def _verify(self, auth: AuthContext, token: str, request_id: RequestId | None) -> None:
        try:
            identity = self._authenticator.verify(token)
        except Unauthorised as error:
            self._reject(auth, ErrorMessage(error.code, error.message, request_id))
            return
        if identity is not None:
            self._accept(auth, identity, request_id)
        elif auth.arrival is not None:
            self._start(self._call_hook(auth, auth.arrival, token, request_id))

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call_hook(
        self, auth: AuthContext, arrival: Arrival, token: str, request_id: RequestId | None
    ) -> None:
        failed = CloseCode.INTERNAL  # the client may try again with the same token
        try:
            identity = await self._authenticator.call_hook(token, arrival)
        except Unauthorised as error:
            self._reject(auth, ErrorMessage(error.code, error.message, request_id))
        except TimeoutError:
            log.warning("auth_hook_timeout", socket_id=auth.socket_id)
            self._reject(auth, ErrorMessage("unavailable", _HOOK_TIMEOUT, request_id), failed)
        except Exception:
            log.exception("auth_hook_failed", socket_id=auth.socket_id)
            self._reject(auth, ErrorMessage("unavailable", _HOOK_FAILED, request_id), failed)
        else:
            self._accept(auth, identity, request_id)

    def _reject(self, auth: AuthContext, error: ErrorMessage, code: int = CloseCode.UNAUTHORISED) -> None:
        auth.connection.send(error)
        if _session(auth).token_refused():
            auth.connection.close(code, error.code)

    def _accept(self, auth: AuthContext, identity: Identity, request_id: RequestId | None) -> None:
        connection, session = auth.connection, _session(auth)
        try:
            deferred = session.token_accepted(identity)
        except ProtocolError as error:
            connection.send(ErrorMessage(error.code, error.message, request_id))
            return
        if session.auth_state is not AuthState.AUTHENTICATED:
            return  # the connection has closed meanwhile
        auth.renewal_requested = False
        self._schedule_expiry(auth, identity)
        expires_at = None if identity.expires_at is None else int(identity.expires_at * 1000)
        connection.send(AuthOk(identity.user_id, expires_at, request_id))
        if (room_id := session.forbidden_room()) is not None:
            sentence = "the new token does not allow this room, which this connection has joined"
            connection.send(ErrorMessage("forbidden", sentence, None, room_id))
            connection.close(CloseCode.UNAUTHORISED, "the new token allows fewer rooms")
            return
        for request in deferred:
            self._replay(connection, request)

    def _replay(self, connection: Connection, request: Request) -> None:
        try:
            intent = connection.session.receive(request)
        except ProtocolError as error:
            connection.send(error.reply())
        else:
            if intent is not None:
                self.intent(connection, intent)

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


def _has_expired(identity: Identity) -> bool:
    return identity.expires_at is not None and identity.expires_at <= time()
