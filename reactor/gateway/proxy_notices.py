"""Notices a proxy in front of the server that its settings do not know, or that names no clients.

Behind a proxy that is not trusted all clients share one address and its limits; behind one that names no
clients they share the proxy's, which are larger. Behind one that speaks the PROXY protocol no client is
served. Each is reported once, with the remedy.
"""

from collections import deque
from functools import lru_cache

import structlog
from websockets.datastructures import Headers

from reactor.settings.security import is_local_host, is_loopback

log = structlog.get_logger(__name__)

PROXY_PROTOCOL = (b"PROXY ", b"\r\n\r\n\x00\r\nQUIT\n")
"""How a connection begins with version 1 and 2 of HAProxy's PROXY protocol."""
NOTICE_AFTER = 20
"""WebSockets, one after the other, that look like it before it is reported."""

_FORWARDED = "X-Forwarded-For"
_OF_PROXIES = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
"""Headers that proxies add, in lower case, as `Headers` iterates over them."""


class ProxyNotices:
    """What the handshakes of WebSockets show of proxies.

    Attributes:
        lines: The notices as sentences, for `reactor doctor`.

    """

    def __init__(self) -> None:
        self._untrusted: deque[tuple[str, str]] = deque(maxlen=NOTICE_AFTER)
        self._unnamed: deque[str] = deque(maxlen=NOTICE_AFTER)
        self._proxy_protocol: deque[str] = deque(maxlen=NOTICE_AFTER)
        self.lines: list[str] = []

    def proxy_protocol(self, peer: str, *, trusted: bool) -> None:
        """Note a connection that began with the PROXY protocol: any client could do that, but for a proxy."""
        self._proxy_protocol.append(peer)
        if trusted or self._proxy_protocol.count(peer) == NOTICE_AFTER:
            remedy = (
                f"have the proxy {peer} send {_FORWARDED} in place of the PROXY protocol (HAProxy: option "
                "forwardfor, and no send-proxy): until then none of its clients is served"
            )
            if self._is_new(f"proxy sends the PROXY protocol: {remedy}"):
                log.warning("proxy_protocol_not_supported", address=peer, remedy=remedy)

    def untrusted(self, peer: str, headers: Headers) -> None:
        """Note a WebSocket from an address that is not a trusted proxy."""
        forwarded = ",".join(headers.get_all(_FORWARDED))
        if not forwarded:
            self._untrusted.clear()
            return
        self._untrusted.append((peer, forwarded))
        same_peer = all(address == peer for address, _ in self._untrusted)
        if len(self._untrusted) == NOTICE_AFTER and same_peer and len(set(self._untrusted)) > 1:
            remedy = (
                f"set trusted_proxies to {peer}: it sends {_FORWARDED}, and all its clients share the limits "
                "of one address"
            )
            if self._is_new(f"proxy not trusted: {remedy}"):
                log.warning("proxy_not_trusted", address=peer, remedy=remedy)

    def unnamed(self, peer: str, headers: Headers) -> None:
        """Note a WebSocket from a trusted proxy that named no client: unless one connected directly."""
        if is_loopback(peer) and _OF_PROXIES.isdisjoint(headers) and _is_local(headers.get("Host", "")):
            return
        self._unnamed.append(peer)
        if self._unnamed.count(peer) == NOTICE_AFTER:
            remedy = (
                f"have the proxy {peer} set {_FORWARDED} to the client's address: without it all its clients "
                "share the limits of one address"
            )
            if self._is_new(f"proxy names no client: {remedy}"):
                log.warning("proxy_names_no_client", address=peer, remedy=remedy)

    def _is_new(self, line: str) -> bool:
        kind = line.partition(":")[0]
        if any(known.startswith(kind) for known in self.lines):
            return False
        self.lines.append(line)
        return True


@lru_cache(64)
def _is_local(host: str) -> bool:
    """Return whether a Host header names this machine."""
    name = host.rpartition(":")[0] or host
    return is_local_host(name.strip("[]"))
