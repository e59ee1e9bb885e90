"""A server inside a program of one's own: `async with reactor.serving() as server`."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from reactor.admin import serving_admin
from reactor.backend.embedded import EmbeddedServer
from reactor.presence.api import Presence
from reactor.server.node import Node
from reactor.server.process import serve_node
from reactor.settings import Settings


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that `serving` has started.

    Attributes:
        url: Where clients connect: `ws://HOST:PORT/ws`.
        page: The page to try it, and the base of `client.js`: `http://HOST:PORT/`.
        presence: A `Presence` of its Redis; for the event loop that it was started in.
        admin_url: The base of the admin API; requests to it carry `admin_key`.
        admin_key: The key of the admin API.
        redis_url: Its Redis.

    """

    url: str
    page: str
    presence: Presence
    admin_url: str
    admin_key: str
    redis_url: str


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[RunningServer]:
    """Serve rooms in this process and event loop until the block ends.

    Without `redis_url` it starts an embedded Redis-compatible server, whose data is deleted at the end. The
    port is a free one of loopback unless `host` and `port` say otherwise. Nothing is read from the
    environment, and signals are left to the program.

    Args:
        settings: Settings by name, such as `ttl="2s"`; those of `reactor.Settings`.

    Raises:
        ReactorError: The server cannot start; the message is one line with the fix.

    """
    chosen = {
        "port": 0,
        "drain_seconds": 0,
        "admin_port": 0,
        "admin_key": secrets.token_urlsafe(32),
        **settings,
    }
    admin_ports: list[int] = []

    @asynccontextmanager
    async def admin(node: Node) -> AsyncIterator[None]:
        async with serving_admin(node) as port:
            admin_ports.append(port)
            yield

    async with AsyncExitStack() as stack:
        if chosen.get("redis_url") is None:
            chosen["redis_url"] = (await stack.enter_async_context(EmbeddedServer())).url
        given = Settings(**chosen)
        node = await stack.enter_async_context(serve_node(given, admin=admin))
        presence = await stack.enter_async_context(Presence.open(given))
        secure = "s" if given.tls_cert is not None else ""
        place = f"{_reachable(given.host)}:{node.gateway.port}"
        key = given.admin_key
        yield RunningServer(
            url=f"ws{secure}://{place}/ws",
            page=f"http{secure}://{place}/",
            presence=presence,
            admin_url=f"http{secure if given.admin_tls else ''}://{_reachable(given.admin_host)}:{admin_ports[0]}",
            admin_key="" if key is None else key.decode(),
            redis_url=given.redis_url or "",
        )


def _reachable(host: str) -> str:
    """Return the host of a URL for an address that is listened on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
