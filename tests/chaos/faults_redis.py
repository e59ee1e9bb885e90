"""The faults of the Redis servers, including what an operator may do to them."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from tests.chaos.faults import Fault
from tests.chaos.world import World, in_thread
from tests.support.cluster_set import ClusterSet, slot_of
from tests.support.server_sets import SetServer
from tests.support.servers import Server

CONSIDERED_DOWN = 0.8
"""Seconds without an answer after which Sentinels or a cluster may promote a replica."""

ROOM = "lobby"
"""The room whose primary the faults affect."""


class ServerFault(Fault):
    """A fault of the servers. No other fault affects them meanwhile, and afterwards the set is complete.

    changes_primaries: the fault causes a failover on purpose, and declares itself whether data may be lost.
    """

    changes_primaries = False

    async def inject(self, world: World) -> None:
        async with world.servers:
            await world.note_takeover()
            await self.apply(world)
            await in_thread(world.fleet.wait_whole)
            if self.changes_primaries:
                world.forget_primaries()
            await world.note_takeover()

    @abstractmethod
    async def apply(self, world: World) -> None:
        """Do it."""

    def may_fail_over(self, world: World) -> bool:
        return world.shape != "single" and self.timing.seconds > CONSIDERED_DOWN


class KillPubsub(ServerFault):
    """Every Pub/Sub connection is closed."""

    name = "kill-pubsub"

    async def apply(self, world: World) -> None:
        await world.on_primaries("CLIENT", "KILL", "TYPE", "pubsub")


class KillNormal(ServerFault):
    """Every other client connection is closed."""

    name = "kill-normal"

    async def apply(self, world: World) -> None:
        await world.on_primaries("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


class ScriptFlush(ServerFault):
    """SCRIPT FLUSH: the script cache is emptied."""

    name = "script-flush"

    async def apply(self, world: World) -> None:
        await world.on_primaries("SCRIPT", "FLUSH")


class Pause(ServerFault):
    """CLIENT PAUSE WRITE: writes wait."""

    name = "client-pause"
    SECONDS = (0.5, 2.5)

    async def apply(self, world: World) -> None:
        await world.on_primaries("CLIENT", "PAUSE", round(self.timing.seconds * 1000), "WRITE")
        await asyncio.sleep(self.timing.seconds)


class PauseAll(ServerFault):
    """CLIENT PAUSE ALL: every command waits, also those of the Sentinels."""

    name = "client-pause-all"
    SECONDS = (0.5, 2.5)

    async def apply(self, world: World) -> None:
        async with world.may_lose_data(self.may_fail_over(world)):
            await world.on_primaries("CLIENT", "PAUSE", round(self.timing.seconds * 1000), "ALL")
            await asyncio.sleep(self.timing.seconds)


class Sleep(ServerFault):
    """DEBUG SLEEP: a primary is blocked, as by a slow script."""

    name = "debug-sleep"
    SECONDS = (0.5, 2.5)

    async def apply(self, world: World) -> None:
        primary = await in_thread(world.fleet.primary_of, ROOM)
        async with world.may_lose_data(self.may_fail_over(world)):
            await in_thread(primary.control.execute_command, "DEBUG", "SLEEP", self.timing.seconds)


class StopServer(ServerFault):
    """SIGSTOP to a primary; if a replica is promoted meanwhile, the old primary resumes afterwards."""

    name = "stop-server"
    SECONDS = (0.5, 4.0)

    async def apply(self, world: World) -> None:
        primary = await in_thread(world.fleet.primary_of, ROOM)
        async with world.may_lose_data(self.may_fail_over(world)):
            primary.pause()
            await asyncio.sleep(self.timing.seconds)
            primary.resume()
            await in_thread(world.fleet.wait_whole)


class EventsOff(ServerFault):
    """notify-keyspace-events is empty for a while."""

    name = "events-off"
    SECONDS = (2.0,)

    async def apply(self, world: World) -> None:
        await world.on_primaries("CONFIG", "SET", "notify-keyspace-events", "")
        await asyncio.sleep(self.timing.seconds)
        await world.on_primaries("CONFIG", "SET", "notify-keyspace-events", "Ex")


class ForgedEvents(ServerFault):
    """An `expired` event is published three times for each key that exists."""

    name = "forged-events"

    async def apply(self, world: World) -> None:
        def forge() -> None:
            for primary in world.fleet.primaries():
                for key in primary.control.scan_iter(match="{reactor:*}:room:*", count=1000):
                    for _ in range(3):
                        primary.control.publish("__keyevent@0__:expired", key)

        await in_thread(forge)


class FlushAll(ServerFault):
    """FLUSHALL on every primary."""

    name = "flushall"

    async def apply(self, world: World) -> None:
        async with world.may_lose_data():
            await world.on_primaries("FLUSHALL")


class _Restart(ServerFault):
    shapes = ("single",)
    SECONDS = (0.0, 1.5)

    async def _down(self, world: World, kill: Callable[[], Any]) -> None:
        await in_thread(kill)
        await asyncio.sleep(self.timing.seconds)
        await in_thread(world.fleet.servers[0].start)


class RestartEmpty(_Restart):
    """Redis is killed and restarts without data."""

    name = "restart-empty"

    async def apply(self, world: World) -> None:
        async with world.may_lose_data():
            await self._down(world, world.fleet.servers[0].kill)


class RestartSaved(_Restart):
    """Redis saves, is killed, and restarts with its data."""

    name = "restart-saved"

    async def apply(self, world: World) -> None:
        async with world.may_lose_data():
            await self._down(world, world.fleet.servers[0].kill_saved)


class RestartOlder(_Restart):
    """Redis is killed some time after it saved, and restarts with the saved data."""

    name = "restart-older"
    SECONDS = (0.5, 1.5)

    async def apply(self, world: World) -> None:
        server = world.fleet.servers[0]
        async with world.may_lose_data():
            await in_thread(server.control.save)
            await asyncio.sleep(self.timing.seconds)
            await self._down(world, lambda: Server.kill(server))


class Failover(ServerFault):
    """A failover without loss: the replica is promoted by command."""

    name = "failover"
    changes_primaries = True
    shapes = ("sentinel", "cluster")

    async def apply(self, world: World) -> None:
        # Sentinel's command does not wait until the replica has caught up; a cluster's does.
        async with world.may_lose_data(world.shape == "sentinel"):
            await in_thread(world.fleet.failover, ROOM)
            await in_thread(world.fleet.wait_whole)


class KillPrimary(ServerFault):
    """A primary is killed, a replica is promoted, and the killed server returns as a replica."""

    name = "kill-primary"
    changes_primaries = True
    shapes = ("sentinel", "cluster")

    async def apply(self, world: World) -> None:
        async with world.may_lose_data():
            old = await in_thread(world.fleet.kill_primary, ROOM)
            await in_thread(world.fleet.promoted, old, ROOM)
            await in_thread(world.fleet.restart, old)


class LossyFailover(ServerFault):
    """A primary is killed after some seconds of writes that no replica has received."""

    name = "lossy-failover"
    changes_primaries = True
    shapes = ("sentinel", "cluster")
    SECONDS = (0.3, 1.0)

    async def apply(self, world: World) -> None:
        async with world.may_lose_data():
            primary: SetServer = await in_thread(world.fleet.primary_of, ROOM)

            def cut_off_and_kill() -> None:
                with world.fleet.unreplicated(primary):
                    time.sleep(self.timing.seconds)
                    primary.kill()

            await in_thread(cut_off_and_kill)
            await in_thread(world.fleet.promoted, primary, ROOM)
            await in_thread(world.fleet.restart, primary)


class MoveSlot(ServerFault):
    """A slot moves to another primary, key by key."""

    name = "move-slot"
    shapes = ("cluster",)
    atomic = False

    async def apply(self, world: World) -> None:
        fleet = world.fleet
        assert isinstance(fleet, ClusterSet)
        slot = slot_of(ROOM)

        def move() -> None:
            fleet.move_slot(slot, fleet.another_primary(fleet.owner_of(slot)), atomic=self.atomic)

        await in_thread(move)


class MoveSlotAtOnce(MoveSlot):
    """A slot moves to another primary with CLUSTER MIGRATESLOTS (Valkey 9)."""

    name = "move-slot-atomic"
    atomic = True
