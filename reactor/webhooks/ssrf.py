"""Protects the server's own network from requests to webhook URLs (server-side request forgery).

The address is checked after the name was resolved, and the connection goes to that same address, so that a
name cannot resolve to another one between check and use (DNS rebinding). Redirects are not followed.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import anyio
import httpcore

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052 section 2.1: the last four bytes are an IPv4 address."""

_UNICAST = IPv6Network("2000::/3")
"""All that is assigned of the global unicast addresses; Python takes unassigned ones for global too."""

_SPECIAL = tuple(
    map(
        IPv6Network,
        ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16"),
    )
)
"""Blocks in it for special purposes, with tunnels (https://www.iana.org/assignments/iana-ipv6-special-registry)."""


class PrivateAddress(httpcore.ConnectError):
    """The host name resolves to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; so must the IPv4 address that it may stand for."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        embedded = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped
        if embedded is None:
            return ip in _UNICAST and ip.is_global and not any(ip in block for block in _SPECIAL)
        ip = embedded
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class PublicNetworkBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect. Raises PrivateAddress, httpcore.ConnectError, httpcore.ConnectTimeout."""
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} does not resolve: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if not is_public(address):
                raise PrivateAddress(f"{host} is {address}, which is no public address")
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # on a machine without IPv6 an IPv6 address may come first
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)
