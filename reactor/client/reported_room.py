"""A room as the application was notified of it, kept apart from the room as it is known. PURE.

The view (protocol/room.py) advances with each snapshot and diff; `members` changes only by events. So an
application that applies the events holds exactly `members`, whatever happened in between: a diff received
twice, a snapshot after a gap or after a reconnect become the difference between the two.

Two things in a view are not reported at once, since they are what Redis shows after it lost its data and
before the nodes have registered their members again: a list without this client's own member, while it is in
the room; and the absence, from a new epoch of the room, of members of the previous epoch, which may be
registered in a moment. `settle` ends the waiting and reports the view as it is.
"""

from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from reactor.protocol.events import JoinEvent, LeaveEvent, RoomEvent, SyncEvent, UpdateEvent
from reactor.protocol.messages import (
    CountReply,
    Departed,
    Member,
    MembersReply,
    RoomChanges,
    RoomCounted,
    RoomDiff,
    RoomJoined,
    RoomWatching,
    View,
)
from reactor.protocol.room import DiffResult, RoomView, diff_between


class ReportedRoom:
    """What the application knows of a room. Each method takes a message and returns the resulting events.

    Attributes:
        room_id: The room.
        user_id: This client's own user; None where it only watches the room.
        served: What the server sends of the room: its members, only their count, or nothing.
        members: By user id, as reported; empty unless they are served.
        view: The room as known.

    """

    __slots__ = (
        "_count",
        "_epoch",
        "_missing",
        "_reasons",
        "_report_all",
        "members",
        "room_id",
        "served",
        "user_id",
        "view",
    )

    def __init__(self, room_id: str, user_id: str | None) -> None:
        self.room_id = room_id
        self.user_id = user_id
        self.served: View = "none"
        self.members: dict[str, Member] = {}
        self.view = RoomView(room_id)
        self._epoch = ""
        self._count = 0
        self._missing: set[str] = set()
        self._report_all = False  # Whether changes were withheld that the next report has to include.
        self._reasons: dict[str, str] = {}

    @property
    def count(self) -> int:
        """The number of members, as reported."""
        return len(self.members) if self.served == "members" else self._count

    @property
    def needs_snapshot(self) -> bool:
        """Whether a snapshot has to be requested."""
        return self.served == "members" and self.view.waiting

    @property
    def unsettled(self) -> bool:
        """Whether changes are withheld: call `settle` once nodes had time to register all members again."""
        return self._report_all or bool(self._missing)

    def sync(self) -> SyncEvent:
        """Return everything reported so far as one event."""
        return SyncEvent(
            kind="sync", room_id=self.room_id, count=self.count, members=tuple(self.members.values())
        )

    def joined(self, message: RoomJoined) -> list[RoomEvent]:
        """Apply the reply to a join."""
        if message.diffs is not UNSET and self.served == "members":
            return self._continued(message.epoch, message.version, message.diffs)
        if message.members is not UNSET:
            return self.snapshot(message.epoch, message.version, message.members)
        return self._counted(message.view, message.epoch, message.version, message.count)

    def watching(self, message: RoomWatching) -> list[RoomEvent]:
        """Apply the reply to a request to watch."""
        if message.members is not UNSET:
            return self.snapshot(message.epoch, message.version, message.members)
        return self._counted(message.view, message.epoch, message.version, message.count)

    def snapshot(self, epoch: str, version: int, members: Iterable[Member]) -> list[RoomEvent]:
        """Apply a list of members, and then the deferred diffs that are newer."""
        if self.served == "members":
            self.view.reset(epoch, version, members)
            return self._report(None)
        self.served = "members"
        self.view.invalidate()
        self.view.reset(epoch, version, members)
        self.members = dict(self.view.members)
        self._epoch = self.view.epoch
        return [self.sync()]

    def _continued(self, epoch: str, version: int, changes: Iterable[RoomChanges]) -> list[RoomEvent]:
        """Apply what has changed since the list that was known, in place of a list."""
        diffs = [
            RoomDiff(
                self.room_id, epoch, one.from_, one.version, one.count, one.joined, one.updated, one.left
            )
            for one in changes
        ]
        self._reasons.update((left.user_id, left.reason) for diff in diffs for left in diff.left)
        self.view.resume(epoch, version, diffs)
        return self._report(None)

    def listed(self, message: MembersReply) -> list[RoomEvent]:
        """Apply a snapshot that was requested, or that was sent because the room is served by name again."""
        if message.members is not UNSET:
            return self.snapshot(message.epoch, message.version, message.members)
        return self._counted("count", message.epoch, message.version, message.count)

    def diff(self, diff: RoomDiff) -> list[RoomEvent]:
        """Apply a diff, or defer it."""
        if self.served != "members":
            return []
        result = self.view.apply(diff)
        if result is DiffResult.STALE:
            return []
        self._reasons.update((left.user_id, left.reason) for left in diff.left)
        if result is not DiffResult.APPLIED:
            return []
        changed = [member.user_id for member in (*diff.joined, *diff.updated)]
        return self._report([*(left.user_id for left in diff.left), *changed])

    def count_changed(self, message: CountReply | RoomCounted) -> list[RoomEvent]:
        """Apply a count that was not requested: the room is served as a count from here on."""
        return self._counted("count", message.epoch, message.version, message.count)

    def connection_lost(self) -> None:
        """Keep what was reported until the next snapshot."""
        self.view.invalidate()

    def settle(self) -> list[RoomEvent]:
        """Report what was withheld."""
        if self.view.waiting or self.served != "members":
            return []
        self._missing.clear()
        return self._report(None, without_own=True)

    def _counted(self, served: View, epoch: str, version: int, count: int) -> list[RoomEvent]:
        listed = self.served == "members"
        if listed:
            self.members = {}
            self._missing.clear()
            self._reasons.clear()
            self._report_all = False
        elif self.served == served and epoch == self.view.epoch and version < self.view.version:
            return []
        changed = listed or self.served != served or count != self._count
        self.served = served
        self.view.epoch, self.view.version = epoch, version
        self._count = count
        return [self.sync()] if changed else []

    def _report(self, changed: Iterable[str] | None, *, without_own: bool = False) -> list[RoomEvent]:
        """Report the difference between the view and what was reported.

        Args:
            changed: The users that may differ; None for all.
            without_own: Report also a list without this client's own member.

        """
        now, before = self.view.members, self.members
        if self.view.epoch != self._epoch:
            self._epoch = self.view.epoch
            self._missing = set(before)
            self._report_all = True
        if self.user_id is not None and self.user_id not in now and not without_own:
            self._missing.add(self.user_id)
            self._report_all = True
            return []
        if self._report_all or changed is None:
            changed = (*before, *now)
        self._report_all = False
        users = dict.fromkeys(changed)
        returned = {user_id for user_id in self._missing if user_id in now}
        self._missing -= returned
        old = {
            user_id: before[user_id]
            for user_id in users
            if user_id in before and user_id not in self._missing
        }
        for user_id in returned & old.keys():
            # A node registered the member again with another joining time; it was never gone.
            old[user_id] = replace(old[user_id], joined_at=now[user_id].joined_at)
        current = [now[user_id] for user_id in users if user_id in now]
        return self._events(*diff_between(old, current), current)

    def _events(
        self, joined: list[Member], updated: list[Member], left: list[Departed], current: list[Member]
    ) -> list[RoomEvent]:
        departed = [(self.members.pop(one.user_id), one) for one in left]
        for member in current:
            self.members[member.user_id] = member
        room_id, count = self.room_id, len(self.members)
        events: list[RoomEvent] = [
            LeaveEvent(
                kind="leave",
                room_id=room_id,
                count=count,
                member=member,
                reason=self._reasons.get(one.user_id, one.reason),
            )
            for member, one in departed
        ]
        self._reasons.clear()
        events += [JoinEvent(kind="join", room_id=room_id, count=count, member=member) for member in joined]
        events += [
            UpdateEvent(kind="update", room_id=room_id, count=count, member=member) for member in updated
        ]
        return events
