"""The rate limit of one connection, as arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from reactor.gateway.rate_limit import MAX_REJECTIONS, ExcessDecision, ExcessMessages, RateLimit


@given(
    st.integers(1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 1), max_size=200),
)
def test_accepted_messages_are_bounded_by_burst_and_rate(rate, burst, waits):
    limit = RateLimit(rate, burst, 0.0)
    tat, now, accepted = 0.0, 0.0, list[float]()
    for wait in waits:
        now += wait / rate
        next_tat = max(tat, now) + limit.interval
        if next_tat - now <= limit.tolerance + 1e-9:
            tat = next_tat
            accepted.append(now)
    for start in range(0, len(accepted), 7):
        for count, last in enumerate(accepted[start:], 1):
            assert count <= burst + (last - accepted[start]) * rate + 1


def test_excess_messages_use_the_credit_then_are_rejected_then_close():
    excess = ExcessMessages(credit=2)
    decisions = [excess.decide(0.0, 1.0) for _ in range(2 + MAX_REJECTIONS + 1)]
    assert decisions == [ExcessDecision.ACCEPT] * 2 + [ExcessDecision.REJECT] * MAX_REJECTIONS + [
        ExcessDecision.CLOSE
    ]
    excess = ExcessMessages(credit=0)
    assert [excess.decide(float(now), 0.5) for now in range(100)] == [ExcessDecision.REJECT] * 100
