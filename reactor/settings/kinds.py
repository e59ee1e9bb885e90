"""Kinds of values of settings: how they are parsed, described and shown."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reactor.errors import SettingError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
_DURATION = re.compile(rf"(?:\s*{_DURATION_PART.pattern})+\s*", re.IGNORECASE)
_SIZE = re.compile(r"(\d+)\s*(b|kib|mib)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024 * 1024}
ON_WORDS = frozenset({"on", "true", "yes", "1"})
OFF_WORDS = frozenset({"off", "false", "no", "0"})
REDIS_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
YEAR = 365 * 86400.0

Address = tuple[str, int | None]
AddressPair = tuple[Address, Address]
"""An address that a server names, and the one under which it is reached; without a port, for every port."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. parse: raises ValueError for an invalid value.

    word: the placeholder in the help. takes: describes valid values in error messages. show: the inverse of
    parse. choices: for 'did you mean'. secret: invalid values are not shown.
    """

    word: str
    takes: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], str] = str
    choices: tuple[str, ...] = ()
    secret: bool = False

    def read(self, name: str, raw: object) -> Any:
        """The parsed value.

        name: the setting as the user wrote it (`REACTOR_TTL`, `--ttl`, `reactor.toml: ttl`), for the message.
        Raises SettingError.
        """
        try:
            return self.parse(raw)
        except (ValueError, OverflowError):
            hint = did_you_mean(raw, self.choices) if isinstance(raw, str) else ""
            shown = "not shown here" if self.secret else quoted(raw)
            raise SettingError(f"{name} is {shown}, but takes {self.takes}.{hint}") from None


def setting(default: Any, kind: Kind, group: str, about: str, *, none: str = "", secret: bool = False) -> Any:
    """Declare a field of Settings. none: the meaning of a missing value, for the help."""
    return field(
        default=default,
        repr=not secret,
        metadata={"kind": kind, "group": group, "about": about, "none": none},
    )


def duration(low: float = 0.0, high: float = YEAR, *, off: bool = False) -> Kind:
    """Seconds, as a number or as text with a unit. off: 0 is valid too and switches the feature off."""

    def parse(raw: Any) -> float:
        if isinstance(raw, str) and _DURATION.fullmatch(raw):
            value = sum(float(number) * _UNITS[unit.lower()] for number, unit in _DURATION_PART.findall(raw))
        else:
            value = _number(raw)
        if off and value == 0:
            return 0.0
        return _within(value, low, high)

    zero = ", or 0 for off" if off else ""
    bounds = f"from {show_duration(low)} to {show_duration(high)}{zero}"
    return Kind(
        "DURATION", f"seconds or a duration such as 90, 15s, 10m or 6h, {bounds}", parse, show_duration
    )


def whole(low: int, high: int, meaning: str = "") -> Kind:
    """A whole number from `low` to `high`."""

    def parse(raw: Any) -> int:
        value = _number(raw)
        if value != int(value):
            raise ValueError
        return int(_within(value, low, high))

    return Kind("NUMBER", f"a whole number from {low} to {high}{meaning}", parse)


def size(low: int, high: int) -> Kind:
    """Bytes, as a number or as text with KiB or MiB."""

    def parse(raw: Any) -> int:
        if isinstance(raw, str):
            match = _SIZE.fullmatch(raw.strip())
            if not match:
                raise ValueError
            raw = int(match[1]) * _SIZE_UNITS[(match[2] or "").lower()]
        value = _number(raw)
        if value != int(value):
            raise ValueError
        return int(_within(value, low, high))

    takes = f"bytes or a size such as 4096, 64KiB or 1MiB, from {show_size(low)} to {show_size(high)}"
    return Kind("SIZE", takes, parse, show_size)


def _parse_address_map(raw: Any) -> tuple[AddressPair, ...]:
    if isinstance(raw, list | tuple) and all(isinstance(pair, tuple) for pair in raw):
        return tuple(raw)
    pairs = []
    for part in comma_separated(raw):
        left, equals, right = part.partition("=")
        pair = _parse_address(left), _parse_address(right)
        if not equals or (pair[0][1] is None and pair[1][1] is not None):
            raise ValueError
        pairs.append(pair)
    return tuple(pairs)


def _parse_address(text: str) -> Address:
    parts = urlsplit(f"//{text.strip()}")
    if not parts.hostname or parts.path or parts.query or parts.username is not None:
        raise ValueError
    return parts.hostname, parts.port


def _show_address(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def text(takes: str, pattern: str) -> Kind:
    """Text that matches `pattern` completely."""
    compiled = re.compile(pattern, re.DOTALL)

    def parse(raw: Any) -> str:
        if not isinstance(raw, str) or not compiled.fullmatch(raw):
            raise ValueError
        return raw

    return Kind("TEXT", takes, parse)


def choice(*names: str) -> Kind:
    """One of these words."""

    def parse(raw: Any) -> str:
        if not isinstance(raw, str) or raw.strip().lower() not in names:
            raise ValueError
        return raw.strip().lower()

    return Kind("|".join(names), f"one of {', '.join(names)}", parse, choices=names)


def comma_separated(raw: Any) -> list[str]:
    """The parts of a text such as `a, b`, or of a list of texts, without empty ones. Raises ValueError."""
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    return [part.strip() for part in parts if part.strip()]


def parse_switch(raw: Any) -> bool:
    """Whether a word is one of those for on. Raises ValueError for one that is neither on nor off."""
    word = str(raw).strip().lower()
    if word in ON_WORDS | OFF_WORDS:
        return word in ON_WORDS
    raise ValueError


def _parse_redis_url(raw: Any) -> str:
    if not isinstance(raw, str) or urlsplit(raw.strip()).scheme not in REDIS_SCHEMES:
        raise ValueError
    return raw.strip()


def _parse_path(raw: Any) -> Path:
    if not isinstance(raw, str | Path) or not str(raw) or "\0" in str(raw):
        raise ValueError
    return Path(raw).expanduser()


SWITCH = Kind("on|off", "on or off", parse_switch, lambda value: "on" if value else "off", ("on", "off"))
ADDRESS_MAP = Kind(
    "FROM=TO",
    "pairs such as 10.0.0.5:6379=redis.example:7001 or 10.0.0.5=redis.example, separated by commas",
    _parse_address_map,
    lambda pairs: ", ".join(f"{_show_address(*left)}={_show_address(*right)}" for left, right in pairs),
)
REDIS_URL = Kind(
    "URL",
    "an address such as redis://:password@host:6379/0, rediss://host:6380 (TLS) or unix:///run/redis.sock",
    _parse_redis_url,
)
PATH = Kind("FILE", "the path of a file", _parse_path)


def show_duration(seconds: float) -> str:
    """The shortest text for a duration; it can be parsed again."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds * 1000:g}ms" if 0 < seconds < 1 else f"{seconds:g}s"


def show_size(count: int) -> str:
    """The shortest text for a size; it can be parsed again."""
    if count >= 1024 * 1024 and count % (1024 * 1024) == 0:
        return f"{count // (1024 * 1024)}MiB"
    return f"{count // 1024}KiB" if count >= 1024 and count % 1024 == 0 else str(count)


def quoted(raw: object) -> str:
    """A value for an error message: on one line, shortened, and without a password."""
    shown = json.dumps(redacted(raw) if isinstance(raw, str) else raw, ensure_ascii=False, default=str)
    return shown if len(shown) <= 80 else f"{shown[:76]}..."


def redacted(url: str) -> str:
    """A URL without its password, for logs and errors."""
    url = re.sub(r"(?<=://)([^:@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&](?!db=|ssl_(?!password)|sentinel_tls=|username=)[^=&]*=)[^&]*", r"\1***", url)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known name that is most similar to `word`, or None."""
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(word: object, known: Sequence[str]) -> str:
    """The sentence that suggests the most similar name, with a space before it; empty without one."""
    near = nearest(str(word), known)
    return f" Did you mean {near}?" if near else ""


def _number(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError
    if isinstance(raw, str) and not re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", raw, re.ASCII):
        raise ValueError
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError
    return value


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError
    return value
