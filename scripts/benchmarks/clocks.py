"""The offset between Redis's clock and the clock of this process."""

import math
import time
from dataclasses import dataclass

from redis.asyncio import Redis


@dataclass(frozen=True)
class ClockOffset:
    """How far Redis's clock is ahead of this process's `time.time()`, and how far off that may be (seconds).

    A reply's time lies between the sending and the receipt, so the middle is wrong by half the round trip at
    most; the fastest of many round trips has the smallest error. On one machine both read the same clock.
    """

    offset: float
    error: float


async def measure_clock(redis: Redis, rounds: int = 300) -> ClockOffset:
    """Compare Redis's TIME with this process's clock."""
    best = ClockOffset(0.0, math.inf)
    for _ in range(rounds):
        sent = time.time()
        seconds, micros = await redis.time()
        received = time.time()
        if (error := (received - sent) / 2) < best.error:
            best = ClockOffset(seconds + micros / 1e6 - (sent + received) / 2, error)
    return best
