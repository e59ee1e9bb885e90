"""The requests of a connection: what a refused one leaves behind."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast
from weakref import finalize

import pytest

from reactor.membership import request_queue
from reactor.membership.request_queue import MAX_UNDER_WAY, RequestQueue
from reactor.protocol import byte_budget
from reactor.protocol.intents import CountMembers, FollowPeople


class Reading:
    """A connection that reads."""

    blocked = False
    session = SimpleNamespace(closed=False)


class Tasks:
    """Keeps what is to run, and runs nothing."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    def start_soon(self, _func: Any, *args: Any) -> None:
        self.started.append(args)


async def test_what_a_refused_request_adds_counts_as_under_way() -> None:
    connection = cast("Any", Reading())
    tasks = Tasks()
    deferred = iter(["refused too", *map(str, range(MAX_UNDER_WAY + 1))])

    def admit(_connection: Any, intent: Any) -> bool:
        if intent == "refused":  # as a join, which replays what was deferred for it
            for following in deferred:
                queue.add(connection, cast("Any", following))
        return not intent.startswith("refused")

    queue = RequestQueue(cast("Any", asyncio.sleep), admit, tasks, max_held=10)
    queue.add(connection, cast("Any", "refused"))
    assert len(tasks.started) == MAX_UNDER_WAY
    queue.add(connection, cast("Any", "later"))
    assert len(tasks.started) == MAX_UNDER_WAY


def people(users: int) -> FollowPeople:
    return FollowPeople(tuple(f"user {number}".ljust(60) for number in range(users)), None)


async def test_waiting_requests_take_a_bounded_number_of_bytes_of_each_connection_and_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_queue, "NODE_BYTES", 400_000)
    for module in (byte_budget, request_queue):
        monkeypatch.setattr(module, "FREE_BYTES", 1000)
    queue = RequestQueue(cast("Any", asyncio.sleep), lambda *_: True, cast("Any", Tasks()), max_held=1000)
    connections = [cast("Any", Reading()) for _ in range(4)]
    waiting = []
    for connection in connections:
        connection.blocked = True
        number = 0
        while queue.has_place(connection, people(1000)):
            queue.add(connection, people(1000))
            number += 1
        waiting.append(number)
    assert waiting == [2, 1, 0, 0]  # 256 KiB of one connection; what is left of those of all
    assert queue.bytes <= 400_000
    # A usual request still has a place.
    assert queue.has_place(connections[3], CountMembers("room", None))
    for connection in connections:
        queue.close(connection)
    assert queue.bytes == 0


async def test_a_request_counts_until_it_is_carried_out_or_refused() -> None:
    ended: list[Any] = []

    async def carry_out(_connection: Any, intent: Any) -> None:
        ended.append(intent)

    tasks = Tasks()
    admitted = iter([True, False])
    queue = RequestQueue(cast("Any", carry_out), lambda *_: next(admitted), cast("Any", tasks), max_held=10)
    connection = cast("Any", Reading())
    queue.add(connection, people(500))
    queue.add(connection, people(200))  # refused
    assert 40_000 < queue.bytes < 80_000
    ((*arguments,),) = tasks.started
    await queue._run(*arguments)
    assert (len(ended), queue.bytes) == (1, 0)


async def test_a_request_that_is_stopped_is_freed_without_the_garbage_collector() -> None:
    class Held:
        """What a request holds while it is carried out."""

    class Started:
        def start_soon(self, func: Any, *args: Any) -> None:
            running.append(asyncio.get_running_loop().create_task(func(*args)))

    async def carry_out(_connection: Any, _intent: Any) -> None:
        held = Held()
        freed.append(finalize(held, int))
        await asyncio.Event().wait()

    running: list[asyncio.Task[Any]] = []
    freed: list[finalize[Any, Any]] = []
    connection = cast("Any", Reading())
    queue = RequestQueue(carry_out, lambda *_: True, cast("Any", Started()), max_held=10)
    gc.disable()
    try:
        queue.add(connection, people(1))
        await asyncio.sleep(0)
        queue.close(connection)
        await asyncio.wait(running)
        running.clear()
        await asyncio.sleep(0)
        assert [one.alive for one in freed] == [False]
    finally:
        gc.enable()
