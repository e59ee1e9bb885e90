"""The rules of bans and of observers fail on a history that violates them, and only then."""

from typing import Any

import pytest

from tests.chaos.bans import HEARD_WITHIN, BanRecord, BanRecords
from tests.chaos.history import History, Membership, NodeLife, now_ms
from tests.chaos.observers import Observer, Watching
from tests.chaos.state import Departure, State
from tests.chaos.view import Message, View

LEASE = 500
FAR = 1 << 60


def banned(**fields: Any) -> BanRecords:
    """Ann is banned from the lobby from 10,000 to 20,000 ms, when the ban is lifted."""
    history = History(1000, LEASE, {"lobby": 8000, "attic": 8000}, began_at=0)
    record = {
        "begun": 10_000, "made": 10_100, "ends": 20_000, "lifted": 20_100, "until": FAR,
    }  # fmt: skip
    records = BanRecords(history)
    records.records.append(BanRecord("ann", "lobby", **{**record, **fields}))
    return records


def joined(records: BanRecords, *, requested: int, since: int, room: str = "lobby") -> list[str]:
    """The rules that a join of ann violates."""
    records.history.joins["lobby", "ann"] = [requested]
    records.history.joins[room, "ann"] = [requested]
    records.history.memberships[:] = [Membership(room, "ann", "ann.1", NodeLife("n0a"), since, since)]
    return [finding.rule for finding in records.past(State())]


def test_a_join_during_a_ban_is_a_finding() -> None:
    records = banned()
    assert joined(records, requested=12_000, since=12_050) == ["banned"]
    assert joined(records, requested=10_050, since=12_050) == [], "Redis may have taken it before the ban"
    assert joined(records, requested=19_900, since=20_050) == [], "or after it"
    assert joined(records, requested=12_000, since=12_050, room="attic") == []
    records.records[0].room = None
    assert joined(records, requested=12_000, since=12_050, room="attic") == ["banned"]
    records.history.losses.append([11_000, 11_500])
    assert joined(records, requested=12_000, since=12_050) == [], "Redis lost the ban"


def test_a_join_while_the_key_of_a_ban_may_be_evicted_is_none() -> None:
    records = banned()
    records.gaps.append([11_000, 13_000])
    assert joined(records, requested=12_000, since=12_050) == []
    assert joined(records, requested=14_000, since=14_050) == ["banned"]


def test_a_departure_as_banned_needs_a_ban() -> None:
    records = banned()
    for at, user, expected in ((15_000, "ann", 0), (25_000, "ann", 1), (15_000, "bob", 1), (9_500, "ann", 0)):
        state = State(departures=[Departure("lobby", user, 5_000, "banned", at)])
        assert len(records.past(state)) == expected, (at, user)


def test_a_refusal_needs_a_ban() -> None:
    now = now_ms()
    node = NodeLife("n0a")
    records = banned(begun=now - 60_000, made=now - 60_000, ends=now - 10_000, lifted=now - 10_000, until=now)
    violations = records.history.violations
    records.check_refusal("ann", "lobby", "refused", node, since=now - 11_000)
    assert not violations
    records.check_refusal("ann", "lobby", "refused", node, since=now - 5000)
    assert len(violations) == 1, "Redis refused a join that was requested after the ban"
    records.check_refusal("ann", "lobby", "removed", node)
    assert len(violations) == 2
    node.impaired.append([now - 11_000, now])
    records.check_refusal("ann", "lobby", "removed", node)
    assert len(violations) == 2, "its node was frozen, and has not heard of the end"
    records.records[0].lifted = now - HEARD_WITHIN // 2
    records.check_refusal("ann", "lobby", "removed", NodeLife("n1a"))
    assert len(violations) == 2, "it may hear of it a moment later"


def test_who_is_where_a_ban_forbids_it_is_a_finding_at_a_quiet_point() -> None:
    now = now_ms()
    records = banned(begun=now - 5000, made=now - 5000, ends=None, lifted=None)
    inside = State({"lobby": {"ann": {}, "bob": {}}})
    assert [finding.rule for finding in records.not_quiet([], inside)] == ["banned"]
    assert not records.not_quiet([], State({"attic": {"ann": {}}}))
    socket = type("Socket", (), {"alive": True, "user": "ann", "name": "ann.1", "recent": []})()
    records.proves_users, records.records[0].room = True, None
    assert len(records.not_quiet([socket], State())) == 1
    records.records[0].ends = now - 1000
    assert not records.not_quiet([socket], inside)


class _Open:
    open = True


def observer(records: BanRecords) -> Observer:
    """An observer that watches the members of the lobby, which it has, and the count of the attic."""
    watching = Watching("watcher", ("lobby",), (), seed=1)
    found = Observer(watching, ("lobby", "attic"), records.history, records, nodes=None)  # type: ignore[arg-type]
    found._socket, found._node = _Open(), NodeLife("n0a")  # type: ignore[assignment]
    view = found.views["lobby"] = View(records.history, "lobby", "watcher.1")  # type: ignore[assignment]
    member: Message = {
        "userId": "bob",
        "joinedAt": 10_000,
        "username": "BOB",
        "away": False,
        "connections": 1,
    }
    view.begin({"view": "members", "epoch": "1", "version": 5, "count": 1, "members": [member]})
    found.counts["attic"] = "1", 3, 2
    return found


def stored(*, version: int = 5, attic: int = 2) -> State:
    bob = {"username": "BOB", "joinedAt": "10000"}
    members: dict[str, dict[str, dict[str, str]]] = {"lobby": {"bob": bob}}
    members["attic"] = {f"user {number}": {} for number in range(attic)}
    return State(members, positions={"lobby": ("1", version)})


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (stored(), []),
        (stored(version=6), ["watcher.0@n0a in lobby is at 1 5, and Redis at ('1', 6)"]),
        (stored(attic=3), ["watcher.0@n0a in attic has a count of 2, and Redis of 3"]),
    ],
)
def test_a_view_of_an_observer_that_differs_is_a_finding(state: State, expected: list[str]) -> None:
    found = observer(banned()).differences({"lobby": {"bob": 1}}, state)
    assert [finding.text for finding in found] == expected


def test_an_observer_that_is_banned_may_not_watch_and_one_that_is_not_must() -> None:
    now = now_ms()
    records = banned(begun=now - 5000, made=now - 5000, ends=None, lifted=None)
    records.records[0].user = "watcher"
    sockets = {"lobby": {"bob": 1}}
    assert observer(records).differences(sockets, stored()) == [], "nothing proves who it is"
    records.proves_users = True
    (finding,) = observer(records).differences(sockets, stored())
    assert finding.text.endswith("in lobby watches it, in spite of a ban")
    one = observer(records)
    del one.views["lobby"]
    assert one.differences(sockets, stored()) == []
    del one.counts["attic"]
    (finding,) = one.differences(sockets, stored())
    assert finding.text.endswith("in attic is not watched again")
