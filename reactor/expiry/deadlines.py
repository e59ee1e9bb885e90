"""When each shard is scanned next, Redis's clock, and which members were touched recently. PURE."""

from collections import deque


class RedisClock:
    """Converts Redis's time to this process's steady clock, by the replies that carry Redis's time.

    A reply that carries `now` was written no later than it was read, so `now - read_at` exceeds the true
    offset by at most the rounding of Redis's clock. Of the last SAMPLES offsets the greatest belongs to the
    reply with the least delay. Older ones are forgotten, so that a step of Redis's clock is followed.
    """

    __slots__ = ("_offsets",)

    SAMPLES = 32

    def __init__(self) -> None:
        self._offsets: deque[float] = deque(maxlen=self.SAMPLES)

    def observe(self, redis_ms: int, read_at: float) -> None:
        """Take in a reply. redis_ms: Redis's time in it (ms). read_at: when it was read (s, steady clock)."""
        self._offsets.append(redis_ms / 1000 - read_at)

    def steady(self, redis_ms: int) -> float:
        """Return the steady clock's time (s) at which Redis's clock shows redis_ms; 0 before any reply."""
        return redis_ms / 1000 - max(self._offsets) if self._offsets else 0.0


class Deadlines:
    """The time (s, steady clock) of each shard's next scan; at first all are due."""

    __slots__ = ("_next",)

    def __init__(self, shards: int) -> None:
        self._next = [0.0] * shards

    def set(self, shard: int, at: float) -> None:
        """Schedule the next scan of a shard that has just been scanned."""
        self._next[shard] = at

    def lower(self, shard: int, at: float) -> bool:
        """Bring a shard's next scan forward; return whether it is now the earliest of all shards."""
        if at >= self._next[shard]:
            return False
        earliest = self.earliest()
        self._next[shard] = at
        return at < earliest

    def due(self, now: float) -> list[int]:
        """Return the shards whose scan is due."""
        return [shard for shard, at in enumerate(self._next) if at <= now]

    def earliest(self) -> float:
        """Return the time of the earliest scan."""
        return min(self._next)

    def reset(self) -> None:
        """Make every shard due, since wake-ups may have been missed."""
        self._next = [0.0] * len(self._next)


class FirstTouches:
    """When each member was first touched, remembered for 2 to 6 s: longer than an event takes to arrive."""

    __slots__ = ("_newer", "_older", "_started")

    KEPT = 2.0
    """Seconds after which a generation ages; there are two."""

    def __init__(self) -> None:
        self._older: dict[str, float] = {}
        self._newer: dict[str, float] = {}
        self._started = 0.0

    def first(self, name: str, now: float) -> float:
        """Return the time (s, steady clock) of the first touch of a name, which is now if none is known."""
        age = now - self._started
        if age >= self.KEPT:
            self._older, self._newer, self._started = self._newer if age < 2 * self.KEPT else {}, {}, now
        earlier = self._older.get(name)
        return earlier if earlier is not None else self._newer.setdefault(name, now)


class RecentNames:
    """Names added in the last 5 to 10 s: longer than it takes until another node leads after one has died."""

    __slots__ = ("_newer", "_older", "_started")

    KEPT = 5.0
    """Seconds after which a generation ages; there are two."""

    def __init__(self) -> None:
        self._older: set[str] = set()
        self._newer: set[str] = set()
        self._started = 0.0

    def add(self, name: str, now: float) -> None:
        """Remember a name. now: steady clock (s)."""
        self._age(now)
        self._newer.add(name)

    def drain(self, now: float) -> set[str]:
        """Return the remembered names, and forget them. now: steady clock (s)."""
        self._age(now)
        names, self._older, self._newer = self._older | self._newer, set(), set()
        return names

    def _age(self, now: float) -> None:
        age = now - self._started
        if age >= self.KEPT:
            self._older, self._newer, self._started = (
                self._newer if age < 2 * self.KEPT else set(), set(), now
            )  # fmt: skip
