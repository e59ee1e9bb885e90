"""Clusters: some slots without a primary, and slots that move to another primary under load."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from redis.crc import key_slot
from structlog.testing import capture_logs

from reactor.errors import RedisMisconfigured
from reactor.presence.api import Presence
from reactor.presence.keys import fleet_prefix
from reactor.server.node import Node
from reactor.settings import RoomRule
from tests.fleet.serving import (
    NOTIFIED_WITHIN,
    converged,
    crowd,
    in_thread,
    lateness,
    one_room_in_each_shard,
    same_shard_room,
    serving,
)
from tests.support import redis_state, servers
from tests.support.cluster_set import ClusterSet, slot_of
from tests.support.keyspace import SHARDS, shard_prefix
from tests.support.raw_client import RawClient, departures
from tests.support.server_sets import USER, SetServer
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # a failover takes seconds

BEAT, ACK = "room:heartbeat", "room:heartbeat:ack"
USERS = ["u0", "u1", "u2", "u3"]
SILENT = same_shard_room("lobby", "silent")


@pytest.fixture(params=["key by key", "at once"])
def atomic(request: pytest.FixtureRequest, cluster: ClusterSet) -> bool:
    """Whether a slot moves atomically or key by key."""
    if request.param == "at once" and not servers.moves_slots_at_once(cluster.kind):
        pytest.skip("only Valkey 9 and later move slots atomically")
    return bool(request.param == "at once")


@asynccontextmanager
async def joins_and_leaves(node: Node, room_id: str) -> AsyncIterator[Counter[str]]:
    """A client that joins and leaves in a loop; the numbers of both so far."""
    done: Counter[str] = Counter()
    stop = anyio.Event()

    async def go(client: RawClient) -> None:
        while not stop.is_set():
            await client.join(room_id, "restless")
            done["joined"] += 1
            await client.ask("leave_room", "room:left", roomId=room_id)
            done["left"] += 1

    async with RawClient.connect(node) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(go, client)
        yield done
        stop.set()


async def test_clients_do_not_notice_a_slot_that_moves_under_load(cluster: ClusterSet, atomic: bool) -> None:
    rules = (RoomRule(match=SILENT, ttl=2.0),)
    async with (
        serving(cluster, rooms=rules) as one,
        serving(cluster, rooms=rules) as two,
        crowd([one, two], ["lobby", "elsewhere"], 4) as clients,
        RawClient.connect(one) as silent,
        Presence.open(cluster.url) as presence,
    ):
        slot = slot_of("lobby")
        to = cluster.another_primary(await in_thread(cluster.owner_of, slot))
        events = presence.watch(SILENT)
        assert (await anext(events)).kind == "sync"
        joined = await silent.join(SILENT, "silent")
        async with joins_and_leaves(two, "lobby") as done:
            await until(lambda: done["left"] >= 5)
            await in_thread(lambda: cluster.move_slot(slot, to, atomic=atomic))
            before = done["left"]
            await until(lambda: done["left"] >= before + 5)
        await silent.receive("room:force-leave", reason="inactivity_timeout")
        assert 0 <= lateness(joined["members"][0]["joinedAt"] + 2000) < NOTIFIED_WITHIN
        assert [(await anext(events)).kind for _ in range(2)] == ["join", "leave"]
        await events.aclose()
        for client in clients:
            for room in ("lobby", "elsewhere"):
                await client.ask(BEAT, ACK, roomId=room, id="at the end")
            assert not client.of("service:degraded", "room:force-leave", "error")
            # Several departures of one user within one diff window are sent as one.
            assert set(departures(client.received)) == {("restless", "left")}
        await converged(clients, cluster, "lobby", USERS)
        await converged(clients, cluster, "elsewhere", USERS)
        assert [entry["user"] for entry in redis_state.stream(to, SILENT)] == ["silent"]
        assert len(redis_state.stream(to, "lobby")) == done["left"] == done["joined"]


async def test_a_half_moved_slot_is_never_read_as_complete(cluster: ClusterSet) -> None:
    rules = (RoomRule(match=SILENT, ttl=1.5),)
    async with (
        serving(cluster, rooms=rules, sweep_interval=0.5) as one,
        serving(cluster, rooms=rules, sweep_interval=0.5) as two,
        crowd([one, two], ["lobby"], 4) as clients,
        RawClient.connect(one) as silent,
        RawClient.connect(two) as asking,
    ):
        slot = slot_of("lobby")
        source = await in_thread(cluster.owner_of, slot)
        to = cluster.another_primary(source)
        joined = await silent.join(SILENT, "silent")
        await in_thread(cluster.begin_move, slot, to)
        total = source.control.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
        await in_thread(cluster.move_keys, slot, to, total // 2)
        await asking.send("room:count", roomId="lobby")
        await redis_state.wait_for_expiry(source, joined["members"][0]["joinedAt"], 1.5)
        assert not asking.of("room:count")
        while await in_thread(cluster.move_keys, slot, to):
            pass
        await in_thread(cluster.end_move, slot, to)
        assert (await asking.receive("room:count"))["count"] == 4
        await silent.receive("room:force-leave", reason="inactivity_timeout")
        assert 0 <= lateness(joined["members"][0]["joinedAt"] + 1500) < NOTIFIED_WITHIN
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
            assert not client.of("service:degraded", "room:force-leave", "error")
            assert departures(client.received) == []
        await converged(clients, cluster, "lobby", USERS)
        assert [entry["user"] for entry in redis_state.stream(to, SILENT)] == ["silent"]


@pytest.mark.slow
async def test_a_slot_that_moves_for_longer_than_lease_and_ttl_removes_no_member(cluster: ClusterSet) -> None:
    short = {"lease": 1.0, "ttl": 3.0, "grace": 1.0, "sweep_interval": 0.5}
    async with (
        serving(cluster, **short) as one,
        serving(cluster, **short) as two,
        crowd([one, two], ["lobby"], 4) as clients,
    ):
        slot = slot_of("lobby")
        source = await in_thread(cluster.owner_of, slot)
        to = cluster.another_primary(source)
        await in_thread(cluster.begin_move, slot, to)
        total = source.control.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
        await in_thread(cluster.move_keys, slot, to, total // 2)
        keys = [redis_state.presence_key("lobby", user) for user in USERS]
        await until(lambda: not any(_exists(server, key) for server in (source, to) for key in keys))
        while await in_thread(cluster.move_keys, slot, to):
            pass
        await in_thread(cluster.end_move, slot, to)
        for client in clients:
            await client.ask(BEAT, ACK, roomId="lobby", id="at the end")
            assert not client.of("room:force-leave")
            assert departures(client.received) == []
        await converged(clients, cluster, "lobby", USERS)


def _exists(server: SetServer, key: str) -> bool:
    asking: Any = server.control.pipeline(transaction=False)
    found: Any = asking.execute_command("ASKING").exists(key).execute(raise_on_error=False)[1]
    return bool(found == 1)  # otherwise an error that redirects to another server


async def test_no_node_is_declared_lost_when_the_slot_of_the_registry_moves(
    cluster: ClusterSet, atomic: bool
) -> None:
    async with (
        serving(cluster, lease=1.0) as one,
        serving(cluster, lease=1.0) as two,
        crowd([one, two], ["lobby"], 4) as clients,
    ):
        names = one.name(), two.name()
        slot = int(key_slot(fleet_prefix("reactor").encode()))
        to = cluster.another_primary(await in_thread(cluster.owner_of, slot))
        await in_thread(lambda: cluster.move_slot(slot, to, atomic=atomic))
        registry = f"{fleet_prefix('reactor')}:registry"
        noted = to.control.hgetall(registry)
        await until(lambda: all(to.control.hget(registry, name) != noted[name] for name in names))
        async with RawClient.connect(two) as late:
            await late.join("lobby", "late")
            await late.ask("leave_room", "room:left", roomId="lobby")
        for client in clients:
            assert await client.receive_departure_of("late") == "left"
            assert departures(client.received) == [("late", "left")]
        assert (one.name(), two.name()) == names


@pytest.mark.slow
async def test_rooms_on_other_primaries_work_while_one_primary_is_down(cluster: ClusterSet) -> None:
    for server in cluster.servers:
        server.control.config_set("cluster-require-full-coverage", "no")
    rooms = one_room_in_each_shard()
    async with serving(cluster) as one, serving(cluster) as two, crowd([one, two], rooms, 4) as clients:
        primaries = {room: await in_thread(cluster.primary_of, room) for room in rooms}
        dead = primaries[rooms[0]]
        others = [room for room, primary in primaries.items() if primary is not dead]
        assert 0 < len(others) < len(rooms)
        for client in clients:
            client.stop_heartbeats()
        with capture_logs() as logs:
            await in_thread(cluster.kill_primary, rooms[0])
            for client in clients:
                await client.send(BEAT, roomId=rooms[0], id="kept")
                await client.has_received("service:degraded")
                for room in others:
                    await client.ask(BEAT, ACK, roomId=room)
        assert not dead.alive
        reasons = {line["reason"] for line in logs if line["event"] == "redis_away"}
        assert reasons == {f"Redis does not answer at {dead.address}, a primary of the cluster"}
        async with RawClient.connect(one) as late:
            await late.join(others[0], "late")
            await clients[1].has_received("room:diff", roomId=others[0], count=5)
            await late.ask("leave_room", "room:left", roomId=others[0])
        await in_thread(cluster.promoted, dead, rooms[0])
        for client in clients:
            await client.has_received("service:restored")
            await client.has_received(ACK, id="kept")
            for room in rooms:
                await client.ask(BEAT, ACK, roomId=room)
            assert departures(client.received) == [("late", "left")]
        for room in rooms:
            await converged(clients, cluster, room, USERS)


@pytest.mark.slow
async def test_a_primary_that_never_returns_is_not_needed(cluster: ClusterSet) -> None:
    rules = (RoomRule(match=SILENT, ttl=1.0),)
    async with serving(cluster, rooms=rules) as one, crowd([one], ["lobby"], 4) as clients:
        dead = await in_thread(cluster.kill_primary, "lobby")
        new = await in_thread(cluster.promoted, dead, "lobby")
        running = [server.address for server in cluster.servers if server.alive]
        url = f"redis+cluster://{dead.address},{running[0]}"
        async with (
            serving(cluster, rooms=rules, redis_url=url) as two,
            RawClient.connect(two) as late,
            RawClient.connect(two) as silent,
        ):
            await late.join("lobby", "late")
            await clients[0].has_received("room:diff", count=5)
            joined = await silent.join(SILENT, "silent")
            await silent.receive("room:force-leave", reason="inactivity_timeout")
            assert 0 <= lateness(joined["members"][0]["joinedAt"] + 1000) < NOTIFIED_WITHIN
            await clients[0].ask("leave_room", "room:left", roomId="lobby")
            assert await late.receive_departure_of("u0") == "left"
            await converged([*clients[1:], late], cluster, "lobby", [*USERS[1:], "late"])
            assert set(redis_state.members(new, "lobby")) == {*USERS[1:], "late"}
        assert not dead.alive


async def test_a_missing_right_to_read_the_slots_is_named(cluster: ClusterSet) -> None:
    for server in cluster.servers:
        server.control.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], channels=["*"],
                                   commands=["+@all", "-cluster|slots"])  # fmt: skip
    try:
        with pytest.raises(RedisMisconfigured, match=r"cluster\|slots.*ACL SETUSER"):
            async with serving(cluster, redis_url=cluster.url.replace(USER, "blind:any")):
                pass
    finally:
        for server in cluster.servers:
            server.control.acl_deluser("blind")


async def test_resharding_of_foreign_slots_lists_no_room_again(cluster: ClusterSet) -> None:
    """Slots without a key of the namespace move; then one of its own does, and only that shard is listed."""
    rooms = one_room_in_each_shard()
    own = {slot_of(room_id) for room_id in rooms} | {key_slot(fleet_prefix("reactor").encode())}
    foreign = [slot for slot in range(0, 16384, 97) if slot not in own]
    async with serving(cluster) as node, crowd([node], rooms, 2):
        await anyio.sleep(1.0)  # what the start caused is over
        before = node.feed.resyncs.total()
        for slot in foreign[:60]:
            to = cluster.another_primary(cluster.owner_of(slot))
            await in_thread(cluster.end_move, slot, to)
        await anyio.sleep(2.0)  # several refreshes of the topology
        assert node.feed.resyncs.total() == before
        slot = slot_of(rooms[0])
        await in_thread(cluster.move_slot, slot, cluster.another_primary(cluster.owner_of(slot)))
        await until(lambda: node.feed.resyncs.total() > before)
        await anyio.sleep(1.0)
        assert node.feed.resyncs == {"moved": len([one for one in rooms if slot_of(one) == slot])}
        assert node.readiness.status()[0]


@pytest.mark.timeout(180)
async def test_a_primary_that_gives_away_all_its_slots_and_gets_them_back(
    cluster: ClusterSet, atomic: bool
) -> None:
    """As where a cluster is made smaller or larger: only the rooms that moved are listed again."""
    rooms = one_room_in_each_shard()
    async with (
        serving(cluster) as one,
        serving(cluster) as two,
        crowd([one, two], rooms, 2) as clients,
    ):
        names = one.name(), two.name()
        source = await in_thread(cluster.primary_of, rooms[0])
        to = cluster.another_primary(source)
        moving = [room for room in rooms if await in_thread(cluster.primary_of, room) is source]
        assert 0 < len(moving) < len(rooms)
        ranges = await in_thread(cluster.ranges_of, source)
        for owner, next_owner in ((source, to), (to, source)):
            before = one.feed.resyncs.copy(), two.feed.resyncs.copy()
            await in_thread(lambda: cluster.move_ranges(ranges, owner, next_owner, atomic=atomic))  # noqa: B023
            for node, noted in zip((one, two), before, strict=True):
                await until(lambda: (node.feed.resyncs - noted)["moved"] >= len(moving))  # noqa: B023
            for client in clients:
                for room in rooms:
                    await client.ask(BEAT, ACK, roomId=room, id=f"{room} at {next_owner.port}")
            await anyio.sleep(1.0)  # two refreshes of the topology
            for node, noted in zip((one, two), before, strict=True):
                assert set(node.feed.resyncs - noted) == {"moved"}
        for client in clients:
            assert not client.of("service:degraded", "room:force-leave", "error")
            assert departures(client.received) == []
        for room in rooms:
            await converged(clients, cluster, room, USERS[:2])
        assert (one.name(), two.name()) == names


@pytest.mark.timeout(120)
async def test_moving_many_foreign_slots_at_once_lists_no_room_again(cluster: ClusterSet) -> None:
    """CLUSTER MIGRATESLOTS with ranges, also one that is cancelled."""
    if not servers.moves_slots_at_once(cluster.kind):
        pytest.skip("only Valkey 9 and later move slots atomically")
    rooms = one_room_in_each_shard()
    own = {slot_of(room_id) for room_id in rooms} | {key_slot(fleet_prefix("reactor").encode())}
    async with serving(cluster) as node, crowd([node], rooms, 2) as clients:
        source = await in_thread(cluster.primary_of, rooms[0])
        to = cluster.another_primary(source)
        before = node.feed.resyncs.total()
        foreign = cluster.ranges_of(source, without=own)
        for owner, next_owner in ((source, to), (to, source)):
            await in_thread(lambda: cluster.move_ranges(foreign, owner, next_owner, atomic=True))  # noqa: B023
        slot = slot_of(rooms[0])
        await in_thread(lambda: cluster.cancelled_move(slot, source, to))
        for client in clients:
            for room in rooms:
                await client.ask(BEAT, ACK, roomId=room, id="at the end")
            assert not client.of("service:degraded", "room:force-leave", "error")
            assert departures(client.received) == []
        await anyio.sleep(1.0)  # two refreshes of the topology
        assert node.feed.resyncs.total() == before


@pytest.mark.timeout(400)
async def test_deliveries_stay_prompt_while_6000_foreign_slots_move(
    cluster: ClusterSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 3,000 rooms: none is listed again. Prints the times of deliveries before and during it."""
    own = {key_slot(shard_prefix("reactor", shard).encode()) for shard in range(SHARDS)}
    own.add(key_slot(fleet_prefix("reactor").encode()))
    foreign = [slot for slot in range(16384) if slot not in own][:6000]
    async with serving(cluster, ttl=600) as node, AsyncExitStack() as stack:
        for start in range(0, 3000, 15):
            client = await stack.enter_async_context(RawClient.connect(node))
            for number in range(start, start + 15):
                await client.join(f"room {number}", f"u{number}")
        ann = await stack.enter_async_context(RawClient.connect(node))
        bob = await stack.enter_async_context(RawClient.connect(node))
        await ann.join("probe", "ann")
        await bob.join("probe", "bob")
        quiet = await _deliveries(ann, bob, 200)
        before = node.feed.resyncs.total()
        moving = asyncio.create_task(in_thread(_move_all, cluster, foreign))
        during: list[float] = []
        while not moving.done():
            during += await _deliveries(ann, bob, 50)
        await moving
        assert node.feed.resyncs.total() == before
    with capsys.disabled():
        quiet_ms, during_ms = _shown(quiet), _shown(during)
        print(f"\n{cluster.kind}: deliveries p50/p99 {quiet_ms} ms quiet, {during_ms} ms during")  # noqa: T201


def _move_all(cluster: ClusterSet, slots: list[int]) -> None:
    """Give slots without keys to the next primary, as `redis-cli --cluster reshard` does."""
    primaries = cluster.primaries()
    for slot in slots:
        to = primaries[(slot // 6000 + 1) % len(primaries)]
        for server in primaries:
            server.control.execute_command("CLUSTER SETSLOT", slot, "NODE", cluster._id(to))


async def _deliveries(sender: RawClient, receiver: RawClient, number: int) -> list[float]:
    """Seconds from a request to the arrival of its diff at another client."""
    found = []
    for _ in range(number):
        version = len(receiver.of("room:diff"))
        began = time.perf_counter()
        await sender.send("room:update", roomId="probe", data={"n": began})
        await receiver.until(lambda: len(receiver.of("room:diff")) > version)  # noqa: B023
        found.append(time.perf_counter() - began)
        await anyio.sleep(0.01)
    return found


def _shown(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2] * 1000:.1f}/{ordered[len(ordered) * 99 // 100] * 1000:.1f}"
