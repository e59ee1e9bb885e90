from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.client.backoff import Backoff, ReconnectDelays
from reactor.protocol.closing import CloseCode

LOST = 1006


def longest(_low: float, high: float) -> float:
    return high


def test_the_bound_doubles_up_to_the_cap():
    waits = ReconnectDelays(Backoff(first=0.5, cap=20.0), longest)
    assert [waits.after_failure() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


def test_a_connection_that_was_lost_at_once_counts_as_a_failure():
    waits = ReconnectDelays(Backoff(first=0.5, stable=10.0), longest)
    assert [waits.after_connection(LOST, 9.9, answered=False) for _ in range(3)] == [0.5, 1.0, 2.0]


def test_a_connection_that_lasted_resets_the_bound():
    waits = ReconnectDelays(Backoff(first=0.5, stable=10.0), longest)
    for _ in range(5):
        waits.after_failure()
    assert waits.after_connection(LOST, 10.0, answered=False) == 0.5
    assert waits.after_failure() == 1.0


def test_an_answer_resets_the_bound_unless_the_server_closed_because_of_what_the_client_did():
    waits = ReconnectDelays(Backoff(first=0.5, cap=20.0), longest)
    assert [waits.after_connection(LOST, 0.1, answered=True) for _ in range(3)] == [0.5, 0.5, 0.5]
    complaints = (4029, 4008, 1009, 1003)
    assert [waits.after_connection(code, 0.1, answered=True) for code in complaints] == [1.0, 2.0, 4.0, 8.0]
    assert waits.after_connection(LOST, 0.1, answered=True) == 0.5


def test_after_a_forced_leave_there_is_no_pause_if_the_server_has_ended_a_membership():
    waits = ReconnectDelays(Backoff(first=0.5), longest)
    assert waits.after_connection(CloseCode.FORCE_LEAVE, 0.1, answered=True, released=True) == 0
    pauses = [waits.after_connection(CloseCode.FORCE_LEAVE, 0.1, answered=one) for one in (True, False, True)]
    assert pauses == [0.5, 1.0, 2.0], "a peer that joins and closes so is not met without a pause"


def test_the_first_restart_has_a_bound_of_its_own():
    waits = ReconnectDelays(Backoff(first=0.5, restart=1.5), longest)
    assert waits.after_connection(CloseCode.RESTART, 100.0, answered=False) == 1.5
    assert waits.after_connection(CloseCode.RESTART, 0.1, answered=False) == 1.0, (
        "a server that restarts for ever is a failure like others"
    )


@settings(deadline=None, max_examples=50)
@given(
    failures=st.integers(0, 1200),
    cap=st.floats(0.1, 60.0),
    draw=st.randoms(use_true_random=False),
)
def test_a_delay_is_drawn_uniformly_up_to_the_bound(failures, cap, draw):
    bounds = []

    def note(low: float, high: float) -> float:
        bounds.append((low, high))
        drawn: float = draw.uniform(low, high)
        return drawn

    waits = ReconnectDelays(Backoff(first=0.1, cap=cap), note)
    drawn = [waits.after_failure() for _ in range(failures + 1)]
    assert all(low == 0.0 and high <= cap for low, high in bounds)
    assert all(0.0 <= wait <= cap for wait in drawn)
    assert [high for _, high in bounds] == sorted(high for _, high in bounds)
