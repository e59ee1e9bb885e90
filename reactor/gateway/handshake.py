"""The opening handshake (RFC 6455 section 4.2), or the HTTP response to a request for anything else.

Nearly all clients take the fast path: a complete request in one piece, which asks for the WebSocket with the
usual headers, each once, and negotiates no extension, is read and answered here in a sixth of the time that
the parser takes. Every other request is left to the parser, which reads it from its start and reports its
errors.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha1
from http import HTTPStatus
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from reactor.gateway.framing import at_frame_start
from reactor.gateway.http import CROSS_ORIGIN, SOCKET_PATH, text

_FAST_SIZE = 4096  # bytes; a browser's request with its cookies is smaller
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"GET (" + SOCKET_PATH.encode() + rb"(?:\?[!-~]*)?) HTTP/1\.1\r\n"
    rb"((?:" + _TOKEN + rb":[ -~]*\r\n){4,32})\r\n"
)
_TOKENS = re.compile(_TOKEN.decode() + r"(?:, ?" + _TOKEN.decode() + r")*")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_CONNECTIONS = frozenset({"upgrade", "keep-alive, upgrade"})
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
_BAD_REQUEST = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}"


class FastHandshake(NamedTuple):
    """A request for the WebSocket, and the response that accepts it."""

    request: Request
    subprotocol: str | None
    response: bytes


class _HeadersOnce(Headers):
    """Headers that occur once each, and whose values were checked already: `Headers` checks them again."""

    __slots__ = ()

    def __init__(self, pairs: list[tuple[str, str]], found: dict[str, str]) -> None:
        self._list = pairs
        self._dict = {name: [value] for name, value in found.items()}


def read_fast(
    data: bytes, select: Callable[[Sequence[str]], str | None], *, extensions: bool
) -> FastHandshake | None:
    """Return the handshake in `data`; None if the parser has to read it.

    Args:
        data: All bytes received.
        select: Chooses among the offered subprotocols.
        extensions: Whether the server can negotiate one.

    """
    head = _HEAD.fullmatch(data) if len(data) <= _FAST_SIZE else None
    if head is None:
        return None
    pairs = [
        (name, value.strip(" "))
        for name, _, value in [line.partition(":") for line in head[2].decode("ascii").split("\r\n")[:-1]]
    ]
    found = {name.lower(): value for name, value in pairs}
    if (
        len(found) != len(pairs)  # a header was repeated
        or found.get("upgrade", "").lower() != "websocket"
        or found.get("connection", "").lower() not in _CONNECTIONS
        or found.get("sec-websocket-version") != "13"
        or "content-length" in found
        or "transfer-encoding" in found
        or (extensions and "sec-websocket-extensions" in found)
    ):
        return None
    key, offered = found.get("sec-websocket-key", ""), found.get("sec-websocket-protocol")
    if not _KEY.fullmatch(key) or not (offered is None or _TOKENS.fullmatch(offered)):
        return None
    chosen = select([name.strip() for name in offered.split(",")]) if offered is not None else None
    accept = b64encode(sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
    subprotocol = f"\r\nSec-WebSocket-Protocol: {chosen}" if chosen is not None else ""
    response = f"{_SWITCHING}{accept}{subprotocol}\r\n\r\n".encode()
    return FastHandshake(Request(head[1].decode(), _HeadersOnce(pairs, found)), chosen, response)


def run_handshake(parser: ServerProtocol, respond: Callable[[Request], Response | None]) -> bytes | None:
    """Advance the handshake as far as the bytes that the parser has received allow.

    Args:
        parser: In state CONNECTING; once the client is accepted it is OPEN, and holds the response to send.
        respond: Returns the response to a request that does not open the WebSocket, otherwise None.

    Returns:
        The response after which the connection closes; None if the client is accepted, or more bytes are
        needed.

    """
    events, writes = parser.events_received(), parser.data_to_send()
    if not events:
        # websockets answers a request that is too long, and sends nothing for bytes that are no request.
        if not writes:
            return None
        return b"".join(writes) or _bad_request("not an HTTP request: send GET, without a body")
    request = events[0]
    assert isinstance(request, Request)
    if len(events) > 1 or writes or not at_frame_start(parser):
        # A client waits for the response before it sends frames (RFC 6455 section 4.1).
        return _bad_request("a request may not be followed by data before its response")
    rejection = respond(request)
    if rejection is not None:
        return rejection.serialize()
    response = parser.accept(request)
    if response.status_code != 101:
        response.headers.update(CROSS_ORIGIN)
        return response.serialize()
    parser.send_response(response)
    return None


def headers_too_large(limit: int) -> bytes:
    """Return the response to a request whose headers exceed `limit` bytes (RFC 6585 section 5)."""
    sentence = f"the headers of a request may have at most {limit} bytes"
    return text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, sentence).serialize()


def proxy_protocol_refused() -> bytes:
    """Return the response to a connection that begins with the PROXY protocol."""
    return _bad_request(
        "this server does not read the PROXY protocol: have the proxy set X-Forwarded-For in its place"
    )


def _bad_request(sentence: str) -> bytes:
    return _BAD_REQUEST.format(len(sentence), sentence).encode()
