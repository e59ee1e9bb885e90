"""The table of a node's recovery: every state and every event."""

import ast
import itertools
from pathlib import Path

import pytest

import reactor.membership
from reactor.membership.recovery_state import TRANSITIONS, RecoveryMachine
from reactor.membership.recovery_state import RecoveryEvent as Event
from reactor.membership.recovery_state import RecoveryState as State
from reactor.protocol.state_table import IllegalEvent
from tests.support.state_tables import read_table, shortest_paths

# Written out once more, so that a slip in the table shows: what each event leads to, "." where it is illegal.
EXPECTED = """
                   HEALTHY        DEGRADED      UNSUBSCRIBED   REREGISTERING  BARRIER
REDIS_LOST         DEGRADED       DEGRADED      DEGRADED       DEGRADED       DEGRADED
REDIS_RESTORED     HEALTHY        UNSUBSCRIBED  UNSUBSCRIBED   REREGISTERING  BARRIER
SUBSCRIPTION_LOST  UNSUBSCRIBED   DEGRADED      UNSUBSCRIBED   UNSUBSCRIBED   UNSUBSCRIBED
CHECK_REQUIRED     REREGISTERING  DEGRADED      REREGISTERING  REREGISTERING  REREGISTERING
REREGISTERED       .              DEGRADED      UNSUBSCRIBED   BARRIER        .
BARRIER_PASSED     .              DEGRADED      UNSUBSCRIBED   .              HEALTHY
"""

EXTERNAL = {Event.REDIS_LOST, Event.REDIS_RESTORED, Event.SUBSCRIPTION_LOST, Event.CHECK_REQUIRED}


def machine_in(state: State) -> RecoveryMachine:
    """A machine in that state, brought there by the shortest sequence of legal events."""
    machine = RecoveryMachine()
    for event in shortest_paths(TRANSITIONS, State.HEALTHY)[state]:
        machine.advance(event)
    assert machine.state is state
    return machine


def test_the_table_is_whole():
    assert read_table(EXPECTED, State, Event).keys() == set(itertools.product(State, Event))
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(State, Event)), ids=lambda value: value.name
)
def test_every_event_in_every_state(state: State, event: Event):
    machine, after = machine_in(state), read_table(EXPECTED, State, Event)[state, event]
    if after is None:
        with pytest.raises(IllegalEvent, match=f"{event.name} while {state.name}"):
            machine.advance(event)
        assert machine.state is state
    else:
        assert machine.advance(event) is after
        assert machine.state is after


def test_what_comes_from_outside_is_legal_in_every_state():
    for state in State:
        assert TRANSITIONS[state].keys() >= EXTERNAL


def test_the_feed_is_resumed_only_behind_the_barrier():
    into = {
        (at, event)
        for at, row in TRANSITIONS.items()
        for event, after in row.items()
        if after is State.HEALTHY
    }
    assert into - {(State.HEALTHY, Event.REDIS_RESTORED)} == {(State.BARRIER, Event.BARRIER_PASSED)}


def test_only_the_machine_writes_the_state():
    writers = set()
    for path in Path(reactor.membership.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                stores = {
                    inner.attr
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
                }
                if "_state" in stores:
                    writers.add((path.stem, node.name))
    assert writers == {("recovery_state", "__init__"), ("recovery_state", "advance")}
