"""Faults done to the servers: what Redis or its operators may do to those who use it."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from tests.chaos.faults import Fault
from tests.chaos.world import World, aside
from tests.support.server_sets import ClusterSet, SetServer, slot_of
from tests.support.servers import Server

TAKEN_FOR_DOWN = 0.8
"""Seconds of silence after which Sentinels or a cluster may put a replica in a primary's place."""

ROOM = "lobby"
"""The room whose primary is harmed."""


class ServerFault(Fault):
    """Something done to the servers; nothing else is done to them meanwhile; afterwards they are whole.

    changes_primaries: it is meant to, and says by itself whether data may be lost by it.
    """

    changes_primaries = False

    async def strike(self, world: World) -> None:
        async with world.servers:
            await world.note_takeover()
            await self.harm(world)
            await aside(world.fleet.wait_whole)
            if self.changes_primaries:
                world.forget_primaries()
            await world.note_takeover()

    @abstractmethod
    async def harm(self, world: World) -> None:
        """Do it."""

    def may_fail_over(self, world: World) -> bool:
        return world.shape != "single" and self.blow.seconds > TAKEN_FOR_DOWN


class KillPubsub(ServerFault):
    """All subscriptions are cut."""

    name = "kill-pubsub"

    async def harm(self, world: World) -> None:
        await world.on_primaries("CLIENT", "KILL", "TYPE", "pubsub")


class KillNormal(ServerFault):
    """All other connections are cut."""

    name = "kill-normal"

    async def harm(self, world: World) -> None:
        await world.on_primaries("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


class ScriptFlush(ServerFault):
    """The cache of scripts is emptied."""

    name = "script-flush"

    async def harm(self, world: World) -> None:
        await world.on_primaries("SCRIPT", "FLUSH")


class Pause(ServerFault):
    """CLIENT PAUSE: writes wait."""

    name = "client-pause"
    SECONDS = (0.5, 2.5)

    async def harm(self, world: World) -> None:
        await world.on_primaries("CLIENT", "PAUSE", round(self.blow.seconds * 1000), "WRITE")
        await asyncio.sleep(self.blow.seconds)


class PauseAll(ServerFault):
    """CLIENT PAUSE: everything waits, also what Sentinels ask."""

    name = "client-pause-all"
    SECONDS = (0.5, 2.5)

    async def harm(self, world: World) -> None:
        async with world.losing(self.may_fail_over(world)):
            await world.on_primaries("CLIENT", "PAUSE", round(self.blow.seconds * 1000), "ALL")
            await asyncio.sleep(self.blow.seconds)


class Sleep(ServerFault):
    """DEBUG SLEEP: a primary does nothing at all, as under a script that takes long."""

    name = "debug-sleep"
    SECONDS = (0.5, 2.5)

    async def harm(self, world: World) -> None:
        primary = await aside(world.fleet.primary_of, ROOM)
        async with world.losing(self.may_fail_over(world)):
            await aside(primary.control.execute_command, "DEBUG", "SLEEP", self.blow.seconds)


class StopServer(ServerFault):
    """SIGSTOP to a primary; where another takes its place, it wakes as one that was replaced."""

    name = "stop-server"
    SECONDS = (0.5, 4.0)

    async def harm(self, world: World) -> None:
        primary = await aside(world.fleet.primary_of, ROOM)
        async with world.losing(self.may_fail_over(world)):
            primary.pause()
            await asyncio.sleep(self.blow.seconds)
            primary.resume()
            await aside(world.fleet.wait_whole)


class EventsOff(ServerFault):
    """Somebody sets notify-keyspace-events to nothing for a while."""

    name = "events-off"
    SECONDS = (2.0,)

    async def harm(self, world: World) -> None:
        await world.on_primaries("CONFIG", "SET", "notify-keyspace-events", "")
        await asyncio.sleep(self.blow.seconds)
        await world.on_primaries("CONFIG", "SET", "notify-keyspace-events", "Ex")


class ForgedEvents(ServerFault):
    """Each living key is said to have expired, three times."""

    name = "forged-events"

    async def harm(self, world: World) -> None:
        def forge() -> None:
            for primary in world.fleet.primaries():
                for key in primary.control.scan_iter(match="{reactor:*}:room:*", count=1000):
                    for _ in range(3):
                        primary.control.publish("__keyevent@0__:expired", key)

        await aside(forge)


class FlushAll(ServerFault):
    """Everything is deleted."""

    name = "flushall"

    async def harm(self, world: World) -> None:
        async with world.losing():
            await world.on_primaries("FLUSHALL")


class _Restart(ServerFault):
    shapes = ("single",)
    SECONDS = (0.0, 1.5)

    async def _down(self, world: World, kill: Callable[[], Any]) -> None:
        await aside(kill)
        await asyncio.sleep(self.blow.seconds)
        await aside(world.fleet.servers[0].start)


class RestartEmpty(_Restart):
    """Redis is killed and starts without data."""

    name = "restart-empty"

    async def harm(self, world: World) -> None:
        async with world.losing():
            await self._down(world, world.fleet.servers[0].kill)


class RestartSaved(_Restart):
    """Redis saves, is killed, and starts with its data."""

    name = "restart-saved"

    async def harm(self, world: World) -> None:
        async with world.losing():
            await self._down(world, world.fleet.servers[0].kill_saved)


class RestartOlder(_Restart):
    """Redis is killed some time after it saved, and starts with what it had then."""

    name = "restart-older"
    SECONDS = (0.5, 1.5)

    async def harm(self, world: World) -> None:
        server = world.fleet.servers[0]
        async with world.losing():
            await aside(server.control.save)
            await asyncio.sleep(self.blow.seconds)
            await self._down(world, lambda: Server.kill(server))


class Failover(ServerFault):
    """A replica takes over in good order."""

    name = "failover"
    changes_primaries = True
    shapes = ("sentinel", "cluster")

    async def harm(self, world: World) -> None:
        # Sentinel's order does not wait for the replica; a cluster's does.
        async with world.losing(world.shape == "sentinel"):
            await aside(world.fleet.failover, ROOM)
            await aside(world.fleet.wait_whole)


class KillPrimary(ServerFault):
    """A primary is killed, a replica takes its place, and later it comes back as a replica."""

    name = "kill-primary"
    changes_primaries = True
    shapes = ("sentinel", "cluster")

    async def harm(self, world: World) -> None:
        async with world.losing():
            old = await aside(world.fleet.kill_primary, ROOM)
            await aside(world.fleet.promoted, old, ROOM)
            await aside(world.fleet.restart, old)


class LossyFailover(ServerFault):
    """A primary is killed whose last seconds of writes reached no replica."""

    name = "lossy-failover"
    changes_primaries = True
    shapes = ("sentinel", "cluster")
    SECONDS = (0.3, 1.0)

    async def harm(self, world: World) -> None:
        async with world.losing():
            primary: SetServer = await aside(world.fleet.primary_of, ROOM)

            def cut_off_and_kill() -> None:
                with world.fleet.unreplicated(primary):
                    time.sleep(self.blow.seconds)
                    primary.kill()

            await aside(cut_off_and_kill)
            await aside(world.fleet.promoted, primary, ROOM)
            await aside(world.fleet.restart, primary)


class MoveSlot(ServerFault):
    """A slot moves to another primary, key by key, under load."""

    name = "move-slot"
    shapes = ("cluster",)
    atomic = False

    async def harm(self, world: World) -> None:
        fleet = world.fleet
        assert isinstance(fleet, ClusterSet)
        slot = slot_of(ROOM)

        def move() -> None:
            fleet.move_slot(slot, fleet.another_primary(fleet.owner_of(slot)), atomic=self.atomic)

        await aside(move)


class MoveSlotAtOnce(MoveSlot):
    """The same by CLUSTER MIGRATESLOTS (Valkey 9)."""

    name = "move-slot-atomic"
    atomic = True
