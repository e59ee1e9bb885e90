"""The rules of presence in plain Python without Redis: the model that the scripts are checked against.

Time is a number that only `pass_time` moves. A member whose deadline has passed is missing in every
answer at once; its departure happens when the first call notices it.

A user is online in any room, away while away in all of them, and offline otherwise. A ban from a room, or
from every room (None), ends memberships at once and refuses joins until it is lifted.
"""

from collections import Counter
from dataclasses import dataclass, field

REMOVAL_TTL = 3_600_000  # ms


@dataclass
class ModelMember:
    deadline: int
    connections: dict[str, bool] = field(default_factory=dict)  # connection -> away
    reason: str = "inactivity_timeout"
    away: bool = False
    shown_connections: int = 1

    def update_visible_fields(self) -> None:
        """Derive the visible fields from the connections; in the grace they stay as they were."""
        if self.connections:
            self.away = all(self.connections.values())
            self.shown_connections = len(self.connections)


@dataclass
class PresenceModel:
    ttl: int
    grace: int
    away_grace: int
    now: int = 0
    rooms: dict[str, dict[str, ModelMember]] = field(default_factory=dict)
    departures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    fenced: set[str] = field(default_factory=set)
    bans: set[tuple[str | None, str]] = field(default_factory=set)
    joinings: int = 0  # joins that were accepted so far
    removals: dict[tuple[str, str], tuple[int, int]] = field(
        default_factory=dict
    )  # joinings then, kept until

    # Reads.

    def alive(self, room: str) -> dict[str, ModelMember]:
        return {user: m for user, m in self.rooms.get(room, {}).items() if m.deadline >= self.now}

    def expired(self, room: str) -> list[str]:
        return [user for user, m in self.rooms.get(room, {}).items() if m.deadline < self.now]

    def person(self, user: str) -> tuple[str, list[str]]:
        """The status of a user over all rooms, and the rooms."""
        there = {room: members[user] for room in self.rooms if user in (members := self.alive(room))}
        if not there:
            return "offline", []
        return "away" if all(member.away for member in there.values()) else "online", sorted(there)

    def is_settled(self, user: str) -> bool:
        """Whether no membership of the user has expired without that being noticed."""
        return all(user not in self.expired(room) for room in self.rooms)

    def is_banned(self, room: str, user: str) -> bool:
        return (room, user) in self.bans or (None, user) in self.bans

    # Changes.

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds

    def join(self, room: str, user: str, connection: str, former: int | None = None) -> str:
        """A join; of a client that returns, with the number of its joining before."""
        if node_of(connection) in self.fenced:
            return "fenced"
        if self.is_banned(room, user):
            return "banned"  # which says nothing of the room, so that nothing is settled
        self.settle(room)
        until, kept_until = self.removals.get((room, user), (0, 0))
        if former is not None and former <= until and self.now <= kept_until:
            return "removed"
        self.joinings += 1
        member = self.rooms.setdefault(room, {}).get(user)
        if member is None:
            self.rooms[room][user] = ModelMember(self.now + self.ttl, {connection: False})
            self.versions[room] += 1
            return "joined"
        before = (member.away, member.shown_connections)
        member.connections[connection] = not member.connections and member.away
        member.deadline, member.reason = self.now + self.ttl, "inactivity_timeout"
        member.update_visible_fields()
        self.versions[room] += before != (member.away, member.shown_connections)
        return "resumed"

    def heartbeat(self, room: str, user: str, node: str) -> bool:
        member = self.alive(room).get(user)
        if member is None or node in self.fenced:
            return False
        member.deadline = self.now + self.ttl
        return True

    def set_away(self, room: str, user: str, connection: str, away: bool) -> bool:
        self.settle_member(room, user)
        member = self.rooms.get(room, {}).get(user)
        if member is None or connection not in member.connections:
            return False
        before = member.away
        member.connections[connection] = away
        member.update_visible_fields()
        self.versions[room] += before != member.away
        return True

    def detach(self, room: str, user: str, connection: str) -> str:
        self.settle_member(room, user)
        member = self.rooms.get(room, {}).get(user)
        if member is None:
            return "absent"
        if connection not in member.connections and member.connections:
            return "kept"
        away = member.connections.pop(connection, False)
        return self._lost_connections(room, user, away)

    def leave(self, room: str, user: str, connection: str) -> str:
        self.settle_member(room, user)
        member = self.rooms.get(room, {}).get(user)
        if member is None:
            return "absent"
        if connection not in member.connections and member.connections:
            return "kept"
        member.connections.pop(connection, None)
        if member.connections:
            self._lost_connections(room, user, False)
            return "kept"
        self.depart(room, user, "left")
        return "left"

    def kick(self, room: str, user: str) -> bool:
        self.settle_member(room, user)
        if user not in self.rooms.get(room, {}):
            return False
        self.depart(room, user, "kicked")
        return True

    def ban(self, room: str | None, user: str) -> None:
        self.bans.add((room, user))
        for one in list(self.rooms) if room is None else [room]:
            self.settle_member(one, user)
            if user in self.rooms.get(one, {}):
                self.depart(one, user, "banned")

    def detach_node(self, node: str) -> None:
        self.fenced.add(node)
        for room in list(self.rooms):
            for user, member in list(self.rooms[room].items()):
                lost = {c: away for c, away in member.connections.items() if node_of(c) == node}
                if not lost:
                    continue
                self.settle_member(room, user)
                if user not in self.rooms[room]:
                    continue
                for connection in lost:
                    del member.connections[connection]
                self._lost_connections(room, user, all(lost.values()))

    def _lost_connections(self, room: str, user: str, away: bool) -> str:
        member = self.rooms[room][user]
        if member.connections:
            before = (member.away, member.shown_connections)
            member.update_visible_fields()
            self.versions[room] += before != (member.away, member.shown_connections)
            return "kept"
        grace = self.away_grace if away else self.grace
        if grace <= 0:
            self.depart(room, user, "disconnected")
            return "departed"
        member.deadline = min(member.deadline, self.now + grace)
        member.reason = "disconnected"
        return "grace"

    # Departures.

    def claim(self, room: str, user: str) -> None:
        if user in self.expired(room):
            self.settle_member(room, user)

    def settle(self, room: str) -> None:
        for user in self.expired(room):
            self.settle_member(room, user)

    def settle_member(self, room: str, user: str) -> None:
        if user in self.expired(room):
            self.depart(room, user, self.rooms[room][user].reason)

    def depart(self, room: str, user: str, reason: str) -> None:
        del self.rooms[room][user]
        self.departures[room, user, reason] += 1
        if reason not in {"left", "disconnected"}:
            self.removals[room, user] = self.joinings, self.now + REMOVAL_TTL
        self.versions[room] += 1


def node_of(connection: str) -> str:
    return connection.partition(".")[0]
