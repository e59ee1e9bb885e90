"""The oracle sees what it is to see: each rule goes red on a history that breaks it, and only then."""

from typing import Any

import pytest

from tests.chaos import oracle
from tests.chaos.history import History, Life, Stay, Told, now_ms
from tests.chaos.line import Line
from tests.chaos.rest import at_rest
from tests.chaos.state import Departure, State
from tests.chaos.view import View

GRACE, LEASE, TTL = 1000, 500, 8000
MEMBER: dict[str, Any] = {"username": "ANN", "away": False, "connections": 1}


class Case:
    """A history: ann was in the lobby from 10,000 to 20,000 ms, dropped, and was told as disconnected."""

    def __init__(self) -> None:
        self.history = History(GRACE, LEASE, {"lobby": TTL}, began_at=0)
        self.node = Life("n0a")
        self.stay = Stay("lobby", "ann", "ann.1", self.node, 10_000, 10_000, 20_000, "cut", [14_500, 19_500])
        self.history.stays.append(self.stay)
        self.told = Told("lobby", "ann", 10_000, "disconnected", 21_001, "bob.1")
        self.history.told.append(self.told)
        self.entry = Departure("lobby", "ann", 10_000, "disconnected", 21_000)
        self.state = State(departures=[self.entry])

    def rules(self) -> list[str]:
        return [finding.rule for finding in oracle.past(self.history, self.state)]

    def record(self, *entries: tuple[str, int]) -> None:
        self.state.departures = [Departure("lobby", "ann", 10_000, reason, at) for reason, at in entries]


def test_a_good_history_has_no_finding() -> None:
    assert Case().rules() == []


def test_two_departures_of_one_joining() -> None:
    case = Case()
    case.record(("disconnected", 21_000), ("disconnected", 22_000))
    assert case.rules() == ["once"]
    case.node.impaired.append([18_000, 21_000])
    assert case.rules() == [], "it was judged lost, and entered its socket again"


def test_a_departure_told_twice_to_one_socket() -> None:
    case = Case()
    case.history.told.append(Told("lobby", "ann", 10_000, "disconnected", 23_000, "bob.1"))
    assert case.rules() == ["once"]
    case.history.losses.append([21_500, 22_000])
    assert case.rules() == ["once"], "that Redis lost data is no excuse, unless she came back"
    case.history.joins["lobby", "ann"] = [22_100]
    assert case.rules() == []


def test_a_departure_told_and_not_on_record() -> None:
    case = Case()
    case.state.departures = []
    assert case.rules() == ["record", "record"], "of the joining, and of what was told"
    case.history.losses.append([21_100, 21_200])
    assert case.rules() == []


def test_a_joining_that_was_the_going_on_of_an_earlier_one() -> None:
    case = Case()
    case.stay.joined_at, case.stay.since = 10_200, 10_200
    assert case.rules() == ["record"]
    case.history.losses.append([10_050, 10_100])
    assert case.rules() == [], "Redis had just lost it"


def test_another_reason_than_is_on_record() -> None:
    case = Case()
    case.history.told[0] = Told("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    assert case.rules() == ["reason"]


def test_another_reason_after_a_loss_is_excused_by_a_node_that_was_frozen_then_alone() -> None:
    case = Case()
    case.history.told[0] = Told("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == ["reason"]
    case.node.impaired.append([22_500, 24_000])
    assert case.rules() == []


def test_another_reason_is_excused_where_redis_lost_the_record_of_what_was_just_told() -> None:
    case = Case()
    case.history.told[0] = Told("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    case.history.losses.append([21_500, 21_600])
    assert case.rules() == []


def test_what_only_a_node_knew_that_died_with_redis_s_data_is_excused() -> None:
    case = Case()
    teller = Life("n1a")
    case.history.stays.append(Stay("lobby", "bob", "bob.1", teller, 9_000, None))
    case.record(("inactivity_timeout", 27_600))
    case.stay.acked.append(19_600)
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == ["reason"], "its node could have said so"
    teller.ended_at = 23_500
    assert case.rules() == []
    teller.ended_at = 26_000
    assert case.rules() == ["reason"], "it had the time to say so"


def test_a_guess_after_a_loss_is_forgotten_with_the_next_one() -> None:
    case = Case()
    case.record(("left", 24_000))
    case.history.leaves["lobby", "ann"] = [24_000]
    case.history.losses.append([20_800, 20_900])
    assert case.rules() == ["reason"], "the guess is still on record"
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == []
    case.history.losses.pop(0)
    assert case.rules() == ["reason"], "it was no guess"


def test_one_who_asked_to_leave_may_have_left_without_an_answer() -> None:
    case = Case()
    other = Stay("lobby", "ann", "ann.2", Life("n1a"), 15_000, 10_000)
    case.history.stays.append(other)
    assert case.rules() == ["reason"]
    other.leaving_since = 19_000
    assert case.rules() == []


def test_what_a_frozen_node_had_heard_it_may_tell_when_it_wakes() -> None:
    case = Case()
    case.state.departures = []
    case.history.told[0] = Told("lobby", "ann", 10_000, "disconnected", 24_500, "ann.1")
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == ["record"]
    case.node.impaired.append([22_500, 24_000])
    assert case.rules() == []


@pytest.mark.parametrize(
    ("reason", "at"), [("left", 21_000), ("inactivity_timeout", 21_000), ("kicked", 21_000)]
)
def test_a_reason_that_is_not_true(reason: str, at: int) -> None:
    case = Case()
    case.history.told.clear()
    case.record((reason, at))
    assert case.rules() == ["reason"]


def test_left_is_true_of_whoever_asked_for_it() -> None:
    case = Case()
    case.history.told.clear()
    case.record(("left", 20_000))
    case.history.leaves["lobby", "ann"] = [19_999]
    assert case.rules() == []


def test_inactivity_is_true_after_a_whole_ttl() -> None:
    case = Case()
    case.history.told.clear()
    case.record(("inactivity_timeout", 19_500 + TTL))
    assert case.rules() == []
    case.record(("inactivity_timeout", 19_400 + TTL))
    assert case.rules() == ["reason"]


def test_disconnected_before_the_grace_is_over() -> None:
    case = Case()
    case.history.told.clear()
    case.record(("disconnected", 20_900))
    assert case.rules() == ["reason"]


def test_disconnected_while_another_socket_is_there() -> None:
    case = Case()
    other = Stay("lobby", "ann", "ann.2", Life("n1a"), 15_000, 10_000)
    case.history.stays.append(other)
    assert case.rules() == ["reason"]
    other.node.impaired.append([19_900, 20_500])
    assert case.rules() == [], "its node was frozen"


def test_a_dead_node_ends_its_stays() -> None:
    case = Case()
    case.stay.until, case.stay.how = None, ""
    assert case.rules() == ["reason"]
    case.node.ended_at = 19_900
    assert case.rules() == []


# At rest.


def _line(*, joined: bool = True) -> Line:
    line = Line(History(GRACE, LEASE, {"lobby": TTL}, began_at=0), "ann", "ann.1", Life("n0a"))
    line._wire = type("Open", (), {"open": True, "muted": False})()
    if joined:
        me = {"userId": "ann", "joinedAt": 10_000, "lastActiveAt": 10_000, **MEMBER}
        line._joined("lobby", {"view": "members", "epoch": "1", "version": 5, "count": 1, "members": [me]})
    return line


def _state() -> State:
    fields = {"userId": "ann", "username": "ANN", "joinedAt": "10000"}
    return State({"lobby": {"ann": fields}}, {"lobby": {"ann"}}, positions={"lobby": ("1", 5)})


def _unrest(line: Line, state: State) -> set[str]:
    return {finding.rule for finding in at_rest([line], state)}


def test_all_is_well_unrest() -> None:
    assert _unrest(_line(), _state()) == set()


def test_a_ghost_and_one_who_is_lost() -> None:
    assert "ghost" in _unrest(_line(joined=False), _state())
    assert "lost" in _unrest(_line(), State())
    state = _state()
    state.rows["lobby"].add("bob")
    assert _unrest(_line(), state) == {"ghost"}


@pytest.mark.parametrize(
    "change",
    [{"joinedAt": "9999"}, {"username": "BOB"}, {"away": "1"}, {"connections": "2"}, {"data": '{"n":1}'}],
)
def test_a_list_that_is_not_redis_s(change: dict[str, str]) -> None:
    state = _state()
    state.members["lobby"]["ann"].update(change)
    assert _unrest(_line(), state) == {"view"}


def test_another_position_than_redis_s() -> None:
    state = _state()
    state.positions["lobby"] = ("1", 6)
    assert _unrest(_line(), state) == {"view"}


def test_a_count_that_is_wrong() -> None:
    line = _line()
    line.views["lobby"].shown, line.views["lobby"].count = "count", 2
    assert _unrest(line, _state()) == {"view"}


def test_a_request_without_an_answer_and_an_outage_without_an_end() -> None:
    line = _line()
    line.asked[1] = ("room:heartbeat", "", [], now_ms() - 10_000)
    line.degraded = True
    assert _unrest(line, _state()) == {"answer", "service"}


# What one socket is told.


def _view() -> tuple[View, History]:
    history = History(GRACE, LEASE, {"lobby": TTL}, began_at=0)
    view = View(history, "lobby", "ann.1")
    ann = {"userId": "ann", "joinedAt": 1}
    view.begin({"view": "members", "epoch": "1", "version": 5, "count": 1, "members": [ann]})
    return view, history


def _diff(first: int, last: int, count: int, **changes: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"joined": [], "updated": [], "left": []}
    return {"epoch": "1", "from": first, "version": last, "count": count, **nothing, **changes}


BOB = {"userId": "bob", "joinedAt": 2}


@pytest.mark.parametrize(
    ("rules", "diff"),
    [
        ({"gap"}, _diff(6, 7, 2, joined=[BOB])),
        ({"gap"}, _diff(6, 7, 2, joined=[BOB, {"userId": "ann", "joinedAt": 1}], epoch="2")),
        ({"count"}, _diff(5, 6, 3, joined=[BOB])),
        ({"departure"}, _diff(5, 6, 1, left=[{"userId": "bob", "reason": "left"}])),
        ({"departure"}, _diff(0, 1, 1, joined=[BOB], epoch="2")),
        ({"departure"}, _diff(5, 6, 1, updated=[{"userId": "ann", "joinedAt": 3}])),
        ({"view"}, _diff(5, 6, 1, joined=[{"userId": "ann", "joinedAt": 3}])),
        ({"view"}, _diff(5, 6, 2, updated=[BOB])),
        (set(), _diff(5, 6, 2, joined=[BOB])),
        (set(), _diff(4, 5, 9)),
        (set(), _diff(5, 7, 1, left=[{"userId": "bob", "reason": "left"}])),
        (set(), _diff(0, 1, 1, joined=[BOB], left=[{"userId": "ann", "reason": "left"}], epoch="2")),
    ],
)
def test_diffs(rules: set[str], diff: dict[str, Any]) -> None:
    view, history = _view()
    view.apply(diff)
    assert {finding.rule for finding in history.troubles} == rules


def test_since_when_one_is_there_may_be_put_right_where_redis_had_lost_it() -> None:
    earlier = _diff(5, 6, 1, updated=[{"userId": "ann", "joinedAt": 0}])
    view, history = _view()
    view.apply(earlier)
    assert [finding.rule for finding in history.troubles] == ["departure"]
    view, history = _view()
    history.losses.append([0, 1])
    view.apply(earlier)
    assert history.troubles == []


def test_a_list_of_the_same_position_that_says_something_else() -> None:
    view, history = _view()
    view.listing({"epoch": "1", "version": 5, "count": 1, "members": [BOB]})
    assert [finding.rule for finding in history.troubles] == ["view"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("view", {"type": "room:diff", "roomId": "attic"}),
        ("answer", {"type": "room:left", "roomId": "attic", "id": 99}),
        ("answer", {"type": "error", "code": "internal", "message": ""}),
        ("service", {"type": "service:restored"}),
        ("clock", {"type": "room:heartbeat:ack", "timestamp": now_ms() + 3_600_000}),
        (
            "force-leave",
            {"type": "room:force-leave", "roomId": "attic", "reason": "kicked", "timestamp": now_ms()},
        ),
    ],
)
def test_what_a_socket_must_not_hear(rule: str, message: dict[str, Any]) -> None:
    line = _line()
    line._heard(__import__("json").dumps(message).encode())
    assert [finding.rule for finding in line._history.troubles] == [rule]


def test_put_out_before_its_time() -> None:
    line = _line()
    line.stays["lobby"].acked.append(now_ms() - TTL + 1000)
    line._take(
        {
            "type": "room:force-leave",
            "roomId": "lobby",
            "reason": "inactivity_timeout",
            "timestamp": now_ms(),
        },
        None,
    )
    assert [finding.rule for finding in line._history.troubles] == ["force-leave"]


def test_keys_left_over_and_leaks() -> None:
    state = State(
        ends={"{reactor:1}:departures": -1, "{reactor:1}:state:lobby": 60_000, "{reactor:1}:pulse": 1}
    )
    assert oracle.after(state) == []
    state.ends["{reactor:1}:state:lobby"] = -1
    state.ends["{reactor:1}:shadow:room:lobby:user:ann"] = 1000
    state.ends["{reactor:1}:members:lobby"] = -1
    assert [finding.rule for finding in oracle.after(state)] == ["leftover"] * 3
    base = {"client sockets": 0, "other sockets": 7, "task serve": 3}
    assert oracle.leaks("n0a", base, {**base, "other sockets": 13}, 1) == []
    for what, number in (("client sockets", 1), ("other sockets", 14), ("task serve", 4), ("task left", 1)):
        assert [finding.rule for finding in oracle.leaks("n0a", base, {**base, what: number}, 1)] == ["leak"]


def test_one_who_left_is_not_put_out_for_inactivity() -> None:
    case = Case()
    case.history.told.clear()
    case.stay.how = "left"
    case.record(("inactivity_timeout", 30_000))
    assert case.rules() == ["reason"]


def test_one_who_sent_heartbeats_was_not_inactive_though_redis_did_not_take_them() -> None:
    case = Case()
    case.history.told.clear()
    case.stay.until, case.stay.how = 30_000, "put out: inactivity_timeout"
    case.record(("inactivity_timeout", 29_900))
    assert case.rules() == []
    case.stay.beats += [22_000, 25_000]
    assert case.rules() == ["reason"]
    case.node.impaired.append([25_000, 29_000])
    assert case.rules() == []
