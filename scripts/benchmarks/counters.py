"""Reads counters of Redis: commands run, by INFO commandstats, and CPU time."""

from collections import Counter

from redis.asyncio import Redis

MEASURING_COMMANDS = {"info", "ping", "hello"}
"""Commands that the measurement itself runs."""


async def commands(redis: Redis) -> Counter[str]:
    """Return the number of calls of each command so far, including those inside scripts."""
    stats = await redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()})


async def cpu(redis: Redis) -> float:
    """Return the CPU seconds that Redis has used so far."""
    used = await redis.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
