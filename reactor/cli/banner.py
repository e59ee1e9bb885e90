"""What `reactor serve` prints or logs once clients can connect."""

import sys

import structlog

from reactor import __version__
from reactor.settings import Settings
from reactor.settings.kinds import redacted


def announce(settings: Settings, port: int) -> None:
    """Print the addresses and how to stop in a terminal; elsewhere log them as one event."""
    address = local_address(settings.host, port)
    embedded = settings.redis_url is None
    redis = "embedded" if embedded else redacted(settings.redis_url or "")
    http, ws = ("https", "wss") if settings.tls_cert else ("http", "ws")
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        structlog.get_logger().info(
            "serving", page=f"{http}://{address}/", socket=f"{ws}://{address}/ws", redis=redis
        )
        return
    shown = "embedded; its data is deleted at exit (--redis-url names another)" if embedded else redis
    sys.stdout.write(
        f"\n  reactor {__version__} is serving\n\n"
        f"  Page    {http}://{address}/  (open it in two tabs)\n"
        f"  Socket  {ws}://{address}/ws\n"
        f"  Redis   {shown}\n{_admin(settings)}"
        f"  Stop    Ctrl-C\n\n"
    )
    sys.stdout.flush()


def _admin(settings: Settings) -> str:
    if not settings.admin_port:  # 0 takes a free port, which the log names
        return ""
    http = "https" if settings.admin_tls else "http"
    address = local_address(settings.admin_host, settings.admin_port)
    return f"  Admin   {http}://{address}/  (with the admin key)\n"


def local_address(host: str, port: int) -> str:
    """`HOST:PORT` for a browser on this machine; a host that means every interface becomes loopback."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104
    name = loopback.get(host, host)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
