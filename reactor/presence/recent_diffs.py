"""The recent diffs of the rooms that a node follows, for clients that return by position.

A client that returns names the position of its list and the number of members in it. Where the node has all
diffs since, the client receives those, merged into one, in place of the list.

The number of members shows whether the client's list is the one that the node had at that version. Two lists
of the same version differ only where one was made while expiry was suspended: it lacks the members that had
expired by then. The one that was made later lacks all that the other lacks, so of the same size they are the
same.

The diffs of all rooms together take at most `max_bytes`. The rooms that have not changed for longest lose
theirs first: a client that returns to such a room most often has its last version already, and needs none.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from reactor.presence.rows import decode_diff
from reactor.protocol.codec import Codec
from reactor.protocol.data import value_of
from reactor.protocol.intents import FormerJoining
from reactor.protocol.messages import RoomChanges, RoomDiff
from reactor.protocol.room import RoomView, merge

MAX_DIFFS = 512
"""Diffs of one room that are kept. To read and merge as many takes about 2 ms."""
MAX_MERGED = 1 << 20
"""Bytes of merged diffs that are kept for the next client that returns from the same position."""
RESULTS = ("diffs", "other_list", "forgotten", "larger")
"""What became of returns by position: answered by diffs, or by a list, and why."""

_OVERHEAD = 200  # bytes of a diff beside its content, about

_decode_changes = msgspec.msgpack.Decoder(RoomDiff).decode


class _Kept(NamedTuple):
    """One diff: as Redis published it, or, where receivers were sent another one, as a message."""

    version: int
    members: int
    payload: bytes
    published: bool

    @property
    def size(self) -> int:
        return len(self.payload) + _OVERHEAD

    def diff(self, room_id: str) -> RoomDiff:
        return decode_diff(self.payload).diff(room_id) if self.published else _decode_changes(self.payload)


class _Log:
    """The diffs of a room from `start` on. members: their number at that version."""

    __slots__ = ("diffs", "epoch", "identity", "members", "start")

    def __init__(self, epoch: str, start: int, members: int) -> None:
        self.epoch, self.start, self.members = epoch, start, members
        self.identity = object()
        self.diffs: list[_Kept] = []

    @property
    def version(self) -> int:
        return self.diffs[-1].version if self.diffs else self.start


class Merged:
    """The changes of a room since a position, as one diff, which is encoded once for each codec.

    diff: None where nothing has changed.
    """

    __slots__ = ("_encoded", "diff", "size")

    def __init__(self, diff: RoomDiff | None, size: int) -> None:
        self.diff, self.size = diff, size
        self._encoded: dict[Codec, bytes] = {}

    def encoded(self, codec: Codec) -> list[bytes]:
        """Return the elements of `diffs` in a reply to a join, encoded."""
        if self.diff is None:
            return []
        if (found := self._encoded.get(codec)) is None:
            diff = self.diff
            found = self._encoded[codec] = codec.encode(
                RoomChanges(diff.from_, diff.version, diff.count, diff.joined, diff.updated, diff.left)
            )
        return [found]


_NOTHING = Merged(None, 0)


class RecentDiffs:
    """The recent diffs of a node's rooms. max_bytes: of all together, about; 0 keeps none.

    Attributes:
        bytes: How many are kept now.
        results: Returns by position, by RESULTS.
        read: How many diffs the last call of `since` has read, also where it returned None.

    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = self.read = 0
        self.results: Counter[str] = Counter()
        self._logs: dict[str, _Log] = {}
        self._changed: OrderedDict[str, None] = OrderedDict()  # rooms with diffs, in order
        self._merged: OrderedDict[tuple[object, int], Merged] = OrderedDict()
        self._merged_bytes = 0

    def begin(self, view: RoomView) -> None:
        """Start anew at the position of a view that was made from a list."""
        self.forget(view.room_id)
        if self.max_bytes:
            self._logs[view.room_id] = _Log(view.epoch, view.version, len(view.members))

    def add(self, view: RoomView, diff: RoomDiff, payload: bytes = b"") -> None:
        """Keep a diff by which a view was advanced. payload: as published, where receivers were sent that."""
        log = self._logs.get(view.room_id)
        if log is None or log.epoch != diff.epoch or not diff.from_ <= log.version < diff.version:
            self.begin(view)
            return
        content = payload or msgspec.msgpack.encode(diff, enc_hook=value_of)
        kept = _Kept(diff.version, len(view.members), content, bool(payload))
        log.diffs.append(kept)
        self.bytes += kept.size
        self._changed[view.room_id] = None
        self._changed.move_to_end(view.room_id)
        if len(log.diffs) > MAX_DIFFS:
            self._drop_oldest(log)
        self._shrink()

    def forget(self, room_id: str) -> None:
        """Keep nothing of a room any more."""
        if (log := self._logs.pop(room_id, None)) is not None:
            self.bytes -= sum(kept.size for kept in log.diffs)
            self._changed.pop(room_id, None)

    def since(
        self, view: RoomView, former: FormerJoining, *,
        serves: Callable[[RoomDiff], bool] = lambda _diff: True, counts: bool = True,
    ) -> Merged | None:  # fmt: skip
        """Return what has changed since the list that a client names; None where it has to receive a list.

        serves: whether it may be sent a diff in place of the list. counts: whether this is what it is sent.
        """
        self.read = 0
        if former.members is None or not self.max_bytes:
            return None
        merged = self._since(view, former.epoch, former.version, former.members)
        if isinstance(merged, Merged) and merged.diff is not None and not serves(merged.diff):
            merged = "larger"
        self.results[merged if isinstance(merged, str) else "diffs"] += counts
        return None if isinstance(merged, str) else merged

    def _since(self, view: RoomView, epoch: str, version: int, members: int) -> Merged | str:
        log = self._logs.get(view.room_id)
        if log is None or (log.epoch, log.version) != (view.epoch, view.version) or log.epoch != epoch:
            return "forgotten"
        after, known = self._diffs_after(log, version)
        if known is None:
            return "forgotten"
        if known != members:
            return "other_list"
        if not after:
            return _NOTHING
        merged = self._merge(view, log, version, after)
        assert merged.diff is not None
        # The members in it are in the list too, and a departure takes less than a member.
        rows = len(merged.diff.joined) + len(merged.diff.updated) + len(merged.diff.left)
        return merged if rows < len(view.members) else "larger"

    def _diffs_after(self, log: _Log, version: int) -> tuple[list[_Kept], int | None]:
        """Return the diffs after a version, and the number of members at it; None where it is not kept."""
        after: list[_Kept] = []
        for kept in reversed(log.diffs):
            if kept.version <= version:
                return after[::-1], kept.members if kept.version == version else None
            after.append(kept)
        return after[::-1], log.members if log.start == version else None

    def _merge(self, view: RoomView, log: _Log, version: int, after: list[_Kept]) -> Merged:
        """Return the merged diffs; those that were merged for the client before are not read again."""
        key = log.identity, version
        before = self._merged.pop(key, None)
        diffs, size = list[RoomDiff](), 0
        if before is not None and before.diff is not None:
            self._merged_bytes -= before.size
            if before.diff.version == log.version:
                return self._keep(key, before)
            diffs, size, version = [before.diff], before.size, before.diff.version
        newer = [kept for kept in after if kept.version > version]
        diffs += [kept.diff(view.room_id) for kept in newer]
        size += sum(kept.size for kept in newer)
        diff = replace(merge(diffs), count=len(view.members))
        self.read = len(newer)
        return self._keep(key, Merged(diff, size))

    def _keep(self, key: tuple[object, int], merged: Merged) -> Merged:
        self._merged[key] = merged
        self._merged_bytes += merged.size
        while self._merged_bytes > MAX_MERGED:
            _, dropped = self._merged.popitem(last=False)
            self._merged_bytes -= dropped.size
        return merged

    def _drop_oldest(self, log: _Log) -> None:
        kept = log.diffs.pop(0)
        log.start, log.members = kept.version, kept.members
        self.bytes -= kept.size

    def _shrink(self) -> None:
        while self.bytes > self.max_bytes and self._changed:
            room_id = next(iter(self._changed))
            log = self._logs[room_id]
            only = len(self._changed) == 1
            while log.diffs and (not only or self.bytes > self.max_bytes):
                self._drop_oldest(log)
            if not log.diffs:
                del self._changed[room_id]
