"""Webhooks of users: online and offline once each, with when they were last seen, and what a ban sends."""

from typing import Any

from reactor.presence.api import Presence
from reactor.settings.webhooks import EVENTS
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.system.webhooks.receiver import Receiver, webhook_settings

PEOPLE = "user_online,user_offline"


def of(receiver: Receiver, user: str, *kinds: str) -> list[dict[str, Any]]:
    """The accepted events of a user, of these types."""
    return [e for e in receiver.accepted if e.get("userId") == user and e["type"] in kinds]


async def test_a_user_goes_online_and_offline_once_whatever_the_rooms_and_nodes(
    redis_server: Server,
) -> None:
    async with (
        Receiver.listening() as receiver,
        served(redis_server, grace=0.3, **webhook_settings(receiver, webhook_events=PEOPLE)) as node,
        served(redis_server, grace=0.3, **webhook_settings(receiver, webhook_events=PEOPLE)) as other,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(node) as laptop,
        RawClient.connect(other) as phone,
        RawClient.connect(other) as bob,
    ):
        await laptop.join("lobby", "ann")
        await phone.join("hall", "ann")
        await laptop.ask("leave_room", "room:left", roomId="lobby")
        await phone.ask("room:away", "room:away:ok")
        await phone.ask("leave_room", "room:left", roomId="hall")
        await bob.join("@bob", "bob", view="none")
        await receiver.until(lambda: of(receiver, "bob", "user_online"))
        bob.vanish()
        await receiver.until(lambda: of(receiver, "bob", "user_offline"))
        await receiver.until(lambda: of(receiver, "ann", "user_offline"))
        await phone.join("hall", "ann")
        await receiver.until(lambda: len(of(receiver, "ann", "user_online")) == 2)
        for user in ("ann", "bob"):
            events = of(receiver, user, "user_online", "user_offline")
            online, offline = events[:2]
            assert [event["type"] for event in events] == ["user_online", "user_offline", "user_online"][
                : len(events)
            ]
            assert online.keys() == {"id", "type", "timestamp", "userId"}
            assert offline.keys() == {"id", "type", "timestamp", "userId", "lastSeen"}
            assert offline["lastSeen"] == (await presence.user(user)).last_seen
            assert online["timestamp"] <= offline["lastSeen"] + 60_000
        assert len({event["id"] for event in receiver.accepted}) == len(receiver.accepted) == 5


async def test_where_it_is_not_kept_an_event_has_no_time_when_a_user_was_last_seen(
    bundled_server: Server,
) -> None:
    settings: dict[str, Any] = {"webhook_events": PEOPLE, "last_seen_kept": 0}
    async with (
        Receiver.listening() as receiver,
        served(bundled_server, **webhook_settings(receiver, **settings)) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await receiver.until(lambda: of(receiver, "ann", "user_offline"))
        assert of(receiver, "ann", "user_offline")[0].keys() == {"id", "type", "timestamp", "userId"}


async def test_a_ban_sends_each_departure_with_its_reason_and_offline_with_the_last_one(
    redis_server: Server,
) -> None:
    async with (
        Receiver.listening() as receiver,
        served(redis_server, **webhook_settings(receiver, webhook_events=",".join(EVENTS))) as node,
        served(redis_server, **webhook_settings(receiver, webhook_events=",".join(EVENTS))) as other,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(node) as ann,
        RawClient.connect(other) as phone,
        RawClient.connect(other) as bob,
    ):
        await ann.join("lobby", "ann")
        await ann.join("hall", "ann")
        await phone.join("kitchen", "ann")
        await bob.join("lobby", "bob")
        await presence.ban("ann", "lobby", for_="10m", message="Be kind.", by="mod")
        await receiver.until(lambda: of(receiver, "ann", "member_left"))
        (left,) = of(receiver, "ann", "member_left")
        assert (left["roomId"], left["reason"], left["count"]) == ("lobby", "banned", 1)
        assert (await ann.ask("join_room", "error", roomId="lobby", userId="ann"))["code"] == "banned"
        assert (await presence.user("ann")).rooms == ["hall", "kitchen"]
        await presence.ban("ann", for_="10m")
        for client in (ann, phone):
            await client.has_received("room:force-leave", reason="banned")
        assert await presence.unban("ann")
        await receiver.until(lambda: of(receiver, "ann", "user_offline"))
        await bob.join("last", "bob")
        await receiver.until(lambda: any(e.get("roomId") == "last" for e in receiver.accepted))
        await receiver.until(lambda: len(of(receiver, "ann", "member_left")) == 3)
        rooms = {e["roomId"]: e["reason"] for e in of(receiver, "ann", "member_left")}
        assert rooms == {"lobby": "banned", "hall": "banned", "kitchen": "banned"}
        changes = of(receiver, "ann", "user_online", "user_offline")
        assert [event["type"] for event in changes] == ["user_online", "user_offline"]
        assert changes[1]["lastSeen"] == (await presence.user("ann")).last_seen
        assert len(of(receiver, "ann", "member_joined")) == 3
        assert "Be kind." not in str(receiver.accepted)
