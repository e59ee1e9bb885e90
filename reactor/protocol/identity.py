"""The identity that a connection has proved, and what it allows. PURE."""

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final

from reactor.protocol.data import data_as_json
from reactor.protocol.ids import check_text, clean_id
from reactor.protocol.limits import Limits
from reactor.protocol.messages import ErrorCode, ProtocolError

MAX_PATTERNS = 1000
"""Rooms and patterns that one identity may name."""

_LONGEST = 4096  # characters of a pattern

LATEST: Final = 253_402_300_799.0
"""The last second of the year 9999; later times of expiry are cut to it."""


class Unauthorised(Exception):
    """The token is refused; also raised by a custom authenticator.

    Args:
        message: A sentence for the client.
        code: `unauthorized`, or `token_expired` where a fresh token would be accepted.

    """

    def __init__(self, message: str, code: ErrorCode = "unauthorized") -> None:
        super().__init__(message)
        self.message = message
        self.code: ErrorCode = code


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity given by a token or by a custom authenticator.

    Attributes:
        user_id: The user; requests that name a user must name this one.
        rooms: Ids or glob patterns (`*`, `?`, `[abc]`; case-sensitive) of the rooms that are allowed; None
            for the setting `auth_rooms`.
        name: The user's name, which requests then cannot change; None leaves it to them.
        data: The member's data, which requests then cannot change; None leaves it to them.
        expires_at: The time of expiry in seconds since 1970; None for never.

    """

    user_id: str
    rooms: tuple[str, ...] | None = None
    name: str | None = None
    data: Any = None
    expires_at: float | None = None

    def allows(self, room_id: str) -> bool:
        """Return whether the room is one of `rooms`, or matches a pattern."""
        rooms = self.rooms or ()
        return room_id in rooms or any(pattern.match(room_id) for pattern in _patterns(rooms))


def checked(identity: Identity, limits: Limits, rooms: tuple[str, ...]) -> Identity:
    """Return a validated identity: its ids and name are clean, its data within the limit, its rooms set.

    Args:
        identity: As given by a token or a custom authenticator; its fields may have any type.
        limits: Limits of ids and data.
        rooms: The rooms that are allowed where the identity names none.

    Raises:
        Unauthorised: The identity is invalid; the message names the claim.

    """
    try:
        user_id = clean_id(identity.user_id, "sub", limits.max_id)
        name = identity.name
        if name is not None:
            if not isinstance(name, str):
                raise Unauthorised("the token's name must be text")
            check_text(name, "name", limits.max_id)
        if identity.data is not None:
            data_as_json(identity.data, limits.max_data)
    except ProtocolError as error:
        raise Unauthorised(f"the token is invalid: {error.message}") from error
    if identity.rooms is not None:
        rooms = _as_rooms(identity.rooms)
    return Identity(user_id, rooms, name, identity.data, _as_time(identity.expires_at))


def _as_rooms(rooms: Any) -> tuple[str, ...]:
    valid = isinstance(rooms, list | tuple) and len(rooms) <= MAX_PATTERNS
    if not valid or not all(isinstance(room, str) and len(room) <= _LONGEST for room in rooms):
        raise Unauthorised(f"the token's rooms must be a list of at most {MAX_PATTERNS} names or patterns")
    return (*rooms,)


def _as_time(expires_at: Any) -> float | None:
    if expires_at is None:
        return None
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float) or not expires_at > 0:
        raise Unauthorised("the token's exp must be a time in seconds since 1970")
    return float(min(expires_at, LATEST))


@lru_cache(maxsize=256)
def _patterns(rooms: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(_pattern(room) for room in rooms if any(sign in room for sign in "*?["))


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
