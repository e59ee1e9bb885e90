"""How much one connection may ask for: the bounds that the protocol checks itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection; the defaults are those of the settings of the same names."""

    max_id: int = 256
    """Longest room or user id, or user name: bytes of UTF-8."""

    max_data: int = 4096
    """Largest `data` of a member: bytes of its compact JSON encoding."""

    max_rooms: int = 128
    """Rooms that one connection may be in, or be entering, at a time."""

    max_pending: int = 32
    """Requests of one connection that may wait for the answer to a join or a leave."""
