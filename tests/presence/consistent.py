"""What must hold between a namespace's keys after every transition, told by plain reads alone."""

from collections import defaultdict
from typing import Any

from reactor.presence.keys import Entry, escape, parse_suffix, presence_key, shard_of, shard_prefix, unescape

MEMBER_FIELDS = {"socketId", "userId", "roomId", "username", "lastActiveAt", "joinedAt"}
LINGER = 60_000


class Shard:
    """The keys of one shard, sorted by what they are."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client, self.prefix = client, prefix
        self.presence: dict[Entry, dict[str, str]] = {}
        self.shadows: dict[Entry, dict[str, str]] = {}
        self.rows: dict[str, dict[str, float]] = {}
        self.states: dict[str, dict[str, str]] = {}
        self.rooms: dict[str, float] = {}
        self.nodes: set[str] = set()
        self.node_rooms: dict[str, set[str]] = {}
        self.node_users: dict[tuple[str, str], set[str]] = {}
        self.others: set[str] = set()

    def take(self, rest: str, key: bytes) -> None:
        """Read one key; its name without the prefix is `rest`."""
        kind, _, name = rest.partition(":")
        if kind == "room":
            self.presence[parse_suffix(name)] = self._hash(key)
        elif kind == "shadow":
            self.shadows[parse_suffix(name.removeprefix("room:"))] = self._hash(key)
        elif kind == "members":
            self.rows[unescape(name)] = self._scores(key)
        elif kind == "state":
            self.states[unescape(name)] = self._hash(key)
        elif kind == "rooms":
            self.rooms = self._scores(key)
        elif kind == "nodes":
            self.nodes = self._set(key)
        elif kind == "node" and ":" in name:
            node, _, room = name.partition(":")
            self.node_users[node, unescape(room)] = set(self._scores(key))
        elif kind == "node":
            self.node_rooms[name] = self._set(key)
        else:
            self.others.add(kind)

    def check(self, *, torn: bool) -> None:
        self._check_members()
        self._check_rooms()
        if not torn:
            self._check_nodes()
        assert self.others <= {"departures", "totals", "fenced", "lost", "pulse"}, self.others

    def _check_members(self) -> None:
        rows = {Entry(room, user) for room, users in self.rows.items() for user in users}
        assert set(self.shadows) == rows, "a shadow for each row"
        assert set(self.presence) <= rows, "a row for each presence key"
        for entry, fields in self.presence.items():
            key = presence_key("t", entry)
            assert set(fields) >= MEMBER_FIELDS, fields
            assert (fields["roomId"], fields["userId"]) == entry
            ends = self.client.pexpiretime(key)
            assert ends > 0, f"{key} never ends"
            assert self.rows[entry.room_id][entry.user_id] <= ends, f"noted later than it ends: {key}"
            connections = {name: flag for name, flag in self.shadows[entry].items() if "." in name}
            if connections:
                assert int(fields.get("connections", 1)) == len(connections)
                assert ("away" in fields) == all(flag == "1" for flag in connections.values())
            assert ("r" in self.shadows[entry]) == (not connections), "a reason so far in the grace alone"

    def _check_rooms(self) -> None:
        assert set(self.rooms) == set(self.rows), "a deadline for each room"
        for room, noted in self.rooms.items():
            living = [end for user, end in self.rows[room].items() if Entry(room, user) in self.presence]
            assert noted <= min(living, default=noted), f"{room} comes up too late for one of its members"
        for room in self.states:
            life = self.client.pttl(f"{self.prefix}:state:{escape(room)}")
            if room in self.rows:
                assert life == -1, "a room with members keeps its position"
            else:
                assert 0 < life <= LINGER, "an empty room's position ends"
        assert set(self.rows) <= set(self.states)

    def _check_nodes(self) -> None:
        expected: dict[tuple[str, str], set[str]] = defaultdict(set)
        for entry, fields in self.shadows.items():
            for connection in fields:
                if "." in connection:
                    expected[connection.partition(".")[0], entry.room_id].add(entry.user_id)
        assert self.node_users == expected
        by_node: dict[str, set[str]] = defaultdict(set)
        for node, room in expected:
            by_node[node].add(room)
        assert self.node_rooms == by_node
        assert self.nodes == set(by_node)

    def _hash(self, key: bytes) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.client.hgetall(key).items()}

    def _scores(self, key: bytes) -> dict[str, float]:
        found = self.client.zrange(key, 0, -1, withscores=True)
        return {unescape(name.decode()): score for name, score in found}

    def _set(self, key: bytes) -> set[str]:
        return {unescape(name.decode()) for name in self.client.smembers(key)}


def assert_consistent(client: Any, *, torn: bool = False) -> None:
    """Hold every key of the namespace `t` against the others. Reading them ends what has lapsed.

    torn: a hand has deleted a shadow, so that the nodes' indexes say more than can be known.
    """
    shards: dict[str, Shard] = {}
    for key in list(client.scan_iter("*")):
        name = key.decode()
        prefix, brace, rest = name.partition("}:")
        assert prefix.startswith("{t:"), name
        assert brace, name
        if prefix != "{t:fleet" and client.exists(key):
            shards.setdefault(prefix + "}", Shard(client, prefix + "}")).take(rest, key)
    for prefix, shard in shards.items():
        for room in shard.rows:
            assert shard_prefix("t", shard_of(room)) == prefix
        shard.check(torn=torn)
