"""What Redis still holds of a user after an erasure: what the document on people says, and nothing else."""

from collections.abc import Iterator
from typing import Any

from redis.client import NEVER_DECODE

from reactor.presence.api import Presence
from reactor.settings.webhooks import EVENTS
from tests.docs.documents import section
from tests.support.nodes import served
from tests.support.people import until_record
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.webhooks.receiver import Receiver, webhook_settings

USER, SECRET = "zz-ann é", "blue-velvet"
OWN_ROOM = f"@{USER}"
DOCUMENTED = {
    "departures": "departures, with user, name, room, times and reason",
    "removal": "how a membership ended",
    "ban": "bans, with their message",
    "bans": "bans, with their message",
    "lifted": "that a ban was lifted",
    "revoked": "revoked tokens",
    "changes": "joins, with name and data, departures",
    "erased": "a note of the erasure names the user",
    "state": "the position of the room `@USER`",
}
"""Keys that may contain the id of an erased user, by the sentence of the section Privacy about them."""

_READS = {
    "string": ("GET",), "hash": ("HGETALL",), "set": ("SMEMBERS",), "list": ("LRANGE", "0", "-1"),
    "zset": ("ZRANGE", "0", "-1"), "stream": ("XRANGE", "-", "+"),
}  # fmt: skip


def _contents(server: Server) -> Iterator[tuple[str, str]]:
    """Each key with all that it holds, as text. A key may expire meanwhile."""
    for key in server.control.scan_iter(count=1000):
        kind = str(server.control.type(key))
        if kind != "none":
            command, *rest = _READS[kind]
            yield str(key), repr(server.control.execute_command(command, key, *rest, **{NEVER_DECODE: []}))


def _kinds_that_hold(server: Server, text: str) -> set[str]:
    return {
        key.partition("}:")[2].split(":")[0]
        for key, content in _contents(server)
        if text in key or text in content
    }


async def test_after_an_erasure_redis_holds_of_a_user_what_the_document_says(redis_server: Server) -> None:
    async with (
        Receiver.listening() as receiver,
        served(redis_server, **webhook_settings(receiver, webhook_events=",".join(EVENTS))) as node,
        Presence.open(redis_server.socket_url) as presence,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
    ):
        await watcher.ask("people:watch", "people:state", userIds=[USER])
        await watcher.ask("room:watch", "room:watching", roomId="hall")
        for room in ("lobby", "hall", "attic", OWN_ROOM):
            await ann.join(room, USER, username=USER, data={"mood": SECRET})
        await ann.ask("room:update", "room:updated", roomId="hall", data={"mood": f"{SECRET} again"})
        await until_record(node, USER, lambda record: len(record.counted) == 4)
        assert {"room", "shadow", "members", "person", "people"} <= _kinds_that_hold(redis_server, "zz-ann")
        await presence.ban(USER, "attic", for_="10m", message="Be kind.")
        await presence.ban(USER, "cellar", for_="10m")
        await presence.unban(USER, "cellar")
        await presence.kick("lobby", USER)
        for room in ("hall", OWN_ROOM):
            await ann.ask("leave_room", "room:left", roomId=room)
        await presence.revoke(USER)
        await until_record(node, USER, lambda record: not record.rooms)
        await until(lambda: "exits" not in _kinds_that_hold(redis_server, "zz-ann"))
        await receiver.until(lambda: any(event["type"] == "user_offline" for event in receiver.accepted))
        assert "seen" in _kinds_that_hold(redis_server, "zz-ann")

        assert await presence.erase(USER)
        person = await presence.user(USER)
        assert (person.status, person.last_seen, person.rooms) == ("offline", None, [])
        document = " ".join(section("reactor/presence/README.md", "## Privacy").split())
        kinds = _kinds_that_hold(redis_server, "zz-ann")
        assert kinds == DOCUMENTED.keys()
        assert [sentence for sentence in DOCUMENTED.values() if sentence not in document] == []
        assert _kinds_that_hold(redis_server, SECRET) == {"changes"}
        await _expire_with_time(redis_server, kinds)


async def _expire_with_time(server: Server, kinds: set[str]) -> None:
    """What has no end of its own is trimmed by the sweep, or ends with the ban."""
    without_end = {
        key.partition("}:")[2].split(":")[0]
        for key in server.control.scan_iter(count=1000)
        if server.control.pttl(key) == -1
    }
    assert kinds & without_end <= {"departures", "bans", "revoked"}


async def test_a_client_that_watches_a_user_is_sent_the_erasure(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as watcher,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", USER)
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await until_record(node, USER, lambda record: not record.rooms)
        found: Any = await watcher.ask("people:watch", "people:state", userIds=[USER])
        assert found["people"][0]["lastSeen"]
        assert await presence.erase(USER)
        change = await watcher.receive("people:diff")
        assert change["changed"] == [{"userId": USER, "status": "offline"}]
