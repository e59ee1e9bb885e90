"""The quick way through the opening handshake, for nearly all clients (RFC 6455 section 4.2).

A whole request that came in one piece, asks for the socket by the usual headers, each once, and agrees on no
extension: it is read and answered here at 30 us, where the parser takes 110. Whatever is unusual in any way
is none of this module's business: the parser reads it from the start, and says what is wrong with it.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request

from reactor.gateway.http import SOCKET_PATH

_USUAL_SIZE = 4096  # bytes; a browser with its cookies stays below
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"GET (" + SOCKET_PATH.encode() + rb"(?:\?[!-~]*)?) HTTP/1\.1\r\n"
    rb"((?:" + _TOKEN + rb":[ -~]*\r\n){4,32})\r\n"
)
_TOKENS = re.compile(_TOKEN.decode() + r"(?:, ?" + _TOKEN.decode() + r")*")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_CONNECTIONS = frozenset({"upgrade", "keep-alive, upgrade"})
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ANSWER = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


class Opening(NamedTuple):
    """A request for the socket, and what lets it in."""

    request: Request
    subprotocol: str | None
    answer: bytes


def read_usual(
    data: bytes, select: Callable[[Sequence[str]], str | None], *, extensions: bool
) -> Opening | None:
    """Read a request for the socket that is usual in every way; None for any other.

    Args:
        data: All that has come.
        select: Chooses among the subprotocols that are offered.
        extensions: Whether one could be agreed on, where the client offers any.

    """
    head = _HEAD.fullmatch(data) if len(data) <= _USUAL_SIZE else None
    if head is None:
        return None
    headers = Headers()
    found: dict[str, str] = {}
    for line in head[2].decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        found[name.lower()] = headers[name] = value.strip(" ")
    if (
        len(found) != head[2].count(b"\r\n")  # one came twice
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
    named = f"\r\nSec-WebSocket-Protocol: {chosen}" if chosen is not None else ""
    return Opening(Request(head[1].decode(), headers), chosen, f"{_ANSWER}{accept}{named}\r\n\r\n".encode())
