"""Accepted values of the settings of the admin port."""

from typing import Any

from reactor.errors import SettingError
from reactor.settings.kinds import Kind

MIN_KEY = 32
"""Bytes."""


def _parse_key(raw: Any) -> bytes:
    key = raw.encode() if isinstance(raw, str) else raw
    # It is sent in an HTTP header, which allows only these bytes.
    if (
        not isinstance(key, bytes)
        or not MIN_KEY <= len(key) <= 512
        or not all(33 <= byte < 127 for byte in key)
    ):
        raise ValueError
    return key


ADMIN_KEY = Kind(
    "KEY",
    f"{MIN_KEY} to 512 printable ASCII characters without spaces, as from `openssl rand -base64 32`",
    _parse_key,
    lambda _key: "***",
    secret=True,
)


def check_admin(port: int | None, key: bytes | None, workers: int) -> None:
    """Raise SettingError where the settings of the admin port contradict each other."""
    if port is not None and key is None:
        raise SettingError(
            "admin_port is set, but admin_key is not: the admin API would reject every request. "
            "Create a key with `openssl rand -base64 32`, and set it as REACTOR_ADMIN_KEY."
        )
    if port and port + workers - 1 > 65535:
        raise SettingError(
            f"admin_port is {port}, but {workers} workers use a port each from there on: choose a lower one."
        )
