"""Members that share a call end as with a call for each: the same keys, and the same rooms for clients.

What a room's members share is written and published once a call. So random joins, leaves and detaches are
made twice, under two prefixes: with one call for several, and with one call for each.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from reactor.presence.people import decode_person_change
from reactor.presence.rows import decode_diff
from reactor.protocol.room import DiffResult, RoomView
from tests.redis.backend.test_scripts import commands
from tests.redis.presence.cases import probing
from tests.redis.presence.probe import GRACE, TTL, Probe
from tests.support.servers import Server

Row = tuple[Any, ...]
USERS, ROOMS = ("ann", "bob", "cy", "dee"), ("lobby", "hall")
CONNECTIONS = ("n1.1", "n1.2", "n2.1")
KEEP = 86_400_000
SPAN = 30_000
"""Milliseconds: times are compared in steps of it, which a slow test does not reach."""


class Twin:
    """One of the two: the keys under a prefix, what was published there, and who is in which view."""

    def __init__(self, probe: Probe, prefix: str) -> None:
        self._row_lost = False
        self.prefix, self._probe = prefix, probe
        self._client: Any = probe.client
        self._events = probe.client.pubsub()
        self._events.psubscribe(f"{prefix}:diff:*", f"{prefix}:person:*")
        for _ in range(2):
            self._events.get_message(timeout=5)
        self.views = {room: RoomView(room) for room in ROOMS}
        for view in self.views.values():
            view.reset("", 0, ())
        self.people: dict[str, list[tuple[str, str]]] = {user: [] for user in USERS}
        self.call("read_changes", [("hook", 1, KEEP)])

    def call(self, script: str, rows: Iterable[Row]) -> list[Any]:
        source = self._probe.runner.source(script)
        flat: list[Any] = [part for row in rows for part in row]
        takes_server = "local SERVER=" in source
        reply: Any = self._client.eval(
            source, 1, self.prefix, *flat, *[self._probe.runner.run_id] * takes_server
        )
        return list(reply)

    def expire(self, room: str, user: str) -> None:
        self._client.delete(f"{self.prefix}:room:{room}:user:{user}")

    def lose_row(self, room: str, user: str) -> None:
        """As with an external change: until the member joins again, counts lack it."""
        self._row_lost = True
        self._client.zrem(f"{self.prefix}:members:{room}", user)

    def hear(self) -> None:
        """Apply what was published."""
        self._events.ping()  # its answer comes behind all that was published before
        while (message := self._events.get_message(timeout=5))["type"] != "pong":
            kind, _, name = message["channel"].decode().removeprefix(self.prefix)[1:].partition(":")
            if kind == "diff":
                diff = decode_diff(message["data"])
                assert self.views[name].apply(diff.diff(name)) is DiffResult.APPLIED
                assert self._row_lost or diff.count == len(self.views[name].members)
            else:
                change = decode_person_change(message["data"])
                self.people[name].append((change.status, change.room))

    def members(self) -> dict[str, Any]:
        """The members in the views."""
        return {
            room: {one.user_id: (one.username, one.away, one.connections) for one in view.members.values()}
            for room, view in self.views.items()
        }

    def statuses(self) -> dict[str, Any]:
        """What was published of each user: the last status, and the changes in no order."""
        return {
            user: (sent[-1][0], Counter(change for _, change in sent)) if sent else None
            for user, sent in self.people.items()
        }

    def content(self) -> dict[str, Any]:
        """All keys, with times in steps of SPAN from now on."""
        seconds, _ = self._client.time()
        now = seconds * 1000
        found = {}
        for key in self._client.scan_iter(f"{self.prefix}:*"):
            name = key.decode().removeprefix(self.prefix)
            if name in {":changes", ":places"}:
                continue  # of the log for webhooks, which has diffs
            value: Any
            match self._client.type(key):
                case b"hash":
                    value = {k: _coarse(v, now) for k, v in self._client.hgetall(key).items()}
                case b"zset":
                    value = {
                        k: _coarse(b"%d" % v, now)
                        for k, v in self._client.zrange(key, 0, -1, withscores=True)
                    }
                case b"set":
                    value = self._client.smembers(key)
                case b"stream":
                    entries = [list(fields.values()) for _, fields in self._client.xrange(key)]
                    value = Counter(tuple(_coarse(one, now) for one in entry) for entry in entries)
                case _:
                    value = None
            ends = self._client.pexpiretime(key)
            found[name] = (value, _coarse(b"%d" % ends, now))
        return found


def _coarse(value: bytes, now: int) -> Any:
    time, *rest = value.split(b" ")
    if time.isdigit() and 10**12 < int(time) < 10**14:
        return (int(time) - now + SPAN // 2) // SPAN, *rest
    return b"epoch" if value.isdigit() and len(value) == 16 else value


class Steps:
    """Random calls. Tokens and sequence numbers are the same for both twins."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tokens = 0

    def calls(self) -> Iterable[tuple[str, list[Callable[[str], Row]]]]:
        for _ in range(8):
            kind = self._random.choice(("join", "join", "join", "leave", "detach", "expire", "lose_row"))
            row = {"join": self._join, "leave": self._leave, "detach": self._detach}
            yield kind, [row.get(kind, self._external)() for _ in range(self._random.randint(1, 6))]

    def _member(self) -> tuple[str, str, str]:
        chance = self._random
        return chance.choice(ROOMS), chance.choice(USERS), chance.choice(CONNECTIONS)

    def _join(self) -> Callable[[str], Row]:
        room, user, connection = self._member()
        self._tokens += 1
        token = f"t{self._tokens}" if self._random.random() < 0.8 else ""
        epoch = "*" if self._random.random() < 0.2 else ""
        away, most = self._random.choice((0, 0, 1)), self._random.choice((0, 0, 3))
        name = self._random.choice(("", "Name"))
        return lambda home: (
            room, user, room, user, name, "", connection, TTL, most, epoch, "", away, "", "", 2, token,
            home if token else "",
        )  # fmt: skip

    def _leave(self) -> Callable[[str], Row]:
        room, user, connection = self._member()
        return lambda home: (room, user, connection, "", "", "", home, KEEP)

    def _detach(self) -> Callable[[str], Row]:
        room, user, connection = self._member()
        grace = self._random.choice((GRACE, GRACE, 0))
        return lambda _: (room, user, connection, grace, grace, 0)

    def _external(self) -> Callable[[str], Row]:
        room, user, _ = self._member()
        return lambda _: (room, user)


@pytest.mark.parametrize("first_seed", range(0, 60, 30))
def test_members_that_share_a_call_end_as_with_a_call_for_each(redis_server: Server, first_seed: int) -> None:
    with probing(redis_server) as probe:
        for seed in range(first_seed, first_seed + 30):
            probe.client.flushall()
            shared, single = Twin(probe, "{shared}"), Twin(probe, "{single}")
            for kind, rows in Steps(seed).calls():
                if kind in {"expire", "lose_row"}:
                    for row in rows[:2]:
                        getattr(shared, kind)(*row(""))
                        getattr(single, kind)(*row(""))
                    continue
                replies = shared.call(kind, [row(shared.prefix) for row in rows])
                others = [single.call(kind, [row(single.prefix)])[0] for row in rows]
                assert [_outcome(one) for one in replies] == [_outcome(one) for one in others], (seed, kind)
                shared.hear()
                single.hear()
                assert shared.members() == single.members(), (seed, kind)
                assert shared.content() == single.content(), (seed, kind)
            assert shared.statuses() == single.statuses(), seed
        probe.client.flushall()


def _outcome(reply: Any) -> Any:
    assert not isinstance(reply, Exception), reply
    return reply[:2] if reply[0] in {b"full", b"crowded"} else reply[0]


def join_rows(users: Sequence[str], data: str = "") -> list[Row]:
    return [
        ("lobby", user, "lobby", user, "", data, f"n1.{number:x}", TTL, 0, "", "", 0, "", "", 0, "", "")
        for number, user in enumerate(users)
    ]


def test_joins_that_share_a_call_are_published_once_and_the_first_has_the_diff(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        twin = Twin(probe, "{t:7wc}")
        users = [f"u{number}" for number in range(10)]
        replies = twin.call("join", join_rows(users))
        assert [reply[0] for reply in replies] == [b"joined"] * 10
        assert [reply[3:5] for reply in replies] == [[10, 10]] * 10
        first, *others = (reply[6] for reply in replies)
        assert [one.user_id for one in decode_diff(first).joined] == users
        assert set(others) == {b""}
        assert probe.received().changes == ["0>10 (10) " + " ".join(f"+{user}" for user in users)]


def test_members_with_much_data_are_published_in_several_diffs(redis_server: Server) -> None:
    with probing(redis_server) as probe:
        twin = Twin(probe, "{t:7wc}")
        replies = twin.call("join", join_rows([f"u{number}" for number in range(12)], '"' + 4000 * "x" + '"'))
        assert [len(decode_diff(reply[6]).joined) for reply in replies if reply[6]] == [5, 5, 2]
        twin.hear()
        assert len(twin.views["lobby"].members) == 12


def test_transitions_of_many_cost_few_commands_each(redis_server: Server) -> None:
    """A room's joins, leaves and detaches in one call write and read what the room has once."""
    with probing(redis_server) as probe:
        twin, users = Twin(probe, "{t:7wc}"), [f"u{number}" for number in range(30)]
        probe.client.delete("{t:7wc}:changes")
        joins = [(*row[:15], f"t-{row[1]}", twin.prefix) for row in join_rows(users)]
        leaves = [
            ("lobby", user, f"n1.{number:x}", "", "", "", twin.prefix, KEEP)
            for number, user in enumerate(users)
        ]
        detaches = [("lobby", user, f"n1.{number:x}", GRACE, GRACE, 0) for number, user in enumerate(users)]
        claims = [(KEEP,), *(("lobby", user, twin.prefix) for user in users)]

        def cost(script: str, rows: Sequence[Row]) -> float:
            probe.client.config_resetstat()
            twin.call(script, rows)
            return sum(commands(probe.client).values()) / len(users)

        assert cost("join", joins) <= 10
        assert cost("leave", leaves) <= 9
        twin.call("join", joins)
        assert cost("detach", detaches) <= 6
        for user in users:
            twin.expire("lobby", user)
        assert cost("claim", claims) <= 7
        assert probe.client.zcard("{t:7wc}:members:lobby") == 0
