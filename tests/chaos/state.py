"""Reads everything that Redis holds, with plain commands and the documented key names.

It imports nothing from the package.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec
import redis
from redis.client import NEVER_DECODE

from tests.support.server_sets import ServerSet

_OURS = re.compile(r"^\{reactor:(\w+)\}:(.+)$")
_MEMBER = re.compile(r"^room:([^:]+):user:([^:]+)$")
_RECORDS = {"departures", "totals", "format", "changes", "bans"}
_TEMPORARY = re.compile(
    r"^(state:|fenced:|pulse$|lease:|turn:|report:|recorded:|removal:|ban:|lifted:|seen$)"
)
"""Keys with a TTL that belong to no member and may remain for a while."""


@dataclass(frozen=True, slots=True)
class Departure:
    """An entry of the stream."""

    room: str
    user: str
    joined_at: int
    reason: str
    at: int
    last_active: int = 0


@dataclass(slots=True)
class State:
    """The contents of all shards. `ends` has the TTL of each key in milliseconds, -1 for none.

    records: the fields of each user in the index of people, rooms unescaped; on_record: the users in its
    sets; seen: when the others were last seen; exits: departures that it has yet to take in; went: user,
    status and time of each going online and offline in the log of changes.
    """

    members: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    rows: dict[str, set[str]] = field(default_factory=dict)
    shadows: dict[str, set[str]] = field(default_factory=dict)
    positions: dict[str, tuple[str, int]] = field(default_factory=dict)
    departures: list[Departure] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    registry: set[str] = field(default_factory=set)
    ends: dict[str, int] = field(default_factory=dict)
    records: dict[str, dict[str, str]] = field(default_factory=dict)
    on_record: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    exits: dict[str, str] = field(default_factory=dict)
    went: list[tuple[str, str, int]] = field(default_factory=list)

    def leftovers(self) -> list[str]:
        """Keys that must not exist once all members and nodes are gone."""
        return sorted(
            f"{key} (expires in {end} ms)" if end >= 0 else key
            for key, end in self.ends.items()
            if (named := _OURS.match(key)) is None
            or not (named[2] in _RECORDS or (_TEMPORARY.match(named[2]) and end >= 0))
        )


def read(fleet: ServerSet, *, changes: bool = False) -> State:
    """Read everything, the log of changes only if asked. Raises redis.RedisError.

    It blocks; on an event loop, call it in a thread.
    """
    state = State()
    for primary in fleet.primaries():
        _read_server(primary.control, state)
        for key in state.ends if changes else ():
            if (named := _OURS.match(key)) and named[2] == "changes":
                with suppress(redis.ResponseError):  # another primary has it
                    state.went += _went(primary.control, key)
    return state


def _read_server(control: Any, state: State) -> None:
    keys = list(control.scan_iter(count=1000))
    pipe = control.pipeline(transaction=False)
    for key in keys:
        pipe.pttl(key)
        named = _OURS.match(key)
        _read_command(pipe, key, named[2] if named else "")
    replies = pipe.execute()
    for i, key in enumerate(keys):
        end, answer = replies[2 * i : 2 * i + 2]
        if end == -2:
            continue  # it has expired meanwhile
        state.ends[key] = end
        named = _OURS.match(key)
        if named is not None and answer:
            _add(state, named[2], answer)


def _read_command(pipe: Any, key: str, name: str) -> None:
    kind = name.partition(":")[0]
    if kind in {"room", "state", "totals", "registry", "shadow", "person", "exits"}:
        pipe.hgetall(key)
    elif kind == "members":
        pipe.zrange(key, 0, -1)
    elif name == "seen":
        pipe.zrange(key, 0, -1, withscores=True)
    elif name == "people":
        pipe.smembers(key)
    elif name == "departures":
        pipe.xrange(key)
    else:
        pipe.exists(key)


def _add(state: State, name: str, answer: Any) -> None:
    kind, _, rest = name.partition(":")
    if named := _MEMBER.match(name):
        state.members.setdefault(unquote(named[1]), {})[unquote(named[2])] = answer
    elif kind == "shadow" and (named := _MEMBER.match(rest)):
        state.shadows.setdefault(unquote(named[1]), set()).add(unquote(named[2]))
    elif kind == "members":
        state.rows[unquote(rest)] = {unquote(user) for user in answer}
    elif kind == "state":
        state.positions[unquote(rest)] = (answer.get("epoch", ""), int(answer.get("version", 0)))
    elif name == "departures":
        state.departures += [
            Departure(
                one["room"],
                one["user"],
                int(one["joinedAt"]),
                one["reason"],
                int(one["leftAt"]),
                int(one["lastActiveAt"]),
            )
            for _, one in answer
        ]
    elif name == "totals":
        for reason, number in answer.items():
            state.totals[reason] = state.totals.get(reason, 0) + int(number)
    elif name == "registry":
        state.registry |= answer.keys()
    else:
        _add_of_people(state, kind, rest, answer)


def _add_of_people(state: State, kind: str, rest: str, answer: Any) -> None:
    if kind == "person":
        state.records[unquote(rest)] = {unquote(room): token for room, token in answer.items()}
    elif kind == "people":
        state.on_record |= {unquote(user) for user in answer}
    elif kind == "seen":
        state.seen |= {unquote(user): int(at) for user, at in answer}
    elif kind == "exits":
        state.exits |= answer


def _went(control: Any, key: str) -> list[tuple[str, str, int]]:
    """User, status and time of each going online and offline in a log of changes, which is not text."""
    entries = control.execute_command("XRANGE", key, "-", "+", **{NEVER_DECODE: []})
    return [
        (unquote(fields[b"person"].decode()[1:]), *msgspec.msgpack.decode(fields[b"change"]))
        for _, fields in entries
        if b"person" in fields
    ]
