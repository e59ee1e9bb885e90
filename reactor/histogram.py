"""Histograms in plain numbers, which metrics, reports and benchmarks read. PURE."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds (s) for operations that take milliseconds."""

LATENESS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
"""Bounds (s) for delays of milliseconds that can grow to minutes when something fails."""

SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500)
"""Bounds for sizes of batches."""


class Histogram:
    """Counts values by bucket: a bucket holds those above the previous bound, up to and including its own."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield each bound with the number of values up to it; the last bound is infinity."""
        so_far = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            so_far += count
            yield bound, so_far

    def quantile(self, share: float) -> float | None:
        """Return the least bound that this share (0 to 1) of the values does not exceed, or None."""
        count = self.count
        if not count:
            return None
        return next(bound for bound, below in self.cumulative() if below >= share * count)
