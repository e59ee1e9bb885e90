"""Faults of what Redis holds, and of who else uses it."""

import asyncio
import os
import random
import subprocess
import sys

import redis

from tests.chaos.bans import BanRecords
from tests.chaos.client_socket import ClientSocket
from tests.chaos.faults_redis import ServerFault
from tests.chaos.history import History, now_ms
from tests.chaos.nodes import NodeFailedError, NodeProcess
from tests.chaos.world import World, in_thread

ENDS_WITHIN = 60.0
"""Seconds within which a node that must not serve has ended, on a busy machine."""

HOUR = 3_600_000

ELSEWHERE = "someone elsewhere"
"""A user of another database alone."""

LATER = """
-- The clock is set back: what it is compared with is an hour later. Times that are shown stay as they are.
local by = tonumber(ARGV[1])
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', '{reactor:*', 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local deadline = not string.find(key, ':ban:', 1, true) and redis.call('PEXPIRETIME', key) or 0
    if deadline > 0 then redis.call('PEXPIREAT', key, deadline + by) end
    if string.find(key, ':members:', 1, true) or string.match(key, ':rooms$') then
      for _, row in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, by, row) end
    end
    if string.match(key, ':pulse$') then
      for _, field in ipairs({ 'at', 'hold' }) do
        local value = tonumber(redis.call('HGET', key, field) or nil)
        if value and value > 0 then redis.call('HSET', key, field, string.format('%.0f', value + by)) end
      end
    end
  end
until cursor == '0'
"""


class Evict(ServerFault):
    """maxmemory is reached for a moment, and keys with a TTL are evicted."""

    name = "evict"
    SECONDS = (0.3, 1.0)

    async def apply(self, world: World) -> None:
        gap = [now_ms(), now_ms() + HOUR]
        world.bans.gaps.append(gap)
        async with world.may_lose_data():
            await in_thread(self._evict, world)
            await asyncio.sleep(self.timing.seconds)
            await world.on_primaries("CONFIG", "SET", "maxmemory", "0")
            await world.on_primaries("CONFIG", "SET", "maxmemory-policy", "noeviction")
        # A sweep restores the bans: every 2.5 s, if it was not delayed.
        gap[1] = now_ms() + 10_000

    @staticmethod
    def _evict(world: World) -> None:
        for primary in world.fleet.primaries():
            control = primary.control
            control.config_set("maxmemory-policy", "volatile-random")
            used = int(control.info("memory")["used_memory"])
            control.config_set("maxmemory", str(used - 20_000))


class ClockStep(ServerFault):
    """The clock of the Redis host is set back by an hour."""

    name = "redis-clock-step"
    shapes = ("single", "sentinel")

    async def apply(self, world: World) -> None:
        def step() -> None:
            for primary in world.fleet.primaries():
                primary.control.eval(LATER, 0, HOUR)

        await in_thread(step)


class OtherFormat(ServerFault):
    """A node with another number of shards starts, which must refuse to serve, and write nothing."""

    name = "other-format"

    async def apply(self, world: World) -> None:
        key = "{reactor:fleet}:format"
        held = await in_thread(self._read, world, key)
        if not held:
            return  # lost by another fault: the first to come decides
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reactor", "serve", "--port", "0", "--log-format", "json",
            "--redis-url", world.fleet.url, "--shards", "5",
            cwd=world.tree, env=os.environ | {"PYTHONPATH": str(world.tree)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            _, log = await asyncio.wait_for(process.communicate(), ENDS_WITHIN)
        except TimeoutError:
            process.kill()
            _, log = await process.communicate()
        text = log.decode(errors="replace")
        if process.returncode in {0, -9} or "shards" not in text:
            code = process.returncode
            world.history.violation("format", f"a node with other shards ended with {code}", text[-2000:])
        if await in_thread(self._read, world, key) != held:
            world.history.violation("format", "the format of the namespace has changed", str(held))

    @staticmethod
    def _read(world: World, key: str) -> dict[str, str]:
        for primary in world.fleet.primaries():
            try:
                if found := primary.control.hgetall(key):
                    return {str(name): str(value) for name, value in found.items()}
            except redis.RedisError:  # another primary of the cluster has it
                continue
        return {}


class TwoDatabases(ServerFault):
    """A fleet of its own in another database of the same server, with the same namespace, rooms and users."""

    name = "two-databases"
    shapes = ("single",)
    SECONDS = (2.0, 4.0)

    async def inject(self, world: World) -> None:
        # Other faults may affect the server meanwhile.
        await self.apply(world)

    async def apply(self, world: World) -> None:
        number = random.Random(self.timing.seed).randrange(1, 16)
        history = History(world.history.grace, world.history.lease, world.history.ttl_of)
        node = NodeProcess(f"db{number}", world.folder, world.tree)
        url = f"redis://127.0.0.1:{world.fleet.servers[0].port}/{number}"
        try:
            await node.start({**world.flags, "redis-url": url}, world.skew_file(0))
        except NodeFailedError as error:
            world.history.violation("databases", f"no node for database {number}: {error}")
            return
        try:
            await self._live(world, history, node)
        finally:
            node.kill()
            await node.ended()

    async def _live(self, world: World, history: History, node: NodeProcess) -> None:
        """Users with the names of others are in the same rooms, and see themselves alone."""
        bans = BanRecords(history, proves_users=world.bans.proves_users)
        sockets = [
            await ClientSocket.open(history, bans, user, f"{user} elsewhere", node.node_life, node.port)
            for user in ("u1", "u2", ELSEWHERE)
        ]
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.timing.seconds
        for socket in sockets:
            socket.send("join_room", "lobby", userId=socket.user)
        number = 0
        while loop.time() < ends:
            number += 1
            for socket in sockets:
                socket.send("room:heartbeat")
                if "lobby" in socket.inside:
                    socket.send("room:update", "lobby", data={"n": number})
            await asyncio.sleep(0.3)
        self._compare(world, sockets)
        for socket in sockets:
            socket.cut()
        # Some rules need no Redis to have kept its data, such as that diffs follow each other.
        losses = world.history.losses
        if not losses:
            world.history.violations += history.violations

    @staticmethod
    def _compare(world: World, sockets: list[ClientSocket]) -> None:
        """Neither of the two databases shows who is in the other."""
        names = {socket.user for socket in sockets}
        clients = [client.socket for client in world.clients if client.socket is not None]
        for ours in (sockets, clients):
            for socket in [one for one in ours if "lobby" in one.inside]:
                seen = socket.views["lobby"].members.keys()
                wrong = seen - names if ours is sockets else seen & {ELSEWHERE}
                if wrong:
                    text = f"{socket.name} sees members of another database: {sorted(wrong)}"
                    world.history.violation("databases", text)
