"""The deadlines of all sockets, kept by one timer instead of one each. PURE.

A hashed timing wheel: time is cut into ticks, and an item lies in the set of the tick in which it is due. To
put, move or remove one costs the same however many there are. An item may be looked at too early for its real
deadline (it was heard of meanwhile) and is then simply put again: moving a deadline back costs nothing.
"""

from typing import Generic, Protocol, TypeVar

NOWHERE = -1


class Timed(Protocol):
    """Something with a place for the tick it lies in; NOWHERE at first."""

    slot: int


T = TypeVar("T", bound=Timed)


class Wheel(Generic[T]):
    """Items by the tick they are due in. `tick` is in seconds; times are on the caller's monotonic clock."""

    __slots__ = ("_next", "_slots", "tick")

    def __init__(self, tick: float, now: float) -> None:
        self.tick = tick
        self._slots: dict[int, set[T]] = {}
        self._next = int(now / tick)

    def put(self, item: T, when: float) -> None:
        """Have an item come due at `when`, at most a tick late and never early, instead of any other time."""
        slot = max(int(when / self.tick) + 1, self._next)
        if item.slot != slot:
            self.remove(item)
            item.slot = slot
            self._slots.setdefault(slot, set()).add(item)

    def remove(self, item: T) -> None:
        """Forget an item; nothing happens when it is not here."""
        if item.slot != NOWHERE:
            items = self._slots[item.slot]
            items.discard(item)
            if not items:
                del self._slots[item.slot]
            item.slot = NOWHERE

    def due(self, now: float, limit: int) -> list[T]:
        """Take out what is due, oldest first, at most `limit` items: the rest stays due for the next call."""
        taken: list[T] = []
        last = int(now / self.tick)
        while self._next <= last:
            items = self._slots.get(self._next)
            while items:
                if len(taken) == limit:
                    return taken
                item = items.pop()
                item.slot = NOWHERE
                taken.append(item)
            self._slots.pop(self._next, None)
            self._next += 1
        return taken
