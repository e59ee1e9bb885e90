"""A job that one node of the fleet does at a time; another takes over within two seconds."""

from collections.abc import Callable

import anyio

from reactor.errors import Unavailable
from reactor.fleet.registry import Fleet

TURN_MS = 1500
RENEWED_EVERY = 0.5


class Turn:
    """Whether a job is this node's. `serve` has to run.

    on_change(held) is called when the turn comes and when it goes. `held_elsewhere` tells whether another
    node was seen to have it at the last asking; while Redis does not answer, none was.
    """

    def __init__(
        self, fleet: Fleet, job: str, *, node: Callable[[], str], on_change: Callable[[bool], None]
    ) -> None:
        self._fleet, self._job, self._node, self._on_change = fleet, job, node, on_change
        self.held = False
        self.held_elsewhere = False

    async def serve(self) -> None:
        """Ask for the turn, and keep it, until cancelled."""
        while True:
            try:
                held = await self._fleet.take_turn(self._job, self._node(), milliseconds=TURN_MS)
                self.held_elsewhere = not held
            except Unavailable:
                held = self.held_elsewhere = False
            if held != self.held:
                self.held = held
                self._on_change(held)
            await anyio.sleep(RENEWED_EVERY)
