"""The time-outs of all connections, served by one timer instead of one each. PURE.

A hashed timing wheel: time is divided into ticks, and an item is in the set of the tick in which it is due.
Scheduling, moving and cancelling cost the same however many items there are. An item may come due before its
real time-out (its connection was active meanwhile) and is then scheduled again, so postponing costs nothing.
"""

from typing import Generic, Protocol, TypeVar

NOT_SCHEDULED = -1


class WheelItem(Protocol):
    """Something that stores the tick in which it is due; NOT_SCHEDULED at first."""

    slot: int


T = TypeVar("T", bound=WheelItem)


class TimingWheel(Generic[T]):
    """Items by the tick they are due in. `tick` is in seconds; times are on the caller's monotonic clock."""

    __slots__ = ("_next", "_slots", "tick")

    def __init__(self, tick: float, now: float) -> None:
        self.tick = tick
        self._slots: dict[int, set[T]] = {}
        self._next = int(now / tick)

    def schedule(self, item: T, when: float) -> None:
        """Make an item due at `when`, at most a tick late and never early, replacing its present schedule."""
        slot = max(int(when / self.tick) + 1, self._next)
        if item.slot != slot:
            self.cancel(item)
            item.slot = slot
            self._slots.setdefault(slot, set()).add(item)

    def schedule_no_later(self, item: T, when: float) -> None:
        """Make an item due at `when`, unless it is due earlier."""
        if item.slot == NOT_SCHEDULED or item.slot > int(when / self.tick) + 1:
            self.schedule(item, when)

    def cancel(self, item: T) -> None:
        """Remove an item; does nothing if it is not scheduled."""
        if item.slot != NOT_SCHEDULED:
            items = self._slots[item.slot]
            items.discard(item)
            if not items:
                del self._slots[item.slot]
            item.slot = NOT_SCHEDULED

    def pop_due(self, now: float, limit: int) -> list[T]:
        """Remove and return the due items, oldest first, at most `limit`; the rest stays due."""
        due: list[T] = []
        last = int(now / self.tick)
        while self._next <= last:
            items = self._slots.get(self._next)
            while items:
                if len(due) == limit:
                    return due
                item = items.pop()
                item.slot = NOT_SCHEDULED
                due.append(item)
            self._slots.pop(self._next, None)
            self._next += 1
        return due
