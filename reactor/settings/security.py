"""Accepted values of the settings for authentication, networks and TLS."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from reactor.errors import SettingError
from reactor.settings.kinds import Kind, comma_separated, text

MIN_SECRET = 32
"""Bytes of a secret for HS256: the length of its hash (RFC 7518 section 3.2)."""

Network = IPv4Network | IPv6Network

_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})
_HOOK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def _parse_secret(raw: Any) -> bytes:
    secret = raw.encode() if isinstance(raw, str) else raw
    if not isinstance(secret, bytes) or len(secret) < MIN_SECRET:
        raise ValueError
    return secret


def _parse_rooms(raw: Any) -> tuple[str, ...]:
    return tuple(comma_separated(raw))


def _parse_networks(raw: Any) -> tuple[Network, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple):
        raise ValueError
    kept = [part.strip() if isinstance(part, str) else part for part in parts]
    if kept in ([""], ["none"]):
        return ()
    return tuple(_network(part) for part in kept)


def _network(part: Any) -> Network:
    if isinstance(part, IPv4Network | IPv6Network):
        return part
    if not isinstance(part, str):
        raise ValueError
    return ip_network(part, strict=False)


AUTH_SECRET = Kind(
    "SECRET",
    f"{MIN_SECRET} bytes or more, preferably random, as from openssl rand -base64 48",
    _parse_secret,
    lambda _secret: "***",
    secret=True,
)
AUTH_HOOK = text("a function to import, as module:function", _HOOK.pattern)
AUTH_CLAIM = text("a text of 1 to 500 characters", r"[^\x00-\x1f\x7f]{1,500}")
AUTH_ROOMS = Kind("ROOMS", "room ids or patterns, separated by commas", _parse_rooms, ", ".join)
NETWORKS = Kind(
    "NETWORKS",
    "addresses or networks such as 10.0.0.0/8, separated by commas, or none",
    _parse_networks,
    lambda networks: ", ".join(map(str, networks)) or "none",
)
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback one, which only programs on this machine can reach."""
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Raise SettingError where only one of the certificate and its key is set."""
    if (cert is None) is not (key is None):
        here, missing = ("tls_cert", "tls_key") if key is None else ("tls_key", "tls_cert")
        raise SettingError(f"{here} is set, but {missing} is not: TLS needs the certificate and its key.")
