"""Half a minute of random actions: in the end all agree, and no diff was sent twice or left out.

The oracle shares no code with the reactor: what every client received, replayed strictly, against plain
reads of Redis, and against what was done to each client.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from websockets.exceptions import ConnectionClosed

from reactor.server.node import Node
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.node.replay import Replay

ROOMS = ("lobby", "attic", "a:b{c}", "brief")
CLIENTS = 40
SECONDS = 24.0
TTL, GRACE = 2.5, 0.8
SEEDS = [int(seed) for seed in os.environ.get("REACTOR_TEST_SEEDS", "1").split(",")]


class Person:
    """A client that does something at random every now and then.

    `past` holds its sockets, `here` the one that it still has when the time is over.
    """

    def __init__(self, name: str, nodes: Sequence[Node | NodeProcess], chance: random.Random) -> None:
        self.name = name
        self.past: list[RawClient] = []
        self.here: RawClient | None = None
        self.done: Counter[str] = Counter()
        self._nodes, self._chance = nodes, chance

    async def live(self, stop_at: float, over: anyio.Event) -> None:
        """Open one connection after the other until the time has passed, and keep the last until the end."""
        while anyio.current_time() < stop_at:
            async with RawClient.connect(self._chance.choice(self._nodes)) as client:
                self.past.append(client)
                client.start_heartbeats(0.3)
                try:
                    while anyio.current_time() < stop_at:
                        await self._act(client)
                    self.here = client if client.open else None
                except (ConnectionClosed, AssertionError):
                    assert client.socket.close_code in (1000, 1006, 4003), client.socket.close_code
                if self.here is not None:
                    await over.wait()
                    return
            # Away for less than the grace, or for longer.
            await anyio.sleep(self._chance.choice((0.01, 0.1, 0.3, GRACE * 2)))

    async def _act(self, client: RawClient) -> None:
        """Do one thing; it may end the connection."""
        room = self._chance.choice(ROOMS)
        action = self._chance.choices(
            ("join", "leave", "update", "away", "back", "drop", "silence", "close", "wait"),
            (40, 12, 10, 4, 4, 5, 2, 2, 20),
        )[0]
        self.done[action] += 1
        match action:
            case "join":
                await client.answer("join_room", roomId=room, userId=self.name)
            case "leave":
                await client.answer("leave_room", roomId=room)
            case "update":
                await client.answer("room:update", roomId=room, data=self._chance.random())
            case "away" | "back":
                await client.answer(f"room:{action}", roomId=room)
            case "drop":
                client.vanish()
                await client.closed()
            case "silence":
                client.stop_heartbeats()
                await anyio.sleep(TTL * self._chance.choice((0.3, 1.3)))
                client.start_heartbeats(0.3)
            case "close":
                await client.socket.close()
        await anyio.sleep(self._chance.uniform(0.0, 0.4))


@asynccontextmanager
async def observer(node: Node) -> AsyncIterator[RawClient]:
    """A member that is in all rooms all the time."""
    async with RawClient.connect(node) as client:
        for room in ROOMS:
            await client.join(room, f"observer {node.name()}")
        yield client.start_heartbeats(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("harmed", [False, True], ids=["unharmed", "harmed"])
async def test_after_a_random_session_all_clients_agree_with_redis(
    redis_server: Server, seed: int, harmed: bool
) -> None:
    chance = random.Random(seed)
    options: dict[str, Any] = {
        "ttl": TTL,
        "grace": GRACE,
        "away_grace": GRACE * 2,
        "lease": 2.0,
        "sweep_interval": 5,
        "diff_window": 0.05 if harmed else 0,
        "rooms": (RoomRule(match="brief", ttl=1.5),),
    }
    async with (
        served(redis_server, **options) as one,
        served(redis_server, **options) as two,
        observer(one) as near,
        observer(two) as far,
    ):
        # Some users have two connections, on any node.
        names = [f"u{number % 30}" for number in range(CLIENTS)]
        people = [Person(name, [one, two], random.Random(chance.random())) for name in names]
        stop_at, over = anyio.current_time() + SECONDS, anyio.Event()
        lives = [asyncio.create_task(person.live(stop_at, over)) for person in people]
        if harmed:
            await _harm(redis_server, stop_at, random.Random(chance.random()))
        await anyio.sleep(stop_at + 0.5 - anyio.current_time())
        print(seed, sum((person.done for person in people), Counter()))  # noqa: T201 - for one who looks

        here = [person.here for person in people if person.here is not None]
        assert len(here) > CLIENTS / 4
        await until(lambda: all_agree(redis_server, [near, far, *here]))
        _agrees_with_the_record(redis_server, [near, far], exactly=not harmed)
        over.set()
        await asyncio.gather(*lives)

        # All connections are closed; what they left expires, and then nothing is left.
        await until(lambda: all(len(_known(near, room)) == len(_known(far, room)) == 2 for room in ROOMS))
        assert all_agree(redis_server, [near, far])
        _agrees_with_the_record(redis_server, [near, far], exactly=not harmed)
        for person in people:
            for client in person.past:
                assert all(Replay.of(client, room) for room in ROOMS)  # no gap in any room
                assert {m["code"] for m in client.of("error")} <= {"not_joined", "unavailable"}
        for client in (near, far):
            for room in ROOMS:
                await client.ask("leave_room", "room:left", roomId=room)
        await until(lambda: set(redis_state.leftovers(redis_server)) <= {"{reactor:fleet}:registry"})
        assert redis_state.everywhere(redis_server) == {}
    assert redis_state.leftovers(redis_server) == []


def _known(client: RawClient, room: str) -> dict[str, Any]:
    return Replay.of(client, room).members


def all_agree(server: Server, clients: list[RawClient], *, after_outage: bool = False) -> bool:
    """Whether every client in a room has what Redis has, at the same position."""
    for room in ROOMS:
        position: Any = server.control.hgetall(
            f"{redis_state.prefix(room)}:state:{redis_state.encoded(room)}"
        )
        present = redis_state.members(server, room)
        for client in clients:
            replay = Replay.of(client, room, after_outage=after_outage)
            if not replay.inside:
                continue
            if (replay.epoch, str(replay.version)) != (position["epoch"], position["version"]):
                return False
            if {user: member["joinedAt"] for user, member in replay.members.items()} != {
                user: int(fields["joinedAt"]) for user, fields in present.items()
            }:
                return False
    return True


def _agrees_with_the_record(server: Server, observers: list[RawClient], *, exactly: bool) -> None:
    """Each departure was sent to each observer as often as it is on record: once, for the same reason.

    What happens while an observer's node has no link is sent as its net effect, so it may be sent less often.
    """
    for room in ROOMS:
        recorded = Counter((entry["user"], entry["reason"]) for entry in redis_state.stream(server, room))
        assert sum(recorded.values()) > 10
        for client in observers:
            received = Counter(departures(client.received, room))
            assert received == recorded if exactly else received <= recorded


async def _harm(server: Server, stop_at: float, chance: random.Random) -> None:
    """Now and then links are cut, scripts are flushed, and the server stalls."""
    while anyio.current_time() < stop_at - 2:
        await anyio.sleep(chance.uniform(0.5, 2.0))
        match chance.choice(("pubsub", "normal", "scripts", "stall")):
            case "scripts":
                server.control.script_flush()
            case "stall":
                server.pause()
                await anyio.sleep(0.3)
                server.resume()
            case kind:
                server.control.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
