"""Faults of the index of people: a node dies between what it writes there and what it writes in the room."""

import asyncio
from typing import ClassVar

from tests.chaos.faults import NodeFault
from tests.chaos.world import World

REACHED_WITHIN = 3.0
"""Seconds in which some client joins or leaves; else the node is killed without that."""


class _KillAt(NodeFault):
    """A node kills itself at a point, and a new process starts in its place after a while."""

    SECONDS = (0.0, 2.0)
    point: ClassVar[str]

    async def apply(self, world: World, i: int) -> None:
        await world.nodes[i].kill_at(self.point, REACHED_WITHIN)
        await world.nodes[i].ended()
        await asyncio.sleep(self.timing.seconds)
        await world.replace_node(i)


class KillBeforeJoin(_KillAt):
    """The index has the room of a user, and the join is never sent."""

    name, point = "kill-before-join", "index-join"


class KillBeforeExit(_KillAt):
    """A departure has been made, and its node does not take it into the index."""

    name, point = "kill-before-exit", "departure-index"
