"""The last connection of a member is lost: its disconnect grace begins."""

import time

import pytest

from reactor.expiry import pacemaker
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

SLACK = 5000
"""Milliseconds after the end of its grace within which a member has to leave, on a busy machine too."""


async def test_a_member_that_reconnects_within_the_grace_is_not_shown_as_gone(redis_server: Server) -> None:
    """Back on the same node and on another. A third member does not return; its grace is cut short."""
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as watcher,
        RawClient.connect(two) as far_watcher,
        RawClient.connect(one) as ann,
        RawClient.connect(one) as bob,
        RawClient.connect(one) as lost,
    ):
        await far_watcher.join("lobby", "far")
        seen = await watcher.join("lobby", "watcher")
        joined = {}
        for client, name in ((ann, "ann"), (bob, "bob"), (lost, "lost")):
            seen = joined[name] = await client.join("lobby", name, data=name)
        for client in (watcher, far_watcher):
            await client.receive("room:diff", version=seen["version"])
        for client in (ann, bob, lost):
            client.vanish()
        keys = {name: redis_state.presence_key("lobby", name) for name in joined}
        await until(lambda: all(redis_server.control.pttl(key) <= 15_000 for key in keys.values()))
        async with RawClient.connect(one) as ann_again, RawClient.connect(two) as bob_again:
            for client, name in ((ann_again, "ann"), (bob_again, "bob")):
                back = await client.join("lobby", name)
                assert back["resumed"] is True
                assert (back["version"], back["count"]) == (seen["version"], 5)
                assert back["socketId"] != joined[name]["socketId"]
                me = next(member for member in back["members"] if member["userId"] == name)
                before = next(member for member in joined[name]["members"] if member["userId"] == name)
                assert (me["joinedAt"], me["data"]) == (before["joinedAt"], name)
                assert redis_server.control.pttl(keys[name]) > 21_000_000
            redis_server.control.pexpire(keys["lost"], 1)
            for client in (watcher, far_watcher):
                assert await client.receive_departure_of("lost") == "disconnected"
                diff = client.of("room:diff")[-1]
                assert (diff["from"], diff["version"]) == (seen["version"], seen["version"] + 1)
                assert (diff["joined"], diff["updated"], diff["count"]) == ([], [], 4)
            for client in (ann_again, bob_again):
                await client.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
            assert redis_state.members(redis_server, "lobby").keys() == {"far", "watcher", "ann", "bob"}


async def test_a_disconnected_member_leaves_after_the_grace_and_not_before(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=0.7) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as cut,
        RawClient.connect(node) as closed,
    ):
        await watcher.join("lobby", "watcher")
        await cut.join("lobby", "cut")
        await closed.join("lobby", "closed")
        dropped_at = time.time() * 1000
        cut.vanish()
        await closed.socket.close()
        await watcher.receive_departures(2)
        assert dict(departures(watcher.received)) == {"cut": "disconnected", "closed": "disconnected"}
        entries = redis_state.stream(redis_server, "lobby")
        assert len(entries) == 2
        for entry in entries:
            assert 700 <= int(entry["leftAt"]) - dropped_at < 700 + SLACK
        assert set(redis_state.rows(redis_server, "lobby")) == {"watcher"}


async def test_a_member_with_another_connection_stays(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=0.3) as one,
        served(redis_server, grace=0.3) as two,
        RawClient.connect(one) as watcher,
        RawClient.connect(one) as tab,
        RawClient.connect(two) as phone,
        RawClient.connect(one) as metronome,
    ):
        await watcher.join("lobby", "watcher")
        await tab.join("lobby", "ann")
        await phone.join("lobby", "ann")
        await metronome.join("lobby", "metronome")
        tab.vanish()
        metronome.vanish()
        assert await watcher.receive_departure_of("metronome") == "disconnected"
        here = await watcher.ask("room:members", "room:members", roomId="lobby")
        assert {m["userId"]: m["connections"] for m in here["members"]} == {"ann": 1, "watcher": 1}
        assert departures(watcher.received) == [("metronome", "disconnected")]
        phone.vanish()
        assert await watcher.receive_departure_of("ann") == "disconnected"


async def test_without_a_grace_a_disconnected_member_leaves_at_once(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=0) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        ann.vanish()
        assert await watcher.receive_departure_of("ann") == "disconnected"
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher"}


async def test_a_page_that_said_that_it_closes_has_the_close_grace(redis_server: Server) -> None:
    rooms = (RoomRule(match="chess", close_grace=0.9), RoomRule(match="news", close_grace=15))
    async with (
        served(redis_server, ttl=60, grace=20, away_grace=30, close_grace=0.3, rooms=rooms) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as closed,
        RawClient.connect(node) as away,
        RawClient.connect(node) as reloaded,
        RawClient.connect(node) as lost,
    ):
        for client, name in (
            (watcher, "watcher"), (closed, "closed"), (away, "away"), (reloaded, "reloaded"), (lost, "lost"),
        ):  # fmt: skip
            await client.join("news" if name == "reloaded" else "lobby", name)
        await watcher.join("news", "watcher")
        await closed.join("chess", "closed")
        await away.ask("room:away", "room:away:ok")
        began = time.time() * 1000
        for client in (closed, away, reloaded):
            await client.send("closing")
            await client.barrier()
            assert client.received[-1]["code"] == "bad_json", "closing has no reply"
            await client.socket.close()
        lost.vanish()
        key = redis_state.presence_key("news", "reloaded")
        await until(lambda: redis_server.control.pttl(key) <= 15_000)
        async with RawClient.connect(node) as page:
            assert (await page.join("news", "reloaded"))["resumed"] is True
            await watcher.receive_departures(2)
            await until(lambda: redis_state.stream(redis_server, "chess"))
        assert sorted(departures(watcher.received)) == [("away", "disconnected"), ("closed", "disconnected")]
        assert int(redis_state.stream(redis_server, "chess")[0]["leftAt"]) - began >= 900
        assert redis_server.control.pttl(redis_state.presence_key("lobby", "lost")) > 5_000


async def test_a_heartbeat_of_a_closed_connection_does_not_extend_the_grace(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=0.3) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        redis_server.pause()
        for _ in range(50):
            await ann.send("room:heartbeat")
        await ann.barrier()  # they are queued in the node now
        ann.vanish()
        await until(lambda: len(node.gateway.connections) == 1)
        redis_server.resume()
        assert await watcher.receive_departure_of("ann") == "disconnected"


async def test_a_short_grace_ends_on_time(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pacemaker is notified of each deadline that is nearer than all it knows.

    Without it the next scan would be a minute later.
    """
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    monkeypatch.setattr(pacemaker, "MAX_SCAN_INTERVAL", 60.0)
    late = []
    async with served(redis_server, grace=0.1, sweep_interval=0) as node, RawClient.connect(node) as watcher:
        for number in range(9):
            room = f"room {number}"
            await watcher.join(room, "watcher")
            async with RawClient.connect(node) as client:
                await client.join(room, "cut")
                dropped_at = redis_state.now(redis_server)
                client.vanish()
                assert await watcher.receive_departure_of("cut") == "disconnected"
            (entry,) = redis_state.stream(redis_server, room)
            late.append(int(entry["leftAt"]) - dropped_at - 100)
    assert max(late) < SLACK, late
