"""A view of one room: its members at a position (epoch and version), advanced by diffs. PURE.

The node and the clients keep such views; tests/cases/room.json holds the cases that all of them pass.

A view starts out waiting for a snapshot, and defers the diffs that arrive before it. `reset` takes the
snapshot and then those deferred diffs that are newer; `resume` takes diffs from the view's position on in
place of the snapshot. From then on `apply` judges each diff by its position:

- Another epoch: a new room when the diff starts at version 0, so the view starts again with it; else a GAP.
- It ends at or before the view's version: STALE.
- It starts after the view's version: a GAP.
- It starts at or before the view's version and ends after it: APPLIED. A diff sets and removes whole members,
  so applying the overlapping part twice is harmless.

After a GAP the view keeps its members, waits for a snapshot again (the caller has to ask for one) and defers
the diffs that arrive meanwhile. Epochs have no order; they are only equal or not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from operator import attrgetter

from reactor.protocol.messages import Departed, Member, RoomDiff

MAX_DEFERRED = 1024
"""Most diffs deferred while a snapshot is awaited. The oldest are dropped first, which shows as a gap."""


class DiffResult(Enum):
    """What became of a diff or a snapshot."""

    APPLIED = "applied"
    STALE = "stale"  # It held nothing new.
    GAP = "gap"  # An earlier diff is missing: a snapshot is needed.
    DEFERRED = "deferred"  # It is kept until the snapshot arrives.


class RoomView:
    """A room's members, as known here.

    Attributes:
        room_id: The room.
        epoch: The epoch in which `version` counts; "" before the first snapshot.
        version: The position.
        members: By user id.
        run: Replaced by a new object whenever a member is changed or removed. While it stays the same,
            members have only been added, behind those that were there.
        count: The number of members, from the latest diff or snapshot.
        connections: The number of the connections of all members, on all nodes.
        waiting: Whether a snapshot is awaited.

    """

    __slots__ = (
        "_deferred", "connections", "count", "epoch", "members", "room_id", "run", "version", "waiting",
    )  # fmt: skip

    def __init__(self, room_id: str) -> None:
        self.room_id = room_id
        self.epoch = ""
        self.version = 0
        self.run = object()
        self.members: dict[str, Member] = {}
        self.count = self.connections = 0
        self.waiting = True
        self._deferred: list[RoomDiff] = []

    def reset(self, epoch: str, version: int, members: Iterable[Member]) -> DiffResult:
        """Take a snapshot, and then the deferred diffs that are newer.

        Returns:
            APPLIED; or STALE, and nothing has changed, when no snapshot was awaited and the view is newer; or
            GAP when a deferred diff does not continue this snapshot, so that another one is needed.

        """
        if not self.waiting and epoch == self.epoch and version < self.version:
            return DiffResult.STALE
        self._start(epoch, version, members)
        self.waiting = False
        deferred, self._deferred = self._deferred, []
        for index, diff in enumerate(deferred):
            if diff.epoch != epoch:
                # It is of a later epoch or of one that has ended. Only another snapshot shows which, and it
                # contains everything that the diffs of other epochs contain.
                later = [late for late in deferred[index + 1 :] if late.epoch == epoch]
                self.waiting, self._deferred = True, later
                return DiffResult.GAP
            if self._take(diff) is DiffResult.GAP:
                self.waiting, self._deferred = True, deferred[index + 1 :]
                return DiffResult.GAP
        return DiffResult.APPLIED

    def resume(self, epoch: str, version: int, diffs: Iterable[RoomDiff]) -> DiffResult:
        """Continue with the diffs since the view's position, in place of the snapshot that it waits for.

        epoch, version: where they lead. Returns APPLIED, or GAP where they do not and a snapshot is needed.
        """
        deferred, self._deferred = self._deferred, []
        self.waiting = False
        for diff in (*diffs, *deferred):
            self.apply(diff)
        if epoch != self.epoch or version > self.version:
            self.invalidate()
        return DiffResult.GAP if self.waiting else DiffResult.APPLIED

    def apply(self, diff: RoomDiff) -> DiffResult:
        """Advance by a diff, or defer it while a snapshot is awaited."""
        if self.waiting:
            self._deferred.append(diff)
            if len(self._deferred) > MAX_DEFERRED:
                del self._deferred[0]
            return DiffResult.DEFERRED
        result = self._take(diff)
        if result is DiffResult.GAP:
            self.waiting, self._deferred = True, [diff]
        return result

    @property
    def deferred(self) -> Sequence[RoomDiff]:
        """The diffs that arrived while a snapshot was awaited, in the order of arrival."""
        return self._deferred

    def invalidate(self) -> None:
        """Note that diffs may have been missed: only the next snapshot advances the view again."""
        self.waiting = True
        self._deferred.clear()

    def _start(self, epoch: str, version: int, members: Iterable[Member]) -> None:
        self.epoch = epoch
        self.version = version
        self.run = object()
        self.members = {member.user_id: member for member in members}
        self.count = len(self.members)
        self.connections = sum(member.connections for member in self.members.values())

    def _take(self, diff: RoomDiff) -> DiffResult:
        if diff.epoch != self.epoch:
            if diff.from_ != 0:
                return DiffResult.GAP
            self._start(diff.epoch, 0, ())
        elif diff.version <= self.version:
            return DiffResult.STALE
        elif diff.from_ > self.version:
            return DiffResult.GAP
        if (
            diff.left
            or diff.updated
            or not self.members.keys().isdisjoint(member.user_id for member in diff.joined)
        ):
            self.run = object()
        for departed in diff.left:
            before = self.members.pop(departed.user_id, None)
            self.connections -= before.connections if before is not None else 0
        for member in diff.joined:
            self._set(member)
        for member in diff.updated:
            self._set(member)
        self.version = diff.version
        self.count = diff.count
        return DiffResult.APPLIED

    def _set(self, member: Member) -> None:
        before = self.members.get(member.user_id)
        self.connections += member.connections - (before.connections if before is not None else 0)
        self.members[member.user_id] = member


def merge(diffs: Sequence[RoomDiff]) -> RoomDiff:
    """Return one diff of a room with the effect of applying these in order.

    It has that effect from every position between its start and its end, so that a reader whose snapshot is
    from in between may apply it too. That is why a member that joins and leaves is still in `left`. A member
    in both `left` and `joined` has left and joined again.

    Where the diffs are not contiguous, only those after the last gap are merged: the result then starts after
    the gap, and its readers detect it. A diff that starts a new epoch replaces the whole room; of the diffs
    before it only the departures are kept, for their reasons.

    Args:
        diffs: At least one, all of one room, in order.

    Raises:
        ValueError: There are none.

    """
    merged: RoomDiff | None = None
    joined: dict[str, Member] = {}
    updated: dict[str, Member] = {}
    left: dict[str, Departed] = {}
    start = 0
    for diff in diffs:
        if merged is not None and diff.epoch == merged.epoch and diff.version <= merged.version:
            continue
        if merged is None or diff.epoch != merged.epoch or diff.from_ > merged.version:
            # A new epoch continues any position. The reasons of earlier departures are not repeated in it.
            whole = merged is not None and diff.epoch != merged.epoch and diff.from_ == 0
            joined, updated, left, start = {}, {}, left if whole else {}, diff.from_
        for departed in diff.left:
            joined.pop(departed.user_id, None)
            updated.pop(departed.user_id, None)
            # If a member left, joined and left again, readers saw it leave the first time.
            left.setdefault(departed.user_id, departed)
        for member in diff.joined:
            updated.pop(member.user_id, None)
            joined[member.user_id] = member
        for member in diff.updated:
            (joined if member.user_id in joined else updated)[member.user_id] = member
        merged = diff
    if merged is None:
        raise ValueError("no diffs to merge")
    return RoomDiff(
        merged.room_id,
        merged.epoch,
        start,
        merged.version,
        merged.count,
        list(joined.values()),
        list(updated.values()),
        list(left.values()),
    )


def diff_between(
    old: Mapping[str, Member], new: Iterable[Member], reason: str = "disconnected"
) -> tuple[list[Member], list[Member], list[Departed]]:
    """Return the changes that turn one list of members into another: joined, updated, left.

    Heartbeats are not published, so a new `last_active_at` alone is no change. A member whose `joined_at`
    differs has left and joined again, and is in both lists.

    Args:
        old: The members before, by user id.
        new: The members after.
        reason: The reason to give for departures, since a list has none.

    """
    joined: list[Member] = []
    updated: list[Member] = []
    left: list[Departed] = []
    seen = set()
    for member in new:
        seen.add(member.user_id)
        before = old.get(member.user_id)
        if before is None:
            joined.append(member)
        elif before.joined_at != member.joined_at:
            left.append(Departed(member.user_id, reason))
            joined.append(member)
        elif visible_fields(before) != visible_fields(member):
            updated.append(member)
    left += [Departed(user_id, reason) for user_id in old if user_id not in seen]
    return joined, updated, left


visible_fields: Callable[[Member], object] = attrgetter(
    *(name for name in Member.__struct_fields__ if name not in {"user_id", "joined_at", "last_active_at"})
)
"""Returns the fields whose change other members are notified of; a heartbeat changes none of them."""


def visibly_changed(before: Member | None, member: Member) -> bool:
    """Return whether other members are notified of the difference between the two."""
    return (
        before is None
        or before.joined_at != member.joined_at
        or visible_fields(before) != visible_fields(member)
    )
