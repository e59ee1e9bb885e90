"""Binds listening sockets, with one clear error where an address is not available."""

import socket

from reactor.errors import AddressInUse, SettingError

EXCLUSIVE = (socket.SO_REUSEADDR,)
"""Options for a port of this process alone; see socket(7)."""
SHARED = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
"""Options for a port that other processes of this user may bind too. Both are set, since the connections of a
former server stay in TIME_WAIT for a minute, and count by the options of that server's socket."""


def bind_socket(
    host: str, port: int, *, options: tuple[int, ...] = EXCLUSIVE, settings: str = "--"
) -> socket.socket:
    """Return a socket bound to an address. Raises AddressInUse or SettingError.

    options: EXCLUSIVE or SHARED. settings: the prefix of the flags for host and port, for the error's text.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingError(f"{settings}host {host} is not an address of this machine ({error})") from error
    try:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise AddressInUse(
            f"port {port} on {host} cannot be listened on ({error.strerror}): choose another {settings}port"
        ) from error
    return sock
