"""Close codes of a connection, the same for server and clients. PURE."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Close codes of a WebSocket (RFC 6455 section 7.4); those of 4000-4999 are the reactor's own."""

    NORMAL = 1000  # The client is done.
    GOING_AWAY = 1001  # A page was left, or a server stops for good.
    PROTOCOL_ERROR = 1002  # Frames that break RFC 6455.
    UNSUPPORTED = 1003  # A frame type that the subprotocol does not use: binary in JSON, text in MessagePack.
    NOT_UTF8 = 1007  # Text that is not UTF-8.
    POLICY = 1008  # Well-formed, but too much: a message in too many fragments, too many control frames.
    TOO_BIG = 1009  # A message over the limit.
    INTERNAL = 1011  # The server failed.
    RESTART = 1012  # The node restarts: come again after a random short wait.
    UNAUTHORISED = 4001  # The token is missing, wrong, or has run out: come again only with a fresh one.
    FORCE_LEAVE = 4003  # The last room of this connection has ended for it; the message before says why.
    TOO_SLOW = 4008  # The client did not read, and what was sent to it had piled up to the limit.
    TOO_MANY = 4029  # Too many requests: come again, later.


_LOST = frozenset(
    {
        1005,  # The close frame carried no code: some proxies do so.
        1006,  # No close frame: the network or the other end went away.
        1013,  # Try again later, as a proxy may say.
        1014,  # A gateway between had no answer.
        1015,  # TLS failed.
    }
)
_RETURN = _LOST | {
    CloseCode.GOING_AWAY,
    CloseCode.INTERNAL,
    CloseCode.RESTART,
    CloseCode.TOO_SLOW,
    CloseCode.TOO_MANY,
}


def may_return(code: int) -> bool:
    """Tell whether a client whose socket closed with this code should connect again by itself.

    False where the same client would meet the same end: it broke the protocol, was told to leave, or needs a
    fresh token first (4001). Codes that nobody has agreed on are taken as an end.
    """
    return code in _RETURN
