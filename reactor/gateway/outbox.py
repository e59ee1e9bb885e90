"""The frames that wait to be written to one connection, and their limits. PURE.

While the transport accepts data, frames wait at most until the end of the event loop's turn and are written
together, SLICE bytes at a time. Once its buffer is full, all that waits is counted, with what the transport
holds, and the frame that would exceed the limit closes the connection. What all blocked connections hold is
counted by a SendBudget. So a client that does not read costs a bounded amount of memory.

A list of members waits as parts that are encoded when they are written (see snapshots.py): it can be larger
than the limit, and takes next to no memory while the client reads it.
"""

from enum import Enum
from typing import Protocol

HIGH_WATER = 65536
"""Bytes in one turn after which they are written, to learn whether the transport still accepts data."""
SLICE = 131_072
"""Bytes that are written at a time: more than a transport buffers, so that it says whether it is full."""


class PutResult(Enum):
    """What the caller has to do after `Outbox.put`."""

    FLUSH_SOON = 1  # the first frame of this turn: schedule a flush
    WAIT = 2  # nothing: a flush is scheduled, or follows when the transport accepts data again
    FLUSH_NOW = 3  # write: this turn has more than HIGH_WATER bytes
    TOO_SLOW = 4  # close: the frame was not added, it would exceed the limit


# Access by name of an Enum's member takes five times as long.
FLUSH_SOON, WAIT, FLUSH_NOW, TOO_SLOW = PutResult


class Part(Protocol):
    """A part of a message that is encoded when it is written."""

    def __len__(self) -> int:
        """Return the bytes that it takes while it waits."""
        ...

    def encode(self) -> bytes:
        """Return the bytes to write."""
        ...


class SendBudget:
    """The bytes that wait for all blocked connections of a node."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class _PartedMessage:
    """A message in parts; those before `written` are gone."""

    __slots__ = ("parts", "written")

    def __init__(self, parts: list["bytes | memoryview | Part"]) -> None:
        self.parts = parts
        self.written = 0


class Outbox:
    """Frames in order.

    Attributes:
        limit: Bytes that may wait while the transport is full.
        size: Bytes that wait here.
        blocked: Whether the transport's buffer is full; set by `block` and `unblock`.

    """

    __slots__ = ("_budget", "_frames", "_in_transport", "_parted", "blocked", "limit", "size")

    def __init__(self, limit: int, budget: SendBudget) -> None:
        self.limit = limit
        self.size = 0
        self.blocked = False
        self._budget = budget
        self._frames: list[bytes | memoryview | _PartedMessage] = []
        self._parted = False  # whether any of these is in parts
        self._in_transport = 0

    @property
    def held(self) -> int:
        """The bytes that a blocked connection holds, with those that the transport has."""
        return self.size + self._in_transport

    def put(self, frame: bytes, *rest: bytes | Part) -> PutResult:
        """Add a frame, possibly in parts, unless the result is TOO_SLOW."""
        first = not self._frames
        size = self.size + len(frame)
        if rest:
            size += sum(map(len, rest))
        if self.blocked:
            if size + self._in_transport > self.limit:
                return TOO_SLOW
            self._budget.used += size - self.size
        self.size = size
        if rest:
            self._frames.append(_PartedMessage([frame, *rest]))
            self._parted = True
        else:
            self._frames.append(frame)
        if self.blocked:
            return WAIT
        if size > HIGH_WATER or self._parted:
            return FLUSH_NOW
        return FLUSH_SOON if first else WAIT

    def block(self, in_transport: int) -> None:
        """Note that the transport's buffer is full. in_transport: its bytes."""
        if not self.blocked:
            self.blocked, self._in_transport = True, in_transport
            self._budget.used += self.held

    def unblock(self) -> None:
        """Note that the transport accepts data again."""
        if self.blocked:
            self._budget.used -= self.held
            self.blocked, self._in_transport = False, 0

    def take(self) -> list[bytes | memoryview]:
        """Remove and return what is to be written next: everything, or about SLICE bytes of it."""
        if self.size <= SLICE and not self._parted:
            frames, self._frames, self.size = self._frames, [], 0
            return frames  # type: ignore[return-value]
        return self._take_slice()

    def clear(self) -> list[bytes | memoryview] | None:
        """Discard what waits, but return the rest of a message that was written in part.

        Returns None where that is larger than HIGH_WATER: the connection cannot be closed in order then.
        """
        frames, self._frames = self._frames, []
        if self.blocked:
            self._budget.used -= self.size
        self.size, self._parted = 0, False
        begun = frames[0] if frames else b""
        if isinstance(begun, _PartedMessage):
            parts = begun.parts[begun.written :]
            if begun.written and any(not isinstance(part, bytes | memoryview) for part in parts):
                return None
            rest: list[bytes | memoryview] = parts if begun.written else []  # type: ignore[assignment]
        else:
            rest = [begun] if isinstance(begun, memoryview) else []
        return rest if sum(map(len, rest)) <= HIGH_WATER else None

    def _take_slice(self) -> list[bytes | memoryview]:
        before, taken, room, done = self.size, list[bytes | memoryview](), SLICE, 0
        for frame in self._frames:
            if room <= 0:
                break
            if isinstance(frame, _PartedMessage):
                room -= self._take_parts(frame, taken, room)
                if frame.written < len(frame.parts):
                    break
            elif len(frame) > room:
                rest = memoryview(frame)
                taken.append(rest[:room])
                self._frames[done] = rest[room:]
                self.size -= room
                break
            else:
                taken.append(frame)
                room -= len(frame)
                self.size -= len(frame)
            done += 1
        del self._frames[:done]
        self._parted = any(isinstance(frame, _PartedMessage) for frame in self._frames)
        if self.blocked:
            self._budget.used -= before - self.size
        return taken

    def _take_parts(self, message: _PartedMessage, taken: list[bytes | memoryview], room: int) -> int:
        """Take parts until there is no more room; the last may exceed it. Returns their size."""
        size = 0
        while size < room and message.written < len(message.parts):
            part = message.parts[message.written]
            message.written += 1
            self.size -= len(part)
            data = part if isinstance(part, bytes | memoryview) else part.encode()
            taken.append(data)
            size += len(data)
        return size
