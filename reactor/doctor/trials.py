"""Tries one by one what the server's user has to be allowed, and names what it is not.

Any answer but a refusal says that the right is there; on a replica, and for another node's slot, too.
"""

from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import Any

import anyio
from redis.exceptions import NoPermissionError, ResponseError

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor import rights
from reactor.doctor.deployment import Right, Server
from reactor.doctor.look import said
from reactor.doctor.rights import Words
from reactor.presence.keys import SHARDS, fleet_prefix, shard_prefix

_GONE = "unknown command"


async def try_rights(server: Server, namespace: str, database: int, *, cluster: bool) -> None:
    """Note each right that the user lacks on this server."""
    try:
        lacking = [
            *await _lacking_commands(server, namespace, cluster=cluster),
            *await _lacking_channels(server, namespace, database, cluster=cluster),
        ]
    except CONNECTION_ERRORS as error:
        server.refused["rights"] = said(error)
        return
    server.rights = list({one.rule: one for one in lacking}.values())


async def _lacking_commands(server: Server, namespace: str, *, cluster: bool) -> Iterable[Right]:
    prefixes, tail = _prefixes(namespace), _tail()
    tables = rights.ON_KEYS | rights.WITHOUT_KEYS | (rights.OF_CLUSTERS if cluster else {})
    names = [name for name in tables if name not in {"sadd", "srem"}]
    replies = dict(
        zip(
            names,
            await _ask(server, [rights.call(name, tables[name], prefixes[0] + tail) for name in names]),
            strict=True,
        )
    )
    # A set that was made goes with its last member: so this is tried only where it can be taken back.
    (replies["srem"],) = await _ask(server, [rights.call("srem", tables["srem"], prefixes[0] + tail)])
    if not _is_refused(replies["srem"]):
        made = [rights.call(name, tables[name], prefixes[0] + tail) for name in ("sadd", "srem")]
        replies["sadd"], _ = await _ask(server, made)
    found = [
        Right(rights.right(name), name.upper().replace("|", " "), said(reply))
        for name, reply in replies.items()
        if _is_refused(reply) and not _is_about(reply, "key", "channel")
    ]
    # Any command that is allowed tells whether the keys are.
    allowed = next(
        (name for name in ("exists", "get", "hgetall") if not _is_command_refused(replies[name])), None
    )
    if allowed:
        for prefix, reply in zip(
            prefixes,
            await _ask(server, [rights.call(allowed, tables[allowed], prefix + tail) for prefix in prefixes]),
            strict=True,
        ):
            if _is_refused(reply):
                found.append(Right(f"~{{{namespace}:*", f"keys {prefix}:…", said(reply)))
    return found


async def _lacking_channels(
    server: Server, namespace: str, database: int, *, cluster: bool
) -> Iterable[Right]:
    event = f"__keyevent@{database}__:expired"
    channels = [prefix + _tail() for prefix in _prefixes(namespace)]
    commands: list[Words] = [("SUBSCRIBE", event), *(("SUBSCRIBE", channel) for channel in channels)]
    commands += [("UNSUBSCRIBE", event)]
    if cluster:
        commands += [("SSUBSCRIBE", channels[0]), ("SUNSUBSCRIBE", channels[0])]
    found = []
    for words, reply in zip(commands, await _ask(server, commands), strict=True):
        if not _is_refused(reply):
            continue
        if _is_about(reply, "channel"):
            rule = f"&{event}" if words[1] == event else f"&{{{namespace}:*"
            found.append(Right(rule, f"channel {words[1].partition(':doctor:')[0]}", said(reply)))
        else:
            found.append(Right(rights.right(words[0].lower()), words[0], said(reply)))
    return found


async def _ask(server: Server, commands: Sequence[Words]) -> list[Any]:
    """The replies, errors among them, over a connection of its own. Raises when the link is lost."""
    connection: Any = server.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    replies: list[Any] = []
    try:
        await connection.connect()
        await connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
    finally:
        with anyio.CancelScope(shield=True):
            await connection.disconnect()
    return replies


def _is_refused(reply: Any) -> bool:
    return isinstance(reply, NoPermissionError) or (isinstance(reply, ResponseError) and _GONE in str(reply))


def _is_command_refused(reply: Any) -> bool:
    return _is_refused(reply) and not _is_about(reply, "key", "channel")


def _is_about(reply: Any, *things: str) -> bool:
    """Whether a refusal is about a key or a channel, and not about the command."""
    words = str(reply).lower()
    return any(f"access {before}{thing}" in words for thing in things for before in ("one of the ", "a "))


def _prefixes(namespace: str) -> list[str]:
    return [*(shard_prefix(namespace, shard) for shard in range(SHARDS)), fleet_prefix(namespace)]


def _tail() -> str:
    return f":doctor:{token_hex(8)}"
