"""A room as its reader was told of it, kept apart from the room as it is known. PURE.

The view (protocol/room.py) moves on with each snapshot and diff; `members` moves on only by events. So
whoever follows the events holds exactly `members`, whatever the network did in between: a diff that is seen
twice, a snapshot after a gap or after a new connection all come down to what differs between the two.

Two things in a view are not believed at once, for they are what Redis shows after it lost its data and before
the servers have entered their members anew. A list without ourselves, while we are in the room, is not told.
Nor do those who are missing from a new epoch of the room leave, who were there in the old one: they may be on
their way back. `settle` ends the waiting: from then on the view is right.
"""

from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from reactor.protocol.events import Kind, RoomEvent
from reactor.protocol.messages import CountReply, Departed, Member, MembersReply, RoomDiff, RoomJoined, View
from reactor.protocol.room import DiffResult, RoomView, diff_between


class Listing:
    """What a room's reader knows. Each method takes what came and returns the events that it means.

    Attributes:
        served: What the server tells of the room: its members, only their count, or nothing.
        members: By user id, as told; empty unless they are served.
        view: The room as known.

    """

    __slots__ = (
        "_all",
        "_count",
        "_epoch",
        "_missing",
        "_reasons",
        "members",
        "room_id",
        "served",
        "user_id",
        "view",
    )

    def __init__(self, room_id: str, user_id: str) -> None:
        self.room_id = room_id
        self.user_id = user_id
        self.served: View = "none"
        self.members: dict[str, Member] = {}
        self.view = RoomView(room_id)
        self._epoch = ""
        self._count = 0
        self._missing: set[str] = set()
        self._all = False  # what was held back is still to be told
        self._reasons: dict[str, str] = {}

    @property
    def count(self) -> int:
        """How many are in the room, as told."""
        return len(self.members) if self.served == "members" else self._count

    @property
    def incomplete(self) -> bool:
        """Whether a snapshot is needed."""
        return self.served == "members" and self.view.waiting

    @property
    def unsettled(self) -> bool:
        """Whether something is held back: call `settle` once the servers had time to enter all anew."""
        return self._all or bool(self._missing)

    def sync(self) -> RoomEvent:
        """The whole of what was told, as one event."""
        return RoomEvent(
            kind="sync", room_id=self.room_id, count=self.count, members=tuple(self.members.values())
        )

    def joined(self, message: RoomJoined) -> list[RoomEvent]:
        """Take the answer to a join."""
        if message.members is not UNSET:
            return self.snapshot(message.epoch, message.version, message.members)
        return self._counted(message.view, message.epoch, message.version, message.count)

    def snapshot(self, epoch: str, version: int, members: Iterable[Member]) -> list[RoomEvent]:
        """Take a list of members, and the diffs that overtook it."""
        if self.served == "members":
            self.view.reset(epoch, version, members)
            return self._tell(None)
        self.served = "members"
        self.view.invalidate()
        self.view.reset(epoch, version, members)
        self.members = dict(self.view.members)
        self._epoch = self.view.epoch
        return [self.sync()]

    def listed(self, message: MembersReply) -> list[RoomEvent]:
        """Take a snapshot that was asked for, or that came because the room is served by name again."""
        if message.members is not UNSET:
            return self.snapshot(message.epoch, message.version, message.members)
        return self._counted("count", message.epoch, message.version, message.count)

    def diff(self, diff: RoomDiff) -> list[RoomEvent]:
        """Take a change."""
        if self.served != "members":
            return []
        verdict = self.view.apply(diff)
        if verdict is DiffResult.STALE:
            return []
        self._reasons.update((left.user_id, left.reason) for left in diff.left)
        if verdict is not DiffResult.APPLIED:
            return []
        changed = [member.user_id for member in (*diff.joined, *diff.updated)]
        return self._tell([*(left.user_id for left in diff.left), *changed])

    def count_told(self, message: CountReply) -> list[RoomEvent]:
        """Take a count that came unasked: the room is served as one from here on."""
        return self._counted("count", message.epoch, message.version, message.count)

    def lose(self) -> None:
        """Note that the connection was lost: what was told stands until the next snapshot."""
        self.view.invalidate()

    def settle(self) -> list[RoomEvent]:
        """Tell what was held back."""
        if self.view.waiting or self.served != "members":
            return []
        self._missing.clear()
        return self._tell(None, believe=True)

    def _counted(self, served: View, epoch: str, version: int, count: int) -> list[RoomEvent]:
        listed = self.served == "members"
        if listed:
            self.members = {}
            self._missing.clear()
            self._reasons.clear()
            self._all = False
        elif self.served == served and epoch == self.view.epoch and version < self.view.version:
            return []
        changed = listed or self.served != served or count != self._count
        self.served = served
        self.view.epoch, self.view.version = epoch, version
        self._count = count
        return [self.sync()] if changed else []

    def _tell(self, touched: Iterable[str] | None, *, believe: bool = False) -> list[RoomEvent]:
        now, before = self.view.members, self.members
        if self.view.epoch != self._epoch:
            self._epoch = self.view.epoch
            self._missing = set(before)
            self._all = True
        if self.user_id not in now and not believe:
            self._missing.add(self.user_id)
            self._all = True
            return []
        if self._all or touched is None:
            touched = (*before, *now)
        self._all = False
        users = dict.fromkeys(touched)
        returned = {user_id for user_id in self._missing if user_id in now}
        self._missing -= returned
        old = {
            user_id: before[user_id]
            for user_id in users
            if user_id in before and user_id not in self._missing
        }
        for user_id in returned & old.keys():
            # Entered anew by a server, at another time, and yet never gone.
            old[user_id] = replace(old[user_id], joined_at=now[user_id].joined_at)
        news = [now[user_id] for user_id in users if user_id in now]
        return self._events(*diff_between(old, news), news)

    def _events(
        self, joined: list[Member], updated: list[Member], left: list[Departed], news: list[Member]
    ) -> list[RoomEvent]:
        gone = [(self.members.pop(departed.user_id), departed) for departed in left]
        for member in news:
            self.members[member.user_id] = member
        room_id, count = self.room_id, len(self.members)
        events = [
            RoomEvent(
                kind="leave",
                room_id=room_id,
                count=count,
                member=member,
                reason=self._reasons.get(departed.user_id, departed.reason),
            )
            for member, departed in gone
        ]
        self._reasons.clear()
        kinds: tuple[tuple[Kind, list[Member]], ...] = (("join", joined), ("update", updated))
        for kind, members in kinds:
            events += [
                RoomEvent(kind=kind, room_id=room_id, count=count, member=member) for member in members
            ]
        return events
