"""Settings of one room, changed while servers run: every node applies them, and no join reads them."""

from typing import Any

import pytest

from reactor.presence import rules
from reactor.settings import RoomRule
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.admin.serving import admin_served, ok, rejected

PATH = "/v1/rooms/lobby/settings"


async def test_every_node_applies_new_settings_within_a_second(redis_server: Server) -> None:
    rule = RoomRule(match="lob*", ttl=60, grace=5, max_members=9)
    async with (
        admin_served(redis_server, rooms=(rule,)) as (node, admin),
        served(redis_server, rooms=(rule,)) as other,
    ):
        before = await ok(admin, PATH)
        assert (before["settings"], before["effective"]["ttl"]) == ({}, 60)
        body = {"ttl": "2m", "away_grace": 7, "message": "Bye."}
        done = await ok(admin, PATH, "PUT", json=body)
        assert done["settings"] == {"ttl": 120, "away_grace": 7, "message": "Bye."}
        expected = {
            "ttl": 120,
            "grace": 5,
            "away_grace": 7,
            "close_grace": 5,
            "message": "Bye.",
            "max_members": 9,
        }
        assert done["effective"] == expected
        assert await ok(admin, PATH) == done
        await until(lambda: other.rules.policy("lobby").ttl == 120_000)
        assert other.rules.policy("lobby") == node.rules.policy("lobby")
        assert other.rules.policy("lobby2").ttl == 60_000, "a room id, not a pattern"
        async with RawClient.connect(other) as ann:
            assert (await ann.join("lobby", "ann"))["ttl"] == 120_000
        await ok(admin, PATH, "DELETE")
        await until(lambda: other.rules.policy("lobby").ttl == 60_000)
        assert await rejected(admin, PATH, "DELETE") == (404, "not_found")


async def test_a_node_that_starts_later_applies_them(redis_server: Server) -> None:
    async with admin_served(redis_server) as (_, admin):
        await ok(admin, PATH, "PUT", json={"max_members": 1})
        async with served(redis_server) as late:
            await until(lambda: late.rules.policy("lobby").max_members == 1)
            async with RawClient.connect(late) as ann, RawClient.connect(late) as bob:
                await ann.join("lobby", "ann")
                full = await bob.answer("join_room", roomId="lobby", userId="bob")
                assert full["code"] == "room_full"
                await ok(admin, PATH, "PUT", json={"max_members": 0})
                await until(lambda: late.rules.policy("lobby").max_members == 0)
                await bob.join("lobby", "bob")


async def test_grace_and_message_apply_at_once_to_present_members(bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server, grace=3600, ttl=3600) as (node, admin),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await ok(admin, PATH, "PUT", json={"grace": 0.1, "message": "Time is up."})
        ann.vanish()
        assert await bob.receive_departure_of("ann") == "disconnected"
        bundled_server.control.pexpire("{reactor:7kf}:room:lobby:user:bob", 1)
        await until(lambda: bundled_server.control.exists("{reactor:7kf}:room:lobby:user:bob") == 0)
        force_leave = await bob.receive("room:force-leave")
        assert (force_leave["message"], force_leave["reason"]) == ("Time is up.", "inactivity_timeout")


async def test_a_lost_notification_is_repaired_by_the_next_full_read(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admin_served(bundled_server) as (_, admin):
        monkeypatch.setattr(rules, "READ_ALL_INTERVAL", 0.1)
        async with served(bundled_server) as without_notifications:
            await without_notifications.channels.subscribed()
            monkeypatch.setattr(without_notifications.rules, "changed", lambda _room="": None)
            await ok(admin, PATH, "PUT", json={"ttl": 99})
            await until(lambda: without_notifications.rules.policy("lobby").ttl == 99_000)


async def test_after_a_lost_subscription_all_settings_are_read_again(redis_server: Server) -> None:
    async with admin_served(redis_server) as (node, _):
        await node.channels.subscribed()
        redis_server.control.hset("{reactor:fleet}:rules", "lobby", '{"ttl": 77}')
        assert node.rules.policy("lobby").ttl == 21_600_000
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: node.rules.policy("lobby").ttl == 77_000)


async def test_settings_vanish_with_the_data_of_redis(redis_server: Server) -> None:
    async with admin_served(redis_server, lease=0.6) as (node, admin):
        await ok(admin, PATH, "PUT", json={"ttl": 60})
        redis_server.control.flushall()
        await until(lambda: node.rules.policy("lobby").ttl == 21_600_000)
        await ok(admin, PATH, "PUT", json={"ttl": 60})
        redis_server.restart()
        await until(lambda: node.rules.policy("lobby").ttl == 21_600_000)


async def test_settings_corrupted_by_an_external_change_are_ignored(bundled_server: Server) -> None:
    corrupted: Any = {"a": "{", "b": '{"ttl": "long"}', "c": "[]", b"\xff": "{}", "good": '{"ttl": 5}'}
    bundled_server.control.hset("{reactor:fleet}:rules", mapping=corrupted)
    async with admin_served(bundled_server) as (node, admin):
        await until(lambda: node.rules.policy("good").ttl == 5000)
        assert node.rules.policy("a").ttl == 21_600_000
        assert (await ok(admin, "/v1/rooms/b/settings"))["settings"] == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ttl": 0},
        {"ttl": "forever"},
        {"ttl": True},
        {"ttl": None},
        {"grace": -1},
        {"max_members": 1.5},
        {"max_members": -1},
        {"message": ""},
        {"message": "a\nb"},
        {"tll": 60},
        [],
    ],
)
async def test_a_wrong_value_is_refused_and_changes_nothing(bundled_server: Server, body: Any) -> None:
    async with admin_served(bundled_server) as (node, admin):
        assert await rejected(admin, PATH, "PUT", json=body) == (400, "bad_request")
        assert node.rules.policy("lobby") == node.settings.policy("lobby")
        assert bundled_server.control.exists("{reactor:fleet}:rules") == 0


async def test_the_number_of_rooms_with_settings_is_limited(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_RULES", 2)
    async with admin_served(bundled_server) as (_, admin):
        for room in ("a", "b", "a"):
            await ok(admin, f"/v1/rooms/{room}/settings", "PUT", json={"ttl": 60})
        assert await rejected(admin, "/v1/rooms/c/settings", "PUT", json={"ttl": 60}) == (
            409,
            "too_many_settings",
        )
        await ok(admin, "/v1/rooms/a/settings", "DELETE")
        await ok(admin, "/v1/rooms/c/settings", "PUT", json={"ttl": 60})


async def test_a_join_reads_no_settings_from_redis(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin), RawClient.connect(node) as ann:
        await ok(admin, PATH, "PUT", json={"ttl": 60})
        await until(lambda: node.rules._changed == set() and not node.rules._wakeup.is_set())
        await ok(admin, PATH)
        asked = node.backend.times["list_rules"].count
        await ann.join("lobby", "ann")
        await ann.join("hall", "ann")
        assert node.backend.times["list_rules"].count == asked
