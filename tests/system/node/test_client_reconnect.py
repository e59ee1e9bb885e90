"""The client library keeps its member present through network failures, and stops where it has to."""

import signal
from typing import Any

import anyio

from reactor import Client, Presence
from reactor.client import Backoff, Status
from reactor.errors import ForceLeave
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until


def client_of(node: Node | NodeProcess, **options: Any) -> Client:
    port = node.port if isinstance(node, NodeProcess) else node.gateway.port
    backoff = Backoff(first=0.1, cap=0.4, restart=0.1)
    return Client(f"ws://127.0.0.1:{port}/ws", backoff=backoff, **options)


async def test_the_client_sends_heartbeats_by_itself(redis_server: Server) -> None:
    """As often as the server asks for; a member without heartbeats marks the end of a whole TTL."""
    async with (
        served(redis_server, ttl=3, heartbeat_interval=0.3) as node,
        client_of(node) as client,
        RawClient.connect(node) as metronome,
    ):
        room = await client.join("lobby", user_id="ann", username="Ann")
        left: list[tuple[str, str | None]] = []
        room.on(
            "leave", lambda event: left.append((event.member.user_id if event.member else "", event.reason))
        )
        await metronome.join("lobby", "metronome")
        assert await metronome.closed() == 4003
        await until(lambda: left)
        assert left == [("metronome", "inactivity_timeout")]
        assert room.members.keys() == {"ann"}
        assert room.status is Status.CONNECTED
        here = redis_state.members(redis_server, "lobby")["ann"]
        assert int(here["lastActiveAt"]) >= int(here["joinedAt"]) + 1500


async def test_the_client_reconnects_within_the_grace_and_no_leave_is_sent(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=60) as node,
        RawClient.connect(node) as watcher,
        client_of(node) as client,
    ):
        seen = await watcher.join("lobby", "watcher")
        room = await client.join("lobby", user_id="ann", data={"n": 1})
        await watcher.receive("room:diff", version=seen["version"] + 1)
        for cut in range(3):
            socket_id = room.socket_id
            (connection,) = (c for c in node.gateway.connections if c.socket_id == socket_id)
            connection.abort()
            await until(lambda before=socket_id: room.socket_id != before)  # type: ignore[misc]
            assert room.status is Status.CONNECTED
            await watcher.ask("room:update", "room:updated", roomId="lobby", data=cut)
            diff = await watcher.receive_next(lambda message: bool(message.get("updated")))
            assert diff["from"] == seen["version"] + 1 + cut
        await until(lambda: room.members["watcher"].data == 2)
        assert room.me is not None
        assert room.me.data == {"n": 1}
        assert not departures(watcher.received)


async def test_the_client_reconnects_after_a_deploy_of_its_node(redis_server: Server) -> None:
    """The node is stopped and another one listens on its port."""
    options: dict[str, Any] = {"lease": 1.0, "grace": 60}
    async with served(redis_server, **options) as other, RawClient.connect(other) as watcher:
        await watcher.join("lobby", "watcher")
        async with NodeProcess.start(redis_server, **options) as old:
            client = client_of(old)
            async with client:
                room = await client.join("lobby", user_id="ann")
                await watcher.receive("room:diff")
                assert await old.stop() == 0
                await until(lambda: room.status is Status.RECONNECTING)
                async with NodeProcess.start(redis_server, port=old.port, **options):
                    await until(lambda: room.status is Status.CONNECTED)
                    await room.update(username="Back")
                    await watcher.receive_next(lambda message: bool(message.get("updated")))
                    assert not departures(watcher.received)
                    await client.close()
                    assert await watcher.receive_departure_of("ann") == "left"


async def test_a_force_leave_is_raised_with_its_message_and_the_client_does_not_rejoin(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, inactivity_message="Are you there?") as node,
        client_of(node) as sleepy,
        client_of(node) as troll_client,
        Presence.open(redis_server.socket_url) as presence,
    ):
        room = await sleepy.join("lobby", user_id="ann")
        received: list[ForceLeave] = []
        room.on("force-leave", received.append)
        # A client that lives answers room:heartbeat:due, so its TTL is cut short in Redis.
        redis_server.control.pexpire(redis_state.presence_key("lobby", "ann"), 20)
        with anyio.fail_after(PATIENCE):
            end = await room.ended()
        assert isinstance(end, ForceLeave)
        assert received == [end]
        assert (end.message, end.reason, end.room_id) == ("Are you there?", "inactivity_timeout", "lobby")

        kicked = await troll_client.join("attic", user_id="troll")
        assert await presence.kick("attic", "troll", "Enough.")
        with anyio.fail_after(PATIENCE):
            end = await kicked.ended()
        assert isinstance(end, ForceLeave)
        assert (end.message, end.reason) == ("Enough.", "kicked")
        await anyio.sleep(0.6)  # longer than its delay before a reconnection
        assert redis_state.everywhere(redis_server) == {}


async def test_closing_the_client_leaves_at_once_and_leaves_nothing_behind(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as watcher:
        for room in ("lobby", "attic"):
            await watcher.join(room, "watcher")
        async with client_of(node) as client:
            for room in ("lobby", "attic"):
                await client.join(room, user_id="ann")
        await watcher.receive_departures(2)
        assert departures(watcher.received) == [("ann", "left")] * 2
        await until(lambda: len(node.gateway.connections) == 1)
        assert {user for room in redis_state.everywhere(redis_server).values() for user in room} == {
            "watcher"
        }


async def test_a_frozen_server_is_detected_and_the_client_reconnects(redis_server: Server) -> None:
    """No socket is closed and nothing answers: the heartbeat without an acknowledgement shows it."""
    options: dict[str, Any] = {"grace": 10, "heartbeat_interval": 0.3}
    async with (
        NodeProcess.start(redis_server, **options) as node,
        client_of(node, request_timeout=0.6) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        node.send(signal.SIGSTOP)
        await until(lambda: room.status is Status.RECONNECTING)
        node.send(signal.SIGCONT)
        await until(lambda: room.status is Status.CONNECTED)
        await room.update(username="Again")
        await until(
            lambda: room.members["ann"].username == "Again"
        )  # by a change of the list, which may wait
