"""A node stops, is killed, freezes or is redeployed.

Nodes in processes of their own take their time to start: most of these run on one of the two servers.
"""

import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio

from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import Message, RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

QUICK: dict[str, Any] = {"lease": 0.6, "grace": 0.6}


async def test_the_members_of_a_killed_node_leave_once_on_every_other_node(redis_server: Server) -> None:
    async with (
        served(redis_server, **QUICK) as one,
        served(redis_server, **QUICK) as two,
        NodeProcess.start(redis_server, **QUICK) as doomed,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
        RawClient.connect(one) as tab,
        RawClient.connect(doomed) as phone,
        RawClient.connect(doomed) as carl,
        RawClient.connect(doomed) as dora,
    ):
        for client, name in (
            (ann, "ann"),
            (bob, "bob"),
            (tab, "tab"),
            (phone, "tab"),
            (carl, "carl"),
            (dora, "dora"),
        ):
            await client.join("lobby", name)
        killed_at = time.time() * 1000
        await doomed.kill()
        for client in (ann, bob):
            await client.receive_departures(2)
        entries = redis_state.stream(redis_server, "lobby")
        assert sorted((e["user"], e["reason"]) for e in entries) == [
            ("carl", "disconnected"),
            ("dora", "disconnected"),
        ]
        for entry in entries:  # at least a lease without a renewal, and a grace
            assert 1000 < int(entry["leftAt"]) - killed_at < 10_000
        # A member with a connection to a live node stays, and no diff is missing or sent twice.
        await tab.ask("room:update", "room:updated", roomId="lobby", username="Tab")
        for client in (ann, bob):
            await client.receive_next(lambda message: _updates(message, "tab", "Tab", connections=1))
            assert sorted(departures(client.received)) == [("carl", "disconnected"), ("dora", "disconnected")]
        assert redis_state.members(redis_server, "lobby").keys() == {"ann", "bob", "tab"}


def _updates(message: Message, user_id: str, username: str, connections: int) -> bool:
    return any(
        (member["userId"], member["username"], member["connections"]) == (user_id, username, connections)
        for member in message.get("updated", ())
    )


async def test_a_member_that_returns_from_a_killed_node_within_the_grace_does_not_leave(
    redis7_server: Server,
) -> None:
    options: dict[str, Any] = {"lease": 0.6, "grace": 3.0}
    async with (
        served(redis7_server, **options) as one,
        NodeProcess.start(redis7_server, **options) as doomed,
        RawClient.connect(one) as watcher,
        RawClient.connect(doomed) as ann,
        RawClient.connect(doomed) as lost,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann", data="mine")
        joined = await lost.join("lobby", "lost")
        await watcher.receive("room:diff", version=joined["version"])
        await doomed.kill()
        async with RawClient.connect(one) as again:
            back = await again.join("lobby", "ann")
            assert back["resumed"] is True
            assert back["version"] >= joined["version"]
            assert await watcher.receive_departure_of("lost") == "disconnected"
            assert departures(watcher.received) == [("lost", "disconnected")]
            me = next(m for m in redis_state.members(redis7_server, "lobby").values() if m["userId"] == "ann")
            assert "connections" not in me
            assert me["data"] == '"mine"'
            assert not [diff for diff in watcher.of("room:diff") if diff["joined"][1:]]


async def test_a_node_that_stops_closes_its_clients_and_publishes_no_departure(
    redis7_server: Server,
) -> None:
    """A deploy: clients are closed with 1012 and return to the next node within the grace."""
    options: dict[str, Any] = {"lease": 0.6, "grace": 2.0}
    async with (
        served(redis7_server, **options) as one,
        RawClient.connect(one) as watcher,
        NodeProcess.start(redis7_server, **options) as old,
        NodeProcess.start(redis7_server, **options) as new,
        RawClient.connect(old) as ann,
        RawClient.connect(old) as lost,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        joined = await lost.join("lobby", "lost")
        await watcher.receive("room:diff", version=joined["version"])
        async with RawClient.connect(new) as again:
            old.send(signal.SIGTERM)
            assert await ann.closed() == await lost.closed() == 1012
            back = await again.join("lobby", "ann")
            assert (back["resumed"], back["version"]) == (True, joined["version"])
            assert await watcher.receive_departure_of("lost") == "disconnected"
            diff = watcher.of("room:diff")[-1]
            assert (diff["from"], diff["joined"], diff["updated"]) == (joined["version"], [], [])
        assert await old.ended() == 0


async def test_after_all_nodes_died_the_first_to_start_removes_their_members(
    bundled_server: Server,
) -> None:
    async with AsyncExitStack() as stack:
        doomed = [
            await stack.enter_async_context(NodeProcess.start(bundled_server, **QUICK)) for _ in range(2)
        ]
        for number, process in enumerate(doomed):
            client = await stack.enter_async_context(RawClient.connect(process))
            await client.join("lobby", f"u{number}")
        for process in doomed:
            await process.kill()
    assert redis_state.members(bundled_server, "lobby").keys() == {"u0", "u1"}
    async with served(bundled_server, **QUICK) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        await ann.receive_departures(2)
        assert set(departures(ann.received)) == {("u0", "disconnected"), ("u1", "disconnected")}
        assert redis_state.members(bundled_server, "lobby").keys() == {"ann"}
        assert len(redis_state.stream(bundled_server, "lobby")) == 2


async def test_a_node_frozen_for_less_than_the_grace_loses_no_member(redis7_server: Server) -> None:
    options: dict[str, Any] = {"lease": 0.6, "grace": 6.0}
    async with (
        served(redis7_server, **options) as one,
        NodeProcess.start(redis7_server, **options) as frozen,
        RawClient.connect(one) as watcher,
        RawClient.connect(frozen) as ann,
    ):
        await watcher.join("lobby", "watcher")
        joined = await ann.join("lobby", "ann")
        key = redis_state.presence_key("lobby", "ann")
        frozen.send(signal.SIGSTOP)
        await until(lambda: redis7_server.control.pttl(key) <= 6000)  # it was judged lost
        frozen.send(signal.SIGCONT)
        await until(lambda: redis7_server.control.pttl(key) > 6000)
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        await anyio.sleep(1.0)  # time for anything that the node might still do
        await watcher.ask("room:update", "room:updated", roomId="lobby", username="W")
        diff = await watcher.receive_next(lambda message: bool(message.get("updated")))
        assert (diff["epoch"], diff["from"]) == (joined["epoch"], joined["version"])
        assert not departures(watcher.received)
        assert not departures(ann.received)
        assert ann.open
        assert not ann.of("room:force-leave")


async def test_a_node_frozen_for_longer_registers_its_connected_clients_again(bundled_server: Server) -> None:
    """Their departure is sent once, and their return is sent once."""
    async with (
        served(bundled_server, **QUICK) as one,
        NodeProcess.start(bundled_server, **QUICK) as frozen,
        RawClient.connect(one) as watcher,
        RawClient.connect(frozen) as ann,
        RawClient.connect(frozen) as gone,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann", username="Ann", data=[1])
        await gone.join("lobby", "gone")
        frozen.send(signal.SIGSTOP)
        await watcher.receive_departures(2)
        gone.vanish()
        frozen.send(signal.SIGCONT)
        await watcher.until(lambda: [m["userId"] for m in _joined(watcher)].count("ann") == 2)
        back = [member for member in _joined(watcher) if member["userId"] == "ann"][-1]
        assert (back["username"], back["data"]) == ("Ann", [1])
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        assert ann.open
        assert not ann.of("room:force-leave")
        # `gone` may be registered again until its node has read that its connection is closed.
        await until(lambda: redis_state.members(bundled_server, "lobby").keys() == {"ann", "watcher"})
        assert departures(watcher.received).count(("ann", "disconnected")) == 1
        assert {reason for _, reason in departures(watcher.received)} == {"disconnected"}


def _joined(client: RawClient) -> list[dict[str, Any]]:
    return [member for diff in client.of("room:diff") for member in diff["joined"]]


async def test_a_node_judged_lost_is_only_accepted_under_its_new_name(
    redis_server: Server,
) -> None:
    """Otherwise its members would have no connection, and stay for a whole TTL after it is really lost."""
    async with (
        served(redis_server, grace=30, lease=60) as judge,
        served(redis_server, grace=30, lease=60) as node,
        RawClient.connect(judge) as watcher,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as carl,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        last = await bob.join("lobby", "bob")
        old = node.name()
        await judge.detector.detach_node(old)
        assert redis_server.control.pttl(redis_state.presence_key("lobby", "ann")) <= 30_000
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        new = node.name()
        assert new != old
        assert [name.partition(".")[0] for name in _connections(redis_server, "ann")] == [new]
        assert redis_server.control.pttl(redis_state.presence_key("lobby", "ann")) > 30_000
        await until(lambda: _connections(redis_server, "bob"))  # also a client that sends nothing
        await judge.detector.detach_node(new)
        joined = await carl.join("lobby", "carl")
        assert node.name() not in {old, new}
        assert joined["socketId"].startswith(node.name())
        assert [name.partition(".")[0] for name in _connections(redis_server, "carl")] == [node.name()]
        await until(lambda: _connections(redis_server, "ann") and _connections(redis_server, "bob"))
        await watcher.has_received("room:diff", version=joined["version"])
        assert joined["version"] == last["version"] + 1
        assert not departures(watcher.received)


def _connections(server: Server, user_id: str) -> list[str]:
    fields: Any = server.control.hkeys(redis_state.shadow_key("lobby", user_id))
    return [field for field in fields if "." in field]


async def test_the_pacemakers_leadership_passes_on_within_two_seconds(bundled_server: Server) -> None:
    """The pacemaker's node is killed; a member of another node still expires on time."""
    bundled_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    options: dict[str, Any] = {"ttl": 2.0, "sweep_interval": 0}
    async with (
        NodeProcess.start(bundled_server, **options) as doomed,
        served(bundled_server, **options) as node,
    ):
        await until(lambda: bundled_server.control.exists("{reactor:fleet}:turn:pacemaker"))
        before = node.pacemaker.leading
        async with RawClient.connect(node) as ann:
            await doomed.kill()
            joined = await ann.join("lobby", "ann")
            force_leave = await ann.receive("room:force-leave")
            assert (before, node.pacemaker.leading) == (False, True)
            assert force_leave["timestamp"] - joined["members"][0]["joinedAt"] - 2000 < 10_000


async def test_an_expiry_left_by_a_dead_leader_is_claimed_by_the_next(
    bundled_server: Server,
) -> None:
    """A node that receives an event leaves the claim to the leader, and makes it when the leader is gone."""
    bundled_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    options: dict[str, Any] = {"sweep_interval": 0}
    async with NodeProcess.start(bundled_server, **options) as doomed:
        await until(lambda: bundled_server.control.exists("{reactor:fleet}:turn:pacemaker"))
        async with served(bundled_server, **options) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann")
            await until(lambda: node.pacemaker.led_elsewhere and node.sweep.rounds)
            doomed.send(signal.SIGSTOP)
            key = redis_state.presence_key("lobby", "ann")
            bundled_server.control.pexpire(key, 1)  # externally: no index has this deadline
            await until(lambda: not bundled_server.control.exists(key))
            await until(lambda: node.listener.received == 1)
            assert not node.reaper.found_by
            touched = time.monotonic()
            await ann.receive("room:force-leave", reason="inactivity_timeout")
            assert time.monotonic() - touched < 10, "2 s, on a machine with time"
            await doomed.kill()
