"""What Redis has done so far: commands, by INFO commandstats, and processor time."""

from collections import Counter

from redis.asyncio import Redis

LOOKS = {"info", "ping", "hello"}
"""Commands that belong to the measuring."""


async def commands(redis: Redis) -> Counter[str]:
    """Count the commands that Redis has run so far, those inside scripts too."""
    stats = await redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()})


async def cpu(redis: Redis) -> float:
    """Give the processor time that Redis has used so far (s)."""
    used = await redis.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
