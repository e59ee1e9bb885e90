"""Lets two keys of our own expire on a server, and listens how late it says so.

One is touched at its deadline, as the pacemaker does it; the other one is left to the server's active cycle,
which among many keys may take minutes. Both are gone afterwards.
"""

import math
from secrets import token_hex
from time import perf_counter
from typing import Any

import anyio
from redis.exceptions import ResponseError

from reactor.backend.clients import CONNECTION_ERRORS
from reactor.doctor.deployment import Expiry, Server
from reactor.doctor.look import said

LIFE = 0.1
"""Seconds that the keys live."""
TOUCHED_WITHIN = 1.0
UNTOUCHED_WITHIN = 3.0
"""Seconds that are waited for the events."""


class _Refused(Exception):
    """The server does not take a command that this needs."""

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(said(error))
        self.what = what


async def probe(server: Server, prefix: str, database: int) -> None:
    """Note how late the server says that keys beginning with `prefix` expired."""
    token = token_hex(8)
    touched, untouched = (f"{prefix}:doctor:{token}:{name}".encode() for name in ("touched", "untouched"))
    connection: Any = server.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    heard: dict[bytes, float] = {}
    try:
        await connection.connect()
        await _subscribe(connection, f"__keyevent@{database}__:expired")
        deadline = 0.0
        for key in (touched, untouched):
            deadline = await _plant(server, key)
        await _touch(server, touched, deadline)
        with anyio.move_on_after(TOUCHED_WITHIN):
            await _hear(connection, heard, {touched})
        if touched in heard:  # where not even this comes, the other one will not
            with anyio.move_on_after(max(0.0, deadline + UNTOUCHED_WITHIN - perf_counter())):
                await _hear(connection, heard, {touched, untouched})
        late = {key: max(0.0, when - deadline) for key, when in heard.items()}
        server.expiry = Expiry(late.get(touched), late.get(untouched))
    except _Refused as error:
        server.expiry = Expiry(refused=str(error), what=error.what)
    except CONNECTION_ERRORS as error:
        server.expiry = Expiry(refused=said(error) or type(error).__name__, what="the link")
    finally:
        with anyio.CancelScope(shield=True):
            await _clear(server, touched, untouched)
            await connection.disconnect()


async def _subscribe(connection: Any, channel: str) -> None:
    await connection.send_command("SUBSCRIBE", channel)
    try:
        await connection.read_response()
    except ResponseError as error:
        raise _Refused(f"SUBSCRIBE {channel}", error) from error


async def _plant(server: Server, key: bytes) -> float:
    """Set a key; the latest moment at which its time may be up."""
    try:
        await server.client.set(key, b"", px=round(LIFE * 1000))
    except ResponseError as error:
        raise _Refused("SET", error) from error
    return perf_counter() + LIFE


async def _touch(server: Server, key: bytes, deadline: float) -> None:
    # A key lives at its deadline and is gone a millisecond later.
    await anyio.sleep(deadline + 0.001 - perf_counter())
    try:
        await server.client.exists(key)
    except ResponseError:
        return  # the user may not; then it is left to the active cycle, too


async def _hear(connection: Any, heard: dict[bytes, float], wanted: set[bytes]) -> None:
    while not wanted <= heard.keys():
        reply = await connection.read_response(timeout=math.inf)
        if reply[0] == b"message":
            heard.setdefault(reply[2], perf_counter())


async def _clear(server: Server, *keys: bytes) -> None:
    for remove in (server.client.delete, server.client.exists):  # a look removes what has lapsed
        try:
            await remove(*keys)
        except ResponseError:
            continue
        except CONNECTION_ERRORS:
            return
        return
