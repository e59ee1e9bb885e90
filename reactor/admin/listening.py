"""The socket of the admin port."""

import socket

from reactor.errors import AddressInUse, SettingError


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens on an address. Raises AddressInUse or SettingError."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise SettingError(f"admin_host {host} is no address of this machine ({error}).") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()
    except OSError as error:
        sock.close()
        raise AddressInUse(
            f"port {port} on {host} cannot be listened on ({error.strerror}): choose another --admin-port."
        ) from error
    sock.setblocking(False)
    return sock
