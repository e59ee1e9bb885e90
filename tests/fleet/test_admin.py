"""The admin port on Sentinel sets and clusters covers all nodes and shards."""

from tests.fleet.serving import one_room_in_each_shard, serving
from tests.support.raw_client import RawClient
from tests.support.server_sets import ServerSet
from tests.support.servers import free_port
from tests.support.waiting import until
from tests.system.admin.serving import KEY, admin_client, ok


async def test_rooms_messages_settings_and_kicks_work_on_every_shard(fleet: ServerSet) -> None:
    rooms = one_room_in_each_shard()
    async with (
        serving(fleet, admin_port=free_port(), admin_key=KEY) as one,
        serving(fleet) as two,
        admin_client(one) as admin,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
    ):
        for room in rooms:
            await ann.join(room, "ann")
            await bob.join(room, "bob")
        listed = await ok(admin, "/v1/rooms")
        assert listed["rooms"] == [{"roomId": room, "count": 2} for room in sorted(rooms)]
        for room in rooms:
            nodes = 0
            while nodes != 2:  # on a busy machine a node may be just about to subscribe again
                sent = await ok(admin, f"/v1/rooms/{room}/messages", "POST", json={"data": room})
                nodes = sent["nodes"]
            for client in (ann, bob):
                assert (await client.receive("room:message", roomId=room))["data"] == room
            assert (await ok(admin, f"/v1/rooms/{room}/members/bob"))["userId"] == "bob"
            await ok(admin, f"/v1/rooms/{room}/settings", "PUT", json={"ttl": 77})
            await ok(admin, f"/v1/rooms/{room}/members/bob", "DELETE")
        assert await bob.closed() == 4003
        await until(lambda: all(two.rules.policy(room).ttl == 77_000 for room in rooms))
        departures = await ok(admin, "/v1/departures")
        assert {(one["roomId"], one["reason"]) for one in departures["departures"]} == {
            (room, "kicked") for room in rooms
        }
        overview = await ok(admin, "/v1/overview")
        counted = {reason: number for reason, number in overview["departures"].items() if number}
        assert counted == {"kicked": len(rooms)}
        assert {one["node"] for one in overview["nodes"]} == {one.name(), two.name()}
        text = (await admin.get("/metrics")).text
        assert f'reactor_departures_total{{reason="kicked"}} {len(rooms)}.0' in text
        await until(lambda: one.channels.lags.count and one.listener.lags.count)
