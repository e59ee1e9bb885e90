"""Another application in the same Redis is not disturbed, and its keys and events are ignored."""

from typing import Any

from structlog.testing import capture_logs

from reactor import Presence
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

NEARLY = [
    "room:lobby:user:ann",
    "{reactor}:room:lobby:user:ann",
    "{reactor2:7}:room:lobby:user:ann",
    "{reactor:7kf}room:lobby:user:ann",
    "reactor:7:room:lobby:user:ann",
    "{reactor:8df}:room:lobby:user:ann",  # the name of a shard that the room is not in
    "{reactor:16}:room:lobby:user:ann",
    "{reactor:7kf}:rooms:lobby",
    "{reactor:7kf}:shadow",
    "{reactor:7kf}:room:lobby",
    "{reactor:7kf}:room:lobby:user:",
    "x{reactor:7kf}:room:lobby:user:ann",
    "{Reactor:7}:room:lobby:user:ann",
    "{another:7}:members:lobby",
    "{another:7}:rooms",
]


def _dump(server: Server) -> dict[str, tuple[Any, int]]:
    """Every foreign key, byte by byte, with its expiry."""
    raw = server.control
    return {
        key: (raw.execute_command("DUMP", key, NEVER_DECODE=True), raw.pexpiretime(key))
        for key in _foreign(server)
    }


def _foreign(server: Server) -> list[str]:
    return [*NEARLY, *server.control.scan_iter(match="app:*", count=1000)]


async def test_foreign_keys_stay_as_they_are(redis_server: Server) -> None:
    control = redis_server.control
    for index, key in enumerate(NEARLY):
        control.hset(key, mapping={"userId": "ann", "roomId": "lobby", "n": index})
    for number in range(1000):
        control.set(f"app:{number}", "x" * (number % 50), px=3_600_000 + number)
    before = _dump(redis_server)
    assert len(before) == 1000 + len(NEARLY)

    rooms = (RoomRule(match="brief", ttl=0.5),)
    async with (
        served(redis_server, ttl=60, grace=0.3, sweep_interval=0.3, rooms=rooms) as node,
        served(redis_server, namespace="other", ttl=60) as other,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(other) as foreign_client,
    ):
        joined = await ann.join("lobby", "ann")
        assert [member["userId"] for member in joined["members"]] == ["ann"]
        await bob.join("lobby", "bob")
        await bob.join("brief", "bob")
        alone = await foreign_client.join("lobby", "ann")
        assert [member["userId"] for member in alone["members"]] == ["ann"]
        await bob.receive("room:force-leave", roomId="brief")
        bob.vanish()
        assert await ann.receive_departure_of("bob") == "disconnected"
        await ann.ask("leave_room", "room:left", roomId="lobby")
        rounds = node.sweep.rounds
        await until(lambda: node.sweep.rounds > rounds + 1)
        assert redis_state.members(redis_server, "lobby") == {}
        assert not departures(foreign_client.received)
    assert _dump(redis_server) == before


async def test_expired_events_of_foreign_keys_are_ignored(redis_server: Server) -> None:
    """Hundreds of foreign keys expire, some with names like the reactor's, and no member is affected."""
    control = redis_server.control
    async with (
        served(redis_server, ttl=60) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        joined = await bob.join("lobby", "bob")
        names = [*NEARLY, *(f"app:{number}" for number in range(300))]
        for name in names:
            control.set(name, "x", px=30)
        control.set("{reactor:7kf}:room:lobby:user:last", "x", px=30)  # one that is named like ours
        await until(lambda: control.exists(*names) == 0 and node.listener.received)
        assert node.listener.received == 1
        await bob.ask("room:update", "room:updated", roomId="lobby", username="Bob")
        diff = await ann.receive_next(lambda message: bool(message.get("updated")))
        assert (diff["from"], diff["left"]) == (joined["version"], [])
        assert sum(node.reaper.found_by.values()) == 0


async def test_events_of_another_database_are_ignored(redis_server: Server) -> None:
    """The same keys expire in another database, and no member here does."""
    import redis

    elsewhere = redis.Redis(unix_socket_path=str(redis_server.socket), db=3, protocol=2)
    async with (
        served(redis_server, ttl=60) as node,
        served(
            redis_server, redis_url=redis_server.socket_url.replace("db=0", "db=3"), ttl=60, grace=0.3
        ) as there,
        RawClient.connect(node) as ann,
        RawClient.connect(there) as far,
        RawClient.connect(there) as watcher,
    ):
        await ann.join("lobby", "ann")
        await watcher.join("lobby", "watcher")
        joined = await far.join("lobby", "ann")
        assert joined["count"] == 2
        far.vanish()
        assert await watcher.receive_departure_of("ann") == "disconnected"
        assert elsewhere.exists(redis_state.presence_key("lobby", "ann")) == 0
        assert (node.listener.received, there.listener.received) == (0, 1)
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
    elsewhere.close()


async def test_fleets_in_two_databases_do_not_hear_each_other(redis_server: Server) -> None:
    """Both use the same namespace, room and user; joins, rules and messages of one do not reach the other."""
    elsewhere = redis_server.socket_url.replace("db=0", "db=3")
    with capture_logs() as logs:
        async with (
            served(redis_server, ttl=60) as node,
            served(redis_server, redis_url=elsewhere, ttl=60) as there,
            RawClient.connect(node) as ann,
            RawClient.connect(there) as bob,
            Presence.open(elsewhere) as presence,
        ):
            await ann.join("lobby", "ann")
            await bob.join("lobby", "bob")
            await presence.say("lobby", {"for": "database 3"})
            await bob.receive("room:message", roomId="lobby")
            await there.rules.put(RoomRule(match="lobby", max_members=1))
            assert await presence.kick("lobby", "bob")
            await bob.receive("room:force-leave", roomId="lobby")
            # What the other database had published would have arrived before the diff of this update.
            await ann.ask("room:update", "room:updated", roomId="lobby", username="Ann")
            diff = await ann.has_received("room:diff")
            assert (diff["from"], diff["count"], diff["left"]) == (1, 1, [])
            assert len(ann.of("room:message", "room:diff")) == 1
            assert node.rules.policy("lobby").max_members == 0
    assert not [line for line in logs if line["event"] in {"redis_lost_data", "room_resync"}]
