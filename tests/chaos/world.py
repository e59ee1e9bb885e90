"""The servers, the nodes on them, and the links between: what faults are done to, and where clients go."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.history import History, Life, now_ms
from tests.chaos.nodes import NodeFailedError, NodeProcess, write_skew
from tests.chaos.person import Person
from tests.support.proxy import Proxy
from tests.support.server_sets import ServerSet

T = TypeVar("T")

START_TRIES = 40

ROOMS_FILE = '[rooms."brief*"]\nttl = "{brief}s"\n'


class World:
    """Everything of one schedule. `servers` is held by whoever harms the servers, one at a time."""

    def __init__(self, fleet: ServerSet, shape: str, history: History, tree: Path, folder: Path) -> None:
        self.fleet, self.shape, self.history = fleet, shape, history
        self.servers = asyncio.Lock()
        self.nodes: list[NodeProcess] = []
        self.all_nodes: list[NodeProcess] = []
        self.node_locks: list[asyncio.Lock] = []
        self.people: list[Person] = []
        self.links: list[Proxy] = []
        self._tree, self._folder = tree, folder
        self._flags: dict[str, Any] = {}
        self._lives: set[str] = set()
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
        """Servers as new, and nodes that serve."""
        folder = Path(tempfile.mkdtemp(prefix="reactor-chaos-"))
        world = cls(fleet, shape, history, tree, folder)
        (folder / "rooms.toml").write_text(ROOMS_FILE.format(brief=brief))
        world._flags = {"config": folder / "rooms.toml", **flags}
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            await aside(fleet.reset)
            history.began_at = now_ms()
            await world.note_takeover()
            stack.push_async_callback(world._end)
            if shape == "single":
                for _ in range(nodes):
                    world.links.append(await stack.enter_async_context(Proxy.to(fleet.servers[0].port)))
            for i in range(nodes):
                write_skew(world._skew_file(i), skews[i])
            world.node_locks = [asyncio.Lock() for _ in range(nodes)]
            world.nodes = list(await asyncio.gather(*(world._new_node(i) for i in range(nodes))))
            yield world

    async def _new_node(self, i: int) -> NodeProcess:
        generation = sum(node.life.name.startswith(f"n{i}") for node in self.all_nodes)
        node = NodeProcess(f"n{i}{chr(97 + generation)}", self._folder, self._tree)
        self.all_nodes.append(node)
        url = f"redis://127.0.0.1:{self.links[i].port}/0" if self.links else self.fleet.url
        await node.start({"redis-url": url, **self._flags}, self._skew_file(i))
        return node

    async def replace_node(self, i: int) -> None:
        """Start a node in the place of one that has ended, or is about to."""
        await self.nodes[i].ended()
        for tries_left in reversed(range(START_TRIES)):
            try:
                self.nodes[i] = await self._new_node(i)
            except NodeFailedError:  # as it should, when Redis is away: whoever runs it for real tries again
                self.all_nodes = [node for node in self.all_nodes if node.port or node is self.nodes[i]]
                if tries_left == 0:
                    raise
                await asyncio.sleep(0.5)
            else:
                return

    def skew(self, i: int, seconds: float) -> None:
        """Set a node's wall clock off by so much."""
        write_skew(self._skew_file(i), seconds)

    def _skew_file(self, i: int) -> Path:
        return self._folder / f"skew{i}"

    def pick(self, chance: random.Random) -> tuple[Life, int] | None:
        """A node that takes sockets, and its port; a balancer does not notice that one is frozen."""
        open_to_all = [node for node in self.nodes if node.accepting]
        if not open_to_all:
            return None
        node = chance.choice(open_to_all)
        return node.life, node.port

    @asynccontextmanager
    async def losing(self, really: bool = True) -> AsyncIterator[None]:
        """Note that what happens in the block may lose what Redis had taken."""
        loss = [now_ms(), now_ms() + 3_600_000]
        if really:
            self.history.losses.append(loss)
        yield
        loss[1] = now_ms()

    def forget_primaries(self) -> None:
        """Others may be primaries by what was done just now."""
        self._lives = set()

    async def note_takeover(self) -> None:
        """Note where a replica took over by itself since the last look, as on a machine that is too busy."""
        lives = await aside(lambda: {str(one.info("server")["run_id"]) for one in self.fleet.primaries()})
        if self._lives and lives != self._lives:
            self.history.losses.append([self._looked_at, now_ms()])
        self._lives, self._looked_at = lives, now_ms()

    async def on_primaries(self, *words: str | int) -> None:
        """Give all primaries one command."""

        def give() -> None:
            for primary in self.fleet.primaries():
                primary.control.execute_command(*words)

        await aside(give)

    async def _end(self) -> None:
        for node in self.all_nodes:
            if node.started and node.exit_code is None:
                if node.frozen:
                    node.thaw()
                node.kill()
                await node.ended()


async def aside(work: Callable[..., T], *args: Any) -> T:
    """Do what blocks in a thread: clients and links of this process go on."""
    return await asyncio.to_thread(work, *args)
