"""Webhooks on Sentinel sets and clusters: the departures of every shard are read from its primary."""

from tests.fleet.serving import one_room_in_each_shard, serving
from tests.support.raw_client import RawClient
from tests.support.server_sets import ServerSet
from tests.system.webhooks.receiver import Receiver, webhook_settings


async def test_webhooks_cover_every_shard(fleet: ServerSet) -> None:
    rooms = one_room_in_each_shard()
    async with (
        Receiver.listening() as receiver,
        serving(fleet, **webhook_settings(receiver, webhook_events="member_joined,member_left")) as one,
        serving(fleet, **webhook_settings(receiver, webhook_events="member_joined,member_left")),
        RawClient.connect(one) as ann,
    ):
        for room in rooms:
            await ann.join(room, "ann")
        for room in rooms:
            await ann.ask("leave_room", "room:left", roomId=room)
        await receiver.until(lambda: len(receiver.accepted) >= 2 * len(rooms))
        for room in rooms:
            of_room = [kind for kind, where, _ in receiver.summary if where == room]
            assert of_room == ["member_joined", "member_left"]
