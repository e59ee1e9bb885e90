import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.gateway.timing_wheel import NOT_SCHEDULED, TimingWheel


class Item:
    def __init__(self):
        self.slot = NOT_SCHEDULED


def test_an_item_is_due_after_its_time_and_within_a_tick():
    wheel: TimingWheel[Item] = TimingWheel(0.25, 100.0)
    item = Item()
    wheel.schedule(item, 101.3)
    assert wheel.pop_due(101.25, 10) == []
    assert wheel.pop_due(101.3 + 0.25, 10) == [item]
    assert wheel.pop_due(200.0, 10) == []
    assert item.slot == NOT_SCHEDULED


def test_an_item_that_is_scheduled_again_has_only_its_new_time():
    wheel: TimingWheel[Item] = TimingWheel(1.0, 0.0)
    item = Item()
    for when in (50.0, 5.0, 20.0):
        wheel.schedule(item, when)
    assert wheel.pop_due(10.0, 10) == []
    assert wheel.pop_due(21.0, 10) == [item]
    assert wheel.pop_due(60.0, 10) == []


def test_a_cancelled_item_is_never_due():
    wheel: TimingWheel[Item] = TimingWheel(1.0, 0.0)
    item = Item()
    wheel.schedule(item, 5.0)
    wheel.cancel(item)
    wheel.cancel(item)
    assert wheel.pop_due(10.0, 10) == []


def test_a_time_in_the_past_is_due_at_the_next_tick():
    wheel: TimingWheel[Item] = TimingWheel(1.0, 0.0)
    wheel.pop_due(10.0, 10)
    item = Item()
    wheel.schedule(item, 3.0)
    assert wheel.pop_due(11.0, 10) == [item]


def test_items_beyond_the_limit_stay_due():
    wheel: TimingWheel[Item] = TimingWheel(1.0, 0.0)
    items = [Item() for _ in range(25)]
    for number, item in enumerate(items):
        wheel.schedule(item, 1.0 + number % 2)
    popped = []
    while batch := wheel.pop_due(5.0, 10):
        assert len(batch) <= 10
        popped += batch
    assert len(popped) == 25
    assert set(popped) == set(items)


def test_an_empty_wheel_keeps_no_slots():
    wheel: TimingWheel[Item] = TimingWheel(0.1, 0.0)
    for number in range(1000):
        item = Item()
        wheel.schedule(item, number / 10)
        wheel.cancel(item)
    assert wheel._slots == {}
    assert wheel.pop_due(1000.0, 10) == []
    assert wheel._slots == {}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["schedule", "cancel", "tick"]), st.integers(0, 5), st.floats(0, 20)),
        max_size=60,
    )
)
def test_the_wheel_equals_a_plain_list_of_times(steps):
    tick, now = 0.5, 0.0
    wheel: TimingWheel[Item] = TimingWheel(tick, now)
    items = [Item() for _ in range(6)]
    times: dict[Item, float] = {}
    for action, index, number in steps:
        item = items[index]
        if action == "schedule":
            wheel.schedule(item, now + number)
            times[item] = now + number
        elif action == "cancel":
            wheel.cancel(item)
            times.pop(item, None)
        else:
            now += number
            due = wheel.pop_due(now, 100)
            assert len(due) == len(set(due))
            for overdue in due:
                assert times.pop(overdue) <= now
            assert all(when > now - tick for when in times.values())


@pytest.mark.parametrize("items", [1000])
def test_all_items_are_due_after_a_long_stall(items):
    wheel: TimingWheel[Item] = TimingWheel(0.01, 0.0)
    for number in range(items):
        wheel.schedule(Item(), number / 100)
    assert len(wheel.pop_due(3600.0, 10_000)) == items
