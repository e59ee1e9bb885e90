"""Opens Redis, and says in one line what is wrong and what mends it when that does not work."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anyio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from reactor.backend.diagnose import explain
from reactor.backend.sentinels import Sentinels
from reactor.backend.target import Target, parse_url
from reactor.errors import RedisMisconfigured, RedisTooOld, Unavailable

__all__ = [
    "LINK_ERRORS",
    "EventsState",
    "Target",
    "check_version",
    "close_client",
    "ensure_events",
    "open_data",
    "open_pubsub_client",
    "parse_url",
    "with_expired",
]

CONNECT_TIMEOUT = 3.0
COMMAND_TIMEOUT = 5.0
SENTINEL_TIMEOUT = 0.5
LINK_ERRORS = (RedisError, OSError, RuntimeError)
"""What a command may raise when the link is lost: uvloop raises RuntimeError for a write to a transport that
the other side has closed, and redis-py hands it on as it is."""

_OLDEST = (7, 0)
_EVENTS = "notify-keyspace-events"


@dataclass(frozen=True, slots=True)
class EventsState:
    """Whether Redis tells about expired keys.

    `kind` is `ok`, `set` (we switched them on), `missing` (off, and we may not switch them on) or `unknown`
    (not to be seen here). `line` says so to the operator, with the mend where there is one.
    """

    kind: Literal["ok", "set", "missing", "unknown"]
    line: str = ""

    @property
    def ok(self) -> bool:
        """Whether events are known to be sent."""
        return self.kind in {"ok", "set"}


@contextmanager
def lost_means_unavailable() -> Iterator[None]:
    """Raise Unavailable in place of whatever redis-py raises when the server does not answer, or refuses."""
    try:
        yield
    except LINK_ERRORS as error:
        raise Unavailable(f"Redis did not answer: {error}") from error


async def open_data(target: Target) -> Redis:
    """Open the client for commands, and see that the server behind it will do.

    A command is never repeated by the client: a script that ran, and whose reply was lost, would run twice.
    Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with one line and its mend.
    """
    client = _client(target, COMMAND_TIMEOUT)
    try:
        await check_server(target, client)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await close_client(client)
        raise
    return client


async def close_client(client: Redis) -> None:
    """Close a client of one server, with the links that it has to the Sentinels on its own."""
    await client.aclose()
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


async def check_server(target: Target, client: Redis) -> None:
    """See that a server answers and will do.

    Raises RedisUnreachable, RedisMisconfigured or RedisTooOld, each with one line and its mend.
    """
    try:
        with anyio.fail_after(CONNECT_TIMEOUT + COMMAND_TIMEOUT):
            await client.ping()
            await _check_server(client, target)
    except LINK_ERRORS as error:
        raise await explain(error, target) from error


async def open_pubsub_client(target: Target) -> Redis:
    """Make the client for subscriptions, which may wait for the next message without end."""
    return _client(target, None)


async def ensure_events(redis: Redis, target: Target) -> EventsState:
    """See that Redis sends `expired` events, and switch them on where that is allowed.

    They need the flags E and x (or A) of notify-keyspace-events
    (https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/); flags that are there already stay.
    Raises RedisUnreachable when the link is lost; a refusal is no error.
    """
    try:
        flags = await _read_flags(redis)
        if flags is None:
            return EventsState(
                "unknown",
                f"{target} does not show its {_EVENTS}; for events it needs the flags E and x.",
            )
        wanted = with_expired(flags)
        if wanted == flags:
            return EventsState("ok")
        reason = await _set_flags(redis, wanted)
    except LINK_ERRORS as error:
        raise await explain(error, target) from error
    if reason is None:
        return EventsState("set", f'{target} sent no expired events; set {_EVENTS} to "{wanted}".')
    return EventsState(
        "missing",
        f"{target} sends no expired events, and we may not change that ({reason}): write "
        f'"{_EVENTS} {wanted}" into its configuration, or run redis-cli CONFIG SET {_EVENTS} {wanted}.',
    )


def with_expired(flags: str) -> str:
    """Flags of notify-keyspace-events with those that `expired` events need; what is there stays."""
    return flags + "".join(flag for flag in "Ex" if flag not in flags and not (flag == "x" and "A" in flags))


def check_version(info: Mapping[str, Any], target: Target) -> None:
    """Raise RedisTooOld unless the reply to INFO server is of a Redis 7.0 or later, or of a Valkey."""
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
    if numbers < _OLDEST:
        raise RedisTooOld(f"{target} is Redis {version}; reactor needs Redis 7.0 or later, or Valkey.")


def client_at(target: Target, address: tuple[str, int], *, waits: bool = False) -> Redis:
    """Make a client of one server of the target. waits: for subscriptions, which may wait without end."""
    options: dict[str, Any] = {"unix_socket_path": target.path}
    if target.path is None:
        host, port = address
        options = {"host": host, "port": port, "ssl": target.tls, "socket_keepalive": True, **_tls(target)}
    return Redis(**options, **_common(target, None if waits else COMMAND_TIMEOUT))


def open_sentinel(target: Target) -> Sentinels:
    """Make the client that asks the target's Sentinels for the primary's address."""
    ask: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "username": target.sentinel_username,
        "password": target.sentinel_password,
    }
    return Sentinels(list(target.hosts), sentinel_kwargs=ask)  # type: ignore[no-untyped-call]


def _client(target: Target, timeout: float | None) -> Redis:
    if target.kind == "sentinel":
        tls = {"ssl": True, **_tls(target)} if target.tls else {}
        primary: Redis = open_sentinel(target).master_for(
            target.master_name or "", **_common(target, timeout), **tls
        )
        return primary
    return client_at(target, target.hosts[0] if target.hosts else ("", 0), waits=timeout is None)


def _common(target: Target, timeout: float | None) -> dict[str, Any]:
    return {
        "db": target.db,
        "username": target.username,
        "password": target.password,
        "protocol": 2,  # hashes parse faster from RESP2 than from RESP3
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "health_check_interval": 0,
    }


def _tls(target: Target) -> dict[str, Any]:
    options: dict[str, Any] = dict(target.tls_options)
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in {
            "0",
            "false",
            "no",
            "off",
        }
    return options


async def _check_server(client: Redis, target: Target) -> None:
    try:
        server, replication = await client.info("server"), await client.info("replication")
    except NoPermissionError:
        return
    check_version(server, target)
    mode = server.get("server_mode", server.get("redis_mode"))  # Valkey has its own word
    if mode == "sentinel":
        raise RedisMisconfigured(f"{target} is a Sentinel; write redis+sentinel://HOST:PORT/NAME.")
    if mode == "cluster" and target.kind != "cluster":
        raise RedisMisconfigured(f"{target} is part of a cluster; write redis+cluster://HOST:PORT.")
    if mode != "cluster" and target.kind == "cluster":
        raise RedisMisconfigured(f"{target} is no cluster; write redis://HOST:PORT.")
    if replication.get("role") == "slave" and target.kind != "cluster":
        primary = f"{replication.get('master_host')}:{replication.get('master_port')}"
        raise RedisMisconfigured(f"{target} is a replica and takes no writes; give its primary, {primary}.")


async def _read_flags(redis: Redis) -> str | None:
    try:
        found = await redis.config_get(_EVENTS)
    except ResponseError:
        return None
    for key, value in found.items():
        if _text(key) == _EVENTS:
            return _text(value)
    return None


async def _set_flags(redis: Redis, wanted: str) -> str | None:
    try:
        await redis.config_set(_EVENTS, wanted)
    except ResponseError as error:
        return str(error).strip().rstrip(".")
    return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
