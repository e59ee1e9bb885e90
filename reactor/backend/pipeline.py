"""Sends a batch of commands over one connection and reads their replies.

redis-py's own pipeline takes a connection out of the pool, applies a timeout to the write and to each reply,
and puts the connection back: 190 us a round trip, which for a few heartbeats is most of their cost. Here one
connection is kept, and one timeout covers the batch: 60 us.

The timeout says something about Redis only while this process reads. Where the event loop was blocked, the
reply may have arrived long ago: then the batch gets its time once more.

A connection ends with the process of its server. So the run id of the server, which a script needs to know
whether it runs on another server than before, is read once for each connection.
"""

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, ResponseError

from reactor.backend.clients import UNKNOWN_RUN

NO_RUN = "none"
"""The run id of a server that could not be asked for it yet: no server has it."""

_PROGRESS = 32
"""Replies after which the timeout of a batch starts again: a large batch that progresses is not too slow."""

_RUN_ID = re.compile(r"run_id:([0-9a-f]+)")

_LATE = 0.1
"""Seconds by which a timer is late at least where the event loop was blocked."""


class CommandPipeline:
    """One connection of the client's pool, opened at first use; disconnecting the pool disconnects it."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._timeout: float | None = self._pool.connection_kwargs["socket_timeout"]
        self._connection: Any = None
        self._run_id = NO_RUN  # of the server at the other end of the connection

    async def exchange(self, packed: Callable[[str], Sequence[bytes]]) -> list[Any]:
        """Send packed commands; one reply for each, an error reply as an exception in the list.

        packed: returns the commands, given the run id of the server to which they are sent. Nothing is
        retried. Raises one of CONNECTION_ERRORS unless every reply arrived.
        """
        deadline = _Deadline(self._timeout)
        try:
            async with deadline.timeout:
                connection = await self._ready()
                commands = packed(self._run_id)
                await connection.send_packed_command(commands, check_health=False)
                replies: list[Any] = []
                for number in range(1, len(commands) + 1):
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
                    if number % _PROGRESS == 0:
                        deadline.start()
                return replies
        except BaseException:
            # Replies still to come must not be read as those of the next batch.
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            raise
        finally:
            deadline.cancel()

    async def _ready(self) -> Any:
        connection = self._connection
        if connection is None:
            connection = await self._pool.get_connection()
            connection.socket_timeout = None  # `exchange` has one timeout for the whole batch
            self._connection = connection
            self._run_id = NO_RUN
        elif not connection.is_connected:
            self._run_id = NO_RUN
            await connection.connect()
        elif await connection.can_read():  # no reply is due: this is the end of the stream
            await connection.disconnect()
            self._run_id = NO_RUN
            await connection.connect()
        if self._run_id == NO_RUN:
            self._run_id = await _read_run_id(connection)
        return connection


async def _read_run_id(connection: Any) -> str:
    await connection.send_command("INFO", "server", check_health=False)
    try:
        reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
    except BusyLoadingError:
        return NO_RUN
    except ResponseError as error:
        # A server that is busy in a script is asked again; one that does not show it to this user is not.
        return NO_RUN if str(error).startswith("BUSY") else UNKNOWN_RUN
    found = _RUN_ID.search(reply if isinstance(reply, str) else reply.decode(errors="replace"))
    return found[1] if found else UNKNOWN_RUN


class _Deadline:
    """A timeout (s, or None for none) of which time does not count in which the event loop was blocked.

    Its `timeout` is an `asyncio.Timeout`, to be entered by the caller.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._timer = seconds, None if seconds is None else self._later(seconds)
        self.timeout = asyncio.timeout(None)

    def start(self) -> None:
        """Start anew."""
        if self._seconds is not None:
            self.cancel()
            self._timer = self._later(self._seconds)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _later(self, seconds: float) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_at(at := loop.time() + seconds, self._expire, at)

    def _expire(self, at: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - at > _LATE:
            self.start()
        else:
            self.timeout.reschedule(now)
