"""How a client, or one of its rooms, stands."""

from enum import StrEnum


class Status(StrEnum):
    """For a client its connection; for a room whether its list moves on."""

    CONNECTING = "connecting"  # Not there yet.
    CONNECTED = "connected"  # All is well.
    DEGRADED = (
        "degraded"  # Connected, but the server has no Redis now: lists stand still, requests are refused.
    )
    RECONNECTING = "reconnecting"  # The connection was lost; it comes back, and the rooms with it, by itself.
    IDLE = "idle"  # No room is left, so the server closed the connection; the next join opens another.
    CLOSED = "closed"  # For good.
