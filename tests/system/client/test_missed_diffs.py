"""What a client makes of news that do not come, or that it does not understand."""

from reactor.client import Status
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.clients import RoomRecorder, client_of
from tests.system.client.interceptor import Interceptor, Message


class TestMissedDiffs:
    async def test_a_missed_diff_is_detected_by_the_next_and_repaired(self, bundled_server: Server):
        async with (
            served(bundled_server) as node,
            Interceptor.before(node) as interceptor,
            client_of(interceptor.port) as client,
            client_of(node) as one,
            client_of(node) as two,
        ):
            recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
            lost: list[Message] = []

            def drop(message: Message) -> bool:
                if message["type"] != "room:diff":
                    return False
                lost.append(message)
                return True

            interceptor.drop = drop
            await one.join("lobby", user_id="bob")
            await until(lambda: len(lost) == 1)
            interceptor.drop = lambda _: False
            assert recorder.changes == []
            await two.join("lobby", user_id="cy")
            await recorder.until_members("ann", "bob", "cy")
            assert sorted(recorder.changes) == [("join", "bob"), ("join", "cy")]
            assert recorder.statuses == []
            asked = [message for message in interceptor.received[0] if message["type"] == "room:members"]
            assert len(asked) == 1, "one snapshot was enough"

    async def test_a_snapshot_that_does_not_arrive_is_requested_again(self, bundled_server: Server):
        async with (
            served(bundled_server) as node,
            Interceptor.before(node) as interceptor,
            client_of(interceptor.port, request_timeout=1.0, heartbeat_interval=60) as client,
            client_of(node) as one,
            client_of(node) as two,
        ):
            recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
            lost: list[str] = []

            def drop(message: Message) -> bool:
                if message["type"] == "room:diff" and lost:
                    return False
                if message["type"] in ("room:diff", "room:members") and len(lost) < 3:
                    lost.append(message["type"])
                    return True
                return False

            interceptor.drop = drop
            bob = await one.join("lobby", user_id="bob")
            await until(lambda: lost == ["room:diff"])
            await bob.update(username="Bob")
            await recorder.until(lambda: recorder.room.count == 2)
            assert lost == ["room:diff", "room:members", "room:members"]
            await two.join("lobby", user_id="cy")
            await recorder.until_members("ann", "bob", "cy")
            assert sorted(recorder.changes) == [("join", "bob"), ("join", "cy")]

    async def test_messages_that_only_a_newer_server_knows_are_ignored(self, bundled_server: Server, caplog):
        async with served(bundled_server) as node, client_of(node) as client:
            room = await client.join("lobby", user_id="ann")
            (connection,) = node.gateway.connections
            connection.send_payload(b'{"type":"room:weather","roomId":"lobby","sun":true}')
            connection.send_payload(b'{"type":"room:diff","roomId":"lobby"}')
            connection.send_payload(b"no JSON")
            await room.update(username="Ann")
            assert room.status is Status.CONNECTED
        assert caplog.text.count("message skipped") == 2
