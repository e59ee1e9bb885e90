"""One room as its reader sees it: members at a position (epoch and version), moved on by diffs.

Both the node and the clients keep such views; tests/cases/room.json holds the cases that all of them pass.

Theory of operation. A view starts out waiting for a snapshot. Diffs that come before it are kept; `reset`
takes the snapshot and then those diffs that are newer. From then on `apply` judges each diff by its position:

- Another epoch: a fresh room when the diff starts at version 0, so the view starts anew with it; else a GAP.
- Ends at or before the view's version: STALE, already seen.
- Starts after the view's version: a GAP.
- Starts at or before it, ends after it: APPLIED. A diff sets and removes whole members, so the part that is
  seen twice does no harm.

After a GAP the view waits for a snapshot again, one to be asked for then, and keeps what comes meanwhile. Its
members stay as they were. Epochs have no order: they are the same or they are not.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from reactor.protocol.messages import Departed, Member, RoomDiff

MAX_HELD = 1024
"""Most diffs kept while a snapshot is awaited. The oldest go first: what is missing then shows as a gap."""


class Verdict(Enum):
    """What became of a diff or a snapshot."""

    APPLIED = "applied"
    STALE = "stale"  # Nothing new in it.
    GAP = "gap"  # Something before it is missing: ask for a snapshot.
    HELD = "held"  # Kept until the snapshot comes.


class RoomView:
    """A room's members as known here.

    Attributes:
        room_id: The room.
        epoch: The epoch of the room that `version` counts in; "" before the first snapshot.
        version: The position.
        members: By user id.
        run: Another object whenever members are changed or taken out; while it stays, others only come in,
            behind those that are there.
        count: How many are in the room, as last told.
        waiting: Whether a snapshot is awaited.

    """

    __slots__ = ("_held", "count", "epoch", "members", "room_id", "run", "version", "waiting")

    def __init__(self, room_id: str) -> None:
        self.room_id = room_id
        self.epoch = ""
        self.version = 0
        self.run = object()
        self.members: dict[str, Member] = {}
        self.count = 0
        self.waiting = True
        self._held: list[RoomDiff] = []

    def reset(self, epoch: str, version: int, members: Iterable[Member]) -> Verdict:
        """Take a snapshot, and then the diffs that overtook it.

        Returns:
            APPLIED; or STALE, and nothing has changed, when none was awaited and the view is further on; or
            GAP when a diff that was kept does not join on to this snapshot: ask for another one.

        """
        if not self.waiting and epoch == self.epoch and version < self.version:
            return Verdict.STALE
        self._start(epoch, version, members)
        self.waiting = False
        held, self._held = self._held, []
        for index, diff in enumerate(held):
            if diff.epoch != epoch:
                # Of the next epoch, or of one that is over, even its beginning: another snapshot will tell,
                # and holds all that these hold.
                self.waiting, self._held = True, [late for late in held[index + 1 :] if late.epoch == epoch]
                return Verdict.GAP
            if self._take(diff) is Verdict.GAP:
                self.waiting, self._held = True, held[index + 1 :]
                return Verdict.GAP
        return Verdict.APPLIED

    def apply(self, diff: RoomDiff) -> Verdict:
        """Move on by a diff, or keep it for later while a snapshot is awaited."""
        if self.waiting:
            self._held.append(diff)
            if len(self._held) > MAX_HELD:
                del self._held[0]
            return Verdict.HELD
        verdict = self._take(diff)
        if verdict is Verdict.GAP:
            self.waiting, self._held = True, [diff]
        return verdict

    @property
    def held(self) -> Sequence[RoomDiff]:
        """The diffs that overtook the snapshot that is awaited, in the order in which they came."""
        return self._held

    def lose(self) -> None:
        """Note that the source of diffs was lost: nothing moves the view on before the next snapshot."""
        self.waiting = True
        self._held.clear()

    def _start(self, epoch: str, version: int, members: Iterable[Member]) -> None:
        self.epoch = epoch
        self.version = version
        self.run = object()
        self.members = {member.user_id: member for member in members}
        self.count = len(self.members)

    def _take(self, diff: RoomDiff) -> Verdict:
        if diff.epoch != self.epoch:
            if diff.from_ != 0:
                return Verdict.GAP
            self._start(diff.epoch, 0, ())
        elif diff.version <= self.version:
            return Verdict.STALE
        elif diff.from_ > self.version:
            return Verdict.GAP
        if (
            diff.left
            or diff.updated
            or not self.members.keys().isdisjoint(one.user_id for one in diff.joined)
        ):
            self.run = object()
        for departed in diff.left:
            self.members.pop(departed.user_id, None)
        for member in diff.joined:
            self.members[member.user_id] = member
        for member in diff.updated:
            self.members[member.user_id] = member
        self.version = diff.version
        self.count = diff.count
        return Verdict.APPLIED


def merge(diffs: Sequence[RoomDiff]) -> RoomDiff:
    """Return one diff of a room that does what these do one after the other.

    It does so from every position between its start and its end: one who took a snapshot half-way may apply
    it too. That is why a member who joins and leaves is still in `left`. Someone in both `left` and `joined`
    has left and come again.

    Where the diffs do not join on to one another, only those after the last break are merged: the result then
    starts after the break, and whoever applies it notices the gap. Of those before a room that is told anew,
    whole, as another epoch is, only who left is told.

    Args:
        diffs: At least one, all of one room, in the order in which they came.

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
            # A room told anew, whole, follows on whatever was before: who left by then has its reason there.
            whole = merged is not None and diff.epoch != merged.epoch and diff.from_ == 0
            joined, updated, left, start = {}, {}, left if whole else {}, diff.from_
        for departed in diff.left:
            joined.pop(departed.user_id, None)
            updated.pop(departed.user_id, None)
            # One who went, came and went again: for those who look on it went the first time.
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
    """Return what must be told for one list of members to become another: joined, updated, left.

    A heartbeat is never told, so `last_active_at` alone is no change. A member that joined at another time
    than the one known has left and come again, and is in both.

    Args:
        old: Members as known, by user id.
        new: Members as they are.
        reason: What to give as the reason of those gone, which a list cannot tell.

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
        elif face(before) != face(member):
            updated.append(member)
    left += [Departed(user_id, reason) for user_id in old if user_id not in seen]
    return joined, updated, left


def face(member: Member) -> tuple[object, ...]:
    """What others see change; a heartbeat changes nothing of it."""
    return (member.username, member.away, member.connections, member.data)


def is_news(before: Member | None, member: Member) -> bool:
    """Whether others see that a member is not what it was."""
    return before is None or before.joined_at != member.joined_at or face(before) != face(member)
