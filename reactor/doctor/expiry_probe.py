"""Measures how late a server publishes the expiry of two temporary keys.

One key is read at its deadline, as the pacemaker does; the other is left to the server's active expiry cycle,
which may take minutes among many keys. Both keys are removed afterwards.
"""

import math
from secrets import token_hex
from time import perf_counter
from typing import Any

import anyio
from redis.exceptions import ResponseError

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor.deployment import ExpiryDelays, InspectedServer, error_text

# Seconds.
KEY_TTL = 0.1
TOUCHED_TIMEOUT = 1.0
UNTOUCHED_TIMEOUT = 3.0


class _CommandRefused(Exception):
    """The server refuses a command that the measurement needs."""

    def __init__(self, command: str, error: BaseException) -> None:
        super().__init__(error_text(error))
        self.command = command


async def measure_expiry(server: InspectedServer, prefix: str, database: int) -> None:
    """Note how late the events of two keys that begin with `prefix` arrive."""
    token = token_hex(8)
    touched, untouched = (f"{prefix}:doctor:{token}:{name}".encode() for name in ("touched", "untouched"))
    connection: Any = server.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    received: dict[bytes, float] = {}
    try:
        await connection.connect()
        await _subscribe(connection, f"__keyevent@{database}__:expired")
        deadline = 0.0
        for key in (touched, untouched):
            deadline = await _set(server, key)
        await _touch(server, touched, deadline)
        with anyio.move_on_after(TOUCHED_TIMEOUT):
            await _receive(connection, received, {touched})
        if touched in received:  # otherwise the other event will not come either
            with anyio.move_on_after(max(0.0, deadline + UNTOUCHED_TIMEOUT - perf_counter())):
                await _receive(connection, received, {touched, untouched})
        delays = {key: max(0.0, when - deadline) for key, when in received.items()}
        server.expiry = ExpiryDelays(delays.get(touched), delays.get(untouched))
    except _CommandRefused as error:
        server.expiry = ExpiryDelays(refused=str(error), failed_command=error.command)
    except CONNECTION_ERRORS as error:
        server.expiry = ExpiryDelays(refused=error_text(error), failed_command="connection")
    finally:
        with anyio.CancelScope(shield=True):
            await _remove(server, touched, untouched)
            await connection.disconnect()


async def _subscribe(connection: Any, channel: str) -> None:
    await connection.send_command("SUBSCRIBE", channel)
    try:
        await connection.read_response()
    except ResponseError as error:
        raise _CommandRefused(f"SUBSCRIBE {channel}", error) from error


async def _set(server: InspectedServer, key: bytes) -> float:
    """Set a key; the latest time at which it may expire."""
    try:
        await server.client.set(key, b"", px=round(KEY_TTL * 1000))
    except ResponseError as error:
        raise _CommandRefused("SET", error) from error
    return perf_counter() + KEY_TTL


async def _touch(server: InspectedServer, key: bytes, deadline: float) -> None:
    # At its deadline a key still exists; a millisecond later it has expired.
    await anyio.sleep(deadline + 0.001 - perf_counter())
    try:
        await server.client.exists(key)
    except ResponseError:
        return  # not permitted: this key, too, is left to the active expiry cycle


async def _receive(connection: Any, received: dict[bytes, float], wanted: set[bytes]) -> None:
    while not wanted <= received.keys():
        reply = await connection.read_response(timeout=math.inf)
        if reply[0] == b"message":
            received.setdefault(reply[2], perf_counter())


async def _remove(server: InspectedServer, *keys: bytes) -> None:
    for command in (server.client.delete, server.client.exists):  # EXISTS removes keys that have expired
        try:
            await command(*keys)
        except ResponseError:
            continue
        except CONNECTION_ERRORS:
            return
        return
