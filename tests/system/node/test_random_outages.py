"""Random outages: Redis restarts empty, is flushed, stalls, a node freezes. In the end all agree."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.node.replay import Replay
from tests.system.node.test_random_session import GRACE, ROOMS, SEEDS, TTL, Person, all_agree, observer

SECONDS = 26.0
SETTLED = 6.0
"""Seconds after which the last outage is over for all: the lease for which expiry is suspended, and more."""


class Stubborn(Person):
    """A client that reconnects whatever happens to its connection."""

    async def live(self, stop_at: float, over: anyio.Event) -> None:
        while anyio.current_time() < stop_at:
            try:
                async with self._socket() as client:
                    if await self._use(client, stop_at):
                        self.here = client
                        await over.wait()
                        return
            except (OSError, TimeoutError):
                pass  # no node listens, or a frozen one does
            await anyio.sleep(self._chance.choice((0.01, 0.1, 0.3, GRACE * 2)))

    @asynccontextmanager
    async def _socket(self) -> AsyncIterator[RawClient]:
        async with RawClient.connect(self._chance.choice(self._nodes), open_timeout=20) as client:
            self.past.append(client)
            yield client.start_heartbeats(0.3)

    async def _use(self, client: RawClient, stop_at: float) -> bool:
        """Whether the connection is open when the time has passed."""
        try:
            while anyio.current_time() < stop_at:
                await self._act(client)
        except (ConnectionClosed, AssertionError, TimeoutError):
            return False  # closed, or its node is frozen for too long
        return client.open


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_after_random_outages_all_clients_agree_with_redis(bundled_server: Server, seed: int) -> None:
    chance = random.Random(seed)
    options: dict[str, Any] = {
        "ttl": TTL,
        "grace": GRACE,
        "away_grace": GRACE * 2,
        "lease": 1.5,
        "sweep_interval": 3,
    }
    async with (
        NodeProcess.start(bundled_server, **options) as frozen,
        served(bundled_server, **options) as one,
        served(bundled_server, **options) as two,
        observer(one) as near,
        observer(two) as far,
    ):
        names = [f"u{number % 20}" for number in range(26)]
        people = [Stubborn(name, [one, two, frozen], random.Random(chance.random())) for name in names]
        stop_at, over = anyio.current_time() + SECONDS, anyio.Event()
        lives = [asyncio.create_task(person.live(stop_at, over)) for person in people]
        await _outages(bundled_server, frozen, stop_at - 4, random.Random(chance.random()))
        await anyio.sleep(stop_at + SETTLED - anyio.current_time())

        here = {person: person.here for person in people if person.here is not None and person.here.open}
        assert len(here) > 8
        await until(lambda: all_agree(bundled_server, [near, far, *here.values()], after_outage=True))
        for person, client in here.items():  # a client that believes it is in the room is in it
            for room in ROOMS:
                if Replay.of(client, room, after_outage=True).inside:
                    assert person.name in redis_state.members(bundled_server, room)
                    assert (await client.answer("room:heartbeat", roomId=room))["type"].endswith(":ack")
        over.set()
        await asyncio.gather(*lives)
        for client in (near, far):
            assert client.open
            for room in ROOMS:
                await client.ask("leave_room", "room:left", roomId=room)
        await until(lambda: set(redis_state.leftovers(bundled_server)) <= {"{reactor:fleet}:registry"})
        assert redis_state.everywhere(bundled_server) == {}


async def _outages(server: Server, node: NodeProcess, stop_at: float, chance: random.Random) -> None:
    while anyio.current_time() < stop_at:
        await anyio.sleep(chance.uniform(1.0, 4.0))
        match chance.choice(("flush", "restart", "freeze", "stall", "pubsub", "normal")):
            case "flush":
                server.control.flushall()
            case "restart":
                server.kill()
                await anyio.sleep(chance.uniform(0.0, 1.5))
                server.start()
            case "freeze":
                node.send(signal.SIGSTOP)
                await anyio.sleep(chance.choice((0.5, 3.0)))
                node.send(signal.SIGCONT)
            case "stall":
                server.pause()
                await anyio.sleep(chance.choice((0.4, 3.5)))
                server.resume()
            case kind:
                server.control.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
