"""Confirmed and pending changes of the own member are kept apart, in any order of outcomes."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from msgspec import UNSET

from reactor.client.own_state import OwnChange, OwnState, PendingChange, request_for
from reactor.errors import Refused
from reactor.protocol.requests import Away, Back, Update
from tests.unit.client.test_reported_room import make_member

ERROR = Refused("no", "forbidden")


def data(value: Any) -> OwnChange:
    return OwnChange(data=value)


def test_a_refused_change_leaves_no_trace():
    own = OwnState()
    own.confirm(data("before"))
    pending = own.add(data("after"))
    own.settle(own.next_batch()[0], ERROR)
    assert pending.settled
    assert pending.error is ERROR
    assert own.confirmed == data("before")
    assert own.next_batch()[0] == []


def test_changes_that_wait_are_sent_as_one_with_the_last_values():
    own = OwnState()
    first = own.add(data(1))
    batch, _ = own.next_batch()
    rest = [own.add(data(2)), own.add(OwnChange(username="Ann")), own.add(data(3))]
    assert batch == [first]
    own.settle(batch)
    batch, change = own.next_batch()
    assert batch == rest
    assert request_for("r", change) == Update("r", "Ann", 3)
    own.settle(batch)
    assert all(one.settled and one.error is None for one in rest)


def test_after_a_refusal_each_of_a_batch_is_sent_by_itself():
    own = OwnState()
    changes = [own.add(data(number)) for number in range(3)]
    own.settle(own.next_batch()[0], ERROR)
    assert not any(one.settled for one in changes)
    late = own.add(data("late"))
    for number, one in enumerate(changes):
        assert own.next_batch()[0] == [one]
        own.settle([one], None if number == 1 else ERROR)
    assert [one.error for one in changes] == [ERROR, None, ERROR]
    assert own.next_batch()[0] == [late]


def test_away_and_back_keep_their_place_among_updates():
    own = OwnState()
    for change in (data(1), OwnChange(away=True), OwnChange(away=False), data(2)):
        own.add(change)
    sent = []
    while (pair := own.next_batch())[0]:
        sent.append(request_for("r", pair[1]))
        own.settle(pair[0])
    assert sent == [Update("r", None, 1), Back("r"), Update("r", None, 2)]
    own.add(OwnChange(away=True))
    assert own.away
    assert request_for("r", own.next_batch()[1]) == Away("r")


def test_changes_without_a_waiting_caller_do_not_pile_up():
    own = OwnState()
    under_way = own.add(data("sent"))
    own.next_batch()
    under_way.awaited = False
    for number in range(1000):
        own.add(OwnChange(username=f"name {number}", data=number)).awaited = False
    last = own.add(OwnChange(username="last"))
    own.settle([under_way])
    assert own.next_batch()[0] == [last]
    assert last.change == OwnChange(username="last", data=999)


def test_patches_that_wait_are_joined_where_one_request_has_the_effect_of_both():
    own = OwnState()
    own.confirm(data({"a": {"x": 1}, "b": 1}))
    for patch in ({"b": 2}, {"a": {"y": 2}}, {"a": {"x": None}}, {"a": 5}, {"a": {"z": 1}}):
        own.add(OwnChange(patch=patch))
    batch, change = own.next_batch()
    assert request_for("r", change) == Update("r", patch={"b": 2, "a": 5})
    own.confirm(change)
    own.settle(batch)
    batch, change = own.next_batch()
    assert change == OwnChange(patch={"a": {"z": 1}}), "it would be merged into the old object"
    own.confirm(change)
    own.settle(batch)
    assert own.confirmed == data({"a": {"z": 1}, "b": 2})
    own.add(data({"c": 1}))
    own.add(OwnChange(patch={"c": None, "d": {"e": None}}))
    assert own.next_batch()[1] == data({"d": {}})


def test_what_the_server_reports_replaces_what_was_confirmed_and_keeps_what_is_pending():
    own = OwnState()
    own.confirm(OwnChange(username="Ann", data=1))
    own.add(data(2))
    own.reported(make_member("ann", username="Anna", data=5))
    assert own.confirmed == OwnChange(username="Anna", data=5)
    assert own.next_batch()[1] == data(2)
    own.reported(make_member("ann", username="Anna"))
    assert own.confirmed.data is UNSET


class AnyOutcome(RuleBasedStateMachine):
    """The server takes or refuses each request, or its reply is lost; values are applied in their order.

    It takes again what it has taken when the reply was lost. Otherwise the client could not know that: it
    would see it in the next list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.own = OwnState()
        self.calls: list[PendingChange] = []
        self.batch: list[PendingChange] = []
        self.server: Any = None
        self.taken: set[int] = set()

    @rule(value=st.integers(0, 9), waits=st.booleans())
    def calls_update(self, value: int, waits: bool) -> None:
        call = self.own.add(data(value))
        call.awaited = waits
        self.calls.append(call)

    @precondition(lambda self: not self.batch)
    @rule()
    def sends(self) -> None:
        self.batch, self.change = self.own.next_batch()

    @precondition(lambda self: self.batch)
    @rule(limit=st.integers(0, 9), lost=st.booleans())
    def is_answered(self, limit: int, lost: bool) -> None:
        value = self.change.data
        takes = value <= limit or value in self.taken
        if takes:
            self.server = value
        if takes and lost:
            self.taken.add(value)
        if not lost:
            self.own.settle(self.batch, None if takes else ERROR)
            if takes:
                self.own.confirm(data(value))
        self.batch = []

    def teardown(self) -> None:
        while (pair := self.own.next_batch())[0]:
            batch, change = pair
            self.server = change.data
            self.own.confirm(change)
            self.own.settle(batch)
        assert all(one.settled for one in self.calls if one.awaited)
        if self.server is not None:
            assert self.own.confirmed.data == self.server


AnyOutcome.TestCase.settings = settings(max_examples=100, deadline=None)
TestAnyOutcome = AnyOutcome.TestCase
