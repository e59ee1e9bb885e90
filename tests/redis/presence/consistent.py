"""What must be true of a namespace's keys after every script, checked by plain reads."""

from collections import defaultdict
from typing import Any

from reactor.presence.keys import Entry, parse_suffix, unescape
from tests.support.keyspace import presence_key, shard_of, shard_prefix

MEMBER_FIELDS = {"socketId", "userId", "roomId", "username", "lastActiveAt", "joinedAt"}
EMPTY_ROOM_TTL = 60_000
REMOVAL_TTL = 3_600_000
OTHERS = {
    "departures", "totals", "fenced", "lost", "pulse", "changes", "places", "ban", "bans", "exits", "people",
    "person", "seen", "erased", "lifted",
}  # fmt: skip


class Shard:
    """The keys of one shard, sorted by what they are. Ends are times in milliseconds, -1 for none."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.presence: dict[Entry, dict[str, str]] = {}
        self.ends: dict[Entry, int] = {}
        self.shadows: dict[Entry, dict[str, str]] = {}
        self.rows: dict[str, dict[str, float]] = {}
        self.states: dict[str, int] = {}
        self.removals: dict[Entry, int] = {}
        self.rooms: dict[str, float] = {}
        self.nodes: set[str] = set()
        self.node_rooms: dict[str, set[str]] = {}
        self.node_users: dict[tuple[str, str], set[str]] = {}
        self.others: set[str] = set()

    def take(self, rest: str, content: Any, ends: int) -> None:
        """Take one key; its name without the prefix is `rest`."""
        kind, _, name = rest.partition(":")
        if kind == "room":
            entry = parse_suffix(name)
            self.presence[entry], self.ends[entry] = _texts(content), ends
        elif kind == "shadow":
            self.shadows[parse_suffix(name.removeprefix("room:"))] = _texts(content)
        elif kind == "members":
            self.rows[unescape(name)] = _scores(content)
        elif kind == "state":
            self.states[unescape(name)] = ends
        elif kind == "removal":
            self.removals[parse_suffix(name.removeprefix("room:"))] = ends
        elif kind == "rooms":
            self.rooms = _scores(content)
        elif kind == "nodes":
            self.nodes = _names(content)
        elif kind == "node" and ":" in name:
            node, _, room = name.partition(":")
            self.node_users[node, unescape(room)] = set(_scores(content))
        elif kind == "node":
            self.node_rooms[name] = _names(content)
        else:
            self.others.add(kind)

    def check(self, *, now: int, shadow_deleted: bool) -> None:
        self._check_members()
        self._check_rooms(now)
        if not shadow_deleted:
            self._check_nodes()
        for entry, ends in self.removals.items():
            assert 0 < ends <= now + REMOVAL_TTL, f"the note of a removal expires: {entry}"
        assert self.others <= OTHERS, self.others

    def _check_members(self) -> None:
        rows = {Entry(room, user) for room, users in self.rows.items() for user in users}
        assert set(self.shadows) == rows, "a shadow for each row"
        assert set(self.presence) <= rows, "a row for each presence key"
        for entry, fields in self.presence.items():
            key, ends = presence_key("t", entry), self.ends[entry]
            assert set(fields) >= MEMBER_FIELDS, fields
            assert (fields["roomId"], fields["userId"]) == entry
            assert ends > 0, f"{key} never expires"
            assert self.rows[entry.room_id][entry.user_id] <= ends, (
                f"the stored deadline is after the expiry: {key}"
            )
            connections = {name: flag for name, flag in self.shadows[entry].items() if "." in name}
            if connections:
                assert int(fields.get("connections", 1)) == len(connections)
                assert ("away" in fields) == all(flag == "1" for flag in connections.values())
            assert ("r" in self.shadows[entry]) == (not connections), "a reason in the disconnect grace alone"

    def _check_rooms(self, now: int) -> None:
        assert set(self.rooms) == set(self.rows), "a deadline for each room"
        for room, stored in self.rooms.items():
            living = [end for user, end in self.rows[room].items() if Entry(room, user) in self.presence]
            assert stored <= min(living, default=stored), f"{room} is due too late for one of its members"
        for room, ends in self.states.items():
            if room in self.rows:
                assert ends == -1, "the state of a room with members does not expire"
            else:
                assert 0 < ends <= now + EMPTY_ROOM_TTL, "the state of an empty room expires"
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


def _texts(content: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in content.items()}


def _scores(content: list[tuple[bytes, float]]) -> dict[str, float]:
    return {unescape(name.decode()): score for name, score in content}


def _names(content: set[bytes]) -> set[str]:
    return {unescape(name.decode()) for name in content}


def assert_consistent(client: Any, *, shadow_deleted: bool = False) -> None:
    """Check every key of the namespace `t` against the others. Reading them deletes expired ones.

    shadow_deleted: a shadow was deleted externally, so that the nodes' indexes cannot be checked.
    """
    keys = [key for key in client.scan_iter("*", count=1000) if not key.startswith(b"{t:fleet}:")]
    shards: dict[str, Shard] = {}
    kinds = _pipelined(client, [("type", key) for key in keys])
    reads = {b"hash": "hgetall", b"zset": "zrange", b"set": "smembers"}
    contents = _pipelined(
        client, [(reads.get(kind, "exists"), key) for key, kind in zip(keys, kinds, strict=True)]
    )
    ends = _pipelined(client, [("pexpiretime", key) for key in keys])
    for key, content, end in zip(keys, contents, ends, strict=True):
        prefix, brace, rest = key.decode().partition("}:")
        assert brace, key
        assert prefix.startswith("{t:"), key
        if end != -2:
            shards.setdefault(prefix, Shard(prefix + "}")).take(rest, content, end)
    seconds, micros = client.time()
    for prefix, shard in shards.items():
        for room in shard.rows:
            assert shard_prefix("t", shard_of(room)) == prefix + "}"
        shard.check(now=seconds * 1000 + micros // 1000, shadow_deleted=shadow_deleted)


def _pipelined(client: Any, reads: list[tuple[str, bytes]]) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    for command, key in reads:
        if command == "zrange":
            pipe.zrange(key, 0, -1, withscores=True)
        else:
            getattr(pipe, command)(key)
    results: list[Any] = pipe.execute()
    return results
