"""The servers, the nodes, and the network between them: what faults affect and what clients connect to."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import redis

from reactor.presence.format import default_shards
from reactor.presence.keys import Keyspace
from tests.chaos.bans import BanRecords
from tests.chaos.client import ScriptedClient
from tests.chaos.history import History, NodeLife, now_ms
from tests.chaos.nodes import NodeFailedError, NodeProcess, write_skew
from tests.support.proxy import Proxy
from tests.support.server_sets import ServerSet

T = TypeVar("T")

START_TRIES = 40

ROOMS_FILE = '[rooms."brief*"]\nttl = "{brief}s"\n'


class World:
    """The deployment of one schedule. A fault holds the lock `servers` while it affects the servers."""

    def __init__(self, fleet: ServerSet, shape: str, history: History, tree: Path, folder: Path) -> None:
        self.fleet, self.shape, self.history = fleet, shape, history
        self.bans = BanRecords(history)
        self.servers = asyncio.Lock()
        self.nodes: list[NodeProcess] = []
        self.all_nodes: list[NodeProcess] = []
        self.node_locks: list[asyncio.Lock] = []
        self.clients: list[ScriptedClient] = []
        self.links: list[Proxy] = []
        self.tree, self.folder = tree, folder
        self.flags: dict[str, Any] = {}
        self._tasks: set[str] = set()
        self._looked_at = 0

    @classmethod
    @asynccontextmanager
    async def make(
        cls,
        fleet: ServerSet,
        shape: str,
        history: History,
        *,
        tree: Path,
        nodes: int,
        flags: dict[str, Any],
        brief: float,
        skews: list[float],
    ) -> AsyncIterator["World"]:
        """Reset the servers and start the nodes."""
        folder = Path(tempfile.mkdtemp(prefix="reactor-chaos-"))
        world = cls(fleet, shape, history, tree, folder)
        (folder / "rooms.toml").write_text(ROOMS_FILE.format(brief=brief))
        world.flags = {"config": folder / "rooms.toml", **flags}
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            await in_thread(fleet.reset)
            history.began_at = now_ms()
            await in_thread(create_changes, fleet, shape)
            await world.note_takeover()
            stack.push_async_callback(world._end)
            if shape == "single":
                for _ in range(nodes):
                    world.links.append(await stack.enter_async_context(Proxy.to(fleet.servers[0].port)))
            for i in range(nodes):
                write_skew(world.skew_file(i), skews[i])
            world.node_locks = [asyncio.Lock() for _ in range(nodes)]
            world.nodes = list(await asyncio.gather(*(world._new_node(i) for i in range(nodes))))
            yield world

    async def _new_node(self, i: int) -> NodeProcess:
        generation = sum(node.node_life.name.startswith(f"n{i}") for node in self.all_nodes)
        node = NodeProcess(f"n{i}{chr(97 + generation)}", self.folder, self.tree)
        self.all_nodes.append(node)
        url = f"redis://127.0.0.1:{self.links[i].port}/0" if self.links else self.fleet.url
        await node.start({"redis-url": url, **self.flags}, self.skew_file(i))
        return node

    async def replace_node(self, i: int) -> None:
        """Wait for the end of a node's process, and start a new process in its place."""
        await self.nodes[i].ended()
        for tries_left in reversed(range(START_TRIES)):
            try:
                self.nodes[i] = await self._new_node(i)
            except NodeFailedError:  # expected while Redis is unavailable; a process manager would retry, too
                self.all_nodes = [node for node in self.all_nodes if node.port or node is self.nodes[i]]
                if tries_left == 0:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    def skew(self, i: int, seconds: float) -> None:
        """Set the skew of a node's wall clock in seconds."""
        write_skew(self.skew_file(i), seconds)

    def skew_file(self, i: int) -> Path:
        return self.folder / f"skew{i}"

    def pick(self, chance: random.Random) -> tuple[NodeLife, int] | None:
        """A node that accepts clients, and its port. Frozen nodes are included, as behind a load balancer."""
        accepting = [node for node in self.nodes if node.accepting]
        if not accepting:
            return None
        node = chance.choice(accepting)
        return node.node_life, node.port

    @asynccontextmanager
    async def may_lose_data(self, really: bool = True) -> AsyncIterator[None]:
        """Record that Redis may lose acknowledged writes during the block."""
        loss = [now_ms(), now_ms() + 3_600_000]
        if really:
            self.history.losses.append(loss)
        yield
        loss[1] = now_ms()

    def forget_primaries(self) -> None:
        """Expect other primaries at the next look, because a fault has caused a failover on purpose."""
        self._tasks = set()

    async def note_takeover(self) -> None:
        """Record a loss of data if a replica was promoted since the last call, as on a busy machine."""
        tasks = await in_thread(lambda: {str(one.info("server")["run_id"]) for one in self.fleet.primaries()})
        if self._tasks and tasks != self._tasks:
            self.history.losses.append([self._looked_at, now_ms()])
        self._tasks, self._looked_at = tasks, now_ms()

    async def on_primaries(self, *words: str | int) -> None:
        """Run a command on every primary."""

        def give() -> None:
            for primary in self.fleet.primaries():
                primary.control.execute_command(*words)

        await in_thread(give)

    async def _end(self) -> None:
        for node in self.all_nodes:
            if node.started and node.exit_code is None:
                if node.frozen:
                    node.thaw()
                node.kill()
                await node.ended()


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a thread, so that the clients and proxies of this process continue."""
    return await asyncio.to_thread(work, *args)


def create_changes(fleet: ServerSet, shape: str) -> None:
    """Create the log of changes of each shard, so that what users do is logged as for webhooks."""
    shards = default_shards("cluster" if shape == "cluster" else "single")
    for prefix in Keyspace("reactor", shards=shards).prefixes:
        for primary in fleet.primaries():
            with suppress(redis.ResponseError):  # another primary has the slot
                primary.control.xadd(f"{prefix}:changes", {"chaos": ""})
