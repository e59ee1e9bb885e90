"""Links to Redis are cut, scripts are lost, data is lost, the server is gone for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from websockets.exceptions import ConnectionClosed

from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.node.replay import Replay


@asynccontextmanager
async def crowd(nodes: list[Node], size: int, room_id: str = "lobby") -> AsyncIterator[list[RawClient]]:
    """So many members of a room, spread over the nodes, each with heartbeats."""
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(size):
            client = await stack.enter_async_context(RawClient.connect(nodes[number % len(nodes)]))
            await client.join(room_id, f"u{number}", data=number)
            clients.append(client.start_heartbeats(0.15))
        yield clients


async def _agree(server: Server, clients: list[RawClient], room_id: str = "lobby") -> None:
    """Wait until all hold what Redis holds, one last change included."""
    await clients[0].ask("room:update", "room:updated", roomId=room_id, username="last")
    for client in clients:
        await client.until(lambda client=client: _has_last(client, room_id))  # type: ignore[misc]
    present = redis_state.members(server, room_id)
    for client in clients:
        replay = Replay.of(client, room_id)
        assert replay.members.keys() == present.keys()
        for user_id, member in replay.members.items():
            assert member["username"] == present[user_id]["username"]
            assert str(member["joinedAt"]) == present[user_id]["joinedAt"]


def _has_last(client: RawClient, room_id: str) -> bool:
    return any(
        member["username"] == "last"
        for diff in client.of("room:diff")
        if diff["roomId"] == room_id
        for member in (*diff["updated"], *diff["joined"])
    )


async def _come_and_go(node: Node, times: int, pause: float, came: list[str]) -> None:
    """Users join and leave one after the other; a client that receives some of it has to receive all.

    came: takes the name of each that has joined.
    """
    for name in [f"guest{number}" for number in range(times)]:
        async with RawClient.connect(node) as guest:
            await _insist(guest, "join_room", roomId="lobby", userId=name)
            came.append(name)
            await anyio.sleep(pause)
            # A leave that Redis took although its answer was lost: the departure then closes the connection.
            with suppress(ConnectionClosed):
                await _insist(guest, "leave_room", roomId="lobby")


async def _insist(client: RawClient, kind: str, **fields: Any) -> None:
    """Ask again as long as Redis does not answer."""
    for _ in range(100):
        answer = await client.answer(kind, **fields)
        if answer.get("code") != "unavailable":
            return
        await anyio.sleep(0.05)


def _cut_pubsub(server: Server) -> None:
    server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def _cut_commands(server: Server) -> None:
    server.control.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _lose_scripts(server: Server) -> None:
    server.control.script_flush()


@pytest.mark.parametrize("harm", [_cut_pubsub, _cut_commands, _lose_scripts])
async def test_no_change_is_missed_while_connections_to_redis_are_cut_repeatedly(
    redis_server: Server, harm: Callable[[Server], None]
) -> None:
    async with (
        served(redis_server, ttl=5) as one,
        served(redis_server, ttl=5) as two,
        crowd([one, two], 8) as clients,
    ):
        names: list[str] = []
        visits = asyncio.create_task(_come_and_go(one, 25, 0.04, names))
        while not visits.done():
            harm(redis_server)
            before = len(names)
            await anyio.sleep(0.25)
            # On a busy machine nodes take longer to recover; cut again before, they would never get on.
            await until(lambda: len(names) > before or visits.done())  # noqa: B023
        await visits
        await _agree(redis_server, clients)
        assert redis_state.members(redis_server, "lobby").keys() == {f"u{number}" for number in range(8)}
        assert sorted(e["user"] for e in redis_state.stream(redis_server, "lobby")) == sorted(names)
        for client in clients:
            received = departures(client.received)
            assert len(received) == len(set(received))  # no leave is sent twice
            assert client.open
            assert not client.of("room:force-leave")


@pytest.mark.slow
async def test_members_are_registered_again_in_a_server_that_came_back_empty(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, lease=1.5, grace=2) as one,
        served(redis_server, lease=1.5, grace=2) as two,
        crowd([one, two], 10) as clients,
    ):
        redis_server.kill()
        for client in clients:
            await client.receive("service:degraded")
        refused = await clients[0].ask("room:count", "error", roomId="lobby")
        assert refused["code"] == "unavailable"
        await anyio.sleep(6)  # longer than the lease, the grace and the time-outs
        redis_server.start()
        for client in clients:
            await client.receive("service:restored")
        await _agree(redis_server, clients)
        found = redis_state.members(redis_server, "lobby")
        assert {user: fields["data"] for user, fields in found.items()} == {
            f"u{n}": str(n) for n in range(10)
        }
        for client in clients:
            assert not departures(client.received)
            assert client.open


async def test_connected_members_are_present_again_after_a_flush(redis_server: Server) -> None:
    """With scripts gone too, and a member whose socket had dropped just before."""
    async with (
        served(redis_server, lease=1.0, grace=1.0) as one,
        served(redis_server, lease=1.0, grace=1.0) as two,
        crowd([one, two], 6) as clients,
        RawClient.connect(one) as cut,
    ):
        await cut.join("lobby", "cut")
        cut.vanish()
        key = redis_state.presence_key("lobby", "cut")
        await until(lambda: redis_server.control.pttl(key) <= 1000)
        redis_server.control.flushall()
        redis_server.control.script_flush()
        await until(lambda: len(redis_state.members(redis_server, "lobby")) == 6)
        await until(lambda: len(redis_state.rows(redis_server, "lobby")) == 6)
        for client in clients:
            await client.send("room:heartbeat", roomId="lobby", id="after")
        for client in clients:
            await client.has_received("room:heartbeat:ack", id="after")
        await anyio.sleep(1.0)  # whatever the nodes still have to settle between them
        await _agree(redis_server, clients)
        users = {user for client in clients for user, _ in departures(client.received)}
        assert users <= {"cut"}
        assert all(client.open for client in clients)


async def test_a_departure_during_a_lost_subscription_is_sent_after_it_is_renewed(
    redis_server: Server,
) -> None:
    """The nodes' subscriptions are gone for a moment in which a member ends."""
    options: dict[str, Any] = {"ttl": 60, "grace": 0.3}
    async with (
        served(redis_server, **options) as one,
        served(redis_server, **options) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
        RawClient.connect(one) as cut,
    ):
        for client, name in ((ann, "ann"), (bob, "bob"), (cut, "cut")):
            await client.join("lobby", name)
        cut.vanish()
        key = redis_state.presence_key("lobby", "cut")
        await until(lambda: redis_server.control.pttl(key) <= 300)
        deadline = anyio.current_time() + 0.6
        while anyio.current_time() < deadline:
            _cut_pubsub(redis_server)
            await anyio.sleep(0.01)
        for client in (ann, bob):
            assert await client.receive_departure_of("cut") == "disconnected"
            assert departures(client.received) == [("cut", "disconnected")]
        assert len(redis_state.stream(redis_server, "lobby")) == 1
