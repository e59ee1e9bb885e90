"""The limit of open files of this process, and the number of connections that fits in it."""

import resource
import sys

_UNLIMITED = 1_000_000
_RESERVED = 128
"""Open files for other things than clients: Redis, the admin port, logs, connections about to be rejected."""


def raise_fd_limit() -> None:
    """Raise the soft limit of open files to the hard limit; the usual 1,024 exists for `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = _UNLIMITED
    # macOS reports no limit but has one.
    wanted = min(hard, 10_240) if sys.platform == "darwin" else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def max_sockets() -> int:
    """Return how many connections fit in the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED
    return max(soft - max(_RESERVED, soft // 50), soft // 4, 1)
