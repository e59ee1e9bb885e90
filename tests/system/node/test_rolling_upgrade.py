"""A node of today beside one of a later version, which sends what today's does not know.

The later node is played by plain Redis commands and by diffs packed here, so that nothing of today's package
decides what it may send. Every node and client must carry on: unknown reasons are passed on as text, unknown
fields and kinds of message are ignored.
"""

import json
from typing import Any

import msgspec
import pytest

from reactor.client import Client
from reactor.errors import ForceLeave
from reactor.fleet.reports import read_report
from reactor.presence.api import Presence
from reactor.server.metrics import Metrics
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.clients import RoomRecorder, client_of, ended
from tests.system.client.interceptor import Interceptor


class LaterNode:
    """Changes a room in Redis as a later version might."""

    def __init__(self, server: Server, room_id: str = "lobby") -> None:
        self._redis = server.control
        self._server = server
        self._room_id = room_id
        self._tag = redis_state.prefix(room_id)

    def publish(self, payload: bytes) -> None:
        self._redis.publish(f"{self._tag}:diff:{self._room_id}", payload)

    def publish_diff(self, joined: list[Any], updated: list[Any], left: list[Any]) -> None:
        """Move the room on by one version. The diff has an element more than today's."""
        state = f"{self._tag}:state:{self._room_id}"
        version = int(self._redis.hincrby(state, "version", 1))
        epoch = self._redis.hget(state, "epoch")
        count = self._redis.zcard(f"{self._tag}:members:{self._room_id}")
        row = [epoch, version - 1, version, count, joined, updated, left, {"of": "tomorrow"}]
        self.publish(msgspec.msgpack.encode(row))

    def remove(self, user_id: str, reason: str, *, message: str = "") -> None:
        """Remove a member for a reason of its own: its keys, the record, the diff."""
        fields = redis_state.members(self._server, self._room_id)[user_id]
        self._redis.delete(
            redis_state.presence_key(self._room_id, user_id), redis_state.shadow_key(self._room_id, user_id)
        )
        self._redis.zrem(f"{self._tag}:members:{self._room_id}", user_id)
        now = redis_state.now(self._server)
        self._redis.xadd(
            f"{self._tag}:departures",
            {
                "room": self._room_id, "user": user_id, "username": fields["username"], "reason": reason,
                "joinedAt": fields["joinedAt"], "lastActiveAt": fields["lastActiveAt"], "leftAt": now,
                "node": "tomorrow", "by": "moderator",
            },
        )  # fmt: skip
        self._redis.hincrby(f"{self._tag}:totals", reason, 1)
        self.publish_diff([], [], [[user_id, reason, now, message, 0, "moderator"]])

    def member_row(self, user_id: str, username: str) -> list[Any]:
        """A member as the scripts publish it, with a field more than today's."""
        fields = redis_state.members(self._server, self._room_id)[user_id]
        joined_at, last_active = int(fields["joinedAt"]), int(fields["lastActiveAt"])
        return [user_id, username, "", joined_at, last_active, 0, 1, "busy"]


async def test_an_unknown_reason_reaches_the_other_members_and_the_member_itself(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        LaterNode(redis_server).remove("bob", "moved")
        force_leave = await bob.receive("room:force-leave")
        assert (force_leave["reason"], force_leave["roomId"]) == ("moved", "lobby")
        assert "moved" in force_leave["message"]
        assert await bob.closed() == 4003
        assert await ann.receive_departure_of("bob") == "moved"
        listed = await ann.ask("room:members", "room:members", roomId="lobby")
        assert [member["userId"] for member in listed["members"]] == ["ann"]
        view = node.feed.view("lobby")
        assert view is not None
        assert list(view.members) == ["ann"]
        assert not node.feed.resyncs
        assert "bob" not in redis_state.members(redis_server, "lobby"), "it is not registered again"


async def test_the_message_of_a_later_node_is_passed_on(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as bob:
        await bob.join("lobby", "bob")
        LaterNode(redis_server).remove("bob", "moved", message="Come back in an hour.")
        force_leave = await bob.receive("room:force-leave", reason="moved")
        assert force_leave["message"] == "Come back in an hour."


async def test_an_unknown_reason_is_found_on_record_after_its_diff_was_lost(redis_server: Server) -> None:
    """The node learns of the departure by its member's heartbeat, which Redis refuses."""
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        later = LaterNode(redis_server)
        later.publish_diff = lambda joined, updated, left: None  # type: ignore[method-assign]
        later.remove("bob", "moved")
        await bob.send("room:heartbeat")
        assert (await bob.receive("room:force-leave"))["reason"] == "moved"
        assert await bob.closed() == 4003


async def test_an_unknown_reason_is_shown_by_records_totals_and_metrics(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        LaterNode(redis_server).remove("ann", "moved")
        assert await ann.closed() == 4003
        assert [one.reason async for one in presence.departures("lobby")] == ["moved"]
        assert await presence.totals() == {"moved": 1}
        page, _ = await Metrics(node).page()
        assert 'reactor_departures_total{reason="moved"} 1.0' in page.decode()


async def test_unknown_fields_of_diffs_and_keys_are_ignored(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        tag = redis_state.prefix("lobby")
        redis_server.control.hset(redis_state.presence_key("lobby", "bob"), "status", "busy")
        redis_server.control.hset(redis_state.shadow_key("lobby", "bob"), "s", "busy")
        redis_server.control.hset(f"{tag}:state:lobby", "format", "2")
        redis_server.control.hset(redis_state.presence_key("lobby", "bob"), "username", "Bob")
        later = LaterNode(redis_server)
        later.publish_diff([], [later.member_row("bob", "Bob")], [])
        diff = await ann.receive_next(lambda message: bool(message.get("updated")))
        assert [member["username"] for member in diff["updated"]] == ["Bob"]
        assert not node.feed.resyncs
        await bob.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        await bob.ask("room:update", "room:updated", roomId="lobby", username="Robert")
        listed = await ann.ask("room:members", "room:members", roomId="lobby")
        assert {member["username"] for member in listed["members"]} == {"ann", "Robert"}
        await bob.ask("leave_room", "room:left", roomId="lobby")
        assert await ann.receive_departure_of("bob") == "left"
        assert redis_state.everywhere(redis_server)["lobby"].keys() == {"ann"}


@pytest.mark.parametrize("payload", [b'+{"kind":"typing"}', b"/1 2 3", b"%"])
async def test_an_unknown_kind_of_publication_is_ignored(redis_server: Server, payload: bytes) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        LaterNode(redis_server).publish(payload)
        await bob.join("lobby", "bob")
        await ann.receive_next(lambda message: bool(message.get("joined")))
        assert not node.feed.resyncs


def test_the_report_of_a_later_node_is_read() -> None:
    report = {
        "version": "9.0.0", "connections": 1, "members": 1, "rooms": 1, "joins": 1, "leading": False,
        "ready": True, "status": "ready", "lateness": [[1.0, 0], [None, 0]], "people": 3,
        "load": {"cpu": 0.5},
    }  # fmt: skip
    found = read_report(json.dumps(report).encode())
    assert found is not None
    assert found.status == "ready"


class TestRequests:
    async def test_an_unknown_request_type_is_refused_and_the_connection_goes_on(
        self, redis_server: Server
    ) -> None:
        async with served(redis_server) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann")
            refusal = await ann.answer("room:rearrange", roomId="lobby")
            assert refusal["type"] == "error"
            assert refusal["code"] == "unknown_type"
            await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")

    async def test_unknown_fields_of_a_request_are_ignored(self, redis_server: Server) -> None:
        async with served(redis_server) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann", zoom={"level": "e", "version": 1})
            reply = await ann.answer("room:members", roomId="lobby", order="name")
            assert [member["userId"] for member in reply["members"]] == ["ann"]


class TestPythonClient:
    async def test_an_unknown_reason_is_given_to_the_application(self, redis_server: Server) -> None:
        async with (
            served(redis_server) as node,
            client_of(node) as client,
            client_of(node) as other,
        ):
            recorder = RoomRecorder(await other.join("lobby", user_id="ann"))
            room = await client.join("lobby", user_id="bob")
            LaterNode(redis_server).remove("bob", "moved")
            end = await ended(room)
            assert isinstance(end, ForceLeave)
            assert end.reason == "moved"
            await recorder.until_members("ann")
            assert recorder.reasons == {"bob": "moved"}

    async def test_unknown_messages_and_fields_of_a_server_are_ignored(self, redis_server: Server) -> None:
        async with (
            served(redis_server) as node,
            Interceptor.before(node) as interceptor,
            client_of(interceptor.port) as client,
        ):
            room = await client.join("lobby", user_id="ann")
            await interceptor.send({"type": "room:typing", "roomId": "lobby", "userId": "bob"})
            await interceptor.send({"type": "people:diff", "changed": []})
            await interceptor.send(
                {"type": "room:message", "roomId": "lobby", "data": 1, "timestamp": 5, "userId": "bob"}
            )
            await room.update({"mood": "blue"})
            assert await still_works(client)
            await until(lambda: room.me is not None and room.me.data == {"mood": "blue"})


async def still_works(client: Client) -> bool:
    return await client.is_present("lobby", "ann")
