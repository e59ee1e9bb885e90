"""Settings that may differ from room to room: the rules as written, and the resulting policy."""

import re
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from reactor.errors import SettingError
from reactor.settings import kinds

TTL = kinds.duration(0.1)
GRACE = kinds.duration(0.0)
MESSAGE = kinds.text("a text of 1 to 500 characters on one line", r"[^\x00-\x1f\x7f]{1,500}")
MAX_MEMBERS = kinds.whole(0, 10_000_000, " (0 for no limit)")

KEYS = {
    "ttl": TTL,
    "grace": GRACE,
    "away_grace": GRACE,
    "close_grace": GRACE,
    "message": MESSAGE,
    "max_members": MAX_MEMBERS,
}


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """The settings of one room. Times are milliseconds; max_members: 0 for no limit."""

    ttl: int
    grace: int
    away_grace: int
    close_grace: int
    message: str
    max_members: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRule:
    """What differs in the rooms that match. Times are seconds; None: the general setting.

    match: a room id, or a pattern of `fnmatch` (`*`, `?`, `[abc]`), case-sensitive.
    """

    match: str
    ttl: float | None = None
    grace: float | None = None
    away_grace: float | None = None
    close_grace: float | None = None
    message: str | None = None
    max_members: int | None = None

    def __post_init__(self) -> None:
        if not self.match:
            raise SettingError(f"rooms: {kinds.quoted(self.match)} matches no room; use an id or a pattern.")
        for key, kind in KEYS.items():
            if (value := getattr(self, key)) is not None:
                object.__setattr__(self, key, kind.read(f'rooms."{self.match}".{key}', value))

    def pattern(self) -> re.Pattern[str]:
        """The compiled pattern, for the whole room id."""
        return re.compile(translate(self.match))


DEMO_PREFIX, DEMO_TTL = "demo-", 30.0
"""Rooms with this prefix have this TTL (seconds), unless a rule says otherwise, to show an expiry."""


def read_rules(table: Any, source: str) -> tuple[RoomRule, ...]:
    """The rules of a table `rooms` such as `{"lobby-*": {"ttl": 60}}`.

    source: a prefix for the key in error messages. Raises SettingError.
    """
    if not isinstance(table, dict):
        raise SettingError(f'{source}rooms takes tables such as [rooms."lobby-*"].')
    return tuple(_read_rule(match, values, f'{source}rooms."{match}"') for match, values in table.items())


def _read_rule(match: str, values: Any, name: str) -> RoomRule:
    known = ", ".join(KEYS)
    if not isinstance(values, dict):
        raise SettingError(f'{name} takes a table such as [rooms."{match}"] with {known}.')
    for key in values:
        if key not in KEYS:
            hint = kinds.did_you_mean(key, list(KEYS))
            raise SettingError(f"{name}.{key} is not a setting of a room; these are {known}.{hint}")
    return RoomRule(match=match, **{key: KEYS[key].read(f"{name}.{key}", values[key]) for key in values})
