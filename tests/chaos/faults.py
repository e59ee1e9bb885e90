"""The base class of all faults, and the faults that affect nodes and client sockets."""

import asyncio
import random
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ClassVar

from tests.chaos.history import now_ms
from tests.chaos.world import World

ALL = ("single", "sentinel", "cluster")


@dataclass(frozen=True, slots=True)
class FaultTiming:
    """The drawn parameters of a fault: start, node index, duration, share of clients affected, seed."""

    at: float
    node: int
    seconds: float
    share: float
    seed: int


class Fault(ABC):
    """One kind of fault. When `inject` returns, the fault is over and the system can recover.

    name: its name on the command line and in the report. shapes: the deployments of Redis in which it is
    possible. SECONDS: the durations to draw from.
    """

    name: ClassVar[str]
    shapes: ClassVar[tuple[str, ...]] = ALL
    SECONDS: ClassVar[tuple[float, ...]] = (0.0,)

    def __init__(self, timing: FaultTiming) -> None:
        self.timing = timing

    def __str__(self) -> str:
        seconds = f" {self.timing.seconds:g}s" if self.SECONDS != (0.0,) else ""
        return f"{self.name}@{self.timing.at:.1f}{seconds}"

    @abstractmethod
    async def inject(self, world: World) -> None:
        """Inject the fault and end it."""


class NodeFault(Fault):
    """A fault of one node; no other fault affects the node meanwhile."""

    async def inject(self, world: World) -> None:
        i = self.timing.node % len(world.nodes)
        async with world.node_locks[i]:
            await self.apply(world, i)

    @abstractmethod
    async def apply(self, world: World, i: int) -> None:
        """Inject the fault into the node."""


class Kill(NodeFault):
    """SIGKILL to a node, and a new process in its place after a while."""

    name = "kill"
    SECONDS = (0.0, 1.0, 3.0)

    async def apply(self, world: World, i: int) -> None:
        world.nodes[i].kill()
        await world.nodes[i].ended()
        await asyncio.sleep(self.timing.seconds)
        await world.replace_node(i)


class Freeze(NodeFault):
    """SIGSTOP to a node, and SIGCONT before its lease has expired or long after it has."""

    name = "freeze"
    SECONDS = (0.5, 2.0, 4.5)

    async def apply(self, world: World, i: int) -> None:
        world.nodes[i].freeze()
        await asyncio.sleep(self.timing.seconds)
        world.nodes[i].thaw()


class KillAll(Fault):
    """SIGKILL to all nodes at once, and new processes in their place."""

    name = "kill-all"
    SECONDS = (0.0, 1.5)

    async def inject(self, world: World) -> None:
        for lock in world.node_locks:
            await lock.acquire()
        try:
            for node in world.nodes:
                node.kill()
            await asyncio.sleep(self.timing.seconds)
            await asyncio.gather(*(world.replace_node(i) for i in range(len(world.nodes))))
        finally:
            for lock in world.node_locks:
                lock.release()


class Deploy(Fault):
    """A rolling deploy: SIGTERM to one node after the other, each replaced before the next one stops."""

    name = "deploy"

    async def inject(self, world: World) -> None:
        for i, lock in enumerate(world.node_locks):
            async with lock:
                node = world.nodes[i]
                if not await node.stop():
                    text = f"{node.node_life.name} ended with {node.exit_code} after SIGTERM"
                    world.history.violation("leak", text, *node.log[-8:])
                await world.replace_node(i)


class Skew(NodeFault):
    """The wall clock of a node jumps by half a minute or an hour, and stays there."""

    name = "clock-skew"
    SECONDS = (-3600.0, -30.0, 30.0, 3600.0)

    async def apply(self, world: World, i: int) -> None:
        world.skew(i, self.timing.seconds)


class Drop(Fault):
    """Many sockets are aborted at once; their clients return within the disconnect grace, or after it."""

    name = "drop"
    SECONDS = (0.2, 0.8, 3.0)

    async def inject(self, world: World) -> None:
        chance = random.Random(self.timing.seed)
        for client in world.clients:
            if chance.random() < self.timing.share:
                client.lose("drop", self.timing.seconds * chance.uniform(0.5, 1.0))


class MassDrop(Fault):
    """All sockets are aborted at the same instant, as when a load balancer fails, and again as they return.

    Half of the clients return within the disconnect grace, the others may come after it.
    """

    name = "mass-drop"
    SECONDS = (0.4, 3.0)

    async def inject(self, world: World) -> None:
        chance = random.Random(self.timing.seed)
        for _ in range(2):
            for client in world.clients:
                client.lose("drop", chance.choice((0.2, self.timing.seconds)) * chance.uniform(0.5, 1.0))
            await asyncio.sleep(0.4)


class HalfOpen(Fault):
    """Many sockets stay open but neither send nor read; their clients return over new sockets."""

    name = "half-open"
    SECONDS = (0.2, 0.8, 5.0)

    async def inject(self, world: World) -> None:
        chance = random.Random(self.timing.seed)
        for client in world.clients:
            if chance.random() < self.timing.share:
                client.lose("half-open", self.timing.seconds * chance.uniform(0.5, 1.0))


class CutLink(NodeFault):
    """The connections of a node to Redis are reset several times."""

    name = "cut-link"
    shapes = ("single",)

    async def apply(self, world: World, i: int) -> None:
        for _ in range(3):
            world.links[i].cut()
            await asyncio.sleep(0.15)


class StallLink(NodeFault):
    """No data passes between a node and Redis while the connections stay open; then all of it passes."""

    name = "stall-link"
    shapes = ("single",)
    SECONDS = (0.6, 2.5, 4.5)

    async def apply(self, world: World, i: int) -> None:
        isolated = [now_ms(), now_ms() + 3_600_000]
        world.nodes[i].node_life.impaired.append(isolated)
        world.links[i].withhold()
        await asyncio.sleep(self.timing.seconds)
        world.links[i].release()
        isolated[1] = now_ms()


class LoseReplies(NodeFault):
    """Redis executes the commands of a node, and the replies are lost with the connections."""

    name = "lose-replies"
    shapes = ("single",)
    SECONDS = (0.2, 0.8)

    async def apply(self, world: World, i: int) -> None:
        isolated = [now_ms(), now_ms() + 3_600_000]
        world.nodes[i].node_life.impaired.append(isolated)
        world.links[i].withhold_replies()
        await asyncio.sleep(self.timing.seconds)
        world.links[i].cut()
        world.links[i].release()
        isolated[1] = now_ms()


class StallAllLinks(Fault):
    """No data passes between any node and Redis for a while."""

    name = "stall-all-links"
    shapes = ("single",)
    SECONDS = (0.6, 3.0)

    async def inject(self, world: World) -> None:
        async with world.servers, AsyncExitStack() as locks:
            # A fault of one link would release it before the others: that node would rightly judge them lost.
            for lock in world.node_locks:
                await locks.enter_async_context(lock)
            for link in world.links:
                link.withhold()
            await asyncio.sleep(self.timing.seconds)
            for link in world.links:
                link.release()
