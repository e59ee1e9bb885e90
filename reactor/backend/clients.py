"""Clients of single Redis servers and Sentinels, and the checks that a server has to pass.

Every error that leaves this module is one line that names the server, what is wrong and how to fix it.
"""

import re
from asyncio import gather
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import anyio
from redis.asyncio import Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - as redis-py names it
    RedisError,
    ResponseError,
)
from redis.utils import str_if_bytes

from reactor.backend.diagnose import BUSY_WORDS, explain, refusal_of_connections
from reactor.backend.target import Target
from reactor.errors import RedisMisconfigured, RedisTooOld, Unavailable
from reactor.settings.kinds import parse_switch

# Seconds.
CONNECT_TIMEOUT = 3.0
COMMAND_TIMEOUT = 5.0
SENTINEL_TIMEOUT = 0.5
CONNECTION_ERRORS = (RedisError, OSError, RuntimeError)
"""What a command may raise when its connection breaks. RuntimeError: uvloop raises it for a write to a
transport that the peer has closed, and redis-py does not translate it."""

_MIN_VERSION = (7, 0)
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")
_EVENTS = "notify-keyspace-events"


@dataclass(frozen=True, slots=True)
class EventsState:
    """Whether a server publishes `expired` events.

    kind: `ok`, `set` (they were off and are on now), `missing` (they are off, and the user may not switch
    them on) or `unknown` (the server does not show its configuration).
    line: the same as a sentence for the operator, with the fix; empty for `ok`.
    """

    kind: Literal["ok", "set", "missing", "unknown"]
    line: str = ""

    @property
    def ok(self) -> bool:
        """Whether events are known to be published."""
        return self.kind in {"ok", "set"}


@contextmanager
def errors_as_unavailable() -> Iterator[None]:
    """Raise Unavailable in place of an error of redis-py: the server did not answer, or refused."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise Unavailable(f"Redis did not answer: {error}") from error


def command_client(target: Target) -> Redis:
    """A client for commands. Nothing is connected yet.

    The client never retries a command by itself: a script whose reply was lost has run, and would run twice.
    """
    return _client(target, COMMAND_TIMEOUT)


def pubsub_client(target: Target) -> Redis:
    """A client for subscriptions, whose reads have no timeout. Nothing is connected yet."""
    return _client(target, None)


async def open_command_client(target: Target) -> Redis:
    """A client for commands, after `check_server`, whose errors it raises."""
    client = command_client(target)
    try:
        await check_server(target, client)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await close_client(client)
        raise
    return client


UNKNOWN_RUN = "unknown"
"""The run id of a server that does not show it to this user: it is then taken for the same server always."""


async def run_id_of(client: Redis) -> str:
    """The server's run id (https://redis.io/docs/latest/commands/info/). Raises Unavailable."""
    with errors_as_unavailable():
        return str((await shown_info(client, "server")).get("run_id", UNKNOWN_RUN))


async def shown_info(client: Redis, section: str) -> Mapping[str, Any]:
    """What INFO shows of a section to this user; empty where it is refused.

    Managed services rename INFO, refuse it or some of its sections in words of their own, or leave fields
    out; nothing that is needed depends on it. Raises an error of redis-py where the server does not answer,
    or takes no commands at present.
    """
    try:
        shown: Mapping[str, Any] = await client.info(section)
    except ResponseError as error:
        if isinstance(error, BusyLoadingError) or str(error).startswith(BUSY_WORDS):
            raise
        return {}
    return shown


@dataclass(frozen=True, slots=True)
class MemoryState:
    """What Redis does when its memory is full.

    policy: maxmemory-policy, and empty where the server does not show it. evicts: whether keys can be
    evicted: the policy is another than noeviction, and maxmemory is set. evicted: keys, since its start.
    """

    policy: str = ""
    evicts: bool = False
    evicted: int = 0


async def memory_state_of(client: Redis) -> MemoryState:
    """The state of a server's memory (https://redis.io/docs/latest/commands/info/). Raises Unavailable."""
    with errors_as_unavailable():
        memory, stats = await shown_info(client, "memory"), await shown_info(client, "stats")
    policy, limit = str(memory.get("maxmemory_policy", "")), number_in(memory, "maxmemory")
    evicts = limit > 0 and policy not in {"", "noeviction"}
    return MemoryState(policy, evicts, number_in(stats, "evicted_keys"))


def number_in(info: Mapping[str, Any], name: str) -> int:
    """A whole number that INFO shows; 0 where it shows none, or something else in its place."""
    shown = info.get(name)
    return shown if isinstance(shown, int) else 0


async def close_client(client: Redis) -> None:
    """Close a client, and the connections to Sentinels that it holds."""
    await client.aclose()
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        await pool.sentinel_manager.aclose()


async def check_server(target: Target, client: Redis) -> None:
    """Check that a server answers, has the shape that the target names, and is new enough.

    Raises RedisUnreachable, RedisMisconfigured or RedisTooOld.
    """
    try:
        with anyio.fail_after(CONNECT_TIMEOUT + COMMAND_TIMEOUT):
            await client.ping()
            await _check_server(client, target)
    except CONNECTION_ERRORS as error:
        raise await explain(error, target) from error


async def ensure_events(redis: Redis, target: Target, *, manage: bool = True) -> EventsState:
    """Switch on `expired` events where they are off and the user may do so; the resulting state.

    manage: whether to change the server's configuration at all.
    They need the flags E and x (or A) of notify-keyspace-events
    (https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/); flags already set are kept.
    Raises RedisUnreachable when the connection breaks; a refusal is a state, not an error.
    """
    try:
        flags = await _read_flags(redis)
        if flags is None:
            return EventsState(
                "unknown",
                f"{target} does not show {_EVENTS} to this user; whether it publishes expired events is "
                "known from the first one on.",
            )
        wanted = with_expired(flags)
        if wanted == flags:
            return EventsState("ok")
        reason = await _set_flags(redis, wanted) if manage else "manage_redis is off"
    except CONNECTION_ERRORS as error:
        raise await explain(error, target) from error
    if reason is None:
        return EventsState(
            "set",
            f'{target} published no expired events: {_EVENTS} was "{flags}", and was set to "{wanted}" from '
            "here. CONFIG REWRITE keeps it after a restart of Redis; manage_redis=off leaves Redis alone.",
        )
    return EventsState(
        "missing",
        f"{target} publishes no expired events, and this server does not switch them on ({reason}): write "
        f'"{_EVENTS} {wanted}" into its configuration, or run redis-cli CONFIG SET {_EVENTS} {wanted}.',
    )


def with_expired(flags: str) -> str:
    """The flags of notify-keyspace-events, with those added that `expired` events need."""
    return flags + "".join(flag for flag in "Ex" if flag not in flags and not (flag == "x" and "A" in flags))


def check_version(info: Mapping[str, Any], target: Target) -> None:
    """Raise RedisTooOld where `info`, a reply to INFO server, shows a release before Redis 7.0."""
    version = str(info.get("redis_version", ""))
    found = _VERSION.match(version)
    if found and (int(found[1]), int(found[2] or 0)) < _MIN_VERSION:
        raise RedisTooOld(f"{target} is Redis {version}; reactor needs Redis 7.0 or later, or Valkey.")


def client_at(target: Target, address: tuple[str, int], *, blocking: bool = False) -> Redis:
    """A client of one server of the target. blocking: without a read timeout, for subscriptions."""
    options: dict[str, Any] = {"unix_socket_path": target.path}
    if target.path is None:
        host, port = address
        options = {"host": host, "port": port, "ssl": target.tls, "socket_keepalive": True, **_tls(target)}
    return _guarded(Redis(**options, **_common(target, None if blocking else COMMAND_TIMEOUT)))


class Sentinels(Sentinel):
    """The Sentinels of one set; the primary is the address that most of those that answer give.

    redis-py asks the first Sentinel for its SENTINEL MASTERS, which lists the former primary until every
    replica follows the new one, some seconds longer; and a Sentinel that was cut off knows only the former.
    https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    target: Target

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's host and port. Raises MasterNotFoundError when no Sentinel knows one."""
        answers: list[Any] = await gather(
            *(sentinel.sentinel_get_master_addr_by_name(service_name) for sentinel in self.sentinels),
            return_exceptions=True,
        )
        votes = Counter(tuple(answer) for answer in answers if isinstance(answer, list | tuple))
        if not votes:
            failure = next((answer for answer in answers if isinstance(answer, BaseException)), None)
            raise MasterNotFoundError(f"No master found for {service_name!r}") from failure
        ((host, port), _), *_ = votes.most_common(1)
        return self.target.reachable((str_if_bytes(host), int(port)))


def open_sentinels(target: Target) -> Sentinels:
    """A client of the target's Sentinels. Nothing is connected yet."""
    options: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "username": target.sentinel_username,
        "password": target.sentinel_password,
        **({"ssl": True, **_tls(target)} if target.sentinel_tls else {}),
    }
    sentinels = Sentinels(list(target.hosts), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    sentinels.target = target
    return sentinels


def _client(target: Target, timeout: float | None) -> Redis:
    if target.kind == "sentinel":
        tls = {"ssl": True, **_tls(target)} if target.tls else {}
        primary: Redis = open_sentinels(target).master_for(
            target.master_name or "", **_common(target, timeout), **tls
        )
        return _guarded(primary)
    return client_at(target, target.hosts[0] if target.hosts else ("", 0), blocking=timeout is None)


def _guarded(client: Redis) -> Redis:
    pool: Any = client.connection_pool
    pool.connection_class = _guarded_class(pool.connection_class)
    return client


@cache
def _guarded_class(kind: type[Any]) -> type[Any]:
    """Return a class of connections whose errors say what has happened.

    A connection that is closed meanwhile is a broken connection: redis-py writes in a task of its own. A pool
    that is disconnected before that runs, as after a failover, has set the writer to None, and redis-py does
    not translate the AttributeError.

    What the server answers to the first commands of a connection, such as a refused password, is raised as
    it is. On a Unix socket redis-py raises a ConnectionError in its place, as if there were no server, and
    may leave the connection open, which the next command would then use without that user or database.

    A server that refuses every connection says so at once and closes it; what was sent to it meanwhile can
    turn that into a reset, which says nothing. So it is asked again by a connection that sends nothing.
    """

    async def send(self: Any, command: Any) -> None:
        if self._writer is None:
            raise ConnectionError("The connection was closed")
        await kind._send_packed_command(self, command)  # noqa: SLF001 - see above

    async def connect(self: Any, *arguments: Any, **options: Any) -> None:
        try:
            await kind.connect_check_health(self, *arguments, **options)
        except ConnectionError as error:
            answer = error.__cause__
            if not isinstance(answer, RedisError):
                if isinstance(self, SSLConnection):  # it says nothing before the handshake
                    raise
                path, host = getattr(self, "path", None), getattr(self, "host", "")
                if (refusal := await refusal_of_connections(path or (host, self.port))) is None:
                    raise
                raise refusal from error
        else:
            return
        await self.disconnect()
        raise answer

    return type(kind.__name__, (kind,), {"_send_packed_command": send, "connect_check_health": connect})


def _common(target: Target, timeout: float | None) -> dict[str, Any]:
    return {
        "db": target.db,
        **_login(target),
        "protocol": 2,  # hashes parse faster from RESP2 than from RESP3
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "health_check_interval": 0,
    }


def _login(target: Target) -> dict[str, Any]:
    if target.credentials is not None:
        return {"credential_provider": target.credentials}
    return {"username": target.username, "password": target.password}


def _tls(target: Target) -> dict[str, Any]:
    # Without a password OpenSSL would ask for that of an encrypted key at the terminal.
    options: dict[str, Any] = {"ssl_password": "", **dict(target.tls_options)}
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = parse_switch(options["ssl_check_hostname"])
    return options


async def _check_server(client: Redis, target: Target) -> None:
    server, replication = await shown_info(client, "server"), await shown_info(client, "replication")
    check_version(server, target)
    mode = server.get("server_mode", server.get("redis_mode"))  # the name in Valkey, then in Redis
    if mode == "sentinel":
        raise RedisMisconfigured(f"{target} is a Sentinel; use redis+sentinel://HOST:PORT/NAME.")
    if mode == "cluster" and target.kind != "cluster":
        raise RedisMisconfigured(f"{target} is a cluster node; use redis+cluster://HOST:PORT.")
    if mode not in {"cluster", None} and target.kind == "cluster":
        raise RedisMisconfigured(f"{target} is not a cluster; use redis://HOST:PORT.")
    if replication.get("role") == "slave" and target.kind != "cluster":
        primary = f"{replication.get('master_host')}:{replication.get('master_port')}"
        raise RedisMisconfigured(f"{target} is a read-only replica; use its primary, {primary}.")


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
