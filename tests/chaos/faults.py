"""Faults: what each does, and what it takes. Here are those done to nodes and to clients' sockets."""

import asyncio
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from tests.chaos.history import now_ms
from tests.chaos.world import World

ALL = ("single", "sentinel", "cluster")


@dataclass(frozen=True, slots=True)
class Blow:
    """When and how hard a fault strikes. `node` is an index, `seconds` how long, `share` of how many."""

    at: float
    node: int
    seconds: float
    share: float
    seed: int


class Fault(ABC):
    """One way in which things go wrong. It mends itself: when `strike` returns, all can heal.

    name: as it stands in the table. shapes: where it can happen. SECONDS: how long it may last.
    """

    name: ClassVar[str]
    shapes: ClassVar[tuple[str, ...]] = ALL
    SECONDS: ClassVar[tuple[float, ...]] = (0.0,)

    def __init__(self, blow: Blow) -> None:
        self.blow = blow

    def __str__(self) -> str:
        seconds = f" {self.blow.seconds:g}s" if self.SECONDS != (0.0,) else ""
        return f"{self.name}@{self.blow.at:.1f}{seconds}"

    @abstractmethod
    async def strike(self, world: World) -> None:
        """Do it."""


class NodeFault(Fault):
    """Something done to one node; nothing else is done to it meanwhile."""

    async def strike(self, world: World) -> None:
        i = self.blow.node % len(world.nodes)
        async with world.node_locks[i]:
            await self.harm(world, i)

    @abstractmethod
    async def harm(self, world: World, i: int) -> None:
        """Do it to the node."""


class Kill(NodeFault):
    """SIGKILL; another process takes the node's place after a while."""

    name = "kill"
    SECONDS = (0.0, 1.0, 3.0)

    async def harm(self, world: World, i: int) -> None:
        world.nodes[i].kill()
        await world.nodes[i].ended()
        await asyncio.sleep(self.blow.seconds)
        await world.replace_node(i)


class Freeze(NodeFault):
    """SIGSTOP, and SIGCONT for less than a lease later, or for long: then a zombie wakes."""

    name = "freeze"
    SECONDS = (0.5, 2.0, 4.5)

    async def harm(self, world: World, i: int) -> None:
        world.nodes[i].freeze()
        await asyncio.sleep(self.blow.seconds)
        world.nodes[i].thaw()


class KillAll(Fault):
    """SIGKILL to all nodes at once; others take their places."""

    name = "kill-all"
    SECONDS = (0.0, 1.5)

    async def strike(self, world: World) -> None:
        for lock in world.node_locks:
            await lock.acquire()
        try:
            for node in world.nodes:
                node.kill()
            await asyncio.sleep(self.blow.seconds)
            await asyncio.gather(*(world.replace_node(i) for i in range(len(world.nodes))))
        finally:
            for lock in world.node_locks:
                lock.release()


class Deploy(Fault):
    """SIGTERM to one node after the other, each replaced before the next one's turn."""

    name = "deploy"

    async def strike(self, world: World) -> None:
        for i, lock in enumerate(world.node_locks):
            async with lock:
                node = world.nodes[i]
                if not await node.stop():
                    text = f"{node.life.name} ended with {node.exit_code} after SIGTERM"
                    world.history.trouble("leak", text, *node.log[-8:])
                await world.replace_node(i)


class Skew(NodeFault):
    """The node's wall clock jumps, by half a minute or by an hour, and stays so."""

    name = "clock-skew"
    SECONDS = (-3600.0, -30.0, 30.0, 3600.0)

    async def harm(self, world: World, i: int) -> None:
        world.skew(i, self.blow.seconds)


class Drop(Fault):
    """Many sockets are cut at once; their owners are back within the grace, or after it."""

    name = "drop"
    SECONDS = (0.2, 0.8, 3.0)

    async def strike(self, world: World) -> None:
        chance = random.Random(self.blow.seed)
        for person in world.people:
            if chance.random() < self.blow.share:
                person.lose("drop", self.blow.seconds * chance.uniform(0.5, 1.0))


class HalfOpen(Fault):
    """Many sockets fall silent and read nothing, but stay open; their owners come back over others."""

    name = "half-open"
    SECONDS = (0.2, 0.8, 5.0)

    async def strike(self, world: World) -> None:
        chance = random.Random(self.blow.seed)
        for person in world.people:
            if chance.random() < self.blow.share:
                person.lose("half-open", self.blow.seconds * chance.uniform(0.5, 1.0))


class CutLink(NodeFault):
    """A node's connections to Redis are reset, again and again."""

    name = "cut-link"
    shapes = ("single",)

    async def harm(self, world: World, i: int) -> None:
        for _ in range(3):
            world.links[i].cut()
            await asyncio.sleep(0.15)


class StallLink(NodeFault):
    """Nothing passes between a node and Redis, and no connection breaks; then everything passes, late."""

    name = "stall-link"
    shapes = ("single",)
    SECONDS = (0.6, 2.5, 4.5)

    async def harm(self, world: World, i: int) -> None:
        alone = [now_ms(), now_ms() + 3_600_000]
        world.nodes[i].life.impaired.append(alone)
        world.links[i].withhold()
        await asyncio.sleep(self.blow.seconds)
        world.links[i].release()
        alone[1] = now_ms()


class LoseReplies(NodeFault):
    """Redis takes what a node says, and its answers get lost with the connections."""

    name = "lose-replies"
    shapes = ("single",)
    SECONDS = (0.2, 0.8)

    async def harm(self, world: World, i: int) -> None:
        alone = [now_ms(), now_ms() + 3_600_000]
        world.nodes[i].life.impaired.append(alone)
        world.links[i].withhold_replies()
        await asyncio.sleep(self.blow.seconds)
        world.links[i].cut()
        world.links[i].release()
        alone[1] = now_ms()


class StallAllLinks(Fault):
    """Nothing passes between any node and Redis."""

    name = "stall-all-links"
    shapes = ("single",)
    SECONDS = (0.6, 3.0)

    async def strike(self, world: World) -> None:
        async with world.servers:
            for link in world.links:
                link.withhold()
            await asyncio.sleep(self.blow.seconds)
            for link in world.links:
                link.release()
