"""The rules of people fail on a history that violates them, and only then."""

from typing import Any

import msgspec
import pytest

from tests.chaos.history import History, Membership, NodeLife
from tests.chaos.people import CONFIRMED_AFTER, NOTICED, Watchers
from tests.chaos.state import Departure, State

GRACE, LEASE = 1000, 500
ONLINE, OFFLINE = ("ann", "online", 0), ("ann", "offline", 0)


class NoNodes:
    """Nodes to which no client can connect."""

    def pick(self, chance: Any) -> None:
        return None


def watchers(**options: Any) -> tuple[Watchers, History]:
    history = History(GRACE, LEASE, {"lobby": 8000, "attic": 8000}, began_at=0)
    return Watchers(["ann"], history, NoNodes(), "redis://127.0.0.1", sweep=1, seed=1, **options), history


def left(begun: int, ended: int, room: str = "lobby") -> Departure:
    return Departure(room, "ann", begun, "left", ended)


@pytest.mark.parametrize(
    ("went", "rooms", "findings"),
    [
        ([ONLINE, OFFLINE, ONLINE, OFFLINE], {}, 0),
        ([ONLINE, OFFLINE] * 2 + [ONLINE], {"lobby": {"ann": {"joinedAt": "90000"}}}, 0),
        ([ONLINE, OFFLINE], {}, 1),
        ([], {}, 1),
        ([ONLINE, OFFLINE, ONLINE], {}, 1),
        ([ONLINE, OFFLINE, ONLINE, OFFLINE], {"lobby": {"ann": {"joinedAt": "90000"}}}, 1),
        ([ONLINE, ONLINE, OFFLINE, OFFLINE], {}, 2),
    ],
    ids=[
        "all",
        "still there",
        "one missing",
        "none",
        "no last offline",
        "no last online",
        "twice",
    ],
)
def test_the_log_of_changes_has_each_time_that_a_user_was_online(
    went: list[tuple[str, str, int]], rooms: Any, findings: int
) -> None:
    """Ann is in two rooms in turn without a pause, and later in the first one again."""
    found, history = watchers()
    departures = [
        left(10_000, 14_000),
        left(13_000, 10_000 + NOTICED, "attic"),
        left(50_000, 50_000 + NOTICED),
    ]
    state = State(departures=departures, members=rooms, went=went, seen={"ann": 50_000 + NOTICED})
    assert len(found.past(state)) == findings
    history.losses.append([1000, 2000])
    assert found.past(state) == [], "Redis lost data"


def test_a_departure_that_is_yet_to_be_taken_in_is_not_in_the_log_yet() -> None:
    found, _ = watchers()
    state = State(departures=[left(10_000, 20_000)], went=[ONLINE], seen={"ann": 20_000})
    assert len(found.past(state)) == 1
    state.exits["lobby:user:ann"] = "20000 token"
    assert found.past(state) == []


@pytest.mark.parametrize(("died_after", "findings"), [(None, 1), (CONFIRMED_AFTER, 1), (10, 0)])
def test_a_join_may_be_missed_whose_node_died_with_it(died_after: int | None, findings: int) -> None:
    found, history = watchers()
    node = NodeLife("n0a")
    node.ended_at = None if died_after is None else 10_000 + died_after
    history.memberships.append(Membership("lobby", "ann", "ann.1", node, 10_000, 10_000))
    state = State(departures=[left(10_000, 20_000)], seen={"ann": 20_000})
    assert len(found.past(state)) == findings
    state.went = [OFFLINE]
    assert len(found.past(state)) > 0, "by turns it has to be"


@pytest.mark.parametrize(("ended_at", "findings"), [(None, 1), (10_010, 0)])
def test_a_join_may_be_missed_whose_node_died_before_its_reply(ended_at: int | None, findings: int) -> None:
    found, history = watchers()
    node = NodeLife("n0a")
    node.ended_at = ended_at
    history.unanswered["lobby", "ann"] = [node]
    state = State(departures=[left(10_000, 20_000)], seen={"ann": 20_000})
    assert len(found.past(state)) == findings


def test_a_short_time_may_be_missed_and_a_short_pause_too() -> None:
    found, _ = watchers()
    short = [left(10_000, 9_999 + NOTICED)]
    assert found.past(State(departures=short, seen={"ann": 9_999 + NOTICED})) == []
    two = [left(10_000, 20_000), left(19_999 + NOTICED, 50_000)]
    assert found.past(State(departures=two, went=[ONLINE, OFFLINE], seen={"ann": 50_000})) == []


@pytest.mark.parametrize(
    ("person", "of_all", "of_none"),
    [
        ({"userId": "ann", "status": "offline"}, 0, 0),
        ({"userId": "ann", "status": "online"}, 0, 1),
        ({"userId": "ann", "status": "offline", "lastSeen": 7}, 0, 1),
        ({"userId": "ann", "status": "offline", "rooms": []}, 1, 1),
    ],
)
@pytest.mark.parametrize("kind", ["people:state", "people:diff"])
def test_no_client_is_sent_more_than_it_may_know(
    kind: str, person: dict[str, Any], of_all: int, of_none: int
) -> None:
    found, history = watchers(headers=lambda _user, **_claims: {"Authorization": "Bearer of someone"})
    message = {"type": kind, "people" if kind == "people:state" else "changed": [person]}
    for client, expected in ((found.clients[0], of_all), (found.unentitled[0], of_none)):
        history.violations.clear()
        client._received(msgspec.json.encode(message))
        assert len(history.violations) == expected


def test_without_tokens_everyone_may_watch_everyone() -> None:
    assert watchers()[0].unentitled == []
