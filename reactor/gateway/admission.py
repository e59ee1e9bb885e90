"""Decides which connections may open: by their number, address, origin, and the token of the handshake.

A rejected client gets an HTTP response that says why: 403 for a page of an origin that is not allowed, 401
for an invalid token, 429 for too many connections of one address, 503 for a full server. A response takes a
connection until the request is read, so far beyond a limit connections are dropped without one.
"""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from reactor.gateway.addresses import AddressLimiter, AddressUsage, Decision
from reactor.gateway.http import CROSS_ORIGIN, Site, text
from reactor.gateway.proxy_notices import ProxyNotices
from reactor.log import RateLimitedLog
from reactor.protocol.identity import Identity, Unauthorised
from reactor.settings import Settings
from reactor.settings.origins import AllowedOrigins
from reactor.settings.security import is_local_host, is_loopback

TOKEN_SUBPROTOCOL: Final = "reactor.token."  # noqa: S105 - a prefix, not a secret
"""Prefix of a subprotocol value that carries a token; it is never echoed, nor logged."""

_ORIGIN_NOT_ALLOWED = (
    "origin not allowed: add this page's origin to the server's setting origins (null for a sandboxed frame)"
)
_LONGEST_ORIGIN = 256  # characters of an origin in the log

REJECTIONS = ("400", "401", "403", "429", "503", "cut")
"""What `rejected` counts: the HTTP statuses, and connections that were dropped without a response."""

_NOT_ADMITTING = "this server admits no clients at present"
_REJECTION_CONNECTIONS = 64  # accepted beyond the limit, to send rejections on


class HandshakeContext:
    """What is known of a connection during its handshake.

    Attributes:
        peer: Address of the other end, or of the client that a trusted proxy names; empty if unknown.
        address: The address it is counted under, if any.
        decision: Whether it is accepted.
        bytes_read: Size of the request so far.
        token: The token of the handshake, if there is one; `identity` is what it proves, where that is known.
        forwarded: Whether a trusted proxy named the client.
        headers: Those of the request, and `path` its path, once it has been read.

    """

    __slots__ = (
        "address", "bytes_read", "decision", "forwarded", "headers", "identity", "path", "peer", "token",
    )  # fmt: skip

    def __init__(self, peer: str, address: AddressUsage | None, decision: Decision) -> None:
        self.peer = peer
        self.address = address
        self.decision = decision
        self.bytes_read = 0
        self.forwarded = False
        self.token: str | None = None
        self.identity: Identity | None = None
        self.headers: Headers | None = None
        self.path = ""


class Admission:
    """Decides which connections may open.

    Attributes:
        admitting: Whether WebSockets may open; plain HTTP requests are answered in any case.

    Args:
        settings: Of these the limits, `origins`, `allowed_hosts` and `trusted_proxies`.
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
        self._origins = AllowedOrigins(settings.origins) if settings.origins else None
        self._hosts = settings.allowed_hosts
        self._addresses = AddressLimiter(
            limit=settings.max_per_address, rate=settings.new_per_second, trusted=settings.trusted_proxies,
            unsettled_limit=settings.max_unjoined_per_address,
        )  # fmt: skip
        self.proxies = ProxyNotices()
        self._log = RateLimitedLog()
        self.admitting = True
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

    def settle(self, address: AddressUsage) -> None:
        """Note that a connection has joined a room or shown a token, or is to be removed."""
        self._addresses.settle(address)

    def release(self, address: AddressUsage | None, handshake: HandshakeContext | None) -> None:
        """Stop counting a connection; `handshake` is None if it was open."""
        if address is not None:
            if handshake is not None and handshake.decision is Decision.ACCEPT:
                self._addresses.settle(address)
            self._addresses.remove(address, handshake.decision if handshake is not None else Decision.ACCEPT)

    def respond(self, request: Request, handshake: HandshakeContext, now: float) -> Response | None:
        """Return the response to a request; None if it asks for the WebSocket and is admitted."""
        rejection = _check_host(request)
        if rejection is None:
            if (response := self._site.respond(request)) is not None:
                return response
            rejection = self._reject(request, handshake, now)
        if rejection is not None:
            self.rejected[str(rejection.status_code)] += 1
        return rejection

    def _reject(self, request: Request, handshake: HandshakeContext, now: float) -> Response | None:
        if not self.admitting:
            return _rejection(HTTPStatus.SERVICE_UNAVAILABLE, _NOT_ADMITTING, retry_after=1)
        if handshake.address is None:
            self._count_forwarded(request, handshake, now)
        else:
            self.proxies.untrusted(handshake.peer, request.headers)
        if handshake.decision is not Decision.ACCEPT:
            name = handshake.address.name if handshake.address else handshake.peer
            self._log.warning(
                "address_limit_reached",
                now,
                address=name,
                setting="max_per_address, max_unjoined_per_address, new_per_second; trusted_proxies",
            )
            return _rejection(
                HTTPStatus.TOO_MANY_REQUESTS, f"too many connections from {name}", retry_after=5
            )
        if self._occupied() > self._limit:
            self._log_full(now)
            sentence = "this server has reached its limit of connections"
            return _rejection(HTTPStatus.SERVICE_UNAVAILABLE, sentence, retry_after=5)
        if not self.allows_origin(request.headers, forwarded=handshake.forwarded):
            origin = ", ".join(request.headers.get_all("Origin"))[:_LONGEST_ORIGIN]
            self._log.warning("origin_not_allowed", now, origin=origin, setting="origins")
            return _rejection(HTTPStatus.FORBIDDEN, _ORIGIN_NOT_ALLOWED)
        return self._check_token(request, handshake) if self._requires_token else None

    def allows_origin(self, headers: Headers, *, forwarded: bool = False) -> bool:
        """Return whether the page that opens the WebSocket may (RFC 6455 section 10.2); other clients may.

        If tokens are required, any page may: authentication does not use cookies, so a foreign page has no
        token but its own. Without tokens, pages of this host and of this machine may.

        A foreign page can have its own name resolve to this server (DNS rebinding), and is then of this host.
        So by default only local names are accepted, and what a trusted proxy passes on, which decides itself
        which names it serves; a page cannot set the header by which that is known.
        """
        given = headers.get_all("Origin")
        if not given:
            return True
        if len(given) > 1:
            return False
        origin = given[0].strip().lower()
        if self._origins is not None:
            return self._origins.allow(origin)
        if self._requires_token:
            return True
        page = _host_of(origin)
        if page is None:
            return False
        if is_loopback(page):
            return True
        host = _host_of("//" + ",".join(headers.get_all("Host")).strip().lower())
        return page == host and (forwarded or self._is_this_host(origin))

    def _is_this_host(self, origin: str) -> bool:
        name = (urlsplit(origin).hostname or "").rstrip(".")
        if not self._hosts:
            return is_local_host(name)
        return any(
            pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self._hosts
        )

    def _count_forwarded(self, request: Request, handshake: HandshakeContext, now: float) -> None:
        """Count a connection from a trusted proxy under the client's address."""
        forwarded = request.headers.get_all("X-Forwarded-For")
        handshake.forwarded = bool(forwarded)
        proxy = handshake.peer
        handshake.peer = self._addresses.client_address(proxy, forwarded)
        handshake.address, handshake.decision = self._addresses.add(handshake.peer, now)
        if handshake.address is None and handshake.decision is Decision.ACCEPT:
            handshake.address, handshake.decision = self._addresses.add_unnamed(proxy, now)
            self.proxies.unnamed(proxy, request.headers)

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
        self._log.warning("connection_limit_reached", now, connections=self._limit, setting=setting)


def _rejection(status: HTTPStatus, sentence: str, *, retry_after: int = 0) -> Response:
    response = text(status, sentence)
    response.headers.update(CROSS_ORIGIN)
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
    if not host or "@" in parts.netloc:  # an origin has no user (RFC 6454 section 6.2)
        return None
    return host if port in (None, 80, 443) or is_loopback(host) else f"{host}:{port}"


def _check_host(request: Request) -> Response | None:
    """Return the rejection of a request without a Host header, or with several (RFC 9112 section 3.2)."""
    hosts = request.headers.get_all("Host")
    if len(hosts) == 1 or (not hosts and request.protocol == "HTTP/1.0"):
        return None
    return _rejection(HTTPStatus.BAD_REQUEST, "a request needs one Host header")
