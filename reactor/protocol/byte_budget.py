"""A limit, in bytes, for what waits for each connection and for all of a node together. PURE."""

FREE_BYTES = 8192
"""Bytes of each connection that are not counted, so that usual clients are served while it is used up."""


class ByteBudget:
    """The bytes that wait for all connections.

    Args:
        of_each: Most bytes of one connection.
        of_all: Most bytes of all together, beyond the FREE_BYTES of each.

    Attributes:
        used: Bytes of all, beyond the free ones.

    """

    __slots__ = ("_of_all", "_of_each", "used")

    def __init__(self, of_each: int, of_all: int) -> None:
        self._of_each, self._of_all = of_each, of_all
        self.used = 0

    def has_place(self, waiting: int, size: int) -> bool:
        """Return whether `size` more bytes may wait for a connection for which `waiting` bytes do."""
        after = waiting + size
        counted = _counted(after) - _counted(waiting)
        return after <= self._of_each and (not counted or self.used + counted <= self._of_all)

    def change(self, waiting: int, size: int) -> int:
        """Count `size` more bytes of a connection, or fewer; return how many wait for it now."""
        after = waiting + size
        self.used += _counted(after) - _counted(waiting)
        return after


def _counted(size: int) -> int:
    return size - FREE_BYTES if size > FREE_BYTES else 0
