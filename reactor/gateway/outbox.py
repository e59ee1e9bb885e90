"""The frames that wait to be written to one connection, and their limit. PURE.

While the transport accepts data, frames wait at most until the end of the event loop's turn and are written
together. Once its buffer is full, each frame counts towards the limit, and the one that would exceed it
closes the connection, so that a client that does not read costs a bounded amount of memory. What the
transport accepted before does not count: a large snapshot may be followed by diffs while the client still
reads it.
"""

from enum import Enum

HIGH_WATER = 65536
"""Bytes in one turn after which they are written, to learn whether the transport still accepts data."""


class PutResult(Enum):
    """What the caller has to do after `Outbox.put`."""

    FLUSH_SOON = 1  # the first frame of this turn: schedule a flush
    WAIT = 2  # nothing: a flush is scheduled, or follows when the transport accepts data again
    FLUSH_NOW = 3  # write: this turn has more than HIGH_WATER bytes
    TOO_SLOW = 4  # close: the frame was not added, it would exceed the limit


# Access by name of an Enum's member takes five times as long.
FLUSH_SOON, WAIT, FLUSH_NOW, TOO_SLOW = PutResult


class Outbox:
    """Frames in order. `limit` is in bytes; `blocked` is set while the transport's buffer is full."""

    __slots__ = ("_frames", "blocked", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.blocked = False
        self._frames: list[bytes] = []

    def put(self, frame: bytes, *rest: bytes) -> PutResult:
        """Add a frame, possibly in pieces, unless the result is TOO_SLOW."""
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

    def pop_all(self) -> list[bytes]:
        """Remove and return all frames."""
        frames = self._frames
        self._frames = []
        self.size = 0
        return frames
