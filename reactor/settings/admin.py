"""What the settings of the admin port take."""

from typing import Any

from reactor.errors import SettingError
from reactor.settings.kinds import Kind

LEAST_KEY = 32
"""Bytes of the admin key."""


def _parse_key(raw: Any) -> bytes:
    key = raw.encode() if isinstance(raw, str) else raw
    # It travels in a header, where nothing else may stand.
    if (
        not isinstance(key, bytes)
        or not LEAST_KEY <= len(key) <= 512
        or not all(33 <= byte < 127 for byte in key)
    ):
        raise ValueError
    return key


ADMIN_KEY = Kind(
    "KEY",
    f"{LEAST_KEY} to 512 letters, digits or signs without a space, as `openssl rand -base64 32` makes them",
    _parse_key,
    lambda _key: "***",
    secret=True,
)


def check_admin(port: int | None, key: bytes | None, workers: int) -> None:
    """Raise SettingError where the settings of the admin port do not go together."""
    if port is not None and key is None:
        raise SettingError(
            "admin_port is set, but admin_key is not: nobody could use the admin API. "
            "Make one with `openssl rand -base64 32`, and give it as REACTOR_ADMIN_KEY."
        )
    if port and port + workers - 1 > 65535:
        raise SettingError(
            f"admin_port is {port}, but {workers} workers take a port each from there on: choose a lower one."
        )
