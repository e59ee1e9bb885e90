"""Bans on Sentinel sets and clusters: everywhere at once, whichever server has the shard."""

import time

from reactor.presence.api import Presence
from tests.fleet.serving import one_room_in_each_shard, serving
from tests.support.raw_client import RawClient
from tests.support.server_sets import ServerSet
from tests.support.signing import SECRET, token


async def test_a_ban_everywhere_ends_the_memberships_in_every_shard(fleet: ServerSet) -> None:
    rooms = one_room_in_each_shard()
    async with (
        serving(fleet) as one,
        serving(fleet) as two,
        Presence.open(one.settings) as presence,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as back,
    ):
        for room in rooms:
            await ann.join(room, "ann")
        ban = await presence.ban("ann", for_=600, message="Out.")
        assert await presence.rooms() == []
        assert await ann.closed() == 4003
        left = ann.of("room:force-leave")
        assert {message["roomId"] for message in left} == set(rooms)
        assert {(message["reason"], message["until"]) for message in left} == {("banned", ban.until)}
        for room in rooms:
            refused = await back.answer("join_room", roomId=room, userId="ann")
            assert (refused["code"], refused["until"]) == ("banned", ban.until)
        assert [one async for one in presence.bans()] == [ban]
        assert await presence.unban("ann")
        await back.join(rooms[0], "ann")


async def test_bans_and_revocations_reach_logins_and_watches_on_every_node(fleet: ServerSet) -> None:
    async with (
        serving(fleet, auth_secret=SECRET) as one,
        serving(fleet, auth_secret=SECRET) as two,
        Presence.open(one.settings) as presence,
        RawClient.connect(one) as page,
        RawClient.connect(two) as other_page,
        RawClient.connect(two) as late,
        RawClient.connect(two) as revoked,
    ):
        for client in (page, other_page):
            await client.ask("auth", "auth:ok", token=token(sub="ann"))
            for room in one_room_in_each_shard()[:3]:
                assert (await client.answer("room:watch", roomId=room))["type"] == "room:watching"
        room = one_room_in_each_shard()[0]
        in_room = await presence.ban("ann", room, for_=600)
        for client in (page, other_page):
            error = await client.receive("error", code="banned")
            assert (error["roomId"], error["until"]) == (room, in_room.until)
        ban = await presence.ban("ann", for_=600)
        for client in (page, other_page):
            assert await client.closed() == 4003
        refused = await late.answer("auth", token=token(sub="ann"))
        assert (refused["code"], refused["until"]) == ("banned", ban.until)

        await revoked.ask("auth", "auth:ok", token=token(sub="bob", iat=int(time.time()) - 60))
        await presence.revoke("bob")
        assert await revoked.closed() == 4001
