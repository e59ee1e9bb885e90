"""Sends a batch of commands over one connection and reads their replies.

redis-py's own pipeline takes a connection out of the pool, applies a timeout to the write and to each reply,
and puts the connection back: 190 us a round trip, which for a few heartbeats is most of their cost. Here one
connection is kept, and one timeout covers the batch: 60 us.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

_PROGRESS = 32
"""Replies after which the timeout of a batch starts again: a large batch that progresses is not too slow."""


class CommandPipeline:
    """One connection of the client's pool, opened at first use; disconnecting the pool disconnects it."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._timeout: float | None = self._pool.connection_kwargs["socket_timeout"]
        self._connection: Any = None

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands; one reply for each, an error reply as an exception in the list.

        Nothing is retried. Raises one of CONNECTION_ERRORS unless every reply arrived.
        """
        try:
            async with asyncio.timeout(self._timeout) as timeout:
                connection = await self._ready()
                await connection.send_packed_command(commands, check_health=False)
                replies: list[Any] = []
                for number in range(1, len(commands) + 1):
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
                    if number % _PROGRESS == 0 and self._timeout is not None:
                        timeout.reschedule(asyncio.get_running_loop().time() + self._timeout)
                return replies
        except BaseException:
            # Replies still to come must not be read as those of the next batch.
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            raise

    async def _ready(self) -> Any:
        connection = self._connection
        if connection is None:
            connection = await self._pool.get_connection()
            connection.socket_timeout = None  # `exchange` has one timeout for the whole batch
            self._connection = connection
        elif not connection.is_connected:
            await connection.connect()
        elif await connection.can_read():  # no reply is due: this is the end of the stream
            await connection.disconnect()
            await connection.connect()
        return connection
