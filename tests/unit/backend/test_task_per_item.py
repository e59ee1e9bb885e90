"""One task for each item of a set that changes while they run."""

import anyio

from reactor.backend.cluster import TaskPerItem
from tests.support.waiting import PATIENCE


class Item:
    """Counts how many tasks run for it."""

    def __init__(self) -> None:
        self.running = 0
        self.started = anyio.Event()

    async def serve(self) -> None:
        self.running += 1
        self.started.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.running -= 1


async def test_an_item_replaced_between_two_steps_of_the_loop_gets_a_task_of_its_own() -> None:
    tasks_of, items = TaskPerItem[Item](), {"a": Item(), "b": Item()}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tasks_of.serve, lambda: set(items.values()), Item.serve)
        first, other = items["a"], items["b"]
        await first.started.wait()
        del items["a"]
        tasks_of.reconcile()
        replacement = items["a"] = Item()  # before `serve` has run again
        tasks_of.reconcile()
        with anyio.fail_after(PATIENCE):
            await replacement.started.wait()
        assert (first.running, replacement.running, other.running) == (0, 1, 1)
        tasks.cancel_scope.cancel()
    assert other.running == 0
