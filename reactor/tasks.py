"""Work that runs on beside everything else: a mistake in one piece of it never takes the node down."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

log = structlog.get_logger()

RESTART_AFTER = 1.0
"""Seconds before a loop that failed begins anew."""


class Spawner(Protocol):
    """Where a step starts its tasks: a task group, or one that guards them."""

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> object:
        """Start a task."""


class GuardedTasks:
    """Starts tasks that end with a group; one that fails is logged, and the others go on.

    Nearly each message of a client is a task. These are asyncio's own and not the group's, which would take
    55 us for each, a tenth of a join; one task of the group sees to it that none outlives it.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()
        self._ended = False
        tasks.start_soon(self._end_with_group)

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> None:
        """Start a piece of work whose failure concerns only itself."""
        task = self._loop.create_task(self._guard(func, args))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._ended:
            task.cancel()

    async def _end_with_group(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._ended = True
            with anyio.CancelScope(shield=True):
                while running := list(self._running):
                    for task in running:
                        task.cancel()
                    await asyncio.wait(running)

    def keep_running(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a loop that should never end; it begins anew where it failed."""
        self._tasks.start_soon(self._repeat, loop)

    @staticmethod
    async def _guard(func: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]) -> None:
        try:
            await func(*args)
        except Exception:
            log.exception("task_failed", task=func.__qualname__)

    async def _repeat(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self._guard(loop, ())
            await anyio.sleep(RESTART_AFTER)
