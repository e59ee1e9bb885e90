"""For how long the changes of a room are collected while many rooms change."""

from collections.abc import Callable
from typing import Any

import pytest

from reactor.gateway.fanout import Fanout
from reactor.gateway.roster import Roster
from reactor.settings import Settings


class StoppedLoop:
    """An event loop whose time stands still; it notes the timers."""

    def __init__(self) -> None:
        self.timers: list[float] = []

    def time(self) -> float:
        return 100.0

    def call_later(self, seconds: float, _callback: Callable[..., object], *_args: object) -> None:
        self.timers.append(seconds)


@pytest.mark.parametrize(
    ("rooms", "size", "longest"), [(1, 1000, 0.05), (30, 1000, 0.42), (3000, 10, 0.2)], ids=str
)
def test_the_windows_of_many_large_rooms_leave_the_node_half_of_its_time(
    rooms: int, size: int, longest: float
) -> None:
    roster: Roster[Any] = Roster()
    for room in range(rooms):
        for number in range(size):
            roster.add(f"room {room}", f"u{number}", number, "members")
    assert roster.memberships == rooms * size
    loop: Any = StoppedLoop()
    fanout = Fanout(Settings(), roster, lambda _room_id: None, loop)
    for room in range(rooms):
        fanout._open_window(f"room {room}", 0)
    assert loop.timers[-1] == pytest.approx(longest)
    for room in range(rooms):
        for number in range(size):
            roster.remove(f"room {room}", number)
    assert roster.memberships == 0
