"""The identity that a connection has proved, and what it allows. PURE."""

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final

from reactor.errors import ReactorError
from reactor.protocol.data import data_as_json
from reactor.protocol.ids import check_text, clean_id
from reactor.protocol.limits import Limits
from reactor.protocol.messages import ErrorCode, ProtocolError

MAX_PATTERNS = 1000
"""Rooms and patterns that one identity may name."""

OWN_ROOM: Final = "@"
"""`@USER` is a room that only this user may join, to be online without being in any other room."""

_LONGEST = 4096  # characters of a pattern

LATEST: Final = 253_402_300_799.0
"""The last second of the year 9999; later times of expiry are cut to it."""


class Unauthorised(ReactorError):
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
        send: Whether the user may send messages to other members.
        watch: Ids or patterns of the rooms that may be watched without joining them; None for `rooms`.
        people: Ids or patterns of the users whose presence this one may watch; None for none, unless
            `people_hook` allows them.
        where: Whether the user learns in which rooms these are.
        issued_at: When the token was issued, in seconds since 1970; None where that is unknown: it then
            counts as revoked once the user's tokens are.

    """

    user_id: str
    rooms: tuple[str, ...] | None = None
    name: str | None = None
    data: Any = None
    expires_at: float | None = None
    send: bool = True
    watch: tuple[str, ...] | None = None
    people: tuple[str, ...] | None = None
    where: bool = False
    issued_at: float | None = None

    def allows(self, room_id: str) -> bool:
        """Return whether the room is one of `rooms`, or matches a pattern, or is the user's own."""
        return self._permits(self.rooms, room_id)

    def allows_watching(self, room_id: str) -> bool:
        """Return whether the room is one of `watch`, or matches a pattern."""
        return self._permits(self.rooms if self.watch is None else self.watch, room_id)

    def may_watch(self, user_id: str) -> bool:
        """Return whether the user is one of `people`, or matches a pattern."""
        return _matches(self.people, user_id)

    def _permits(self, patterns: tuple[str, ...] | None, room_id: str) -> bool:
        if room_id.startswith(OWN_ROOM):  # it shows whether its user is online
            return room_id == OWN_ROOM + self.user_id
        return _matches(patterns, room_id)


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
    if not isinstance(identity.send, bool):
        raise Unauthorised("the token's send must be true or false")
    if not isinstance(identity.where, bool):
        raise Unauthorised("the token's where must be true or false")
    if identity.rooms is not None:
        rooms = _as_patterns(identity.rooms, "rooms")
    watch = None if identity.watch is None else _as_patterns(identity.watch, "watch")
    people = None if identity.people is None else _as_patterns(identity.people, "people")
    return Identity(
        user_id, rooms, name, identity.data, _as_time(identity.expires_at), identity.send, watch, people,
        identity.where, _as_issued(identity.issued_at),
    )  # fmt: skip


def _as_patterns(patterns: Any, claim: str) -> tuple[str, ...]:
    valid = isinstance(patterns, list | tuple) and len(patterns) <= MAX_PATTERNS
    if not valid or not all(isinstance(one, str) and len(one) <= _LONGEST for one in patterns):
        raise Unauthorised(f"the token's {claim} must be a list of at most {MAX_PATTERNS} names or patterns")
    return (*patterns,)


def _as_time(expires_at: Any) -> float | None:
    if expires_at is None:
        return None
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float) or not expires_at > 0:
        raise Unauthorised("the token's exp must be a time in seconds since 1970")
    return float(min(expires_at, LATEST))


def _as_issued(issued_at: Any) -> float | None:
    if issued_at is None:
        return None
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float) or not 0 <= issued_at <= LATEST:
        raise Unauthorised("the token's iat must be a time in seconds since 1970")
    return float(issued_at)


def _matches(patterns: tuple[str, ...] | None, text: str) -> bool:
    patterns = patterns or ()
    return text in patterns or any(pattern.match(text) for pattern in _compiled(patterns))


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(_pattern(one) for one in patterns if any(sign in one for sign in "*?["))


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
