"""Waiting in tests: for a condition, or for a condition that changes when an object notifies it."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import anyio
import redis

PATIENCE = 60.0
"""Seconds after which a test that waits fails. Generous, so that a busy machine does not fail it.

Where a test waits for something to end that ought to end soon, it waits so long too: what it judges is the
outcome, or a time of the product's own that is set to be longer than this.
"""

_EVERY = 0.005
"""Seconds between two evaluations of a condition that nothing announces."""


async def until(condition: Callable[[], Any], *, what: str = "", patience: float = PATIENCE) -> Any:
    """Return the first true value of `condition`, evaluated every few milliseconds.

    Use it only where no event announces the change. `what` describes the condition in the failure message;
    without it the message shows the condition's source. Raises AssertionError after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, _failure(condition, what, patience)
        await anyio.sleep(_EVERY)
    return value


def until_blocking(condition: Callable[[], Any], *, what: str = "", patience: float = PATIENCE) -> Any:
    """Return the first true value of `condition`, as `until` does, but block the thread meanwhile.

    A lost connection to a Redis server counts as false: the server may be on its way down or up.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            if value := condition():
                return value
        except redis.ConnectionError:
            pass
        assert time.monotonic() < deadline, _failure(condition, what, patience)
        time.sleep(0.02)


class Changes:
    """Wakes the coroutines that wait for an object to change, so that they need not poll it."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake every coroutine that waits."""
        event, self._event = self._event, anyio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next notification."""
        await self._event.wait()

    async def until(
        self, condition: Callable[[], Any], *, what: str | Callable[[], str] = "", patience: float = PATIENCE
    ) -> Any:
        """Return the first true value of `condition`, evaluated now and after each notification.

        `what` may be a function that describes the state at the time of the failure. Raises AssertionError
        after `patience` seconds.
        """
        with anyio.move_on_after(patience):
            while not (value := condition()):
                await self.wait()
            return value
        raise AssertionError(_failure(condition, what if isinstance(what, str) else what(), patience))


def describe(condition: Callable[..., Any]) -> str:
    """The source of a condition, for failure messages."""
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)


def _failure(condition: Callable[[], Any], what: str, patience: float) -> str:
    return f"not true after {patience:g} s: {what or describe(condition)}"
