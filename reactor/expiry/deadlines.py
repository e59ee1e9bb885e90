"""When each shard wants a look, on this process's steady clock although deadlines are kept by Redis's."""

from collections import deque


class RedisClock:
    """Redis's time, guessed from replies that carry it.

    A reply that says `now` was written at the latest when it was read, so `now - read_at` never exceeds
    the true offset by more than the clock's rounding; the greatest of some recent ones came with the
    least delay. Old ones are forgotten, so that a stepped clock is followed.
    """

    __slots__ = ("_offsets",)

    SAMPLES = 32

    def __init__(self) -> None:
        self._offsets: deque[float] = deque(maxlen=self.SAMPLES)

    def observe(self, redis_ms: int, read_at: float) -> None:
        """redis_ms: Redis's time in a reply (ms). read_at: when it was read, by the steady clock (s)."""
        self._offsets.append(redis_ms / 1000 - read_at)

    def steady(self, redis_ms: int) -> float:
        """The steady clock's time (s) at which Redis's clock will show redis_ms (ms).

        Before the first reply that may be any time, and so at once.
        """
        return redis_ms / 1000 - max(self._offsets) if self._offsets else 0.0


class Deadlines:
    """For each shard, the time (s, steady clock) of its next look."""

    __slots__ = ("_next",)

    def __init__(self, shards: int) -> None:
        self._next = [0.0] * shards

    def set(self, shard: int, at: float) -> None:
        """The shard was looked at; it wants the next look then."""
        self._next[shard] = at

    def lower(self, shard: int, at: float) -> bool:
        """A nearer deadline became known; whether it is the nearest of all."""
        if at >= self._next[shard]:
            return False
        nearest = self.nearest()
        self._next[shard] = at
        return at < nearest

    def due(self, now: float) -> list[int]:
        """The shards whose time has come."""
        return [shard for shard, at in enumerate(self._next) if at <= now]

    def nearest(self) -> float:
        """The time of the nearest look."""
        return min(self._next)

    def all_due(self) -> None:
        """Nothing is certain any more: look everywhere."""
        self._next = [0.0] * len(self._next)


class Touches:
    """When each name was first touched, kept for 2 to 6 s: longer than an event may be on its way."""

    __slots__ = ("_begun", "_newer", "_older")

    KEPT = 2.0

    def __init__(self) -> None:
        self._older: dict[str, float] = {}
        self._newer: dict[str, float] = {}
        self._begun = 0.0

    def first(self, name: str, now: float) -> float:
        """The time (s, steady clock) of the first touch, which is now where none is known."""
        age = now - self._begun
        if age >= self.KEPT:
            self._older, self._newer, self._begun = self._newer if age < 2 * self.KEPT else {}, {}, now
        earlier = self._older.get(name)
        return earlier if earlier is not None else self._newer.setdefault(name, now)


class Recent:
    """Names of the last 5 to 10 s: longer than it takes until another node has a dead one's turn."""

    __slots__ = ("_begun", "_newer", "_older")

    KEPT = 5.0

    def __init__(self) -> None:
        self._older: set[str] = set()
        self._newer: set[str] = set()
        self._begun = 0.0

    def add(self, name: str, now: float) -> None:
        """Note a name. now: s, steady clock."""
        self._forget(now)
        self._newer.add(name)

    def take(self, now: float) -> set[str]:
        """Give what is noted, and note it no more. now: s, steady clock."""
        self._forget(now)
        found, self._older, self._newer = self._older | self._newer, set(), set()
        return found

    def _forget(self, now: float) -> None:
        age = now - self._begun
        if age >= self.KEPT:
            self._older, self._newer, self._begun = self._newer if age < 2 * self.KEPT else set(), set(), now
