"""Bound sockets, and one clear line where an address cannot be had."""

import socket

from reactor.errors import AddressInUse, SettingError

ALONE, TOGETHER = socket.SO_REUSEADDR, socket.SO_REUSEPORT
"""For a port of one's own, and for one that other processes of this user may bind too (socket(7))."""


def bound(host: str, port: int, *, option: int, settings: str = "--") -> socket.socket:
    """A socket bound to an address. settings: what `host` and `port` follow in the settings' names.

    Raises AddressInUse or SettingError.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingError(f"{settings}host {host} is no address of this machine ({error})") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise AddressInUse(
            f"port {port} on {host} cannot be listened on ({error.strerror}): choose another {settings}port"
        ) from error
    return sock
