"""A loop for each primary, whoever comes and goes."""

import anyio

from reactor.backend.primaries import LoopPerPrimary


class Thing:
    """Counts how often its loop runs, and whether it still does."""

    def __init__(self) -> None:
        self.running = 0
        self.served = anyio.Event()

    async def serve(self) -> None:
        self.running += 1
        self.served.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.running -= 1


async def test_one_that_goes_and_is_back_within_a_turn_is_served_by_its_successor() -> None:
    loops, wanted = LoopPerPrimary[Thing](), {"a": Thing(), "b": Thing()}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loops.serve, lambda: set(wanted.values()), Thing.serve)
        first, other = wanted["a"], wanted["b"]
        await first.served.wait()
        del wanted["a"]
        loops.reconcile()
        again = wanted["a"] = Thing()  # before the loops had their turn
        loops.reconcile()
        with anyio.fail_after(5):
            await again.served.wait()
        assert (first.running, again.running, other.running) == (0, 1, 1)
        tasks.cancel_scope.cancel()
    assert other.running == 0
