"""The door before the handler, where clients have to prove who they are.

It answers `auth`, hands everything else on, and keeps the time: for the first token, and for a fresh one when
a token runs out. What a connection may do meanwhile is its session's business (protocol/guard.py).
"""

from time import time
from typing import TYPE_CHECKING

import structlog

from reactor.gateway.authenticator import Arrival, Authenticator
from reactor.gateway.chores import Chores
from reactor.gateway.timing_wheel import NOWHERE
from reactor.protocol.closing import CloseCode
from reactor.protocol.guard import GuardedSession, Standing
from reactor.protocol.identity import Identity, Unauthorised
from reactor.protocol.intents import Authenticate, Intent
from reactor.protocol.messages import AuthOk, ErrorMessage, ProtocolError, RequestId
from reactor.protocol.requests import Auth, Request

if TYPE_CHECKING:
    from reactor.gateway.connection import Connection
    from reactor.gateway.manager import Handler, Hub

log = structlog.get_logger(__name__)

_LOOK_AGAIN = 300.0  # seconds; clocks of the wall are set, and this one is not
_LATE = "the token could not be checked in time: try again"
_FAILED = "the token could not be checked: try again"


class Pass:
    """What the door notes of one connection; the wheel keeps its time.

    Attributes:
        arrival: How it came, for the hook; None where there is none.
        asked: Whether the client was told that its token has run out.

    """

    __slots__ = ("_door", "arrival", "asked", "connection", "slot")

    def __init__(self, door: "Door", connection: "Connection", arrival: Arrival | None) -> None:
        self._door = door
        self.connection = connection
        self.arrival = arrival
        self.asked = False
        self.slot = NOWHERE

    @property
    def socket_id(self) -> str:
        """The connection's."""
        socket_id: str = self.connection.socket_id
        return socket_id

    def time_is_up(self) -> None:
        """See to what was awaited."""
        self._door.time_is_up(self)

    def abort(self) -> None:
        """Cut the connection off."""
        self.connection.abort()


class Door:
    """A handler before the handler.

    Args:
        handler: Who gets what comes through.
        authenticator: Who looks at tokens.
        hub: Whose wheel keeps the time.
        chores: Where hooks run.
        patience: Seconds for the first token.
        grace: Seconds for a fresh one.

    """

    def __init__(
        self, handler: "Handler", authenticator: Authenticator, hub: "Hub", chores: Chores,
        *, patience: float, grace: float,
    ) -> None:  # fmt: skip
        self._handler, self._authenticator = handler, authenticator
        self._hub, self._chores = hub, chores
        self._patience, self._grace = patience, grace
        self._passes: dict[Connection, Pass] = {}
        self.ready = handler.ready

    def opened(self, connection: "Connection") -> None:
        """Take note of a new socket, and of the token that it brought."""
        self._handler.opened(connection)
        visit = connection.visit
        assert visit is not None
        arrival = None
        if self._authenticator.takes_time:
            arrival = Arrival(visit.peer, visit.path, visit.headers or {})
        own = self._passes[connection] = Pass(self, connection, arrival)
        self._hub.wheel.put(own, self._hub.now + self._patience)
        if visit.token is None:
            return
        connection.session.receive(Auth(visit.token))
        if visit.identity is not None:
            self._accept(own, visit.identity, None)
        else:
            self._check(own, visit.token, None)

    def intent(self, connection: "Connection", intent: Intent) -> None:
        """Check a token; hand on everything else."""
        if type(intent) is Authenticate:
            self._check(self._passes[connection], intent.token, intent.id)
        else:
            self._handler.intent(connection, intent)

    def closed(self, connection: "Connection") -> None:
        """Forget a socket."""
        own = self._passes.pop(connection, None)
        if own is not None:
            self._hub.wheel.remove(own)
        self._handler.closed(connection)

    def time_is_up(self, own: Pass) -> None:
        """Close who sent no token in time; ask for a fresh one, once, and close who sends none."""
        connection, session = own.connection, _session(own)
        identity = session.identity
        if identity is None:
            connection.close(CloseCode.UNAUTHORISED, "no token came in time")
        elif not _has_run_out(identity):
            self._await_end(own, identity)
        elif own.asked:
            connection.close(CloseCode.UNAUTHORISED, "the token has run out")
        else:
            own.asked = True
            sentence = f"the token has run out: send auth with a fresh one within {self._grace:g} s"
            connection.send(ErrorMessage("token_expired", sentence))
            self._hub.wheel.put(own, self._hub.now + self._grace)

    def _check(self, own: Pass, token: str, request_id: RequestId | None) -> None:
        try:
            identity = self._authenticator.at_once(token)
        except Unauthorised as error:
            self._refuse(own, ErrorMessage(error.code, error.message, request_id))
            return
        if identity is not None:
            self._accept(own, identity, request_id)
        elif own.arrival is not None:
            self._chores.start(self._ask(own, own.arrival, token, request_id))

    async def _ask(self, own: Pass, arrival: Arrival, token: str, request_id: RequestId | None) -> None:
        failed = CloseCode.INTERNAL  # the client may try again with the same token
        try:
            identity = await self._authenticator.ask(token, arrival)
        except Unauthorised as error:
            self._refuse(own, ErrorMessage(error.code, error.message, request_id))
        except TimeoutError:
            log.warning("auth_hook_too_slow", socket_id=own.socket_id)
            self._refuse(own, ErrorMessage("unavailable", _LATE, request_id), failed)
        except Exception:
            log.exception("auth_hook_failed", socket_id=own.socket_id)
            self._refuse(own, ErrorMessage("unavailable", _FAILED, request_id), failed)
        else:
            self._accept(own, identity, request_id)

    def _refuse(self, own: Pass, error: ErrorMessage, code: int = CloseCode.UNAUTHORISED) -> None:
        own.connection.send(error)
        if _session(own).denied():
            own.connection.close(code, error.code)

    def _accept(self, own: Pass, identity: Identity, request_id: RequestId | None) -> None:
        connection, session = own.connection, _session(own)
        try:
            early = session.accepted(identity)
        except ProtocolError as error:
            connection.send(ErrorMessage(error.code, error.message, request_id))
            return
        if session.standing is not Standing.KNOWN:
            return  # the socket went meanwhile
        own.asked = False
        self._await_end(own, identity)
        expires_at = None if identity.expires_at is None else int(identity.expires_at * 1000)
        connection.send(AuthOk(identity.user_id, expires_at, request_id))
        if (room_id := session.outside()) is not None:
            sentence = "the fresh token does not allow this room, and this connection is in it"
            connection.send(ErrorMessage("forbidden", sentence, None, room_id))
            connection.close(CloseCode.UNAUTHORISED, "the fresh token allows less")
            return
        for request in early:
            self._take_up(connection, request)

    def _take_up(self, connection: "Connection", request: Request) -> None:
        try:
            intent = connection.session.receive(request)
        except ProtocolError as error:
            connection.send(error.reply())
        else:
            if intent is not None:
                self.intent(connection, intent)

    def _await_end(self, own: Pass, identity: Identity) -> None:
        if identity.expires_at is None:
            self._hub.wheel.remove(own)
        else:
            left = max(0.0, identity.expires_at - time())
            self._hub.wheel.put(own, self._hub.now + min(left, _LOOK_AGAIN))


def _session(own: Pass) -> GuardedSession:
    session = own.connection.session
    assert isinstance(session, GuardedSession)
    return session


def _has_run_out(identity: Identity) -> bool:
    return identity.expires_at is not None and identity.expires_at <= time()
