"""Each rule of the oracle fails on a history that violates it, and only then."""

from typing import Any

import pytest

from tests.chaos import oracle
from tests.chaos.bans import BanRecords
from tests.chaos.client_socket import ClientSocket
from tests.chaos.convergence import not_converged
from tests.chaos.history import History, Membership, NodeLife, ReportedDeparture, now_ms
from tests.chaos.state import Departure, State
from tests.chaos.view import View

GRACE, LEASE, TTL = 1000, 500, 8000
MEMBER: dict[str, Any] = {"username": "ANN", "away": False, "connections": 1}


class Case:
    """A history: ann was in the lobby from 10,000 to 20,000 ms, was cut off, and departed as disconnected."""

    def __init__(self) -> None:
        self.history = History(GRACE, LEASE, {"lobby": TTL}, began_at=0)
        self.node = NodeLife("n0a")
        self.membership = Membership(
            "lobby", "ann", "ann.1", self.node, 10_000, 10_000, 20_000, "cut", [14_500, 19_500]
        )
        self.history.memberships.append(self.membership)
        self.reported = ReportedDeparture("lobby", "ann", 10_000, "disconnected", 21_001, "bob.1")
        self.history.reported.append(self.reported)
        self.entry = Departure("lobby", "ann", 10_000, "disconnected", 21_000)
        self.state = State(departures=[self.entry])

    def rules(self) -> list[str]:
        return [finding.rule for finding in oracle.past(self.history, self.state)]

    def record(self, *entries: tuple[str, int]) -> None:
        self.state.departures = [Departure("lobby", "ann", 10_000, reason, at) for reason, at in entries]


def test_a_correct_history_has_no_finding() -> None:
    assert Case().rules() == []


def test_two_departures_of_one_join_are_a_finding() -> None:
    case = Case()
    case.record(("disconnected", 21_000), ("disconnected", 22_000))
    assert case.rules() == ["once"]
    case.node.impaired.append([18_000, 21_000])
    assert case.rules() == [], "its node was declared lost and registered the socket again"


def test_a_departure_too_early_is_a_finding_unless_the_clients_were_stalled() -> None:
    case = Case()
    case.membership.until = 20_500
    assert case.rules() == ["reason"]
    case.history.stalls.append([16_000, 20_400])
    assert case.rules() == [], "their node took them for gone before they ran again"


def test_a_departure_sent_twice_to_one_socket_is_a_finding() -> None:
    case = Case()
    case.history.reported.append(ReportedDeparture("lobby", "ann", 10_000, "disconnected", 23_000, "bob.1"))
    assert case.rules() == ["once"]
    case.history.losses.append([21_500, 22_000])
    assert case.rules() == ["once"], "a loss of data excuses it only if she joined again"
    case.history.joins["lobby", "ann"] = [22_100]
    assert case.rules() == []


def test_a_departure_that_was_sent_and_is_not_on_record_is_a_finding() -> None:
    case = Case()
    case.state.departures = []
    assert case.rules() == ["record", "record"], "one for the join, one for the departure that was sent"
    case.history.losses.append([21_100, 21_200])
    assert case.rules() == []


def test_a_join_that_continued_an_earlier_one_needs_a_loss_of_data() -> None:
    case = Case()
    case.membership.joined_at, case.membership.since = 10_200, 10_200
    assert case.rules() == ["record"]
    case.history.losses.append([10_050, 10_100])
    assert case.rules() == [], "Redis had just lost the earlier one"


def test_a_reason_that_differs_from_the_record_is_a_finding() -> None:
    case = Case()
    case.history.reported[0] = ReportedDeparture("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    assert case.rules() == ["reason"]


def test_a_different_reason_after_a_loss_is_excused_only_if_a_node_was_frozen() -> None:
    case = Case()
    case.history.reported[0] = ReportedDeparture("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == ["reason"]
    case.node.impaired.append([22_500, 24_000])
    assert case.rules() == []


def test_a_different_reason_is_excused_if_redis_lost_the_record() -> None:
    case = Case()
    case.history.reported[0] = ReportedDeparture("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    case.history.losses.append([21_500, 21_600])
    assert case.rules() == []


def test_a_departure_that_redis_lost_may_end_otherwise_before_a_node_repeats_it() -> None:
    case = Case()
    case.history.reported[0] = ReportedDeparture("lobby", "ann", 10_000, "left", 21_001, "bob.1")
    case.history.losses.append([21_100, 22_000])
    case.record(("banned", 21_900))
    assert case.rules() == [], "the member was there again when the ban was made"
    case.record(("banned", 22_000 + 4 * LEASE))
    assert case.rules() == ["reason"], "a node has repeated it by then"
    case.membership.acked.clear()
    case.record(("inactivity_timeout", 22_900))
    assert case.rules() == ["reason"], "expiry was not suspended"
    case.node.suspensions.append(22_600)
    assert case.rules() == []
    case.history.losses[0][1] = 20_000
    assert case.rules() == ["reason"], "Redis did not lose it"


def test_a_reason_known_only_to_a_node_that_died_with_the_data_is_excused() -> None:
    case = Case()
    reporter = NodeLife("n1a")
    case.history.memberships.append(Membership("lobby", "bob", "bob.1", reporter, 9_000, None))
    case.record(("inactivity_timeout", 27_600))
    case.membership.acked.append(19_600)
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == ["reason"], "its node could have recorded it again"
    reporter.ended_at = 23_500
    assert case.rules() == []
    later = Membership("lobby", "bob", "bob.2", NodeLife("n1b"), 24_000, None)
    case.history.memberships.append(later)
    case.history.reported.append(
        ReportedDeparture("lobby", "ann", 10_000, "inactivity_timeout", 27_600, "bob.2")
    )
    assert case.rules() == [], "another node sent only the end that is on record"
    reporter.ended_at = 26_000
    assert case.rules() == ["reason"], "it had the time to record it again"


def test_a_guessed_reason_after_a_loss_may_be_lost_with_the_next_one() -> None:
    case = Case()
    case.record(("left", 24_000))
    case.history.leaves["lobby", "ann"] = [24_000]
    case.history.losses.append([20_800, 20_900])
    assert case.rules() == ["reason"], "the guess is still on record"
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == []
    case.history.losses.pop(0)
    assert case.rules() == ["reason"], "it was not a guess"


def test_a_leave_may_have_been_executed_without_a_reply() -> None:
    case = Case()
    other = Membership("lobby", "ann", "ann.2", NodeLife("n1a"), 15_000, 10_000)
    case.history.memberships.append(other)
    assert case.rules() == ["reason"]
    other.leaving_since = 19_000
    assert case.rules() == []


def test_a_frozen_node_may_send_departures_when_it_resumes() -> None:
    case = Case()
    case.state.departures = []
    case.history.reported[0] = ReportedDeparture("lobby", "ann", 10_000, "disconnected", 24_500, "ann.1")
    case.history.losses.append([23_000, 23_100])
    assert case.rules() == ["record"]
    case.node.impaired.append([22_500, 24_000])
    assert case.rules() == []


@pytest.mark.parametrize(
    ("reason", "at"), [("left", 21_000), ("inactivity_timeout", 21_000), ("kicked", 21_000)]
)
def test_an_untrue_reason_is_a_finding(reason: str, at: int) -> None:
    case = Case()
    case.history.reported.clear()
    case.record((reason, at))
    assert case.rules() == ["reason"]


def test_left_is_correct_after_a_request() -> None:
    case = Case()
    case.history.reported.clear()
    case.record(("left", 20_000))
    case.history.leaves["lobby", "ann"] = [19_999]
    assert case.rules() == []


def test_inactivity_is_correct_after_a_whole_ttl() -> None:
    case = Case()
    case.history.reported.clear()
    case.record(("inactivity_timeout", 19_500 + TTL))
    assert case.rules() == []
    case.record(("inactivity_timeout", 19_400 + TTL))
    assert case.rules() == ["reason"]


def test_disconnected_before_the_end_of_the_grace_is_a_finding() -> None:
    case = Case()
    case.history.reported.clear()
    case.record(("disconnected", 20_900))
    assert case.rules() == ["reason"]


def test_disconnected_while_another_socket_is_connected_is_a_finding() -> None:
    case = Case()
    other = Membership("lobby", "ann", "ann.2", NodeLife("n1a"), 15_000, 10_000)
    case.history.memberships.append(other)
    assert case.rules() == ["reason"]
    other.node.impaired.append([19_900, 20_500])
    assert case.rules() == [], "its node was frozen"


def test_the_memberships_of_a_dead_node_have_ended() -> None:
    case = Case()
    case.membership.until, case.membership.how = None, ""
    assert case.rules() == ["reason"]
    case.node.ended_at = 19_900
    assert case.rules() == []


# Convergence.


def _socket(*, joined: bool = True) -> ClientSocket:
    history = History(GRACE, LEASE, {"lobby": TTL}, began_at=0)
    socket = ClientSocket(history, BanRecords(history), "ann", "ann.1", NodeLife("n0a"))
    socket._websocket = type("Open", (), {"open": True, "muted": False})()
    if joined:
        me = {"userId": "ann", "joinedAt": 10_000, "lastActiveAt": 10_000, **MEMBER}
        position = {"view": "members", "epoch": "1", "version": 5, "count": 1}
        socket._joined("lobby", {**position, "joinedAt": 10_000, "members": [me]})
    return socket


def _state() -> State:
    fields = {"userId": "ann", "username": "ANN", "joinedAt": "10000"}
    return State({"lobby": {"ann": fields}}, {"lobby": {"ann"}}, positions={"lobby": ("1", 5)})


def _not_converged(socket: ClientSocket, state: State) -> set[str]:
    return {finding.rule for finding in not_converged([socket], state)}


def test_equal_views_have_no_finding() -> None:
    assert _not_converged(_socket(), _state()) == set()


def test_a_ghost_and_a_lost_member_are_findings() -> None:
    assert "ghost" in _not_converged(_socket(joined=False), _state())
    assert "lost" in _not_converged(_socket(), State())
    state = _state()
    state.rows["lobby"].add("bob")
    assert _not_converged(_socket(), state) == {"ghost"}


@pytest.mark.parametrize(
    "change",
    [{"joinedAt": "9999"}, {"username": "BOB"}, {"away": "1"}, {"connections": "2"}, {"data": '{"n":1}'}],
)
def test_a_list_that_differs_from_redis_is_a_finding(change: dict[str, str]) -> None:
    state = _state()
    state.members["lobby"]["ann"].update(change)
    assert _not_converged(_socket(), state) == {"view"}


def test_a_position_that_differs_from_redis_is_a_finding() -> None:
    state = _state()
    state.positions["lobby"] = ("1", 6)
    assert _not_converged(_socket(), state) == {"view"}


def test_a_wrong_count_is_a_finding() -> None:
    socket = _socket()
    socket.views["lobby"].shown, socket.views["lobby"].count = "count", 2
    assert _not_converged(socket, _state()) == {"view"}


def test_a_missing_reply_and_an_endless_outage_are_findings() -> None:
    socket = _socket()
    socket.pending[1] = ("room:heartbeat", "", [], now_ms() - 10_000)
    socket.degraded = True
    assert _not_converged(socket, _state()) == {"answer", "service"}


# The messages of one socket.


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
def test_a_diff_that_does_not_fit_is_a_finding(rules: set[str], diff: dict[str, Any]) -> None:
    view, history = _view()
    view.apply(diff)
    assert {finding.rule for finding in history.violations} == rules


def test_an_earlier_joined_at_may_return_after_a_loss_of_data() -> None:
    earlier = _diff(5, 6, 1, updated=[{"userId": "ann", "joinedAt": 0}])
    view, history = _view()
    view.apply(earlier)
    assert [finding.rule for finding in history.violations] == ["departure"]
    view, history = _view()
    history.losses.append([0, 1])
    view.apply(earlier)
    assert history.violations == []


def test_a_different_list_of_the_same_position_is_a_finding() -> None:
    view, history = _view()
    view.listing({"epoch": "1", "version": 5, "count": 1, "members": [BOB]})
    assert [finding.rule for finding in history.violations] == ["view"]


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
def test_an_unexpected_message_is_a_finding(rule: str, message: dict[str, Any]) -> None:
    socket = _socket()
    socket._received(__import__("json").dumps(message).encode())
    assert [finding.rule for finding in socket._history.violations] == [rule]


def test_removal_before_the_expiry_is_a_finding() -> None:
    socket = _socket()
    socket.memberships["lobby"].acked.append(now_ms() - TTL + 1000)
    socket._take(
        {
            "type": "room:force-leave",
            "roomId": "lobby",
            "reason": "inactivity_timeout",
            "timestamp": now_ms(),
        },
        None,
    )
    assert [finding.rule for finding in socket._history.violations] == ["force-leave"]


def test_leftover_keys_and_leaks_are_findings() -> None:
    state = State(
        ends={"{reactor:1mf}:departures": -1, "{reactor:1mf}:state:lobby": 60_000, "{reactor:1mf}:pulse": 1}
    )
    assert oracle.after(state) == []
    state.ends["{reactor:1mf}:state:lobby"] = -1
    state.ends["{reactor:1mf}:shadow:room:lobby:user:ann"] = 1000
    state.ends["{reactor:1mf}:members:lobby"] = -1
    assert [finding.rule for finding in oracle.after(state)] == ["leftover"] * 3
    base = {"client sockets": 0, "other sockets": 7, "task serve": 3}
    assert oracle.leaks("n0a", base, {**base, "other sockets": 13}, 1) == []
    for what, number in (("client sockets", 1), ("other sockets", 14), ("task serve", 4), ("task left", 1)):
        assert [finding.rule for finding in oracle.leaks("n0a", base, {**base, what: number}, 1)] == ["leak"]


def test_inactivity_after_a_leave_is_a_finding() -> None:
    case = Case()
    case.history.reported.clear()
    case.membership.how = "left"
    case.record(("inactivity_timeout", 30_000))
    assert case.rules() == ["reason"]
    other = NodeLife("n1a")
    case.history.unanswered["lobby", "ann"] = [other]
    assert case.rules() == ["reason"], "a node that lives detaches whom it could not answer"
    other.ended_at = 19_000
    assert case.rules() == [], "a killed one does not"


def test_what_a_client_notices_late_is_judged_by_the_end_of_its_node() -> None:
    """Its process was busy when the reply to its join arrived, and when its node was killed."""
    case = Case()
    case.history.reported.clear()
    case.membership.acked.clear()
    case.membership.joined_at, case.membership.since, case.membership.until = 15_000, 20_500, 21_500
    case.membership.how = "closed with 1006"
    case.state.departures = [Departure("lobby", "ann", 15_000, "disconnected", 21_000)]
    assert case.rules() == ["reason"]
    case.node.ended_at = 19_900
    assert case.rules() == []


def test_inactivity_in_spite_of_heartbeats_is_a_finding() -> None:
    case = Case()
    case.history.reported.clear()
    case.membership.until, case.membership.how = 30_000, "removed: inactivity_timeout"
    case.record(("inactivity_timeout", 29_900))
    assert case.rules() == []
    case.membership.heartbeats += [22_000, 25_000]
    assert case.rules() == ["reason"]
    case.node.impaired.append([25_000, 29_000])
    assert case.rules() == []


def test_a_return_that_is_refused_before_the_membership_can_have_ended_is_a_finding() -> None:
    for at, findings in ((19_500 + TTL - 100, ["force-leave"]), (19_500 + TTL, [])):
        case = Case()
        case.history.joins["lobby", "ann"] = [10_000]
        socket = ClientSocket(case.history, BanRecords(case.history), "ann", "ann.2", case.node)
        socket.returns_to["lobby"] = case.membership
        left = {"reason": "inactivity_timeout", "timestamp": at}
        socket._removed("lobby", left, returns=True)
        assert [finding.rule for finding in case.history.violations] == findings
        assert socket.removed_from == ["lobby"]


def test_a_removal_in_answer_to_a_join_that_returns_to_nothing_is_a_finding() -> None:
    socket = _socket(joined=False)
    socket._removed("lobby", {"reason": "inactivity_timeout", "timestamp": now_ms()}, returns=True)
    assert [finding.rule for finding in socket._history.violations] == ["force-leave"]
