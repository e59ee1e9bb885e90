"""The permissions that the server's user needs, and a trial of each that changes nothing.

Redis checks a user's permissions before it looks at arguments and keys
(https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/), so each command is sent with
arguments that make it do nothing: a key that does not exist, or a value that the command does not accept. Any
reply but a refusal shows that the permission is there, also on a replica and for a slot of another server.
"""

from collections.abc import Sequence
from secrets import token_hex
from typing import Any

import anyio
from redis.exceptions import NoPermissionError, ResponseError

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor.deployment import InspectedServer, MissingPermission, error_text
from reactor.presence.keys import SHARDS, fleet_prefix, shard_prefix

Words = tuple[str, ...]

KEY = "<key>"
"""Stands for a temporary key or channel."""

KEY_COMMANDS: dict[str, Words] = {
    "exists": (KEY,),
    "del": (KEY,),
    "persist": (KEY,),
    "pexpire": (KEY, "1"),
    "pexpireat": (KEY, "1"),
    "pexpiretime": (KEY,),
    "set": (KEY, "", "PX", "0"),
    "get": (KEY,),
    "hset": (KEY, "field", "value", "odd"),
    "hget": (KEY, "field"),
    "hmget": (KEY, "field"),
    "hgetall": (KEY,),
    "hdel": (KEY, "field"),
    "hexists": (KEY, "field"),
    "hlen": (KEY,),
    "hincrby": (KEY, "field", "none"),
    "sadd": (KEY, "member"),
    "srem": (KEY, "member"),
    "smembers": (KEY,),
    "srandmember": (KEY,),
    "sunionstore": (KEY, KEY),
    "zadd": (KEY, "none", "member"),
    "zrem": (KEY, "member"),
    "zrange": (KEY, "0", "0"),
    "zcard": (KEY,),
    "zcount": (KEY, "0", "0"),
    "zscore": (KEY, "member"),
    "zscan": (KEY, "0"),
    "xadd": (KEY, "NOMKSTREAM", "*", "field", "value"),
    "xinfo": ("STREAM", KEY),
    "xread": ("STREAMS", KEY, "0"),
    "xrange": (KEY, "-", "+"),
    "xrevrange": (KEY, "+", "-"),
}
"""Commands on keys, used by scripts or directly, with arguments that change nothing.

Only `sadd` would change something: it is sent only if the user may also use `srem`."""

OTHER_COMMANDS: dict[str, Words] = {
    "ping": (),
    "evalsha": ("0" * 40, "1", KEY),
    "script|load": ("(",),
    "publish": (KEY, ""),
    "time": (),
    "info": ("server",),
}
CLUSTER_COMMANDS: dict[str, Words] = {"spublish": (KEY, ""), "cluster|info": (), "cluster|slots": ()}
SUBSCRIBE_COMMANDS = ("subscribe", "unsubscribe")
CLUSTER_SUBSCRIBE_COMMANDS = ("ssubscribe", "sunsubscribe")

_IN_CONNECTION_CATEGORY = {"ping"}
_UNKNOWN_COMMAND = "unknown command"


def acl_rule(namespace: str, database: int, *, cluster: bool) -> str:
    """The ACL rule of a user that has the needed permissions and no others."""
    commands = [*OTHER_COMMANDS, *SUBSCRIBE_COMMANDS, *KEY_COMMANDS]
    if cluster:
        commands += [*CLUSTER_COMMANDS, *CLUSTER_SUBSCRIBE_COMMANDS]
    granted = " ".join(f"+{name}" for name in commands if name not in _IN_CONNECTION_CATEGORY)
    return (
        f"resetkeys ~{{{namespace}:* resetchannels &{{{namespace}:* &__keyevent@{database}__:expired "
        f"-@all +@connection -client -client|kill {granted}"
    )


async def try_permissions(server: InspectedServer, namespace: str, database: int, *, cluster: bool) -> None:
    """Note each permission that the user lacks on this server."""
    try:
        missing = [
            *await _missing_commands(server, namespace, cluster=cluster),
            *await _missing_channels(server, namespace, database, cluster=cluster),
        ]
    except CONNECTION_ERRORS as error:
        server.refused["permissions"] = error_text(error)
        return
    server.missing_permissions = list({permission.rule: permission for permission in missing}.values())


async def _missing_commands(
    server: InspectedServer, namespace: str, *, cluster: bool
) -> list[MissingPermission]:
    prefixes, suffix = _prefixes(namespace), _temporary_suffix()
    arguments = KEY_COMMANDS | OTHER_COMMANDS | (CLUSTER_COMMANDS if cluster else {})

    async def replies_to(names: Sequence[str], prefixes: Sequence[str]) -> list[Any]:
        calls = [_call(name, arguments[name], prefix + suffix) for name in names for prefix in prefixes]
        return await _send(server, calls)

    names = [name for name in arguments if name not in {"sadd", "srem"}]
    replies = dict(zip(names, await replies_to(names, prefixes[:1]), strict=True))
    # `sadd` creates a set, which vanishes with its last member: it is tried only where `srem` is permitted.
    (replies["srem"],) = await replies_to(["srem"], prefixes[:1])
    if not _is_refused(replies["srem"]):
        replies["sadd"], _ = await replies_to(["sadd", "srem"], prefixes[:1])
    missing = [
        MissingPermission(_rule_of(name), name.upper().replace("|", " "), error_text(reply))
        for name, reply in replies.items()
        if _is_command_refused(reply)
    ]
    # The keys of all shards are tried with any one command that is permitted.
    permitted = [name for name in ("exists", "get", "hgetall") if not _is_command_refused(replies[name])]
    if permitted:
        for prefix, reply in zip(prefixes, await replies_to(permitted[:1], prefixes), strict=True):
            if _is_refused(reply):
                rule = f"~{{{namespace}:*"
                missing.append(MissingPermission(rule, f"keys {prefix}:…", error_text(reply)))
    return missing


async def _missing_channels(
    server: InspectedServer, namespace: str, database: int, *, cluster: bool
) -> list[MissingPermission]:
    event = f"__keyevent@{database}__:expired"
    channels = [prefix + _temporary_suffix() for prefix in _prefixes(namespace)]
    calls: list[Words] = [("SUBSCRIBE", event), *(("SUBSCRIBE", channel) for channel in channels)]
    calls += [("UNSUBSCRIBE", event)]
    if cluster:
        calls += [("SSUBSCRIBE", channels[0]), ("SUNSUBSCRIBE", channels[0])]
    missing = []
    for (command, channel), reply in zip(calls, await _send(server, calls), strict=True):
        if not _is_refused(reply):
            continue
        if _is_about(reply, "channel"):
            rule = f"&{event}" if channel == event else f"&{{{namespace}:*"
            what = f"channel {channel.partition(':doctor:')[0]}"
        else:
            rule, what = _rule_of(command.lower()), command
        missing.append(MissingPermission(rule, what, error_text(reply)))
    return missing


async def _send(server: InspectedServer, calls: Sequence[Words]) -> list[Any]:
    """The replies, errors among them, over a separate connection. Raises one of CONNECTION_ERRORS."""
    connection: Any = server.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    replies: list[Any] = []
    try:
        await connection.connect()
        await connection.send_packed_command(connection.pack_commands(calls))
        for _ in calls:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
    finally:
        with anyio.CancelScope(shield=True):
            await connection.disconnect()
    return replies


def _rule_of(command: str) -> str:
    """The ACL rule that permits a command."""
    return "+@connection" if command in _IN_CONNECTION_CATEGORY else f"+{command}"


def _call(command: str, arguments: Words, key: str) -> Words:
    return (*command.upper().split("|"), *(key if word == KEY else word for word in arguments))


def _is_refused(reply: Any) -> bool:
    return isinstance(reply, NoPermissionError) or (
        isinstance(reply, ResponseError) and _UNKNOWN_COMMAND in str(reply)
    )


def _is_command_refused(reply: Any) -> bool:
    return _is_refused(reply) and not _is_about(reply, "key", "channel")


def _is_about(reply: Any, *things: str) -> bool:
    """Whether a refusal is about a key or a channel, and not about the command."""
    text = str(reply).lower()
    return any(f"access {before}{thing}" in text for thing in things for before in ("one of the ", "a "))


def _prefixes(namespace: str) -> list[str]:
    return [*(shard_prefix(namespace, shard) for shard in range(SHARDS)), fleet_prefix(namespace)]


def _temporary_suffix() -> str:
    return f":doctor:{token_hex(8)}"
