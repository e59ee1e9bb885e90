"""B12 where servers take over from each other: what a node's clients notice of it, and what they must not."""

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
    TOLD_WITHIN,
    aside,
    beside,
    crowd,
    hush_replicas,
    in_step,
    is_listened_to,
    lateness,
    serving,
)
from tests.support import redis_state
from tests.support.raw_client import RawClient, departures
from tests.support.server_sets import ServerSet
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # failovers take their time

BEAT, ACK = "room:heartbeat", "room:heartbeat:ack"
SHORT, VANISHING, SILENT = (beside("lobby", name) for name in ("short", "vanishing", "silent"))
CROWD = ["u0", "u1", "u2", "u3"]


async def stayed(clients: list[RawClient], fleet: ServerSet, others: Sequence[str] = ()) -> None:
    """All sockets are open and all are members, heartbeats are taken again, and nobody heard of a leave."""
    for client in clients:
        await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
        assert departures(client.heard) == []
        assert not client.of("room:force-leave")
    await in_step(clients, fleet, "lobby", [*CROWD, *others])


def service(client: RawClient) -> list[str]:
    return [message["type"] for message in client.of("service:degraded", "service:restored")]


@asynccontextmanager
async def ending(
    fleet: ServerSet, node: Node, seconds: float
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """One who has vanished and one who is silent, each with an end in so many seconds.

    Gives what waits until both are told of, in time and once.
    """
    async with (
        RawClient.connect(node) as watching,
        RawClient.connect(node) as vanishing,
        RawClient.connect(node) as silent,
    ):
        await watching.join(VANISHING, "watching")
        watching.beat()
        await vanishing.join(VANISHING, "vanishing")
        vanishing.vanish()
        primary, key = (
            await aside(fleet.primary_of, VANISHING),
            redis_state.presence_key(VANISHING, "vanishing"),
        )
        await until(lambda: 0 < primary.control.pttl(key) <= seconds * 1000)
        deadline: int = primary.control.pexpiretime(key)
        await silent.join(SILENT, "silent")

        async def told() -> None:
            now = int(time() * 1000)
            assert await watching.hear_left("vanishing") == "disconnected"
            assert 0 <= lateness(max(deadline, now)) < TOLD_WITHIN
            # Who is connected was entered again, with the whole TTL before it.
            await silent.hear("room:force-leave", reason="inactivity_timeout")
            assert lateness(now) < seconds + TOLD_WITHIN
            new = await aside(fleet.primary_of, VANISHING)
            for room, end in (VANISHING, "disconnected"), (SILENT, "inactivity_timeout"):
                assert [entry["reason"] for entry in redis_state.stream(new, room)] == [end]
            assert departures(watching.heard) == [("vanishing", "disconnected")]
            assert len(silent.of("room:force-leave")) == 1

        yield told


def rules(seconds: float) -> tuple[RoomRule, ...]:
    return (RoomRule(match=VANISHING, grace=seconds), RoomRule(match=SILENT, ttl=seconds))


async def test_a_failover_in_good_order_ends_nobody_and_no_end_is_missed(fleet: ServerSet) -> None:
    async with (
        serving(fleet, rooms=rules(3.0), redis_url=fleet.admin_url) as one,
        serving(fleet, rooms=rules(3.0), redis_url=fleet.admin_url) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        ending(fleet, two, 3.0) as told,
    ):
        await aside(hush_replicas, fleet)
        new = await aside(fleet.failover, "lobby")
        await until(lambda: is_listened_to(new), patience=TOLD_WITHIN)
        await told()
        await stayed(clients, fleet)
        for client in clients:
            assert service(client) in ([], ["service:degraded", "service:restored"])


@pytest.mark.slow
async def test_a_dead_primary_ends_nobody_and_no_end_is_missed(fleet: ServerSet) -> None:
    async with (
        serving(fleet, rooms=rules(5.0), redis_url=fleet.admin_url) as one,
        serving(fleet, rooms=rules(5.0), redis_url=fleet.admin_url) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        ending(fleet, two, 5.0) as told,
    ):
        await aside(hush_replicas, fleet)
        dead = await aside(fleet.kill_primary, "lobby")
        for client in clients:
            await client.hear("service:degraded")
        new = await aside(fleet.promoted, dead, "lobby")
        await until(lambda: is_listened_to(new), patience=TOLD_WITHIN)
        for client in clients:
            await client.hear("service:restored")
        await told()
        await stayed(clients, fleet)
        for client in clients:
            assert service(client) == ["service:degraded", "service:restored"]


async def test_events_of_the_new_primary_alone_make_a_departure(fleet: ServerSet) -> None:
    off: dict[str, Any] = {"pacemaker": False, "sweep_interval": 0, "redis_url": fleet.admin_url}
    async with serving(fleet, **off, rooms=(RoomRule(match="short *", ttl=0.5),)) as node:
        await aside(hush_replicas, fleet)
        new = await aside(fleet.failover, "lobby")
        await until(lambda: is_listened_to(new), patience=TOLD_WITHIN)
        new.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        async with RawClient.connect(node) as silent:
            joined = await silent.join(SHORT, "silent")
            await redis_state.lapsed(new, joined["members"][0]["joinedAt"], 0.5)
            await silent.ask("room:count", "room:count", roomId="elsewhere")
            assert not silent.of("room:force-leave")  # nobody looked
            assert new.control.exists(redis_state.presence_key(SHORT, "silent")) == 0  # the touch
            await silent.hear("room:force-leave", reason="inactivity_timeout")


@pytest.mark.slow
async def test_an_outage_longer_than_lease_ttl_and_grace_ends_nobody_who_is_there(fleet: ServerSet) -> None:
    short = {"lease": 1.0, "ttl": 2.0, "grace": 1.0}
    async with (
        serving(fleet, **short) as one,
        serving(fleet, **short) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(two) as vanishing,
    ):
        await vanishing.join("lobby", "vanishing")
        dead = await aside(fleet.kill_primary, "lobby")
        await clients[0].hear("service:degraded")
        vanishing.vanish()
        await aside(fleet.promoted, dead, "lobby")
        for client in clients:
            await client.hear("service:restored")
            assert await client.hear_left("vanishing") == "disconnected"
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
            assert departures(client.heard) == [("vanishing", "disconnected")]
        await in_step(clients, fleet, "lobby", CROWD)


async def test_what_a_failover_lost_is_made_good(fleet: ServerSet) -> None:
    """Who joined just before is there, who left is not, and nothing of that is told twice."""
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
        primary = await aside(fleet.primary_of, "lobby")
        await aside(primary.control.wait, 1, 2000)
        with fleet.unreplicated(primary):
            await late.join("lobby", "late", username="Late", data={"kept": True})
            late.beat()
            await leaving.ask("leave_room", "room:left", roomId="lobby")
            async with Presence.open(fleet.url) as presence:
                assert await presence.kick("lobby", "kicked")
            for client in clients:
                await client.hear_left("kicked")
            vanishing.vanish()
            await until(lambda: primary.control.pttl(redis_state.presence_key("lobby", "vanishing")) <= 1000)
            primary.kill()
            new = await aside(fleet.promoted, primary, "lobby")
        everybody = [*clients, late]
        for client in everybody:
            await client.has_heard("service:restored")
        await until(lambda: set(redis_state.members(new, "lobby")) == {*CROWD, "late"})
        expected = {("leaving", "left"): 1, ("kicked", "kicked"): 1, ("vanishing", "disconnected"): 1}
        await until(lambda: all(len(departures(client.heard)) >= len(expected) for client in clients))
        for client in everybody:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
        for client in clients:
            assert Counter(departures(client.heard)) == expected
        await in_step(everybody, fleet, "lobby", [*CROWD, "late"])
        face = redis_state.members(new, "lobby")["late"]
        assert (face["username"], face["data"]) == ("Late", '{"kept":true}')
        assert (
            Counter((entry["user"], entry["reason"]) for entry in redis_state.stream(new, "lobby"))
            == expected
        )


async def test_one_whose_return_a_failover_lost_is_not_ended(fleet: ServerSet) -> None:
    """On the new primary its grace is over before any node could say that it is back."""
    async with (
        serving(fleet, grace=1.0) as one,
        serving(fleet, grace=1.0) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as dropped,
        RawClient.connect(two) as back,
    ):
        await dropped.join("lobby", "ann")
        primary = await aside(fleet.primary_of, "lobby")
        dropped.vanish()
        key, seen = redis_state.presence_key("lobby", "ann"), anyio.Event()
        await until(lambda: primary.control.pttl(key) <= 1000)
        await aside(primary.control.wait, 1, 2000)
        for node in one, two:
            enter = node.reconciler.reregister_all

            async def later(enter: Callable[[], Awaitable[None]] = enter) -> None:
                await seen.wait()
                await enter()

            node.reconciler.reregister_all = later  # type: ignore[method-assign]
        with fleet.unreplicated(primary):
            assert (await back.join("lobby", "ann"))["resumed"]
            primary.kill()
            new = await aside(fleet.promoted, primary, "lobby")
        await until(lambda: new.control.exists(key) == 0)
        async with Presence.open(fleet.url) as presence:
            await presence.count("lobby")  # a look ends whose time is up, where that counts
        seen.set()
        for client in (*clients, back):
            await client.has_heard("service:restored")
        await in_step([*clients, back], fleet, "lobby", [*CROWD, "ann"])
        await stayed(clients, fleet, ["ann"])
        assert redis_state.stream(new, "lobby") == []


@pytest.mark.slow
async def test_every_end_around_a_failover_is_told_once(fleet: ServerSet) -> None:
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
        dead = await aside(fleet.kill_primary, "short 4")
        await aside(fleet.promoted, dead, "short 4")
        for client in (ann, bob):
            assert await client.closed() == 4003
            told = Counter(message["roomId"] for message in client.of("room:force-leave"))
            assert told == dict.fromkeys(rooms, 1)
        everybody = {(room, user, "inactivity_timeout") for room in rooms for user in ("ann", "bob")}
        await until(lambda: set(left) == everybody)
        assert len(left) == len(everybody)
        tasks.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_frozen_primary_is_left_behind_and_does_no_harm_when_it_wakes(fleet: ServerSet) -> None:
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as late,
    ):
        old = await aside(fleet.primary_of, "lobby")
        old.pause()
        new = await aside(fleet.promoted, old, "lobby")
        await until(lambda: is_listened_to(new), patience=TOLD_WITHIN)
        for client in clients:
            await client.say(BEAT, roomId="lobby", id="soon")
        with anyio.fail_after(2 * TOLD_WITHIN):
            for client in clients:
                await client.has_heard(ACK, id="soon")
        await late.join("lobby", "late")
        old.resume()
        await late.ask("leave_room", "room:left", roomId="lobby")
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
            assert set(departures(client.heard)) <= {("late", "left")}
        await in_step(clients, fleet, "lobby", CROWD)


@pytest.mark.slow
async def test_all_servers_down_and_back_with_nothing(fleet: ServerSet) -> None:
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        crowd([one, two], ["lobby", "elsewhere"], 4) as clients,
    ):
        for server in fleet.servers:
            server.kill()
        for client in clients:
            await client.hear("service:degraded")
        for server in fleet.servers:
            await aside(server.start)
        await aside(fleet.wait_whole)
        for client in clients:
            await client.hear("service:restored")
        await stayed(clients, fleet)
        await in_step(clients, fleet, "elsewhere", CROWD)


async def restless(node: Node, name: str, room_id: str, stop: anyio.Event, seen: Counter[str]) -> None:
    """Join and leave the whole time, and try again what could not be done; out of the room in the end."""
    async with RawClient.connect(node) as client:

        async def insist(kind: str, reply: str, **fields: str) -> None:
            while True:
                await client.say(kind, **fields)
                answer = await client.hear_next(lambda message: message["type"] in {reply, "error"})
                seen[answer.get("code", reply)] += 1
                if answer["type"] == reply or answer["code"] in {"not_joined", "already_joined"}:
                    return
                await anyio.sleep(0.05)

        while not stop.is_set():
            await insist("join_room", "room:joined", roomId=room_id, userId=name)
            await insist("leave_room", "room:left", roomId=room_id)


@pytest.mark.slow
@pytest.mark.parametrize("graceful", [True, False], ids=["in good order", "by death"])
async def test_joins_and_leaves_during_a_failover_end_in_the_same_list_everywhere(
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
                tasks.start_soon(restless, (one, two)[i % 2], f"restless {i}", "lobby", stop, seen)
            await until(lambda: seen["room:left"] > 50)
            if graceful:
                new = await aside(fleet.failover, "lobby")
            else:
                dead = await aside(fleet.kill_primary, "lobby")
                new = await aside(fleet.promoted, dead, "lobby")
            await until(lambda: is_listened_to(new), patience=TOLD_WITHIN)
            before = seen["room:left"]
            await until(lambda: seen["room:left"] > before + 50)
            stop.set()
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
        await in_step(clients, fleet, "lobby", CROWD)
        for client in clients:
            assert {user for user, _ in departures(client.heard)}.isdisjoint(CROWD)
            assert {reason for _, reason in departures(client.heard)} <= {"left", "disconnected"}
    assert set(seen) <= {"room:joined", "room:left", "unavailable", "not_joined", "already_joined"}
