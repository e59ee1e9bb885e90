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
from reactor.presence.keys import Keyspace
from reactor.presence.rights import (
    CLUSTER_COMMANDS,
    IN_CONNECTION_CATEGORY,
    KEY,
    KEY_COMMANDS,
    OTHER_COMMANDS,
    READS,
    Words,
)

_UNKNOWN_COMMAND = "unknown command"


async def try_permissions(server: InspectedServer, keys: Keyspace, *, cluster: bool) -> None:
    """Note each permission that the user lacks on this server."""
    try:
        missing = [
            *await _missing_commands(server, keys, cluster=cluster),
            *await _missing_channels(server, keys, cluster=cluster),
        ]
    except CONNECTION_ERRORS as error:
        server.refused["permissions"] = error_text(error)
        return
    server.missing_permissions = list({permission.rule: permission for permission in missing}.values())


async def _missing_commands(
    server: InspectedServer, keys: Keyspace, *, cluster: bool
) -> list[MissingPermission]:
    prefixes, suffix = [*keys.prefixes, keys.fleet], _temporary_suffix()
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
    permitted = [name for name in READS if not _is_command_refused(replies[name])]
    if permitted:
        for prefix, reply in zip(prefixes, await replies_to(permitted[:1], prefixes), strict=True):
            if _is_refused(reply):
                rule = f"~{{{keys.namespace}:*"
                missing.append(MissingPermission(rule, f"keys {prefix}:…", error_text(reply)))
    return missing


async def _missing_channels(
    server: InspectedServer, keys: Keyspace, *, cluster: bool
) -> list[MissingPermission]:
    event = f"__keyevent@{keys.database}__:expired"
    channels = [prefix + _temporary_suffix() for prefix in (*keys.prefixes, keys.fleet)]
    calls: list[Words] = [("SUBSCRIBE", event), *(("SUBSCRIBE", channel) for channel in channels)]
    calls += [("UNSUBSCRIBE", event)]
    if cluster:
        calls += [("SSUBSCRIBE", channels[0]), ("SUNSUBSCRIBE", channels[0])]
    missing = []
    for (command, channel), reply in zip(calls, await _send(server, calls), strict=True):
        if not _is_refused(reply):
            continue
        if _is_about(reply, "channel"):
            rule = f"&{event}" if channel == event else f"&{{{keys.namespace}:*"
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
    return "+@connection" if command in IN_CONNECTION_CATEGORY else f"+{command}"


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


def _temporary_suffix() -> str:
    return f":doctor:{token_hex(8)}"
