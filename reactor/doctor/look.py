"""Reads what a server tells of itself: INFO, its configuration, its clock."""

from time import perf_counter, time
from typing import Any

from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from reactor.doctor.deployment import Clock, Server

DIRECTIVES = (
    "notify-keyspace-events",
    "maxmemory",
    "maxmemory-policy",
    "client-output-buffer-limit",
    "timeout",
    "tcp-keepalive",
    "save",
    "appendonly",
    "appendfsync",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "cluster-node-timeout",
    "bind",
    "protected-mode",
)
"""What is read of the configuration (https://redis.io/docs/latest/operate/oss_and_stack/management/config/)."""

_CLOCK_TRIES = 5


async def look(server: Server) -> None:
    """Note what the server shows; where it refuses, why. Raises CONNECTION_ERRORS when the link is lost."""
    started = perf_counter()
    await server.client.ping()
    server.answered_in = perf_counter() - started
    await _read_info(server)
    await _read_config(server)
    await _read_clock(server)


async def _read_info(server: Server) -> None:
    try:
        server.info = dict(await server.client.info())
    except ResponseError as error:
        server.refused["INFO"] = said(error)


async def _read_config(server: Server) -> None:
    try:
        found: Any = await server.client.config_get(*DIRECTIVES)
    except ResponseError as error:
        server.refused["CONFIG GET"] = said(error)
        return
    server.config = {str_if_bytes(name): str_if_bytes(value) for name, value in found.items()}


async def _read_clock(server: Server) -> None:
    """Compare clocks: of several answers the quickest is the truest."""
    best: Clock | None = None
    for _ in range(_CLOCK_TRIES):
        started, before = perf_counter(), time()
        try:
            seconds, microseconds = await server.client.time()
        except ResponseError as error:
            server.refused["TIME"] = said(error)
            return
        margin = (perf_counter() - started) / 2
        if best is None or margin < best.margin:
            best = Clock(int(seconds) + int(microseconds) / 1e6 - (before + margin), margin)
    server.clock = best


def said(error: BaseException) -> str:
    """What the server said, as a part of a sentence."""
    return str(error).strip().rstrip(".")
