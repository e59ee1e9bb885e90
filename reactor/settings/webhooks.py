"""Accepted values of the settings of webhooks."""

from base64 import b64decode
from binascii import Error as NotBase64
from typing import Any
from urllib.parse import urlsplit

from reactor.errors import SettingError
from reactor.settings.kinds import Kind, comma_separated, redacted

ROOM_EVENTS = ("member_joined", "member_left", "room_occupied", "room_vacated")
EVENTS = (*ROOM_EVENTS, "user_online", "user_offline")
SECRET_PREFIX = "whsec_"  # noqa: S105
MIN_SECRET, MAX_SECRET = 24, 64
"""Bytes of a secret (https://www.standardwebhooks.com, section "Signature scheme")."""


def _parse_urls(raw: Any) -> tuple[str, ...]:
    urls = tuple(dict.fromkeys(comma_separated(raw)))
    for url in urls:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url
        if not plain or parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
            raise ValueError
        if parts.username is not None or (parts.port or 1) < 1:
            raise ValueError
    return urls


def _parse_secrets(raw: Any) -> tuple[bytes, ...]:
    parts = comma_separated(raw) if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple):
        raise ValueError
    return tuple(part if isinstance(part, bytes) else _parse_secret(part) for part in parts)


def _parse_secret(text: Any) -> bytes:
    if not isinstance(text, str) or not text.startswith(SECRET_PREFIX):
        raise ValueError
    try:
        key = b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except NotBase64:
        raise ValueError from None
    if not MIN_SECRET <= len(key) <= MAX_SECRET:
        raise ValueError
    return key


def _parse_events(raw: Any) -> tuple[str, ...]:
    events = tuple(comma_separated(raw))
    if not events or not set(events) <= set(EVENTS):
        raise ValueError
    return events


WEBHOOK_URLS = Kind(
    "URLS",
    "URLs such as https://example.org/hooks, separated by commas, without a user name or password",
    _parse_urls,
    lambda urls: ", ".join(map(redacted, urls)),
)
WEBHOOK_SECRETS = Kind(
    "SECRETS",
    f"secrets of {MIN_SECRET} to {MAX_SECRET} random bytes as {SECRET_PREFIX}BASE64, separated by commas",
    _parse_secrets,
    lambda _secrets: "***",
    secret=True,
)
WEBHOOK_EVENTS = Kind("EVENTS", f"some of {', '.join(EVENTS)}", _parse_events, ", ".join, EVENTS)


def check_webhooks(urls: tuple[str, ...], secrets: tuple[bytes, ...], *, private: bool) -> None:
    """Raise SettingError where the settings of webhooks contradict each other."""
    if urls and not secrets:
        raise SettingError(
            "webhook_urls is set, but webhook_secrets is not: an endpoint cannot verify requests. "
            f'Create a secret with: echo "{SECRET_PREFIX}$(openssl rand -base64 32)"'
        )
    for url in urls:
        if url.startswith("http:") and not private:
            raise SettingError(
                f"webhook_urls names {redacted(url)}, which is not encrypted: use https, or set "
                "webhook_private if the endpoint is inside your own network."
            )
