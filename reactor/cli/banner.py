"""What `reactor serve` says once clients can connect."""

import sys

import structlog

from reactor import __version__
from reactor.settings import Settings
from reactor.settings.kinds import redacted


def greet(settings: Settings, port: int) -> None:
    """Tell a person in a terminal where the page is and how to stop; tell a log the same in one event."""
    place = reachable(settings.host, port)
    own = settings.redis_url is None
    redis = "embedded" if own else redacted(settings.redis_url or "")
    http, ws = ("https", "wss") if settings.tls_cert else ("http", "ws")
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        structlog.get_logger().info(
            "serving", page=f"{http}://{place}/", socket=f"{ws}://{place}/ws", redis=redis
        )
        return
    used = "a server of its own, emptied at the end (--redis-url names another)" if own else redis
    sys.stdout.write(
        f"\n  reactor {__version__} is serving\n\n"
        f"  Page    {http}://{place}/  (open it in two tabs)\n"
        f"  Socket  {ws}://{place}/ws\n"
        f"  Redis   {used}\n{_admin(settings)}"
        f"  Stop    Ctrl-C\n\n"
    )
    sys.stdout.flush()


def _admin(settings: Settings) -> str:
    if not settings.admin_port:  # any free one is told by the log
        return ""
    http = "https" if settings.admin_tls else "http"
    place = reachable(settings.admin_host, settings.admin_port)
    return f"  Admin   {http}://{place}/  (with the admin key)\n"


def reachable(host: str, port: int) -> str:
    """Give host and port as a browser on this machine takes them."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104
    name = everywhere.get(host, host)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
