"""Work that runs on beside everything else: a mistake in one piece of it never takes the node down."""

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
    """Starts tasks in a group; one that fails is logged, and the others go on."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> None:
        """Start a piece of work whose failure concerns only itself."""
        self._tasks.start_soon(self._guard, func, args)

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
