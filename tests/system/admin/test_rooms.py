"""Rooms and members over the admin port: responses match the state in Redis."""

from typing import Any

import anyio
import pytest

from reactor.admin import handlers
from reactor.admin.parameters import encode_cursor
from reactor.protocol.reasons import REASONS
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.admin.serving import admin_client, admin_served, encoded, ok, rejected

HOSTILE = ["a/b", "100%", "%2F", "..%2f", "grün 漢字 🎉", "a?b#c", "{x}:[*]", "a+b c", "//", "."]


async def test_rooms_members_and_counts(redis_server: Server) -> None:
    async with (
        admin_served(redis_server) as (node, admin),
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        assert await ok(admin, "/v1/rooms") == {"rooms": [], "cursor": None}
        assert (await ok(admin, "/v1/rooms/lobby/count"))["count"] == 0
        joined = await ann.join("lobby", "ann", username="Ann", data={"n": [1]})
        await bob.join("lobby", "bob")
        await bob.ask("room:away", "room:away:ok")
        room = await ok(admin, "/v1/rooms/lobby")
        assert room == await ok(admin, "/v1/rooms/lobby/count")
        assert (room["roomId"], room["count"], room["epoch"]) == ("lobby", 2, joined["epoch"])
        page = await ok(admin, "/v1/rooms/lobby/members")
        assert (page["count"], page["version"], page["cursor"]) == (2, room["version"], None)
        assert [member["userId"] for member in page["members"]] == ["ann", "bob"]
        assert page["members"][0] == joined["members"][0]
        assert await ok(admin, "/v1/rooms/lobby/members/ann") == page["members"][0]
        assert (await ok(admin, "/v1/rooms/lobby/members/bob"))["away"] is True
        assert await rejected(admin, "/v1/rooms/lobby/members/cleo") == (404, "not_found")


@pytest.mark.parametrize("name", HOSTILE[:-1])
async def test_any_id_round_trips(bundled_server: Server, name: str) -> None:
    async with admin_served(bundled_server) as (node, admin), RawClient.connect(node) as ann:
        await ann.join(name, name)
        path = f"/v1/rooms/{encoded(name)}"
        assert (await ok(admin, path))["roomId"] == name
        assert (await ok(admin, "/v1/rooms"))["rooms"] == [{"roomId": name, "count": 1}]
        assert (await ok(admin, f"{path}/members/{encoded(name)}"))["userId"] == name
        assert (await ok(admin, f"{path}/settings", "PUT", json={"grace": 1}))["roomId"] == name
        assert node.rules.policy(name).grace == 1000
        await ok(admin, f"{path}/members/{encoded(name)}", "DELETE")
        assert await ann.closed() == 4003
        (departure,) = (await ok(admin, "/v1/departures", params={"room": name}))["departures"]
        assert (departure["roomId"], departure["userId"], departure["reason"]) == (name, name, "kicked")


async def test_an_expired_member_is_never_reported(redis_server: Server) -> None:
    async with (
        admin_served(redis_server, listener=False, pacemaker=False, sweep_interval=0) as (node, admin),
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        redis_server.control.pexpire("{reactor:7kf}:room:lobby:user:ann", 30)
        redis_server.control.zadd("{reactor:7kf}:members:lobby", {"ann": 1})
        await until(lambda: redis_server.control.exists("{reactor:7kf}:room:lobby:user:ann") == 0)
        assert await rejected(admin, "/v1/rooms/lobby/members/ann") == (404, "not_found")
        assert (await ok(admin, "/v1/rooms/lobby/count"))["count"] == 0
        assert (await ok(admin, "/v1/rooms/lobby/members"))["members"] == []


async def walk(admin: Any, path: str, key: str, limit: int) -> list[Any]:
    """All items of a list; each page but the last must hold `limit` of them."""
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await ok(admin, path, params={"limit": limit, "cursor": cursor})
        found += page[key]
        cursor = page["cursor"]
        assert len(page[key]) == limit or cursor is None
    return found


async def test_pages_hold_each_item_exactly_once(bundled_server: Server) -> None:
    async with admin_served(bundled_server, max_rooms=50) as (node, admin), RawClient.connect(node) as ann:
        for number in range(25):
            await ann.join(f"room-{number:02}", "ann")
        rooms = await walk(admin, "/v1/rooms", "rooms", 7)
        assert [room["roomId"] for room in rooms] == [f"room-{number:02}" for number in range(25)]
        for number in range(12):
            async with RawClient.connect(node) as other:
                await other.join("room-00", f"user-{number}")
        members = await walk(admin, "/v1/rooms/room-00/members", "members", 5)
        assert len(members) == 13
        assert len({member["userId"] for member in members}) == 13
        assert [member["joinedAt"] for member in members] == sorted(member["joinedAt"] for member in members)


async def test_a_kick_on_one_node_removes_the_member_on_another_with_its_message(
    redis_server: Server,
) -> None:
    async with (
        admin_served(redis_server) as (node, admin),
        served(redis_server) as other,
        RawClient.connect(other) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        kicked = await ok(admin, "/v1/rooms/lobby/members/ann", "DELETE", params={"message": "See you, Ann."})
        assert kicked == {"roomId": "lobby", "userId": "ann"}
        force_leave = await ann.receive("room:force-leave")
        assert (force_leave["message"], force_leave["reason"]) == ("See you, Ann.", "kicked")
        assert await ann.closed() == 4003
        assert await bob.receive_departure_of("ann") == "kicked"
        assert await rejected(admin, "/v1/rooms/lobby/members/ann", "DELETE") == (404, "not_found")
        long = {"message": "x" * 501}
        assert await rejected(admin, "/v1/rooms/lobby/members/bob", "DELETE", params=long) == (
            400,
            "bad_request",
        )


async def test_departures_come_in_pages_and_the_cursor_stays_valid(redis_server: Server) -> None:
    async with admin_served(redis_server) as (node, admin):
        for number in range(9):
            async with RawClient.connect(node) as one:
                await one.join(f"room-{number % 3}", f"user-{number}")
                await one.ask("leave_room", "room:left", roomId=f"room-{number % 3}")
        found: list[Any] = []
        cursor = ""
        while True:
            page = await ok(admin, "/v1/departures", params={"limit": 4, "cursor": cursor})
            cursor = page["cursor"]
            if not page["departures"]:
                break
            found += page["departures"]
        assert [one["userId"] for one in found] == [f"user-{number}" for number in range(9)]
        assert {one["reason"] for one in found} == {"left"}
        room = await ok(admin, "/v1/departures", params={"room": "room-1"})
        assert [one["userId"] for one in room["departures"]] == ["user-1", "user-4", "user-7"]
        late = await ok(admin, "/v1/departures", params={"since": found[-1]["leftAt"]})
        assert late["departures"][-1] == found[-1]
        assert len((await ok(admin, "/v1/departures", params={"since": "1h"}))["departures"]) == 9
        async with RawClient.connect(node) as one:
            await one.join("room-0", "new")
            await one.ask("leave_room", "room:left", roomId="room-0")
        page = await ok(admin, "/v1/departures", params={"cursor": cursor})
        assert [one["userId"] for one in page["departures"]] == ["new"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/rooms?limit=0", 400, "bad_request"),
        ("/v1/rooms?limit=1001", 400, "bad_request"),
        ("/v1/rooms?limit=x", 400, "bad_request"),
        ("/v1/rooms?cursor=x", 400, "bad_cursor"),
        ("/v1/rooms/lobby/members?cursor=IiI", 400, "bad_cursor"),
        (f"/v1/departures?cursor={encode_cursor({'{reactor:0lf}:departures': 'x'})}", 400, "bad_cursor"),
        ("/v1/departures?since=yesterday", 400, "bad_request"),
        ("/v1/departures?room=", 400, "bad_id"),
        ("/v1/rooms/%FF", 400, "bad_id"),
        ("/v1/rooms/a%0Ab", 400, "bad_id"),
        ("/v1/rooms/" + "x" * 257, 400, "bad_id"),
        ("/v1/rooms//members", 404, "not_found"),
        ("/v1/rooms/", 404, "not_found"),
        ("/v1/nothing", 404, "not_found"),
        ("/nothing", 404, "not_found"),
    ],
)
async def test_an_invalid_request_gets_a_code_and_a_sentence(
    bundled_server: Server, path: str, status: int, code: str
) -> None:
    async with admin_served(bundled_server) as (_, admin):
        assert await rejected(admin, path) == (status, code)


async def test_an_unsupported_method_is_rejected(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (_, admin):
        assert await rejected(admin, "/v1/rooms", "POST") == (405, "bad_method")


async def test_while_redis_is_away_requests_fail_with_503(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin):
        bundled_server.kill()
        assert await rejected(admin, "/v1/rooms/lobby") == (503, "unavailable")
        assert (await admin.get("/healthz")).status_code == 200
        await until(lambda: not node.readiness.status()[0])
        assert (await admin.get("/readyz")).status_code == 503
        metrics = (await admin.get("/metrics")).text
        assert "reactor_redis_up 0.0" in metrics
        bundled_server.start()
        await until(lambda: node.readiness.status()[0])
        assert (await ok(admin, "/v1/rooms/lobby"))["count"] == 0


async def test_two_nodes_give_the_same_answers(bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, admin),
        admin_served(bundled_server) as (other, _),
        RawClient.connect(other) as ann,
        admin_client(other) as second,
    ):
        await ann.join("lobby", "ann")
        assert await ok(admin, "/v1/rooms/lobby/members") == await ok(second, "/v1/rooms/lobby/members")
        await until(lambda: bundled_server.control.keys("{reactor:fleet}:report:*"))
        overview = await ok(admin, "/v1/overview")
        assert {one["node"] for one in overview["nodes"]} == {node.name(), other.name()}
        assert overview["largest"] == [{"roomId": "lobby", "count": 1}]
        assert overview["departures"] == dict.fromkeys(REASONS, 0)
        assert all(0 <= one["reportAge"] < 10_000 for one in overview["nodes"])
        assert overview["asOf"] <= overview["now"]


async def test_the_scan_of_rooms_is_reused(bundled_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "SCAN_PAUSE", 1_000_000)
    async with admin_served(bundled_server) as (node, admin):
        await ok(admin, "/v1/overview")
        scans = node.backend.times["list_rooms"].count
        await ok(admin, "/v1/overview")
        await ok(admin, "/v1/rooms")
        assert node.backend.times["list_rooms"].count == scans


async def test_the_scan_of_rooms_is_reused_for_seconds_at_most(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "SCAN_PAUSE", 1_000_000)
    monkeypatch.setattr(handlers, "MAX_AGE", 0.3)
    async with admin_served(bundled_server) as (node, admin), RawClient.connect(node) as ann:
        assert (await ok(admin, "/v1/overview"))["members"] == 0
        await ann.join("lobby", "ann")
        await anyio.sleep(0.3)
        assert (await ok(admin, "/v1/overview"))["members"] == 1


async def test_rooms_are_searched_by_a_part_of_their_id(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin), RawClient.connect(node) as ann:
        for room in ("Lobby", "lobby-2", "hall", "a+b"):
            await ann.join(room, "ann")
        found = {
            part: await ok(admin, "/v1/rooms", params={"search": part}) for part in ("LOB", "+", "", "x")
        }
        assert {part: [room["roomId"] for room in page["rooms"]] for part, page in found.items()} == {
            "LOB": ["Lobby", "lobby-2"], "+": ["a+b"], "": ["Lobby", "a+b", "hall", "lobby-2"], "x": [],
        }  # fmt: skip
        first = await ok(admin, "/v1/rooms", params={"search": "lob", "limit": 1})
        second = await ok(admin, "/v1/rooms", params={"search": "lob", "limit": 1, "cursor": first["cursor"]})
        assert [room["roomId"] for room in first["rooms"] + second["rooms"]] == ["Lobby", "lobby-2"]
        assert second["cursor"] is None


async def test_many_rooms_are_listed_page_by_page_without_reading_all(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.admin.handlers.MAX_SORTED_ROOMS", 20)
    async with admin_served(bundled_server, max_rooms=500) as (node, admin), RawClient.connect(node) as ann:
        for number in range(300):
            await ann.join(f"room-{number:03}", "ann")
        for limit in (7, 100, 1000):
            rooms = [room["roomId"] for room in await walk(admin, "/v1/rooms", "rooms", limit)]
            assert sorted(rooms) == [f"room-{number:03}" for number in range(300)]
        calls = node.backend.times["list_rooms"].count
        await ok(admin, "/v1/rooms?limit=5")
        assert node.backend.times["list_rooms"].count - calls == 1
        searched = await ok(admin, "/v1/rooms?search=m-29")
        assert [room["roomId"] for room in searched["rooms"]] == [f"room-29{n}" for n in range(10)]
        wrong = [[16, "0", "0", ""], [0, "x", "0", ""], [0, "0"], {"shard": 0}, [-1, "0", "0", ""]]
        for cursor in wrong[1:]:
            assert await rejected(admin, f"/v1/rooms?cursor={encode_cursor(cursor)}") == (400, "bad_cursor")
        last = await ok(admin, f"/v1/rooms?cursor={encode_cursor(wrong[0])}")
        assert last == {"rooms": [], "cursor": None}


async def test_rooms_that_stay_are_all_listed_while_others_come_and_go(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.admin.handlers.MAX_SORTED_ROOMS", 0)
    async with admin_served(bundled_server, max_rooms=999) as (node, admin), RawClient.connect(node) as ann:
        for number in range(100):
            await ann.join(f"stays-{number}", "ann")
        found: set[str] = set()
        cursor: str | None = ""
        number = 0
        while cursor is not None:
            page = await ok(admin, "/v1/rooms", params={"limit": 5, "cursor": cursor})
            found |= {room["roomId"] for room in page["rooms"]}
            cursor = page["cursor"]
            for _ in range(9):
                number += 1
                await ann.join(f"comes-{number}", "ann")
        assert {f"stays-{number}" for number in range(100)} <= found
