"""What a client makes of news that do not come, or that it does not understand."""

from reactor.client import Status
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.meddler import Meddler, Message
from tests.system.client.people import Ears, client_of


class TestMissedDiffs:
    async def test_a_missed_diff_is_detected_by_the_next_and_repaired(self, bundled_server: Server):
        async with (
            served(bundled_server) as node,
            Meddler.before(node) as meddler,
            client_of(meddler.port) as client,
            client_of(node) as one,
            client_of(node) as two,
        ):
            ears = Ears(await client.join("lobby", user_id="ann"))
            lost: list[Message] = []

            def swallow(message: Message) -> bool:
                if message["type"] != "room:diff":
                    return False
                lost.append(message)
                return True

            meddler.swallow = swallow
            await one.join("lobby", user_id="bob")
            await until(lambda: len(lost) == 1)
            meddler.swallow = lambda _: False
            assert ears.heard == []
            await two.join("lobby", user_id="cy")
            await ears.until_members("ann", "bob", "cy")
            assert sorted(ears.heard) == [("join", "bob"), ("join", "cy")]
            assert ears.statuses == []
            asked = [message for message in meddler.heard[0] if message["type"] == "room:members"]
            assert len(asked) == 1, "one snapshot was enough"

    async def test_a_snapshot_that_does_not_arrive_is_requested_again(self, bundled_server: Server):
        async with (
            served(bundled_server) as node,
            Meddler.before(node) as meddler,
            client_of(meddler.port, request_timeout=0.2, heartbeat_interval=60) as client,
            client_of(node) as one,
            client_of(node) as two,
        ):
            ears = Ears(await client.join("lobby", user_id="ann"))
            lost: list[str] = []

            def swallow(message: Message) -> bool:
                if message["type"] == "room:diff" and lost:
                    return False
                if message["type"] in ("room:diff", "room:members") and len(lost) < 3:
                    lost.append(message["type"])
                    return True
                return False

            meddler.swallow = swallow
            bob = await one.join("lobby", user_id="bob")
            await until(lambda: lost == ["room:diff"])
            await bob.update(username="Bob")
            await ears.until(lambda: ears.room.count == 2)
            assert lost == ["room:diff", "room:members", "room:members"]
            await two.join("lobby", user_id="cy")
            await ears.until_members("ann", "bob", "cy")
            assert sorted(ears.heard) == [("join", "bob"), ("join", "cy")]

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
