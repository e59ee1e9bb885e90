"""The one connection that the transitions of a server go over: a batch there, its replies back.

redis-py's own pipeline takes a connection out of the pool, guards the sending and each reply by a time-out
of its own, and puts it back: 190 us a round trip, which at a few heartbeats a time is most of what they
cost. Here one connection is kept, and one time-out guards the batch: 60 us.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

_MOVES_ON = 32
"""Replies after which a batch that moves on gets the whole time again."""


class Link:
    """A connection of the client's pool, so whatever drops those drops it too; made when first needed."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._patience: float | None = self._pool.connection_kwargs["socket_timeout"]
        self._connection: Any = None

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands; a reply for each, an error reply as the exception that it stands for.

        Nothing is sent again by itself. Raises one of LINK_ERRORS when not all replies came.
        """
        try:
            async with asyncio.timeout(self._patience) as patience:
                connection = await self._ready()
                await connection.send_packed_command(commands, check_health=False)
                replies: list[Any] = []
                for number in range(1, len(commands) + 1):
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
                    if number % _MOVES_ON == 0 and self._patience is not None:
                        patience.reschedule(asyncio.get_running_loop().time() + self._patience)
                return replies
        except BaseException:
            # Replies that nobody read must not be taken for those of the next batch.
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            raise

    async def _ready(self) -> Any:
        connection = self._connection
        if connection is None:
            connection = await self._pool.get_connection()
            connection.socket_timeout = None  # time is kept here, for all of a batch
            self._connection = connection
        elif not connection.is_connected:
            await connection.connect()
        elif await connection.can_read():  # nothing was asked: the server has closed it
            await connection.disconnect()
            await connection.connect()
        return connection
