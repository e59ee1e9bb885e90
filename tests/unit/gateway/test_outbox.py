from hypothesis import given
from hypothesis import strategies as st

from reactor.gateway.outbox import HIGH_WATER, Outbox, PutResult


def test_the_first_frame_of_a_turn_requests_a_flush_for_all():
    outbox = Outbox(1000)
    assert outbox.put(b"a") is PutResult.FLUSH_SOON
    assert outbox.put(b"b") is PutResult.WAIT
    assert outbox.pop_all() == [b"a", b"b"]
    assert outbox.pop_all() == []
    assert outbox.put(b"c") is PutResult.FLUSH_SOON


def test_above_the_high_water_mark_the_outbox_requests_an_immediate_flush():
    outbox = Outbox(1000)
    assert outbox.put(bytes(HIGH_WATER)) is PutResult.FLUSH_SOON
    assert outbox.put(b"b") is PutResult.FLUSH_NOW


def test_a_frame_above_the_limit_is_accepted_while_the_transport_is_not_full():
    outbox = Outbox(1000)
    assert outbox.put(bytes(10 * HIGH_WATER)) is PutResult.FLUSH_NOW


def test_once_the_transport_is_full_the_limit_is_exact():
    outbox = Outbox(1000)
    outbox.blocked = True
    assert outbox.put(bytes(600)) is PutResult.WAIT
    assert outbox.put(bytes(400)) is PutResult.WAIT
    assert outbox.put(b"x") is PutResult.TOO_SLOW
    assert outbox.size == 1000
    assert list(map(len, outbox.pop_all())) == [600, 400]


def test_frames_written_before_the_transport_was_full_do_not_count():
    outbox = Outbox(1000)
    outbox.put(bytes(5000))
    outbox.pop_all()
    outbox.blocked = True
    assert outbox.put(bytes(1000)) is PutResult.WAIT
    outbox.blocked = False
    outbox.pop_all()
    outbox.blocked = True
    assert outbox.put(bytes(1000)) is PutResult.WAIT


@given(st.lists(st.one_of(st.integers(0, 3000), st.sampled_from(["block", "unblock", "pop"]))))
def test_no_frame_is_lost_reordered_or_kept_beyond_the_limit(steps):
    outbox, added, popped, number = Outbox(5000), [], [], 0
    for step in steps:
        if step == "block":
            outbox.blocked = True
        elif step == "unblock":
            outbox.blocked = False
            popped += outbox.pop_all()
        elif step == "pop":
            popped += outbox.pop_all()
        else:
            number += 1
            frame = number.to_bytes(4) + bytes(step)
            if outbox.put(frame) is PutResult.TOO_SLOW:
                assert outbox.blocked
                assert outbox.size + len(frame) > 5000
            else:
                added.append(frame)
            assert outbox.size <= max(5000, HIGH_WATER + 3004) or not outbox.blocked
    assert popped + outbox.pop_all() == added
    assert outbox.size == 0


def test_a_frame_in_pieces_is_added_completely_or_not_at_all():
    outbox = Outbox(limit=10)
    assert outbox.put(b"ab", b"cd", b"e") is PutResult.FLUSH_SOON
    assert outbox.pop_all() == [b"ab", b"cd", b"e"]
    outbox.blocked = True
    assert outbox.put(b"ab", b"cdef") is PutResult.WAIT
    assert outbox.put(b"ab", b"cd", b"e") is PutResult.TOO_SLOW
    assert (outbox.pop_all(), outbox.size) == ([b"ab", b"cdef"], 0)
    outbox.blocked = False
    assert outbox.put(b"x" * HIGH_WATER, b"y") is PutResult.FLUSH_NOW
