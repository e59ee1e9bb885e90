"""How many files this process may have open, and so how many sockets; and when some are read anew."""

import resource
import signal
import sys

from reactor.settings import Settings

_UNLIMITED = 1_000_000
_KEPT_BACK = 128
"""Open files that are no clients' sockets: Redis, the admin port, logs, and those that are being refused."""


def reload_signals(settings: Settings) -> tuple[signal.Signals, ...]:
    """SIGHUP where there is a certificate or a file of keys; elsewhere it ends the process, as always."""
    return (signal.SIGHUP,) if settings.tls_cert or settings.auth_jwks else ()


def raise_limit() -> None:
    """Allow this process as many open files as it may allow itself; the usual 1,024 is for `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = _UNLIMITED
    # macOS names no limit and yet has one.
    wanted = min(hard, 10_240) if sys.platform == "darwin" else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def room_for_sockets() -> int:
    """Sockets that fit beside the files that are needed in any case."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED
    return max(soft - max(_KEPT_BACK, soft // 50), soft // 4, 1)
