"""The sweep repairs what a lost event, a crash or an external change left behind."""

from typing import Any

import anyio

from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import NodeProcess, served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

ONLY_THE_SWEEP: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0.3}


async def test_a_presence_key_deleted_externally_removes_the_member(redis_server: Server) -> None:
    async with (
        served(redis_server, **ONLY_THE_SWEEP) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        redis_server.control.delete(redis_state.presence_key("lobby", "bob"))
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        assert (await bob.receive("room:force-leave"))["roomId"] == "lobby"
        assert await bob.closed() == 4003
        assert not redis_server.control.exists(redis_state.shadow_key("lobby", "bob"))
        assert departures(ann.received) == [("bob", "inactivity_timeout")]


async def test_expiries_whose_event_was_lost_are_found(redis_server: Server) -> None:
    """Redis sends no events, and the pacemaker is off."""
    rooms = (RoomRule(match="brief", ttl=0.5),)
    async with (
        served(
            redis_server,
            ttl=60,
            grace=0.5,
            rooms=rooms,
            pacemaker=False,
            sweep_interval=0.4,
            manage_redis=False,
        ) as node,  # fmt: skip
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as silent,
        RawClient.connect(node) as cut,
    ):
        redis_server.control.config_set("notify-keyspace-events", "")
        await watcher.join("brief", "watcher")
        await watcher.join("lobby", "watcher")
        watcher.start_heartbeats()
        await silent.join("brief", "silent")
        await cut.join("lobby", "cut")
        cut.vanish()
        await watcher.receive_departures(2)
        assert set(departures(watcher.received)) == {
            ("silent", "inactivity_timeout"),
            ("cut", "disconnected"),
        }
        assert await silent.closed() == 4003
        assert node.listener.received == 0
        assert node.reaper.found_by.keys() == {"sweep"}


async def test_the_sweep_removes_what_a_killed_node_left_behind(redis_server: Server) -> None:
    """The node is killed; another one, started later, finds its members and removes them."""
    async with (
        NodeProcess.start(redis_server, lease=0.5, grace=0.5, sweep_interval=0.3) as doomed,
        RawClient.connect(doomed) as ann,
        RawClient.connect(doomed) as tab,
    ):
        for room in ("lobby", "attic", "cellar"):
            await ann.join(room, "ann")
            await tab.join(room, "ann")
        await tab.join("lounge", "tab")
        await doomed.kill()
    assert len(redis_state.everywhere(redis_server)) == 4
    async with served(redis_server, lease=0.5, grace=0.5, **ONLY_THE_SWEEP) as node:
        rooms = ("lobby", "attic", "cellar", "lounge")
        await until(lambda: all(redis_state.stream(redis_server, room) for room in rooms))
        assert redis_state.everywhere(redis_server) == {}
        async with RawClient.connect(node) as late:
            joined = await late.join("lobby", "late")
            assert [member["userId"] for member in joined["members"]] == ["late"]
            await late.ask("leave_room", "room:left", roomId="lobby")
        for room, user in zip(rooms, ("ann", "ann", "ann", "tab"), strict=True):
            ends = [
                (e["user"], e["reason"])
                for e in redis_state.stream(redis_server, room)
                if e["user"] != "late"
            ]
            assert ends == [(user, "disconnected")]
        await until(lambda: set(redis_state.leftovers(redis_server)) <= {"{reactor:fleet}:registry"})
    await until(lambda: redis_state.leftovers(redis_server) == [])


async def test_a_node_known_to_a_shard_but_not_to_the_registry_is_detached(
    redis_server: Server,
) -> None:
    """As a failover may leave it: the registry has lost the node, and its members would stay for hours."""
    async with (
        NodeProcess.start(redis_server, grace=0.3, sweep_interval=0.3) as doomed,
        RawClient.connect(doomed) as ann,
    ):
        await ann.join("lobby", "ann")
        await doomed.kill()
    redis_server.control.delete("{reactor:fleet}:registry")
    async with served(redis_server, grace=0.3, **ONLY_THE_SWEEP):
        await until(lambda: redis_state.stream(redis_server, "lobby"))
        assert [entry["reason"] for entry in redis_state.stream(redis_server, "lobby")] == ["disconnected"]
        assert redis_state.everywhere(redis_server) == {}


async def test_a_room_larger_than_one_page_is_audited_too(redis_server: Server) -> None:
    """Some of its members' keys are deleted externally, among many that stay."""
    async with (
        served(redis_server, **(ONLY_THE_SWEEP | {"sweep_interval": 0})) as node,
        RawClient.connect(node) as watcher,
    ):
        await watcher.join("lobby", "watcher", view="count")
        for number in range(1500):
            await node.store.join(_entry("lobby", f"u{number}"), f"{node.name()}.f{number}", ttl=60_000)
        gone = [redis_state.presence_key("lobby", f"u{number}") for number in range(0, 1500, 3)]
        redis_server.control.delete(*gone)
        with anyio.fail_after(PATIENCE):
            await node.sweep.sweep()
        assert len(redis_state.rows(redis_server, "lobby")) == 1001
        await watcher.has_received("room:count", count=1001)


def _entry(room_id: str, user_id: str) -> Any:
    from reactor.presence.keys import Entry

    return Entry(room_id, user_id)


async def test_no_key_is_left_when_all_members_are_gone(redis_server: Server) -> None:
    """Departures of every kind; only the record of departures stays, and keys with a TTL."""
    rooms = (RoomRule(match="brief", ttl=0.4),)
    options: dict[str, Any] = {"ttl": 60, "grace": 0.3, "away_grace": 0.3, "rooms": rooms}
    async with (
        served(redis_server, **options) as node,
        RawClient.connect(node) as silent,
        RawClient.connect(node) as cut,
        RawClient.connect(node) as leaver,
        RawClient.connect(node) as away,
    ):
        rooms_used = ("brief", "lobby", "a:b", "{c}")
        for room in rooms_used:
            for client, name in ((silent, "silent"), (cut, "cut"), (leaver, "leaver"), (away, "away")):
                await client.join(room, name, data={"x": 1})
        await away.ask("room:away", "room:away:ok")
        cut.vanish()
        for room in ("lobby", "a:b", "{c}"):
            await leaver.ask("leave_room", "room:left", roomId=room)
        await silent.receive("room:force-leave", roomId="brief")
        for client in (silent, away):
            client.vanish()
        await until(lambda: set(redis_state.leftovers(redis_server)) == {"{reactor:fleet}:registry"})
        assert redis_state.everywhere(redis_server) == {}
        ends = [entry["reason"] for room in rooms_used for entry in redis_state.stream(redis_server, room)]
        assert len(ends) == 16
        assert ends.count("left") == 3
        assert "inactivity_timeout" in ends
    assert redis_state.leftovers(redis_server) == []
