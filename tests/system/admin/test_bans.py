"""Bans over the admin port, and by the commands."""

import json

from tests.support.command import reactor
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.system.admin.serving import admin_served, ok, rejected


async def test_a_ban_is_made_listed_and_lifted(redis_server: Server) -> None:
    async with admin_served(redis_server) as (node, admin), RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        body = {"userId": "ann", "roomId": "lobby", "for": "10m", "message": "Be kind.", "by": "moderator 3"}
        response = await admin.post("/v1/bans", json=body)
        assert response.status_code == 200, response.text
        ban = response.json()
        assert (await ann.receive("room:force-leave"))["until"] == ban["until"]
        assert (ban["userId"], ban["roomId"], ban["message"]) == ("ann", "lobby", "Be kind.")
        everywhere = (await admin.post("/v1/bans", json={"userId": "bob", "for": 60})).json()
        first = await ok(admin, "/v1/bans?limit=1")
        assert first["bans"] == [everywhere]
        assert await ok(admin, f"/v1/bans?cursor={first['cursor']}") == {"bans": [ban], "cursor": None}
        assert await rejected(admin, "/v1/bans/ann", method="DELETE") == (404, "not_found")
        assert (await admin.delete("/v1/bans/ann?room=lobby")).json() == {"userId": "ann", "roomId": "lobby"}
        assert (await admin.delete("/v1/bans/bob")).json() == {"userId": "bob", "roomId": None}
        numbers = await admin.post("/v1/bans", json={"userId": 7, "roomId": 8, "for": 60})
        assert (numbers.json()["userId"], numbers.json()["roomId"]) == ("7", "8")
        assert (await admin.delete("/v1/bans/7?room=8")).status_code == 200
        assert (await ok(admin, "/v1/bans"))["bans"] == []


async def test_a_wrong_ban_is_refused_with_its_reason(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (_, admin):
        for body, word in (
            ({"userId": "ann", "for": "2000d"}, "for"),
            ({"userId": "ann", "for": "0"}, "for"),
            ({"userId": "", "for": 1}, "userId"),
            ({"userId": "ann", "for": 60, "message": "x" * 501}, "message"),
            ({"userId": "ann", "for": 60, "by": "a\nb"}, "by"),
            ({"userId": "ann"}, "for"),
        ):
            response = await admin.post("/v1/bans", json=body)
            assert response.status_code == 400, body
            assert word in response.json()["message"]


def test_the_commands_ban_list_and_unban(bundled_server: Server) -> None:
    where = ("--redis-url", bundled_server.socket_url)
    made = reactor("ban", "ann", "--room", "lobby", "--for", "10m", "--message", "Out.", *where, "--json")
    ban = json.loads(made.out)
    assert (ban["userId"], ban["roomId"], ban["message"]) == ("ann", "lobby", "Out.")
    assert [json.loads(line) for line in reactor("bans", *where, "--json").out.splitlines()] == [ban]
    assert json.loads(reactor("unban", "ann", "--room", "lobby", *where, "--json").out)["unbanned"] is True
    again = reactor("unban", "ann", "--room", "lobby", *where)
    assert again.code == 1
    assert "is not banned from lobby" in again.err
    wrong = reactor("ban", "ann", "--for", "yesterday", *where)
    assert "for_" in wrong.err or "--for" in wrong.err


def test_the_command_revoke(bundled_server: Server) -> None:
    where = ("--redis-url", bundled_server.socket_url)
    made = json.loads(reactor("revoke", "ann", *where, "--json").out)
    assert made["userId"] == "ann"
    assert bundled_server.control.zscore("{reactor:fleet}:revoked", "ann") == made["issuedBefore"]
