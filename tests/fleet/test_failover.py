"""Failovers under Sentinel and in a Cluster: what clients notice of them, and what they must not."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import Any

import anyio
import pytest

from reactor.presence.api import Presence
from reactor.server.node import Node
from reactor.settings import RoomRule
from tests.fleet.serving import (
    NOTIFIED_WITHIN,
    converged,
    crowd,
    has_listener,
    in_thread,
    lateness,
    mute_events_of_replicas,
    same_shard_room,
    serving,
)
from tests.support import redis_state
from tests.support.raw_client import RawClient, departures
from tests.support.server_sets import ServerSet
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # a failover takes seconds

BEAT, ACK = "room:heartbeat", "room:heartbeat:ack"
SHORT, VANISHING, SILENT = (same_shard_room("lobby", name) for name in ("short", "vanishing", "silent"))
USERS = ["u0", "u1", "u2", "u3"]


async def assert_all_stayed(clients: list[RawClient], fleet: ServerSet, others: Sequence[str] = ()) -> None:
    """Assert that all clients are still members, that heartbeats work, and that no departure was sent."""
    for client in clients:
        await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
        assert departures(client.received) == []
        assert not client.of("room:force-leave")
    await converged(clients, fleet, "lobby", [*USERS, *others])


def service(client: RawClient) -> list[str]:
    return [message["type"] for message in client.of("service:degraded", "service:restored")]


@asynccontextmanager
async def expiring_members(
    fleet: ServerSet, node: Node, seconds: float
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A disconnected and a silent member, each of which expires in some seconds.

    Yields a function that waits until both departures were sent, in time and once.
    """
    async with (
        RawClient.connect(node) as watching,
        RawClient.connect(node) as vanishing,
        RawClient.connect(node) as silent,
    ):
        await watching.join(VANISHING, "watching")
        watching.start_heartbeats()
        await vanishing.join(VANISHING, "vanishing")
        vanishing.vanish()
        primary, key = (
            await in_thread(fleet.primary_of, VANISHING),
            redis_state.presence_key(VANISHING, "vanishing"),
        )
        await until(lambda: 0 < primary.control.pttl(key) <= seconds * 1000)
        deadline: int = primary.control.pexpiretime(key)
        await silent.join(SILENT, "silent")

        async def reported() -> None:
            now = int(time() * 1000)
            assert await watching.receive_departure_of("vanishing") == "disconnected"
            assert 0 <= lateness(max(deadline, now)) < NOTIFIED_WITHIN
            # The silent member is connected and was registered again, with its whole TTL.
            await silent.receive("room:force-leave", reason="inactivity_timeout")
            assert lateness(now) < seconds + NOTIFIED_WITHIN
            new = await in_thread(fleet.primary_of, VANISHING)
            for room, end in (VANISHING, "disconnected"), (SILENT, "inactivity_timeout"):
                assert [entry["reason"] for entry in redis_state.stream(new, room)] == [end]
            assert departures(watching.received) == [("vanishing", "disconnected")]
            assert len(silent.of("room:force-leave")) == 1

        yield reported


def rules(seconds: float) -> tuple[RoomRule, ...]:
    return (RoomRule(match=VANISHING, grace=seconds), RoomRule(match=SILENT, ttl=seconds))


async def test_a_planned_failover_removes_no_member_and_misses_no_expiry(fleet: ServerSet) -> None:
    async with (
        serving(fleet, rooms=rules(3.0), redis_url=fleet.admin_url) as one,
        serving(fleet, rooms=rules(3.0), redis_url=fleet.admin_url) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        expiring_members(fleet, two, 3.0) as reported,
    ):
        await in_thread(mute_events_of_replicas, fleet)
        new = await in_thread(fleet.failover, "lobby")
        await until(lambda: has_listener(new), patience=NOTIFIED_WITHIN)
        await reported()
        await assert_all_stayed(clients, fleet)
        for client in clients:
            assert service(client) in ([], ["service:degraded", "service:restored"])


@pytest.mark.slow
async def test_a_dead_primary_removes_no_member_and_misses_no_expiry(fleet: ServerSet) -> None:
    async with (
        serving(fleet, rooms=rules(5.0), redis_url=fleet.admin_url) as one,
        serving(fleet, rooms=rules(5.0), redis_url=fleet.admin_url) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        expiring_members(fleet, two, 5.0) as reported,
    ):
        await in_thread(mute_events_of_replicas, fleet)
        dead = await in_thread(fleet.kill_primary, "lobby")
        for client in clients:
            await client.receive("service:degraded")
        new = await in_thread(fleet.promoted, dead, "lobby")
        await until(lambda: has_listener(new), patience=NOTIFIED_WITHIN)
        for client in clients:
            await client.receive("service:restored")
        await reported()
        await assert_all_stayed(clients, fleet)
        for client in clients:
            assert service(client) == ["service:degraded", "service:restored"]


async def test_an_expired_event_of_the_new_primary_is_enough_for_a_departure(fleet: ServerSet) -> None:
    off: dict[str, Any] = {"pacemaker": False, "sweep_interval": 0, "redis_url": fleet.admin_url}
    async with serving(fleet, **off, rooms=(RoomRule(match="short *", ttl=0.5),)) as node:
        await in_thread(mute_events_of_replicas, fleet)
        new = await in_thread(fleet.failover, "lobby")
        await until(lambda: has_listener(new), patience=NOTIFIED_WITHIN)
        new.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        async with RawClient.connect(node) as silent:
            joined = await silent.join(SHORT, "silent")
            await redis_state.wait_for_expiry(new, joined["members"][0]["joinedAt"], 0.5)
            await silent.ask("room:count", "room:count", roomId="elsewhere")
            assert not silent.of("room:force-leave")  # no command has touched the key
            assert new.control.exists(redis_state.presence_key(SHORT, "silent")) == 0  # touches it
            await silent.receive("room:force-leave", reason="inactivity_timeout")


@pytest.mark.slow
async def test_an_outage_longer_than_lease_ttl_and_grace_removes_no_connected_user(
    fleet: ServerSet,
) -> None:
    short = {"lease": 1.0, "ttl": 2.0, "grace": 1.0}
    async with (
        serving(fleet, **short) as one,
        serving(fleet, **short) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(two) as vanishing,
    ):
        await vanishing.join("lobby", "vanishing")
        dead = await in_thread(fleet.kill_primary, "lobby")
        await clients[0].receive("service:degraded")
        vanishing.vanish()
        await in_thread(fleet.promoted, dead, "lobby")
        for client in clients:
            await client.receive("service:restored")
            assert await client.receive_departure_of("vanishing") == "disconnected"
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
            assert departures(client.received) == [("vanishing", "disconnected")]
        await converged(clients, fleet, "lobby", USERS)


async def test_writes_lost_in_a_failover_are_restored(fleet: ServerSet) -> None:
    """Recent joins are registered again, recent departures stay, and no client is notified twice."""
    async with (
        serving(fleet, grace=1.0) as one,
        serving(fleet, grace=1.0) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as late,
        RawClient.connect(two) as leaving,
        RawClient.connect(one) as kicked,
        RawClient.connect(two) as vanishing,
    ):
        for client, name in ((leaving, "leaving"), (kicked, "kicked"), (vanishing, "vanishing")):
            await client.join("lobby", name)
        primary = await in_thread(fleet.primary_of, "lobby")
        await in_thread(primary.control.wait, 1, 2000)
        with fleet.unreplicated(primary):
            await late.join("lobby", "late", username="Late", data={"kept": True})
            late.start_heartbeats()
            await leaving.ask("leave_room", "room:left", roomId="lobby")
            async with Presence.open(fleet.url) as presence:
                assert await presence.kick("lobby", "kicked")
            for client in clients:
                await client.receive_departure_of("kicked")
            vanishing.vanish()
            await until(lambda: primary.control.pttl(redis_state.presence_key("lobby", "vanishing")) <= 1000)
            primary.kill()
            new = await in_thread(fleet.promoted, primary, "lobby")
        everyone = [*clients, late]
        for client in everyone:
            await client.has_received("service:restored")
        await until(lambda: set(redis_state.members(new, "lobby")) == {*USERS, "late"})
        expected = {("leaving", "left"): 1, ("kicked", "kicked"): 1, ("vanishing", "disconnected"): 1}
        await until(lambda: all(len(departures(client.received)) >= len(expected) for client in clients))
        for client in everyone:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
        for client in clients:
            assert Counter(departures(client.received)) == expected
        await converged(everyone, fleet, "lobby", [*USERS, "late"])
        face = redis_state.members(new, "lobby")["late"]
        assert (face["username"], face["data"]) == ("Late", '{"kept":true}')
        assert (
            Counter((entry["user"], entry["reason"]) for entry in redis_state.stream(new, "lobby"))
            == expected
        )


async def test_a_member_whose_return_was_lost_in_a_failover_stays(fleet: ServerSet) -> None:
    """On the new primary its grace has ended before a node could register it again."""
    async with (
        serving(fleet, grace=1.0) as one,
        serving(fleet, grace=1.0) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as dropped,
        RawClient.connect(two) as back,
    ):
        await dropped.join("lobby", "ann")
        primary = await in_thread(fleet.primary_of, "lobby")
        dropped.vanish()
        key, seen = redis_state.presence_key("lobby", "ann"), anyio.Event()
        await until(lambda: primary.control.pttl(key) <= 1000)
        await in_thread(primary.control.wait, 1, 2000)
        for node in one, two:
            enter = node.reconciler.reregister_all

            async def later(enter: Callable[[], Awaitable[None]] = enter) -> None:
                await seen.wait()
                await enter()

            node.reconciler.reregister_all = later  # type: ignore[method-assign]
        with fleet.unreplicated(primary):
            assert (await back.join("lobby", "ann"))["resumed"]
            primary.kill()
            new = await in_thread(fleet.promoted, primary, "lobby")
        await until(lambda: new.control.exists(key) == 0)
        async with Presence.open(fleet.url) as presence:
            await presence.count("lobby")  # a read removes expired members unless expiry is suspended
        seen.set()
        for client in (*clients, back):
            await client.has_received("service:restored")
        await converged([*clients, back], fleet, "lobby", [*USERS, "ann"])
        await assert_all_stayed(clients, fleet, ["ann"])
        assert redis_state.stream(new, "lobby") == []


@pytest.mark.slow
async def test_each_expiry_around_a_failover_is_sent_once(fleet: ServerSet) -> None:
    rooms = {f"short {number}": 0.75 * number for number in range(1, 9)}
    rules = tuple(RoomRule(match=room, ttl=ttl) for room, ttl in rooms.items())
    left: list[tuple[str, str, str | None]] = []

    async def watch(presence: Presence, room: str, ready: anyio.Event) -> None:
        async for event in presence.watch(room):
            ready.set()
            if event.kind == "leave" and event.member is not None:
                left.append((room, event.member.user_id, event.reason))

    async with (
        serving(fleet, rooms=rules) as one,
        serving(fleet, rooms=rules) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
        Presence.open(fleet.url) as presence,
        anyio.create_task_group() as tasks,
    ):
        for room in rooms:
            await ann.join(room, "ann")
            await bob.join(room, "bob")
        for room in rooms:
            ready = anyio.Event()
            tasks.start_soon(watch, presence, room, ready)
            await ready.wait()
        dead = await in_thread(fleet.kill_primary, "short 4")
        await in_thread(fleet.promoted, dead, "short 4")
        for client in (ann, bob):
            assert await client.closed() == 4003
            reported = Counter(message["roomId"] for message in client.of("room:force-leave"))
            assert reported == dict.fromkeys(rooms, 1)
        everyone = {(room, user, "inactivity_timeout") for room in rooms for user in ("ann", "bob")}
        await until(lambda: set(left) == everyone)
        assert len(left) == len(everyone)
        tasks.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_frozen_primary_is_replaced_and_does_no_harm_when_it_resumes(fleet: ServerSet) -> None:
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as late,
    ):
        old = await in_thread(fleet.primary_of, "lobby")
        old.pause()
        new = await in_thread(fleet.promoted, old, "lobby")
        await until(lambda: has_listener(new), patience=NOTIFIED_WITHIN)
        for client in clients:
            await client.send(BEAT, roomId="lobby", id="soon")
        with anyio.fail_after(2 * NOTIFIED_WITHIN):
            for client in clients:
                await client.has_received(ACK, id="soon")
        await late.join("lobby", "late")
        old.resume()
        await late.ask("leave_room", "room:left", roomId="lobby")
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
            assert set(departures(client.received)) <= {("late", "left")}
        await converged(clients, fleet, "lobby", USERS)


@pytest.mark.slow
async def test_all_servers_restart_without_data(fleet: ServerSet) -> None:
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        crowd([one, two], ["lobby", "elsewhere"], 4) as clients,
    ):
        for server in fleet.servers:
            server.kill()
        for client in clients:
            await client.receive("service:degraded")
        for server in fleet.servers:
            await in_thread(server.start)
        await in_thread(fleet.wait_whole)
        for client in clients:
            await client.receive("service:restored")
        await assert_all_stayed(clients, fleet)
        await converged(clients, fleet, "elsewhere", USERS)


async def join_and_leave(node: Node, name: str, room_id: str, stop: anyio.Event, seen: Counter[str]) -> None:
    """Join and leave in a loop, retrying refused requests; the client is not in the room at the end."""
    async with RawClient.connect(node) as client:

        async def insist(kind: str, reply: str, **fields: str) -> None:
            while True:
                await client.send(kind, **fields)
                answer = await client.receive_next(lambda message: message["type"] in {reply, "error"})
                seen[answer.get("code", reply)] += 1
                if answer["type"] == reply or answer["code"] in {"not_joined", "already_joined"}:
                    return
                await anyio.sleep(0.05)  # no event says when Redis accepts writes again

        while not stop.is_set():
            await insist("join_room", "room:joined", roomId=room_id, userId=name)
            await insist("leave_room", "room:left", roomId=room_id)


@pytest.mark.slow
@pytest.mark.parametrize("graceful", [True, False], ids=["planned", "killed"])
async def test_joins_and_leaves_during_a_failover_converge_everywhere(
    fleet: ServerSet, graceful: bool
) -> None:
    seen: Counter[str] = Counter()
    stop = anyio.Event()
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        crowd([one, two], ["lobby"], 4) as clients,
    ):
        async with anyio.create_task_group() as tasks:
            for i in range(6):
                tasks.start_soon(join_and_leave, (one, two)[i % 2], f"restless {i}", "lobby", stop, seen)
            await until(lambda: seen["room:left"] > 50)
            if graceful:
                new = await in_thread(fleet.failover, "lobby")
            else:
                dead = await in_thread(fleet.kill_primary, "lobby")
                new = await in_thread(fleet.promoted, dead, "lobby")
            await until(lambda: has_listener(new), patience=NOTIFIED_WITHIN)
            before = seen["room:left"]
            await until(lambda: seen["room:left"] > before + 50)
            stop.set()
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
        await converged(clients, fleet, "lobby", USERS)
        for client in clients:
            assert {user for user, _ in departures(client.received)}.isdisjoint(USERS)
            assert {reason for _, reason in departures(client.received)} <= {"left", "disconnected"}
    assert set(seen) <= {"room:joined", "room:left", "unavailable", "not_joined", "already_joined"}
