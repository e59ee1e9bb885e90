"""When each shard is scanned next, and the estimate of Redis's clock."""

from hypothesis import example, given
from hypothesis import strategies as st

from reactor.expiry.deadlines import Deadlines, FirstTouches, RecentNames, RedisClock

TIMES = st.floats(0, 1e6, allow_nan=False)


def test_at_first_every_shard_is_due() -> None:
    assert Deadlines(4).due(0.0) == [0, 1, 2, 3]


def test_a_shard_is_due_at_its_deadline() -> None:
    deadlines = Deadlines(3)
    for shard, at in enumerate((5.0, 3.0, 4.0)):
        deadlines.set(shard, at)
    assert deadlines.earliest() == 3.0
    assert deadlines.due(2.9) == []
    assert deadlines.due(3.0) == [1]
    assert deadlines.due(4.5) == [1, 2]
    deadlines.reset()
    assert deadlines.due(0.0) == [0, 1, 2]


def test_lower_only_brings_a_shard_forward_and_reports_a_new_earliest() -> None:
    deadlines = Deadlines(2)
    deadlines.set(0, 10.0)
    deadlines.set(1, 20.0)
    assert not deadlines.lower(0, 11.0)
    assert not deadlines.lower(1, 15.0)
    assert deadlines.due(15.0) == [0, 1]
    assert deadlines.lower(1, 9.0)
    assert not deadlines.lower(0, 9.5)
    assert not deadlines.lower(1, 9.0), "the same deadline again changes nothing"
    assert deadlines.earliest() == 9.0


@given(st.lists(st.tuples(st.integers(0, 3), TIMES, st.booleans())))
@example([(0, 1.0, True), (0, 1.0, False)])
def test_the_earliest_is_always_the_least_of_all(steps: list[tuple[int, float, bool]]) -> None:
    deadlines, expected = Deadlines(4), [0.0] * 4
    for shard, at, lowers in steps:
        if lowers:
            was_earliest = min(expected)
            assert deadlines.lower(shard, at) == (at < was_earliest)
            expected[shard] = min(expected[shard], at)
        else:
            deadlines.set(shard, at)
            expected[shard] = at
        assert deadlines.earliest() == min(expected)
        assert deadlines.due(at) == [shard for shard, next_at in enumerate(expected) if next_at <= at]


def test_before_any_reply_every_deadline_is_due() -> None:
    assert RedisClock().steady(1_700_000_000_000) == 0.0


DELAYS = st.lists(st.floats(0, 0.5), min_size=1, max_size=200)


@given(st.floats(-1e9, 1e9), DELAYS)
def test_the_estimate_is_never_early_and_no_later_than_the_least_delay(
    offset: float, delays: list[float]
) -> None:
    """A touch before the deadline would find the key alive. Redis's clock is rounded to a millisecond."""
    clock, now = RedisClock(), 1e6
    for delay in delays:
        written = now + offset
        clock.observe(int(written * 1000), now + delay)
        now += 1.0
    deadline = int((now + offset) * 1000)
    truly = deadline / 1000 - offset
    late = clock.steady(deadline) - truly
    assert -1e-3 <= late <= min(delays[-RedisClock.SAMPLES :]) + 2e-3


def test_a_step_of_redis_clock_is_followed() -> None:
    clock = RedisClock()
    for second in range(100):
        clock.observe((1_000 + second) * 1000, float(second))
    assert clock.steady(1_100_000) == 100.0
    for second in range(100, 100 + RedisClock.SAMPLES):
        clock.observe((500 + second) * 1000, float(second))
    assert clock.steady(700_000) == 200.0


def test_a_touch_is_remembered_for_a_while_whatever_else_is_touched() -> None:
    touches = FirstTouches()
    assert touches.first("ann", 100.0) == 100.0
    for tenth in range(1, 20):
        assert touches.first(f"u{tenth}", 100 + tenth / 10) == 100 + tenth / 10
        assert touches.first("ann", 100 + tenth / 10) == 100.0
    assert touches.first("bob", 102.1) == 102.1
    assert touches.first("ann", 103.0) == 100.0, "among the older ones"
    assert touches.first("ann", 104.2) == 104.2, (
        "and then forgotten: the name may have joined and expired again"
    )


@given(st.lists(st.floats(0, 5), min_size=1))
def test_a_touch_is_never_remembered_for_more_than_three_times_the_period(steps: list[float]) -> None:
    touches, now, known = FirstTouches(), 100.0, 100.0
    for step in steps:
        now += step
        at = touches.first("ann", now)
        assert now - at <= 3 * FirstTouches.KEPT
        assert at in {known, now}
        known = at


def test_a_recent_name_is_drained_once_and_forgotten_after_a_while() -> None:
    recent = RecentNames()
    for second in range(8):
        recent.add(f"u{second}", 100.0 + second)
    assert recent.drain(108.0) == {f"u{second}" for second in range(8)}
    assert recent.drain(108.0) == set()
    recent.add("ann", 109.0)
    assert recent.drain(109.0 + RecentNames.KEPT) == {"ann"}
    recent.add("ann", 120.0)
    assert recent.drain(120.0 + 2 * RecentNames.KEPT) == set()
