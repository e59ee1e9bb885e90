"""The TTL from the environment; TTL, grace, message and size by room."""

from pathlib import Path

from reactor.settings.load import load
from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server

RULES = """
ttl = 50
grace = 20
inactivity_message = "From the file."

[rooms."quick-*"]
ttl = 0.6
message = "Quick means quick."

[rooms."quick-but-not-this"]
ttl = "2h"

[rooms."drop-*"]
grace = "300ms"

[rooms."small"]
max_members = 2
ttl = 3
"""


async def test_the_ttl_comes_from_the_environment(redis_server: Server) -> None:
    settings = load({}, {"REACTOR_TTL": "90m"})
    async with served(redis_server, ttl=settings.ttl) as node, RawClient.connect(node) as ann:
        assert (await ann.join("lobby", "ann"))["ttl"] == 5_400_000
        assert 5_390_000 < redis_server.control.pttl(redis_state.presence_key("lobby", "ann")) <= 5_400_000


async def test_rooms_have_the_settings_of_the_file(redis_server: Server, tmp_path: Path) -> None:
    config = tmp_path / "reactor.toml"
    config.write_text(RULES)
    async with (
        NodeProcess.start(redis_server, config=config) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        terms = {
            room: (await ann.join(room, "ann"))["ttl"]
            for room in ("lobby", "quick-but-not-this", "quick-1", "drop-1")
        }
        assert terms == {"lobby": 50_000, "quick-but-not-this": 7_200_000, "quick-1": 600, "drop-1": 50_000}
        force_leave = await ann.receive("room:force-leave")
        assert (force_leave["roomId"], force_leave["message"]) == ("quick-1", "Quick means quick.")

        for room in ("lobby", "drop-1"):
            await watcher.join(room, "watcher")
            await bob.join(room, "bob")
        bob.vanish()
        assert await watcher.receive_departure_of("bob") == "disconnected"
        assert departures(watcher.received, "drop-1")
        assert not departures(watcher.received, "lobby")
        assert 300 < redis_server.control.pttl(redis_state.presence_key("lobby", "bob")) <= 20_000


async def test_a_full_room_refuses_joins_until_a_member_leaves(redis_server: Server, tmp_path: Path) -> None:
    config = tmp_path / "reactor.toml"
    config.write_text(RULES)
    rooms = load({"config": str(config)}, {}).rooms
    async with (
        served(redis_server, rooms=rooms) as one,
        served(redis_server, rooms=rooms) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(one) as bob,
        RawClient.connect(two) as tab,
        RawClient.connect(two) as carl,
    ):
        await ann.join("small", "ann")
        ann.start_heartbeats()
        await bob.join("small", "bob")
        await tab.join("small", "bob")  # one more connection is not one more member
        refused = await carl.ask("join_room", "error", roomId="small", userId="carl", id=9)
        assert (refused["code"], refused["id"], refused["roomId"]) == ("room_full", 9, "small")
        assert (await carl.ask("room:heartbeat", "error", roomId="small"))["code"] == "not_joined"
        assert redis_state.members(redis_server, "small").keys() == {"ann", "bob"}
        await bob.ask("leave_room", "room:left", roomId="small")
        assert (await carl.ask("join_room", "error", roomId="small", userId="carl"))["code"] == "room_full"
        # The other connection sends no heartbeats: when it has expired there is room.
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        joined = await carl.join("small", "carl")
        assert {member["userId"] for member in joined["members"]} == {"ann", "carl"}


async def test_a_shorter_ttl_applies_to_members_that_join_under_it(redis_server: Server) -> None:
    """The member was present with a longer TTL, on a node that has stopped; its expiry is still punctual."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=3600) as old,
        served(redis_server, ttl=0.8, sweep_interval=0) as new,
        RawClient.connect(old) as before,
        RawClient.connect(new) as after,
    ):
        await before.join("lobby", "ann")
        assert (await after.join("lobby", "ann"))["ttl"] == 800
        assert (await after.receive("room:force-leave"))["reason"] == "inactivity_timeout"
        assert await before.closed() == 4003
