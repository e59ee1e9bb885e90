"""Who is let in: by number, by address, by origin and by the token of the handshake.

Who is not gets an answer in HTTP that says why: 403 for a page of a stranger, 401 for a bad token, 429 for
too many sockets of one address, 503 for a server that is full. To answer, a request has to be read, and that
takes a socket; so far beyond a limit sockets are cut off without a word.
"""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from reactor.gateway.http import Site, text
from reactor.gateway.visitors import Address, Fate, Visitors
from reactor.protocol.identity import Identity, Unauthorised
from reactor.settings import Settings
from reactor.settings.security import is_loopback

log = structlog.get_logger(__name__)

TOKEN_SUBPROTOCOL: Final = "reactor.token."  # noqa: S105 - a name, no secret
"""What a subprotocol value begins with that carries a token; it is never answered with, nor logged."""

_SPARE_SOCKETS = 64  # over the limit, to answer those that are refused
_COMPLAIN_EVERY = 10.0  # seconds between two lines about the same thing


class Visit:
    """How a socket came.

    Attributes:
        peer: The address of the other end; empty where it has none.
        address: The place it is counted for, if any, and `fate` what becomes of it.
        read: Bytes of the request so far.
        token: What the handshake carried, if it did; `identity` is whom it proved, where that is known.
        headers: Those of the request, and `path` its path, once it was read.

    """

    __slots__ = ("address", "fate", "headers", "identity", "path", "peer", "read", "token")

    def __init__(self, peer: str, address: Address | None, fate: Fate) -> None:
        self.peer = peer
        self.address = address
        self.fate = fate
        self.read = 0
        self.token: str | None = None
        self.identity: Identity | None = None
        self.headers: Headers | None = None
        self.path = ""


class Guest(Protocol):
    """A socket on its way in."""

    visit: Visit | None


class Entrance:
    """Lets sockets in, or not.

    Args:
        settings: Of these the limits, `origins`, `host` and `trusted_proxies`.
        site: What answers plain requests.
        most: Sockets that this process takes.
        occupied: How many it has.
        identify: Says whom a token proves, None where that takes time; raises Unauthorised.
        turned_away: Counts who is not let in, by the status of the answer; `cut` without an answer.

    """

    def __init__(
        self,
        settings: Settings,
        site: Site,
        *,
        most: int,
        occupied: Callable[[], int],
        identify: Callable[[str], Identity | None],
        turned_away: Counter[str] | None = None,
    ) -> None:
        self._site = site
        self._most = most
        self._occupied = occupied
        self._identify = identify
        self._tokens = settings.asks_for_tokens
        self._origins = frozenset(settings.origins)
        self._reached_by_name = not is_loopback(settings.host)
        self._visitors = Visitors(
            most=settings.max_per_address, rate=settings.new_per_second, trusted=settings.trusted_proxies
        )
        self._complained: dict[str, float] = {}
        self.turned_away = Counter[str]() if turned_away is None else turned_away

    def arrive(self, peer: str, now: float) -> Visit | None:
        """Count a new socket; None when it is to be cut off, uncounted."""
        if self._occupied() >= self._most + _SPARE_SOCKETS:
            self._complain("full", now, connections=self._most, setting="max_connections, or open files")
            self.turned_away["cut"] += 1
            return None
        visitors = self._visitors
        address, fate = visitors.enter(peer, now)
        if fate is Fate.CUT_OFF:
            self.turned_away["cut"] += 1
            return None
        return Visit(peer, address, fate)

    def leave(self, address: Address | None, visit: Visit | None) -> None:
        """Count a socket no more; it has no visit any more once it was open."""
        if address is not None:
            self._visitors.leave(address, visit.fate if visit is not None else Fate.LET_IN)

    def answer(self, request: Request, visit: Visit, now: float) -> Response | None:
        """Answer a request; None when it asks for the socket and is let in."""
        if (response := self._site.answer(request)) is not None:
            return response
        refusal = self._refusal(request, visit, now)
        if refusal is not None:
            self.turned_away[str(refusal.status_code)] += 1
        return refusal

    def _refusal(self, request: Request, visit: Visit, now: float) -> Response | None:
        if visit.address is None:
            self._look_behind(request, visit, now)
        if visit.fate is not Fate.LET_IN:
            name = visit.address.name if visit.address else visit.peer
            self._complain(
                "too_many_of_an_address",
                now,
                address=name,
                setting="max_per_address, new_per_second; trusted_proxies where it is a proxy",
            )
            return _refused(HTTPStatus.TOO_MANY_REQUESTS, f"too many connections from {name}", retry_after=5)
        if self._occupied() > self._most:
            self._complain("full", now, connections=self._most, setting="max_connections, or open files")
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "this server is full", retry_after=5)
        if not self.welcomes(request.headers):
            sentence = "pages of this origin may not connect: name it in the server's setting origins"
            return _refused(HTTPStatus.FORBIDDEN, sentence)
        return self._look_at_token(request, visit) if self._tokens else None

    def welcomes(self, headers: Headers) -> bool:
        """Whether the page that opens the socket may (RFC 6455 section 10.2); what is no page always may.

        Where tokens are asked for, any page may: nothing rides on cookies, so a page has only what it was
        given. Without tokens the pages of this host and of this machine may; a name that leads a browser to
        a server on loopback is not taken for this host (DNS rebinding), an address is.
        """
        given = headers.get_all("Origin")
        if not given:
            return True
        if len(given) > 1:
            return False
        origin = given[0].strip().lower()
        if self._origins:
            return "*" in self._origins or origin in self._origins
        if self._tokens:
            return True
        page = _host_of(origin)
        if page is None:
            return False
        if is_loopback(page):
            return True
        named = _host_of("//" + ",".join(headers.get_all("Host")).strip().lower())
        return page == named and (self._reached_by_name or _is_address(page))

    def _look_behind(self, request: Request, visit: Visit, now: float) -> None:
        forwarded = request.headers.get_all("X-Forwarded-For")
        if forwarded:
            visit.peer = self._visitors.behind(visit.peer, forwarded)
            visit.address, visit.fate = self._visitors.enter(visit.peer, now)

    def _look_at_token(self, request: Request, visit: Visit) -> Response | None:
        visit.headers, visit.path = request.headers, request.path
        bearer = _bearer(request.headers)
        if bearer is None:
            visit.token = _in_subprotocols(request.headers)
            return None
        visit.token = bearer
        try:
            visit.identity = self._identify(bearer)
        except Unauthorised as error:
            response = _refused(HTTPStatus.UNAUTHORIZED, error.message)
            response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
            return response
        return None

    def _complain(self, event: str, now: float, **facts: object) -> None:
        if now - self._complained.get(event, -_COMPLAIN_EVERY) >= _COMPLAIN_EVERY:
            self._complained[event] = now
            log.warning(event, **facts)


def _refused(status: HTTPStatus, sentence: str, *, retry_after: int = 0) -> Response:
    response = text(status, sentence)
    if retry_after:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _bearer(headers: Headers) -> str | None:
    for value in headers.get_all("Authorization"):
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
    return None


def _in_subprotocols(headers: Headers) -> str | None:
    for value in headers.get_all("Sec-WebSocket-Protocol"):
        for name in value.split(","):
            if name.strip().startswith(TOKEN_SUBPROTOCOL):
                return name.strip().removeprefix(TOKEN_SUBPROTOCOL)
    return None


def _host_of(url: str) -> str | None:
    """The host that a URL names; with its port, where that is not the usual one, it is what a page is of."""
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
