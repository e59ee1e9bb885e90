"""Origins of web pages (RFC 6454) as an operator writes them, with wildcards, and as a browser sends them."""

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from reactor.settings.kinds import Kind, comma_separated

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::(?P<port>\d{1,5}|\*))?"
)
_HOST = re.compile(r"[a-z0-9*_-]+(?:\.[a-z0-9*_-]+)*")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LABELS = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_PORT = re.compile(r"\d+", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)
_MAX_PORT = 65535
_MAPPED_ELSEWHERE = frozenset("ßς\u200c\u200d")
"""Characters that browsers keep in a name (UTS 46), and Python's IDNA 2003 replaces: another host."""


def _parse_origins(raw: Any) -> tuple[str, ...]:
    return tuple(map(_as_sent, comma_separated(raw)))


def _as_sent(written: str) -> str:
    """Return an origin as browsers send it: in lower case, with an ASCII host and without a default port.

    What no browser sends is refused, since it would let no page in.
    """
    origin = written.lower().removesuffix("/")
    if origin in {"*", "null"}:
        return origin
    found = _ORIGIN.fullmatch(origin)
    # A WebSocket's own address is not the origin of a page.
    if found is None or found["scheme"] in {"ws", "wss"}:
        raise ValueError
    host, port = _host_as_sent(found["host"]), found["port"]
    if port not in (None, "*"):
        port = str(int(port))
        if not 0 < int(port) <= _MAX_PORT:
            raise ValueError
    shown_port = "" if port in (None, _DEFAULT_PORTS.get(found["scheme"])) else f":{port}"
    return f"{found['scheme']}://{host}{shown_port}"


def _host_as_sent(host: str) -> str:
    if host.startswith("["):
        address = IPv6Address(host[1:-1])
        if address.ipv4_mapped is not None:
            # Browsers write it in hexadecimal, and Python depends on its version.
            number = int(address.ipv4_mapped)
            return f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]"
        return f"[{address.compressed}]"
    if not host.isascii():
        if not _MAPPED_ELSEWHERE.isdisjoint(host):
            raise ValueError
        host = host.encode("idna").decode()
    last = host.rpartition(".")[2]
    if not _HOST.fullmatch(host) or "*" in last:
        raise ValueError
    if _NUMBER.fullmatch(last) and "*" not in host:
        return str(IPv4Address(host))  # browsers send other ways to write one, such as 127.1, as this one
    return host


ORIGINS = Kind(
    "ORIGINS",
    "web origins such as https://example.org, https://*.example.org (its subdomains) or http://localhost:* "
    "(any port), separated by commas; null for sandboxed frames; * for all",
    _parse_origins,
    ", ".join,
)


class AllowedOrigins:
    """Which pages may connect, by the setting `origins`.

    `*` stands for some characters of one label of the host, as the whole first label for one or more labels,
    and as the port for any.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._all = "*" in origins
        self._exact = frozenset(origin for origin in origins if "*" not in origin)
        self._patterns = [_Pattern(origin) for origin in origins if "*" in origin and origin != "*"]

    def allow(self, origin: str) -> bool:
        """Return whether a page of this origin (in lower case) may connect."""
        return self._all or origin in self._exact or any(one.matches(origin) for one in self._patterns)


class _Pattern:
    """An origin with wildcards. Matching takes time in proportion to the text, whatever a client sends.

    A regular expression with several wildcards in one label would try their combinations.
    """

    def __init__(self, written: str) -> None:
        self._scheme, self._host, self._port = _split(written)
        labels = self._host.split(".")
        self._any_first = labels[0] == "*"
        self._labels = [label.split("*") for label in (labels[1:] if self._any_first else labels)]

    def matches(self, origin: str) -> bool:
        """Return whether the pattern matches all of the origin."""
        scheme, host, port = _split(origin)
        if scheme != self._scheme or not (port == self._port or (self._port == "*" and _is_port(port))):
            return False
        if host == self._host:
            return "*" not in host
        labels = host.split(".")
        count = len(labels) - len(self._labels)
        if not _LABELS.fullmatch(host) or ((count < 1) if self._any_first else (count != 0)):
            return False
        return all(map(_matches_label, self._labels, labels[count:]))


def _split(origin: str) -> tuple[str, str, str]:
    """The scheme, host and port of an origin; the port is empty where there is none."""
    scheme, _, rest = origin.partition("://")
    bracket = rest.rfind("]") + 1  # an IPv6 address has colons
    host, _, port = rest[bracket:].partition(":")
    return scheme, rest[:bracket] + host, port


def _is_port(port: str) -> bool:
    return not port or _PORT.fullmatch(port) is not None


def _matches_label(parts: list[str], label: str) -> bool:
    """Whether a label is these parts in this order, with any characters between two of them."""
    first, *middle = parts
    if not middle:
        return label == first
    *middle, last = middle
    end = len(label) - len(last)
    if not (label.startswith(first) and label.endswith(last)) or end < len(first):
        return False
    if parts == ["", ""]:
        return label != ""
    at = len(first)
    for part in middle:
        # The leftmost place leaves the most for the parts that follow.
        found = label.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
