"""Accepted values of the settings for authentication, networks and TLS."""

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from operator import attrgetter
from pathlib import Path
from typing import Any

from reactor.errors import SettingError
from reactor.settings.kinds import Kind, comma_separated, text

MIN_SECRET = 32
"""Bytes of a secret for HS256: the length of its hash (RFC 7518 section 3.2)."""

Network = IPv4Network | IPv6Network

_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})
_LOCAL_SUFFIXES = (".localhost", ".local", ".lan", ".home.arpa", ".internal")
_HOST = re.compile(r"(\*\.)?[^\s/:,*]{1,253}")
_HOOK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def _parse_secret(raw: Any) -> bytes:
    secret = raw.encode() if isinstance(raw, str) else raw
    if not isinstance(secret, bytes) or len(secret) < MIN_SECRET:
        raise ValueError
    return secret


def _parse_rooms(raw: Any) -> tuple[str, ...]:
    return tuple(comma_separated(raw))


def _parse_hosts(raw: Any) -> tuple[str, ...]:
    hosts = tuple(part.lower().rstrip(".") for part in comma_separated(raw))
    if not all(host == "*" or _HOST.fullmatch(host) for host in hosts):
        raise ValueError
    return hosts


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
HOSTS = Kind(
    "HOSTS", "host names without ports, such as chat.example or *.example, separated by commas, or *",
    _parse_hosts, ", ".join,
)  # fmt: skip
NETWORKS = Kind(
    "NETWORKS",
    "addresses or networks such as 10.0.0.0/8, separated by commas, or none",
    _parse_networks,
    lambda networks: ", ".join(map(str, networks)) or "none",
)
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@lru_cache(64)  # the gateway asks for each handshake; the texts come from clients, so few are kept
def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback one, which only programs on this machine can reach."""
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(64)
def is_local_host(host: str) -> bool:
    """Whether a host is an address, or a name that public DNS does not resolve: a page cannot rebind it.

    Such names have no dot, or a suffix that is reserved for local networks (RFC 6761, 6762 and 8375, and
    .internal by ICANN).
    """
    if is_loopback(host) or host.endswith(_LOCAL_SUFFIXES):
        return True
    try:
        ip_address(host)
    except ValueError:
        return "." not in host
    return True


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Raise SettingError where only one of the certificate and its key is set."""
    if (cert is None) is not (key is None):
        here, missing = ("tls_cert", "tls_key") if key is None else ("tls_key", "tls_cert")
        raise SettingError(f"{here} is set, but {missing} is not: TLS needs the certificate and its key.")


def import_function(setting: str, name: str) -> Callable[..., Any]:
    """Import the function that a setting names as `module:function`, also from the current folder.

    Raises SettingError.
    """
    module, _, path = name.partition(":")
    current = str(Path.cwd())
    if current not in sys.path:
        sys.path.append(current)
    try:
        function = attrgetter(path)(import_module(module))
    except Exception as error:
        raise SettingError(
            f"{setting} {name} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    if not callable(function):
        raise SettingError(f"{setting} {name} is not a function.")
    return function  # type: ignore[no-any-return]
