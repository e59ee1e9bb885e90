"""Why a member left a room: an open vocabulary, and what this version knows of its words. PURE.

A reason is text. Redis, the nodes and the clients pass on any text, so that a newer node may send a reason
that this version does not know. For a known reason `REASONS` says what a node does with the member's
connections that are open here, and which sentence they receive in `room:force-leave`.

An unknown reason expels: a newer node removed the member for a purpose of its own, so
registering the member again would undo it. Connections receive the reason as it is, and a sentence that
contains it. The one reason that does not expel is `disconnected`: an open connection proves it wrong.
"""

from typing import Final, NamedTuple

LEFT: Final = "left"
INACTIVITY_TIMEOUT: Final = "inactivity_timeout"
DISCONNECTED: Final = "disconnected"
KICKED: Final = "kicked"
BANNED: Final = "banned"


class LeaveReason(NamedTuple):
    """What a node does about a departure with this reason.

    Attributes:
        expels: Whether the member's open connections leave the room with it; else they are registered again.
        message: The sentence of `room:force-leave`; None for the setting `inactivity_message`.

    """

    expels: bool
    message: str | None


REASONS: Final[dict[str, LeaveReason]] = {
    # The client sent leave_room.
    LEFT: LeaveReason(expels=True, message="You left the room on another device."),
    # No heartbeat arrived during the room's whole TTL.
    INACTIVITY_TIMEOUT: LeaveReason(expels=True, message=None),
    # The last connection was lost and none returned within the grace.
    DISCONNECTED: LeaveReason(expels=False, message="You left the room because the connection was lost."),
    # An operator or the application removed the member.
    KICKED: LeaveReason(expels=True, message="You were removed from the room."),
    # The same, and the user cannot join until the ban ends.
    BANNED: LeaveReason(expels=True, message="You are banned."),
}


def leave_reason(reason: str) -> LeaveReason:
    """Return what to do about a departure, also for a reason that only a newer version knows."""
    known = REASONS.get(reason)
    return known or LeaveReason(expels=True, message=f"You were removed from the room ({reason}).")
