"""Each of the three paths of expiry can be switched off; every departure still happens once."""

from typing import Any

import pytest

from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "no pacemaker": {"pacemaker": False, "sweep_interval": 0},
    "no listener": {"listener": False, "sweep_interval": 0},
    "only the sweep": {"pacemaker": False, "listener": False, "sweep_interval": 0.8},
    "no sweep": {"sweep_interval": 0},
}


@pytest.mark.parametrize("switches", WAYS.values(), ids=WAYS.keys())
async def test_each_departure_happens_once_whichever_path_is_switched_off(
    redis_server: Server, switches: dict[str, Any]
) -> None:
    rooms = (RoomRule(match="brief", ttl=2.0),)  # heartbeats come every 0.1 s, later on a busy machine
    options: dict[str, Any] = {"ttl": 60, "grace": 0.6, "rooms": rooms} | switches
    async with (
        served(redis_server, **options) as one,
        served(redis_server, **options) as two,
        RawClient.connect(one) as near,
        RawClient.connect(two) as far,
        RawClient.connect(one) as silent,
        RawClient.connect(two) as cut,
        RawClient.connect(one) as leaver,
    ):
        for client, name in ((near, "near"), (far, "far")):
            for room in ("brief", "lobby"):
                await client.join(room, name)
            client.start_heartbeats(0.1)
        await silent.join("brief", "silent")
        await cut.join("lobby", "cut")
        await leaver.join("lobby", "leaver")
        cut.vanish()
        await leaver.ask("leave_room", "room:left", roomId="lobby")
        for client in (near, far):
            await client.receive_departures(3)
        assert await silent.closed() == 4003
        # Long enough for every path to run once more: a duplicate would show by now.
        await leaver.join("brief", "leaver")
        for client in (near, far):
            await client.receive_departures(4)
            assert sorted(departures(client.received)) == sorted(
                [
                    ("cut", "disconnected"),
                    ("leaver", "left"),
                    ("silent", "inactivity_timeout"),
                    ("leaver", "inactivity_timeout"),
                ]
            )
        assert (
            len(redis_state.stream(redis_server, "lobby"))
            == len(redis_state.stream(redis_server, "brief"))
            == 2
        )


async def test_expiry_is_punctual_without_events(redis_server: Server) -> None:
    """The events are switched off externally; the pacemaker replaces them."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=1.0, sweep_interval=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        redis_server.control.config_set("notify-keyspace-events", "")
        await ann.join("lobby", "ann")
        ann.start_heartbeats()
        joined = await bob.join("lobby", "bob")
        force_leave = await bob.receive("room:force-leave")
        assert force_leave["timestamp"] - joined["members"][1]["joinedAt"] - 1000 < 5000
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        assert departures(ann.received) == [("bob", "inactivity_timeout")]
        await until(lambda: node.reaper.found_by)
        assert set(node.reaper.found_by) == {"pacemaker"}


async def test_a_forged_late_or_duplicate_event_has_no_effect(redis_server: Server) -> None:
    async with (
        served(redis_server, ttl=60, sweep_interval=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        joined = await bob.join("lobby", "bob")
        keys: list[str | bytes] = [
            redis_state.presence_key("lobby", "bob"),  # alive
            redis_state.presence_key("lobby", "nobody"),  # never was
            redis_state.presence_key("nowhere", "bob"),
            redis_state.shadow_key("lobby", "bob"),
            "{reactor:8df}:room:lobby:user:bob",  # not its shard
            "{reactor:07}:room:lobby:user:bob",
            "{reactor:}:room:lobby:user:bob",
            "{reactor:99999999999999999999999}:room:lobby:user:bob",
            "{reactor:7kf}:room::user:",
            "{reactor:7kf}:room:lobby:user:bob:user:bob",
            "{reactor:7kf}:room:%zz:user:%",
            "{reactor:7kf}",
            b"{reactor:7kf}:room:\xff\xfe:user:\xff",
            b"",
        ]
        for key in keys * 3:
            redis_server.control.publish("__keyevent@0__:expired", key)
        await until(
            lambda: redis_server.control.publish("__keyevent@0__:expired", keys[0]) and node.listener.received
        )
        # It left; then its expired event is repeated, before and after it joins again.
        await bob.ask("leave_room", "room:left", roomId="lobby")
        for _ in range(5):
            redis_server.control.publish("__keyevent@0__:expired", keys[0])
        again = await bob.join("lobby", "bob")
        for _ in range(5):
            redis_server.control.publish("__keyevent@0__:expired", keys[0])
        heard = node.listener.received
        redis_server.control.publish("__keyevent@0__:expired", keys[0])
        await until(lambda: node.listener.received > heard)
        await bob.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        assert again["version"] == joined["version"] + 2
        await ann.has_received("room:diff", version=again["version"])
        assert departures(ann.received) == [("bob", "left")]
        assert len(redis_state.stream(redis_server, "lobby")) == 1
        assert bob.open


async def test_a_forged_message_on_the_nodes_channels_does_no_lasting_harm(redis_server: Server) -> None:
    """A client that may publish there can confuse a node for a moment, and no more."""
    async with (
        served(redis_server, ttl=60) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        for payload in (b"", b"\xc1", b"garbage", b"\x97", b"{}", b"9" * 400, b"-1", b"1e9"):
            redis_server.control.publish("{reactor:7kf}:diff:lobby", payload)
            redis_server.control.publish("{reactor:7kf}:wake", payload)
        for number in range(3):
            await bob.ask("room:update", "room:updated", roomId="lobby", data=number)
        await ann.until(lambda: any(m.get("data") == 2 for d in ann.of("room:diff") for m in d["updated"]))
        bob.vanish()
        async with RawClient.connect(node) as carl:
            joined = await carl.join("lobby", "carl")
            assert {m["userId"] for m in joined["members"]} == {"ann", "bob", "carl"}
