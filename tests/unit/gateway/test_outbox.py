from hypothesis import given
from hypothesis import strategies as st

from reactor.gateway.outbox import HIGH_WATER, SLICE, Outbox, PutResult, SendBudget


def test_the_first_frame_of_a_turn_requests_a_flush_for_all():
    outbox = Outbox(1000, SendBudget(10**9))
    assert outbox.put(b"a") is PutResult.FLUSH_SOON
    assert outbox.put(b"b") is PutResult.WAIT
    assert outbox.take() == [b"a", b"b"]
    assert outbox.take() == []
    assert outbox.put(b"c") is PutResult.FLUSH_SOON


def test_above_the_high_water_mark_the_outbox_requests_an_immediate_flush():
    outbox = Outbox(1000, SendBudget(10**9))
    assert outbox.put(bytes(HIGH_WATER)) is PutResult.FLUSH_SOON
    assert outbox.put(b"b") is PutResult.FLUSH_NOW


def test_a_frame_above_the_limit_is_accepted_while_the_transport_is_not_full():
    outbox = Outbox(1000, SendBudget(10**9))
    assert outbox.put(bytes(10 * HIGH_WATER)) is PutResult.FLUSH_NOW


def test_once_the_transport_is_full_the_limit_is_exact():
    outbox = Outbox(1000, SendBudget(10**9))
    outbox.block(0)
    assert outbox.put(bytes(600)) is PutResult.WAIT
    assert outbox.put(bytes(400)) is PutResult.WAIT
    assert outbox.put(b"x") is PutResult.TOO_SLOW
    assert outbox.size == 1000
    assert list(map(len, outbox.take())) == [600, 400]


def test_what_the_transport_holds_counts():
    budget = SendBudget(10**9)
    outbox = Outbox(1000, budget)
    outbox.put(bytes(300))
    outbox.block(400)
    assert outbox.put(bytes(300)) is PutResult.WAIT
    assert outbox.put(b"x") is PutResult.TOO_SLOW
    assert (outbox.held, budget.used) == (1000, 1000)
    outbox.unblock()
    assert (outbox.held, budget.used) == (600, 0)


def test_a_large_frame_is_taken_in_slices_and_the_rest_of_it_counts():
    outbox = Outbox(1000, SendBudget(10**9))
    outbox.put(bytes(SLICE) + b"rest")
    assert [bytes(one) for one in outbox.take()] == [bytes(SLICE)]
    outbox.block(0)
    assert outbox.size == 4
    assert outbox.put(bytes(997)) is PutResult.TOO_SLOW
    assert [bytes(one) for one in outbox.take()] == [b"rest"]
    assert outbox.size == 0


class Part:
    """A part that takes 10 bytes while it waits, and 50,000 when it is written."""

    encoded = 0

    def __len__(self):
        return 10

    def encode(self):
        Part.encoded += 1
        return b"p" * 50_000


def test_parts_are_encoded_as_they_are_written_and_count_little_while_they_wait():
    Part.encoded = 0
    outbox = Outbox(1000, SendBudget(10**9))
    outbox.block(0)
    assert outbox.put(b"head", *(Part() for _ in range(20)), b"end") is PutResult.WAIT
    assert outbox.put(b"next") is PutResult.WAIT
    assert (outbox.size, Part.encoded) == (211, 0)
    outbox.unblock()
    written = b""
    while outbox.size:
        slice_ = b"".join(outbox.take())
        assert len(slice_) < SLICE + 50_000
        written += slice_
        assert Part.encoded * 50_000 < len(written) + SLICE
    assert written == b"head" + b"p" * 1_000_000 + b"endnext"
    assert outbox.size == 0


def test_clearing_keeps_the_small_rest_of_a_message_that_was_begun():
    outbox = Outbox(1000, SendBudget(10**9))
    outbox.put(bytes(SLICE) + b"rest")
    outbox.put(b"next")
    outbox.take()
    assert outbox.clear() == [b"rest"]
    outbox.put(b"whole")
    assert outbox.clear() == []
    outbox.put(bytes(SLICE + HIGH_WATER + 1))
    outbox.take()
    assert outbox.clear() is None
    outbox.put(b"head", *(Part() for _ in range(20)))
    outbox.take()
    assert outbox.clear() is None
    outbox.put(b"head", *(Part() for _ in range(20)))
    assert outbox.clear() == []
    assert outbox.size == 0


def test_a_budget_counts_what_all_blocked_connections_hold():
    budget = SendBudget(1000)
    first, second = Outbox(1000, budget), Outbox(1000, budget)
    first.put(bytes(100))
    assert budget.used == 0
    first.block(50)
    second.block(200)
    second.put(bytes(30))
    assert budget.used == 380
    first.clear()
    assert budget.used == 280
    first.unblock()
    second.unblock()
    assert budget.used == 0


@given(st.lists(st.one_of(st.integers(0, 3000), st.sampled_from(["block", "unblock", "pop"]))))
def test_no_frame_is_lost_reordered_or_kept_beyond_the_limit(steps):
    outbox, added, popped, number = Outbox(5000, SendBudget(10**9)), [], [], 0
    for step in steps:
        if step == "block":
            outbox.block(0)
        elif step == "unblock":
            outbox.unblock()
            popped += outbox.take()
        elif step == "pop":
            popped += outbox.take()
        else:
            number += 1
            frame = number.to_bytes(4) + bytes(step)
            if outbox.put(frame) is PutResult.TOO_SLOW:
                assert outbox.blocked
                assert outbox.size + len(frame) > 5000
            else:
                added.append(frame)
            assert outbox.size <= max(5000, HIGH_WATER + 3004) or not outbox.blocked
    assert popped + outbox.take() == added
    assert outbox.size == 0


def test_a_frame_in_parts_is_added_completely_or_not_at_all():
    outbox = Outbox(10, SendBudget(10**9))
    assert outbox.put(b"ab", b"cd", b"e") is PutResult.FLUSH_NOW
    assert outbox.take() == [b"ab", b"cd", b"e"]
    outbox.block(0)
    assert outbox.put(b"ab", b"cdef") is PutResult.WAIT
    assert outbox.put(b"ab", b"cd", b"e") is PutResult.TOO_SLOW
    assert (outbox.take(), outbox.size) == ([b"ab", b"cdef"], 0)
    outbox.unblock()
    assert outbox.put(b"x" * HIGH_WATER, b"y") is PutResult.FLUSH_NOW
