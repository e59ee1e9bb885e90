"""Close codes of a connection, the same for server and clients. PURE."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Close codes of a WebSocket (RFC 6455 section 7.4); those of 4000-4999 are the reactor's own."""

    NORMAL = 1000  # The client closed the connection.
    GOING_AWAY = 1001  # The page was closed, or the server stops for good.
    PROTOCOL_ERROR = 1002  # A frame violates RFC 6455.
    UNSUPPORTED = 1003  # A frame type that the subprotocol does not use: binary in JSON, text in MessagePack.
    NOT_UTF8 = 1007  # Text that is not UTF-8.
    POLICY = 1008  # Valid, but too much: a message in too many fragments, or one that arrives too slowly.
    TOO_BIG = 1009  # A message over the limit.
    INTERNAL = 1011  # The hook that checks tokens failed or was too slow.
    RESTART = 1012  # The node restarts: reconnect after a short random delay.
    UNAUTHORISED = 4001  # The token is missing, invalid or expired: reconnect only with a fresh one.
    FORCE_LEAVE = 4003  # The connection's last membership was ended; the message before gives the reason.
    TOO_SLOW = 4008  # The client did not read, and the messages queued for it reached the limit.
    TOO_MANY = 4029  # Too many requests, or connections of the user: reconnect later.


_FINAL = frozenset({CloseCode.UNAUTHORISED, CloseCode.FORCE_LEAVE})


def may_return(code: int) -> bool:
    """Return whether a client whose connection closed with this code should reconnect by itself.

    False only for the two codes by which a reactor server asks a client not to: the client was removed from
    its last room (4003), or needs a fresh token first (4001). Any other code may be that of a proxy, which
    closes an idle tunnel with 1000 or a long one with 1008; the pauses between attempts grow.
    """
    return code not in _FINAL
