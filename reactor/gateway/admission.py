"""Decides which connections may open: by their number, address, origin, and the token of the handshake.

A rejected client gets an HTTP response that says why: 403 for a page of an origin that is not allowed, 401
for an invalid token, 429 for too many connections of one address, 503 for a full server. A response takes a
connection until the request is read, so far beyond a limit connections are dropped without one.
"""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import structlog
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from reactor.gateway.addresses import AddressLimiter, AddressUsage, Decision
from reactor.gateway.http import Site, text
from reactor.protocol.identity import Identity, Unauthorised
from reactor.settings import Settings
from reactor.settings.security import is_loopback

log = structlog.get_logger(__name__)

TOKEN_SUBPROTOCOL: Final = "reactor.token."  # noqa: S105 - a prefix, not a secret
"""Prefix of a subprotocol value that carries a token; it is never echoed, nor logged."""

_REJECTION_CONNECTIONS = 64  # accepted beyond the limit, to send rejections on
_LOG_INTERVAL = 10.0  # seconds between two warnings about the same limit


class HandshakeContext:
    """What is known of a connection during its handshake.

    Attributes:
        peer: Address of the other end, or of the client that a trusted proxy names; empty if unknown.
        address: The address it is counted under, if any.
        decision: Whether it is accepted.
        bytes_read: Size of the request so far.
        token: The token of the handshake, if there is one; `identity` is what it proves, where that is known.
        headers: Those of the request, and `path` its path, once it has been read.

    """

    __slots__ = ("address", "bytes_read", "decision", "headers", "identity", "path", "peer", "token")

    def __init__(self, peer: str, address: AddressUsage | None, decision: Decision) -> None:
        self.peer = peer
        self.address = address
        self.decision = decision
        self.bytes_read = 0
        self.token: str | None = None
        self.identity: Identity | None = None
        self.headers: Headers | None = None
        self.path = ""


class Admission:
    """Decides which connections may open.

    Args:
        settings: Of these the limits, `origins`, `host` and `trusted_proxies`.
        site: Answers plain HTTP requests.
        limit: Connections that this process accepts.
        occupied: Returns how many it has.
        verify: Returns a token's identity, or None if a hook has to be called; raises Unauthorised.
        rejected: Counts rejected connections by HTTP status; `cut` for those dropped without a response.

    """

    def __init__(
        self,
        settings: Settings,
        site: Site,
        *,
        limit: int,
        occupied: Callable[[], int],
        verify: Callable[[str], Identity | None],
        rejected: Counter[str] | None = None,
    ) -> None:
        self._site = site
        self._limit = limit
        self._occupied = occupied
        self._verify = verify
        self._requires_token = settings.requires_tokens
        self._origins = frozenset(settings.origins)
        self._public = not is_loopback(settings.host)
        self._addresses = AddressLimiter(
            limit=settings.max_per_address, rate=settings.new_per_second, trusted=settings.trusted_proxies
        )
        self._logged_at: dict[str, float] = {}
        self.rejected = Counter[str]() if rejected is None else rejected

    def accept(self, peer: str, now: float) -> HandshakeContext | None:
        """Count a new connection and return its context; None if it is to be dropped, uncounted."""
        if self._occupied() >= self._limit + _REJECTION_CONNECTIONS:
            self._log_full(now)
            self.rejected["cut"] += 1
            return None
        address, decision = self._addresses.add(peer, now)
        if decision is Decision.DROP:
            self.rejected["cut"] += 1
            return None
        return HandshakeContext(peer, address, decision)

    def release(self, address: AddressUsage | None, handshake: HandshakeContext | None) -> None:
        """Stop counting a connection; `handshake` is None if it was open."""
        if address is not None:
            self._addresses.remove(address, handshake.decision if handshake is not None else Decision.ACCEPT)

    def respond(self, request: Request, handshake: HandshakeContext, now: float) -> Response | None:
        """Return the response to a request; None if it asks for the WebSocket and is admitted."""
        if (response := self._site.respond(request)) is not None:
            return response
        rejection = self._reject(request, handshake, now)
        if rejection is not None:
            self.rejected[str(rejection.status_code)] += 1
        return rejection

    def _reject(self, request: Request, handshake: HandshakeContext, now: float) -> Response | None:
        if handshake.address is None:
            self._count_forwarded(request, handshake, now)
        if handshake.decision is not Decision.ACCEPT:
            name = handshake.address.name if handshake.address else handshake.peer
            self._log_rarely(
                "address_limit_reached",
                now,
                address=name,
                setting="max_per_address, new_per_second; trusted_proxies if the address is a proxy",
            )
            return _rejection(
                HTTPStatus.TOO_MANY_REQUESTS, f"too many connections from {name}", retry_after=5
            )
        if self._occupied() > self._limit:
            self._log_full(now)
            sentence = "this server has reached its limit of connections"
            return _rejection(HTTPStatus.SERVICE_UNAVAILABLE, sentence, retry_after=5)
        if not self.allows_origin(request.headers):
            sentence = "pages of this origin may not connect: add it to the server's setting origins"
            return _rejection(HTTPStatus.FORBIDDEN, sentence)
        return self._check_token(request, handshake) if self._requires_token else None

    def allows_origin(self, headers: Headers) -> bool:
        """Return whether the page that opens the WebSocket may (RFC 6455 section 10.2); other clients may.

        If tokens are required, any page may: authentication does not use cookies, so a foreign page has no
        token but its own. Without tokens, pages of this host and of this machine may. On a loopback server
        a host name, unlike an address, is not accepted as this host: it may result from DNS rebinding.
        """
        given = headers.get_all("Origin")
        if not given:
            return True
        if len(given) > 1:
            return False
        origin = given[0].strip().lower()
        if self._origins:
            return "*" in self._origins or origin in self._origins
        if self._requires_token:
            return True
        page = _host_of(origin)
        if page is None:
            return False
        if is_loopback(page):
            return True
        host = _host_of("//" + ",".join(headers.get_all("Host")).strip().lower())
        return page == host and (self._public or _is_address(page))

    def _count_forwarded(self, request: Request, handshake: HandshakeContext, now: float) -> None:
        """Count a connection from a trusted proxy under the client's address."""
        forwarded = request.headers.get_all("X-Forwarded-For")
        if forwarded:
            handshake.peer = self._addresses.client_address(handshake.peer, forwarded)
            handshake.address, handshake.decision = self._addresses.add(handshake.peer, now)

    def _check_token(self, request: Request, handshake: HandshakeContext) -> Response | None:
        handshake.headers, handshake.path = request.headers, request.path
        bearer = _bearer_token(request.headers)
        if bearer is None:
            handshake.token = _subprotocol_token(request.headers)
            return None
        handshake.token = bearer
        try:
            handshake.identity = self._verify(bearer)
        except Unauthorised as error:
            response = _rejection(HTTPStatus.UNAUTHORIZED, error.message)
            response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
            return response
        return None

    def _log_full(self, now: float) -> None:
        setting = "max_connections, or the limit of open files"
        self._log_rarely("connection_limit_reached", now, connections=self._limit, setting=setting)

    def _log_rarely(self, event: str, now: float, **fields: object) -> None:
        if now - self._logged_at.get(event, -_LOG_INTERVAL) >= _LOG_INTERVAL:
            self._logged_at[event] = now
            log.warning(event, **fields)


def _rejection(status: HTTPStatus, sentence: str, *, retry_after: int = 0) -> Response:
    response = text(status, sentence)
    if retry_after:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _bearer_token(headers: Headers) -> str | None:
    for value in headers.get_all("Authorization"):
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
    return None


def _subprotocol_token(headers: Headers) -> str | None:
    for value in headers.get_all("Sec-WebSocket-Protocol"):
        for name in value.split(","):
            if name.strip().startswith(TOKEN_SUBPROTOCOL):
                return name.strip().removeprefix(TOKEN_SUBPROTOCOL)
    return None


def _host_of(url: str) -> str | None:
    """Return the host of a URL, with the port unless it is a default port or the host is loopback."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    return host if port in (None, 80, 443) or is_loopback(host) else f"{host}:{port}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host.rpartition(":")[0] if host.count(":") == 1 else host)
    except ValueError:
        return False
    return True
