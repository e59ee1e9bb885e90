"""What waits to be written to one socket, and when it is too much. PURE.

While the socket takes what it is given, messages wait for the end of the loop's turn at most, and go out
together. Once it stops taking, each message counts towards the limit, and the one that would cross it ends
the connection: what is not read must not grow. What the socket was given before it stopped does not count, so
that a large snapshot may be followed by the diffs that come while it is being read.
"""

from enum import Enum

HIGH_WATER = 65536
"""Bytes in one turn after which the socket has to say whether it still takes them."""


class Verdict(Enum):
    """What to do after a frame was put into the outbox."""

    FLUSH_SOON = 1  # the first of this turn
    WAIT = 2  # a flush is due already, or comes when the socket takes again
    FLUSH_NOW = 3  # much for one turn: learn whether the socket still takes it
    TOO_SLOW = 4  # refused: the backlog would cross the limit


FLUSH_SOON, WAIT, FLUSH_NOW, TOO_SLOW = Verdict  # a member of an Enum by its class costs five times as much


class Outbox:
    """Frames in order. `limit` is in bytes; `blocked` says that the socket has stopped taking."""

    __slots__ = ("_frames", "blocked", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.blocked = False
        self._frames: list[bytes] = []

    def put(self, frame: bytes, *rest: bytes) -> Verdict:
        """Add a frame, that may be in pieces, unless the verdict is TOO_SLOW."""
        first = not self._frames
        size = self.size + len(frame)
        if rest:
            size += sum(map(len, rest))
        if self.blocked:
            if size > self.limit:
                return TOO_SLOW
            self.size = size
            self._frames += (frame, *rest)
            return WAIT
        self.size = size
        self._frames += (frame, *rest)
        if size > HIGH_WATER:
            return FLUSH_NOW
        return FLUSH_SOON if first else WAIT

    def take(self) -> list[bytes]:
        """Hand over everything that waits."""
        frames = self._frames
        self._frames = []
        self.size = 0
        return frames
