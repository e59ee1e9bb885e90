"""Asks Sentinels for the primary (https://redis.io/docs/latest/develop/reference/sentinel-clients/)."""

from asyncio import gather
from collections import Counter
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.utils import str_if_bytes


class Sentinels(Sentinel):
    """The Sentinels of one set: the primary that most of those that answer name is the one.

    redis-py asks the first one for its SENTINEL MASTERS, which hold the former primary until every replica
    follows the new one, some seconds longer; and a Sentinel that was cut off knows only the former one.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's host and port. Raises MasterNotFoundError when no Sentinel names one."""
        answers: list[Any] = await gather(
            *(sentinel.sentinel_get_master_addr_by_name(service_name) for sentinel in self.sentinels),
            return_exceptions=True,
        )
        named = Counter(tuple(answer) for answer in answers if isinstance(answer, list | tuple))
        if not named:
            failed = next((answer for answer in answers if isinstance(answer, BaseException)), None)
            raise MasterNotFoundError(f"No master found for {service_name!r}") from failed
        ((host, port), _), *_ = named.most_common(1)
        return str_if_bytes(host), int(port)
