"""Close codes of a connection, the same for server and clients. PURE."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Close codes of a WebSocket (RFC 6455 section 7.4); those of 4000-4999 are the reactor's own."""

    NORMAL = 1000  # The client closed the connection.
    GOING_AWAY = 1001  # The page was closed, or the server stops for good.
    PROTOCOL_ERROR = 1002  # A frame violates RFC 6455.
    UNSUPPORTED = 1003  # A frame type that the subprotocol does not use: binary in JSON, text in MessagePack.
    NOT_UTF8 = 1007  # Text that is not UTF-8.
    POLICY = 1008  # Valid, but too much: a message in too many fragments, or too many control frames.
    TOO_BIG = 1009  # A message over the limit.
    INTERNAL = 1011  # The server failed.
    RESTART = 1012  # The node restarts: reconnect after a short random delay.
    UNAUTHORISED = 4001  # The token is missing, invalid or expired: reconnect only with a fresh one.
    FORCE_LEAVE = 4003  # The connection's last membership was ended; the message before gives the reason.
    TOO_SLOW = 4008  # The client did not read, and the messages queued for it reached the limit.
    TOO_MANY = 4029  # Too many requests: reconnect later.


_LOST = frozenset(
    {
        1005,  # The close frame carried no code, as some proxies do.
        1006,  # There was no close frame: the network failed, or the server crashed.
        1013,  # Try again later, as a proxy may send.
        1014,  # A gateway in between got no valid response.
        1015,  # TLS failed.
    }
)
_RECONNECT = _LOST | {
    CloseCode.GOING_AWAY,
    CloseCode.INTERNAL,
    CloseCode.RESTART,
    CloseCode.TOO_SLOW,
    CloseCode.TOO_MANY,
}


def may_return(code: int) -> bool:
    """Return whether a client whose connection closed with this code should reconnect by itself.

    False where the same would happen again: the client violated the protocol, was removed from its last room,
    or needs a fresh token first (4001). Unknown codes are final.
    """
    return code in _RECONNECT
