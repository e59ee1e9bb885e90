"""Join, heartbeat, away, expiry, leave, grace, reads and departures on Sentinel sets and clusters."""

from typing import Any

from reactor.presence.api import Presence
from reactor.settings import RoomRule
from tests.fleet.serving import NOTIFIED_WITHIN, converged, crowd, lateness, one_room_in_each_shard, serving
from tests.support import redis_state
from tests.support.cluster_set import ClusterSet
from tests.support.raw_client import RawClient
from tests.support.server_sets import ServerSet
from tests.support.waiting import until

BEAT, ACK = "room:heartbeat", "room:heartbeat:ack"


async def test_changes_on_one_node_reach_clients_of_another(fleet: ServerSet) -> None:
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
    ):
        await ann.join("lobby", "ann")
        joined = await bob.join("lobby", "bob", username="Bob", data={"n": 1})
        assert [member["userId"] for member in joined["members"]] == ["ann", "bob"]
        assert (await ann.receive("room:diff"))["joined"][0]["data"] == {"n": 1}
        server = fleet.primary_of("lobby")
        fields = redis_state.members(server, "lobby")["bob"]
        assert (fields["userId"], fields["roomId"], fields["username"]) == ("bob", "lobby", "Bob")
        before = redis_state.now(server)
        assert (await bob.ask(BEAT, ACK, roomId="lobby"))["timestamp"] >= before
        await bob.ask("room:update", "room:updated", roomId="lobby", data=2)
        assert (await ann.receive("room:diff"))["updated"][0]["data"] == 2
        await bob.ask("room:away", "room:away:ok")
        assert (await ann.receive("room:diff"))["updated"][0]["away"] is True
        await bob.ask("room:back", "room:back:ok")
        assert (await ann.receive("room:diff"))["updated"][0]["away"] is False
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 2
        asked: dict[str, Any] = {"roomId": "lobby", "userId": "bob"}
        assert (await ann.ask("room:is_present", "room:is_present", **asked))["present"] is True
        await bob.ask("leave_room", "room:left", roomId="lobby")
        assert await ann.receive_departure_of("bob") == "left"
        assert (await ann.ask("room:is_present", "room:is_present", **asked))["present"] is False
        await converged([ann], fleet, "lobby", ["ann"])


async def test_silent_and_disconnected_members_leave_in_time_on_every_shard(fleet: ServerSet) -> None:
    rooms = one_room_in_each_shard()
    async with (
        serving(fleet, grace=0.5, rooms=(RoomRule(match="room *", ttl=2.0),), sweep_interval=0) as one,
        serving(fleet, grace=0.5, rooms=(RoomRule(match="room *", ttl=2.0),), sweep_interval=0) as two,
        crowd([one, two], rooms, 2) as (ann, bob),
        RawClient.connect(one) as silent,
        RawClient.connect(two) as vanishing,
    ):
        deadlines = {}
        for room in rooms:
            joined = await silent.join(room, "silent")
            await vanishing.join(room, "vanishing")
            deadlines[room] = next(m["joinedAt"] for m in joined["members"] if m["userId"] == "silent") + 2000
        vanishing.vanish()
        for watcher in (ann, bob):
            reported: dict[tuple[str, str], str] = {}
            while len(reported) < 2 * len(rooms):
                diff = await watcher.receive_next(lambda message: bool(message.get("left")))
                for left in diff["left"]:
                    assert (
                        reported.setdefault((diff["roomId"], left["userId"]), left["reason"])
                        == left["reason"]
                    )
                    if left["userId"] == "silent" and watcher is ann:
                        assert 0 <= lateness(deadlines[diff["roomId"]]) < NOTIFIED_WITHIN
            assert {user: reason for (_, user), reason in reported.items()} == {
                "silent": "inactivity_timeout",
                "vanishing": "disconnected",
            }
        assert await silent.closed() == 4003
        assert {message["roomId"] for message in silent.of("room:force-leave")} == set(rooms)
        for room in rooms:
            await converged([ann, bob], fleet, room, ["u0", "u1"])


async def test_an_event_alone_ends_a_silent_member_on_every_shard(fleet: ServerSet) -> None:
    """Without the pacemaker and the sweep: expired events of every primary arrive."""
    rooms = one_room_in_each_shard()
    off: dict[str, Any] = {"pacemaker": False, "sweep_interval": 0}
    async with serving(fleet, ttl=0.6, **off) as node, RawClient.connect(node) as ann:
        for room in rooms:
            await ann.join(room, "ann")
        assert await ann.closed() == 4003
        await until(lambda: node.reaper.found_by.total() == len(rooms))
        assert set(node.reaper.found_by) == {"event"}


async def test_a_back_end_reads_watches_kicks_and_follows_departures(fleet: ServerSet) -> None:
    rooms = one_room_in_each_shard()
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        crowd([one, two], rooms, 2) as (ann, bob),
        Presence.open(fleet.url) as presence,
    ):
        assert {room.room_id: room.count for room in await presence.rooms()} == dict.fromkeys(rooms, 2)
        assert [member.user_id for member in await presence.members(rooms[3])] == ["u0", "u1"]
        assert await presence.count(rooms[4]) == 2
        assert await presence.is_present(rooms[5], "u1")
        watched = {room: presence.watch(room) for room in rooms}
        for events in watched.values():
            event = await anext(events)
            assert (event.kind, event.count) == ("sync", 2)
        followed = presence.departures(follow=True)
        for room in rooms:
            assert await presence.kick(room, "u1", "Out.")
            assert not await presence.kick(room, "u1")
            force_leave = await bob.receive("room:force-leave", roomId=room)
            assert (force_leave["reason"], force_leave["message"]) == ("kicked", "Out.")
            await ann.has_received("room:diff", roomId=room, left=[{"userId": "u1", "reason": "kicked"}])
            event = await anext(watched[room])
            assert event.member is not None
            assert (event.kind, event.member.user_id, event.reason) == ("leave", "u1", "kicked")
        assert await bob.closed() == 4003
        found = [await anext(followed) for _ in rooms]
        assert sorted((one.room_id, one.user_id, one.reason) for one in found) == sorted(
            (room, "u1", "kicked") for room in rooms
        )
        assert await presence.totals() == {"kicked": len(rooms)}
        assert [one.room_id async for one in presence.departures(rooms[7])] == [rooms[7]]
        for events in watched.values():
            await events.aclose()
        await followed.aclose()  # type: ignore[attr-defined]


async def test_diffs_of_a_room_are_published_on_its_primary_alone(cluster: ClusterSet) -> None:
    channel = f"{redis_state.prefix('lobby')}:diff:lobby"
    async with serving(cluster) as one, serving(cluster) as two, crowd([one, two], ["lobby"], 2):
        primary = cluster.primary_of("lobby")
        for server in cluster.servers:
            sharded: Any = server.control.pubsub_shardchannels()
            assert (channel in sharded) == (server is primary)
            assert not server.control.pubsub_channels("*diff*")  # they go to every server
