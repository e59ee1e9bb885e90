"""Binds the sockets that a process listens on, with one clear error where an address is not available."""

import errno
import socket

from reactor.errors import AddressInUse, ReactorError, SettingError


def bind_sockets(host: str, port: int, *, shared: bool = False, flags: str = "--") -> list[socket.socket]:
    """Return a bound socket for each address of a host; the caller closes them.

    Of several addresses, as `localhost` has them, those are left out that this machine lacks, such as all of
    IPv6. The host `::` accepts IPv4 as well (ipv6(7), IPV6_V6ONLY), as most servers do.

    Args:
        host: A name or an address.
        port: 0 for any free one, the same for all addresses.
        shared: Whether other processes of this user may bind it too (socket(7), SO_REUSEPORT).
        flags: The prefix of the flags for host and port, for the texts of errors.

    Raises:
        AddressInUse: Another program uses the port.
        SettingError: The host is not an address of this machine, or the port needs privileges.

    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise explain(error, host, port, flags) from error
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    bound: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        try:
            bound.append(_bind(family, (address[0], port, *address[2:]), shared=shared))
        except OSError as error:
            if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} and len(addresses) > 1:
                missing = error
                continue
            for sock in bound:
                sock.close()
            raise explain(error, host, port, flags) from error
        port = bound[0].getsockname()[1]
    if missing is not None and not bound:
        raise explain(missing, host, port, flags) from missing
    return bound


def explain(error: OSError, host: str, port: int, flags: str = "--") -> ReactorError:
    """Return what an error of binding or listening means, with its fix."""
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"port {port} on {host} is used by another program: choose another {flags}port")
    if error.errno == errno.EACCES:
        return SettingError(
            f"port {port} needs privileges that this process lacks: use a {flags}port above 1023"
        )
    return SettingError(f"cannot listen on {host} port {port} ({error}): use a {flags}host of this machine")


def _bind(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    # With the protocol by number: asyncio sets TCP_NODELAY only where it is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Also where the port is shared: the connections of a former server stay in TIME_WAIT for a minute,
        # and count by the options of that server's socket.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
