"""The status of a client and of each of its rooms. PURE."""

from enum import StrEnum


class Status(StrEnum):
    """Of a client, its connection; of a room, whether its list of members is up to date."""

    CONNECTING = "connecting"  # The first connection is being made.
    CONNECTED = "connected"
    DEGRADED = (
        "degraded"  # Connected, but the server has no Redis: lists do not change, requests are refused.
    )
    RECONNECTING = "reconnecting"  # The connection was lost; it and the rooms are restored automatically.
    IDLE = "idle"  # The last room has ended, so the server closed the connection; the next join reconnects.
    CLOSED = "closed"  # Closed for good.
