"""What is counted by client: made when a client is first seen, forgotten once none of it counts. PURE."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

MIN_PRUNE_SIZE: Final = 1024
"""Entries that are kept without looking whether they still count."""


class UsageByKey(Generic[Value]):
    """Values by key. Its size is at most twice what counts, beyond `MIN_PRUNE_SIZE`.

    in_use(value, now): whether a value still counts.
    """

    def __init__(self, in_use: Callable[[Value, float], bool]) -> None:
        self._in_use = in_use
        self._values: dict[str, Value] = {}
        self._prune_size = MIN_PRUNE_SIZE

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, now: float, create: Callable[[], Value]) -> Value:
        """Return the value of a key, made by `create` where there is none."""
        value = self._values.get(key)
        if value is None:
            if len(self._values) >= self._prune_size:
                self._values = {key: one for key, one in self._values.items() if self._in_use(one, now)}
                self._prune_size = max(MIN_PRUNE_SIZE, 2 * len(self._values))
            value = self._values[key] = create()
        return value
