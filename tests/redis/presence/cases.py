"""Cases of one transition each: what was before, the call, and all that it leaves behind.

Each case runs on both servers, and a second time with ids that look like separators.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from reactor.presence.keys import parse_suffix, unescape
from tests.redis.presence.consistent import assert_consistent
from tests.redis.presence.probe import AWAY_GRACE, EMPTY_ROOM_TTL, GRACE, HOSTILE, TTL, Probe
from tests.support.servers import Server

Step = Callable[[Probe], Any]

LIVES = {
    "ttl": TTL,
    "grace": GRACE,
    "away-grace": AWAY_GRACE,
    "ttl-5s": TTL - 5_000,
    "grace-5s": GRACE - 5_000,
    "20s": 20_000,
    "ttl-31s": TTL - 31_000,
    "ttl-58s": TTL - 58_000,
    "empty-room": EMPTY_ROOM_TTL,
}


@dataclass(frozen=True)
class Case:
    """One call. `room` has a line for each member of the lobby afterwards, as `describe` writes it."""

    name: str
    before: Sequence[Step]
    call: Step
    reply: Any
    published: Sequence[str] = ()
    room: Sequence[str] = ()
    left: Sequence[str] = ()


def each(cases: Sequence[Case]) -> Any:
    """Run the decorated test with each case, under short names and under hostile ids."""
    return pytest.mark.parametrize(
        ("case", "ids"),
        [
            pytest.param(case, ids, id=f"{case.name}{mark}")
            for case in cases
            for ids, mark in ((None, ""), (HOSTILE, " (hostile ids)"))
        ],
    )


@contextmanager
def probing(server: Server, **options: Any) -> Iterator[Probe]:
    probe = Probe(server, **options)
    try:
        yield probe
        assert_consistent(probe.client, shadow_deleted=probe.shadow_deleted)
    finally:
        probe.close()


def check(server: Server, case: Case, ids: dict[str, str] | None) -> None:
    """Make the call of a case, and compare everything that can be observed afterwards."""
    with probing(server, ids=ids) as probe:
        since = probe.now()
        for step in case.before:
            step(probe)
        probe.received()
        earlier, began = len(probe.departures()), probe.now()
        reply = case.call(probe)
        until = probe.now()
        received = probe.received()
        assert plain(probe, reply, since, until, received.payloads) == case.reply
        assert received.changes == list(case.published)
        assert describe(probe, since, until) == list(case.room)
        departures = probe.departures()[earlier:]
        assert [f"{probe.name(one['user'])}:{one['reason']}" for one in departures] == list(case.left)
        for one in departures:
            assert probe.name(one["room"]) == "lobby"
            assert began <= int(one["leftAt"]) <= until


def describe(probe: Probe, since: int, until: int) -> list[str]:
    """The members of the lobby, a line each: `ann n1.1 n2.1:away | ttl away x2 r=disconnected`."""
    lines = []
    rows: Any = probe.client.zrange(probe.members_key(), 0, -1)
    for row in rows:
        name = probe.name(unescape(row.decode()))
        fields, shadow = probe.presence(name), probe.shadow(name)
        connections = sorted(f"{c}{':away' if f == '1' else ''}" for c, f in shadow.items() if "." in c)
        ends = probe.expires_at(name)
        words = [next((life for life, ms in LIVES.items() if since <= ends - ms <= until), f"ends {ends}")]
        if ends == -2:
            words = ["gone"]
        if fields:
            words += ["away"] if "away" in fields else []
            words += [f"x{fields['connections']}"] if "connections" in fields else []
            words += [f"username={fields['username']}"] if fields["username"] != probe.id(name) else []
            words += [f"data={fields['data']}"] if "data" in fields else []
        words += [f"r={shadow['r']}"] if "r" in shadow else []
        lines.append(f"{' '.join([name, *connections])} | {' '.join(words)}")
    return sorted(lines)


def plain(probe: Probe, reply: Any, since: int, until: int, diffs: Sequence[bytes] = ()) -> Any:
    """A raw reply with words for what differs from run to run: now, now+LIFE, epoch, diff, ROOM/USER."""
    if isinstance(reply, list):
        return [plain(probe, one, since, until, diffs) for one in reply]
    if isinstance(reply, int):
        if since <= reply <= until:
            return "now"
        return next((f"now+{life}" for life, ms in LIVES.items() if since <= reply - ms <= until), reply)
    if reply in diffs:
        return "diff"
    if reply is None:
        return None
    text = reply.decode()
    if text and text == probe.epoch():
        return "epoch"
    if ":user:" in text and text not in probe.ids.values():
        room, user = parse_suffix(text)
        return f"{probe.name(room)}/{probe.name(user)}"
    return probe.name(text)
