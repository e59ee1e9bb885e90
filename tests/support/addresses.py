"""Which addresses of its own this machine has."""

import socket

LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def has(family: int) -> bool:
    """Whether this machine has the loopback address of a family."""
    try:
        with socket.socket(family) as sock:
            sock.bind((LOOPBACK[family], 0))
    except OSError:
        return False
    return True
