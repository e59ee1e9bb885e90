"""Waking all who wait for something to change."""

import anyio


class Signal:
    """Check, and while it is not so, `await wait()` and check again: no change is missed in between."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def fire(self) -> None:
        """Wake all who wait now."""
        event, self._event = self._event, anyio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._event.wait()
