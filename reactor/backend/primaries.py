"""One loop for each primary of a cluster, as primaries come and go."""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio

T = TypeVar("T")


class LoopPerPrimary(Generic[T]):
    """Runs one loop for each thing there is, and ends those of things that are no more.

    By thing and not by address: a primary that goes and is back at once has another thing, which wants a loop
    of its own.
    """

    def __init__(self) -> None:
        self._scopes: dict[T, anyio.CancelScope] = {}
        self._changed = anyio.Event()

    def reconcile(self) -> None:
        """Other things are wanted than before."""
        self._changed.set()

    async def serve(
        self, wanted: Callable[[], set[T]], loop: Callable[[T], Coroutine[Any, Any, None]]
    ) -> None:
        """Run `loop` for each of the `wanted`, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                for thing in self._scopes.keys() - wanted():
                    self._scopes.pop(thing).cancel()
                for thing in wanted() - self._scopes.keys():
                    scope = self._scopes[thing] = anyio.CancelScope()
                    tasks.start_soon(self._run, scope, loop, thing)
                await self._changed.wait()

    @staticmethod
    async def _run(
        scope: anyio.CancelScope, loop: Callable[[T], Coroutine[Any, Any, None]], thing: T
    ) -> None:
        with scope:
            await loop(thing)
