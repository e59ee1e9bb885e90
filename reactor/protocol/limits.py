"""The limits of one connection that the protocol checks itself. PURE."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection; the defaults are those of the settings of the same names."""

    max_id: int = 256
    """Longest room or user id, or user name: bytes of UTF-8."""

    max_data: int = 4096
    """Largest `data` of a member: bytes of its compact JSON encoding."""

    max_rooms: int = 128
    """Most rooms that one connection may be in or joining at a time."""

    max_watched: int = 256
    """Most rooms that one connection may watch without being a member."""

    max_pending: int = 32
    """Most requests of one connection that may wait for the reply to a join, a leave or a token."""
