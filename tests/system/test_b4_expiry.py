"""B4: no heartbeat for the whole TTL."""

from tests.servers import Server
from tests.system.running import RawClient, served


async def test_b4_who_is_silent_for_the_whole_ttl_is_told_and_closed_and_the_others_hear_it(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, ttl=1.0, inactivity_message="Gone quiet.") as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        joined = await bob.join("lobby", "bob")
        while True:  # ann keeps beating until bob is told off
            await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
            if any(message["type"] == "room:diff" and message["left"] for message in ann.heard):
                break
        left = next(m for m in ann.heard if m["type"] == "room:diff" and m["left"])
        assert left["left"] == [{"userId": "bob", "reason": "inactivity_timeout"}]
        farewell = await bob.hear("room:force-leave")
        assert farewell["message"] == "Gone quiet."
        assert farewell["reason"] == "inactivity_timeout"
        deadline = joined["members"][1]["joinedAt"] + 1000
        assert deadline <= farewell["timestamp"] < deadline + 500
        assert await bob.closed() == 4003
