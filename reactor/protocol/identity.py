"""Who a connection has proved to be, and what that allows it. PURE."""

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
"""The last second of the year 9999: what runs out later never does."""


class Unauthorised(Exception):
    """The token is not taken; the text is a sentence for the client.

    A custom authenticator raises it too. `code` is `unauthorized` or, where a fresh token would do,
    `token_expired`.
    """

    def __init__(self, message: str, code: ErrorCode = "unauthorized") -> None:
        super().__init__(message)
        self.message = message
        self.code: ErrorCode = code


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token says, or a custom authenticator.

    Attributes:
        user_id: The user; every message that names a user has to name this one.
        rooms: Names or glob patterns (`*`, `?`, `[abc]`; case counts) of the rooms that are allowed; None
            leaves it to the setting `auth_rooms`.
        name: The user's name, which then no message may change.
        data: The member's data, which then no message may change; None leaves it free.
        expires_at: When it runs out, in seconds since 1970; None never does.

    """

    user_id: str
    rooms: tuple[str, ...] | None = None
    name: str | None = None
    data: Any = None
    expires_at: float | None = None

    def allows(self, room_id: str) -> bool:
        """Whether the room is one of those named, or matches a pattern."""
        rooms = self.rooms or ()
        return room_id in rooms or any(pattern.match(room_id) for pattern in _patterns(rooms))


def checked(identity: Identity, limits: Limits, rooms: tuple[str, ...]) -> Identity:
    """Return the identity as the rest may rely on it: its texts clean, its bounds kept, its rooms set.

    Args:
        identity: As a token or a custom authenticator gave it; nothing of it is trusted to be of its type.
        limits: Bounds of ids and data.
        rooms: What is allowed where the identity names no rooms.

    Raises:
        Unauthorised: It cannot be used; the sentence says what to mend.

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
        raise Unauthorised(f"the token does not fit: {error.message}") from error
    if identity.rooms is not None:
        rooms = _as_rooms(identity.rooms)
    return Identity(user_id, rooms, name, identity.data, _as_time(identity.expires_at))


def _as_rooms(rooms: Any) -> tuple[str, ...]:
    good = isinstance(rooms, list | tuple) and len(rooms) <= MAX_PATTERNS
    if not good or not all(isinstance(room, str) and len(room) <= _LONGEST for room in rooms):
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
