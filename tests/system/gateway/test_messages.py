"""Messages of clients: valid ones reach the handler, invalid ones are answered with an error."""

import pytest
from structlog.testing import capture_logs
from websockets.frames import Opcode

from reactor.protocol.intents import Join, Refresh
from reactor.protocol.messages import ProtocolError
from tests.support.gateway import HEARTBEAT, bystander, client_frame, serving, text

INVALID = {
    "not JSON": (b"{", "bad_json"),
    "empty": (b"", "bad_json"),
    "a number": (b"1", "bad_message"),
    "a list": (b"[]", "bad_message"),
    "no type": (b"{}", "bad_message"),
    "another type": (b'{"type":"dance","id":"a"}', "unknown_type"),
    "a missing field": (b'{"type":"join_room","id":"a","roomId":"r"}', "bad_message"),
    "a bad id": (b'{"type":"join_room","id":"a","roomId":"","userId":"u"}', "bad_id"),
    "not joined": (b'{"type":"leave_room","id":"a","roomId":"r"}', "not_joined"),
    "deep": (b"[" * 60_000, "bad_json"),
    "much data": (
        b'{"type":"join_room","id":"a","roomId":"r","userId":"u","data":"' + b"x" * 5000 + b'"}',
        "data_too_big",
    ),
}


@pytest.mark.parametrize(("payload", "code"), INVALID.values(), ids=INVALID)
async def test_an_invalid_message_is_answered_with_one_error_and_the_connection_stays_open(payload, code):
    async with serving() as served, await served.raw() as client:
        client.write(client_frame(Opcode.TEXT, payload), text(HEARTBEAT))
        error = await client.message()
        assert (error["type"], error["code"]) == ("error", code)
        assert error["message"]
        if b'"id":"a"' in payload:
            assert error["id"] == "a"
        assert (await client.message())["type"] == "room:heartbeat:ack"


async def test_intents_reach_the_handler_in_order_however_the_frames_are_split():
    async with serving() as served, await served.raw() as client:
        served.handler.act = lambda _connection, _intent: None
        messages = [
            {"type": "join_room", "roomId": f"r{number}", "userId": "u", "data": "x" * (number % 200)}
            for number in range(100)
        ]
        stream = b"".join(map(text, messages))
        client.write(text(messages[0]))
        await served.handler.until(lambda: len(served.handler.intents) == 1)
        for start in range(len(text(messages[0])), len(stream), 777):
            client.write(stream[start : start + 777])
        await served.handler.until(lambda: len(served.handler.intents) == 100)
        assert [intent.room_id for intent in served.handler.intents] == [
            f"r{number}" for number in range(100)
        ]
        assert all(type(intent) is Join for intent in served.handler.intents)


async def test_a_failing_handler_is_answered_with_one_error_and_logged():
    async with serving() as served, bystander(served), await served.raw() as client:
        act = served.handler.act

        def failing(connection, intent):
            if isinstance(intent, Refresh) and intent.id == "fail":
                raise RuntimeError("on purpose")
            act(connection, intent)

        served.handler.act = failing
        with capture_logs() as logs:
            client.write(text({**HEARTBEAT, "id": "fail"}))
            error = await client.message()
        assert (error["type"], error["code"], error["id"]) == ("error", "internal", "fail")
        assert "on purpose" not in error["message"]
        (line,) = [line for line in logs if line["log_level"] == "error"]
        assert line["exc_info"]
        assert line["socket_id"] == served.handler.opened_[-1].socket_id
        client.write(text(HEARTBEAT))
        assert (await client.message())["type"] == "room:heartbeat:ack"


async def test_a_handler_may_reject_by_raising_a_protocol_error():
    async with serving() as served, await served.raw() as client:

        def rejecting(_connection, intent):
            raise ProtocolError("auth_disabled", "no tokens here", intent.id)

        served.handler.act = rejecting
        client.write(text(HEARTBEAT))
        error = await client.message()
        assert (error["code"], error["id"]) == ("auth_disabled", 7)
