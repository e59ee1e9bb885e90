"""One loop for each primary of a cluster, as primaries come and go."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from reactor.presence.topology import Address


class LoopPerPrimary:
    """Runs one loop for each primary there is, and ends those of primaries that are no more."""

    def __init__(self) -> None:
        self._scopes: dict[Address, anyio.CancelScope] = {}
        self._changed = anyio.Event()

    def reconcile(self) -> None:
        """Other primaries are wanted than before."""
        self._changed.set()

    async def serve(
        self, wanted: Callable[[], set[Address]], loop: Callable[[Address], Coroutine[Any, Any, None]]
    ) -> None:
        """Run `loop` for each of the `wanted`, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                for address in self._scopes.keys() - wanted():
                    self._scopes.pop(address).cancel()
                for address in wanted() - self._scopes.keys():
                    scope = self._scopes[address] = anyio.CancelScope()
                    tasks.start_soon(self._run, scope, loop, address)
                await self._changed.wait()

    @staticmethod
    async def _run(
        scope: anyio.CancelScope, loop: Callable[[Address], Coroutine[Any, Any, None]], address: Address
    ) -> None:
        with scope:
            await loop(address)
