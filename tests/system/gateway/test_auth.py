"""Authentication: the three ways to send a token, its expiry, hooks, and unauthenticated clients."""

import asyncio
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from websockets.frames import Opcode

from reactor.errors import SettingError
from reactor.gateway.server import Gateway
from reactor.protocol import intents as want
from reactor.settings import Settings
from tests.support import hooks
from tests.support.gateway import BELOW_DEFAULT, Raw, Recorder, Served, client_frame, request, serving, text
from tests.support.signing import SECRET, token
from tests.support.waiting import PATIENCE, until

KEYS: dict[str, Any] = {"auth_secret": SECRET}
JOIN = {"type": "join_room", "roomId": "lobby", "id": 2}
BEAT = {"type": "room:heartbeat", "id": 3}


def auth(value: str, **fields: Any) -> bytes:
    return text({"type": "auth", "token": value, "id": 1} | fields)


async def http_response(client: Raw) -> tuple[bytes, bytes]:
    """Return the head and body of an HTTP response."""
    async with asyncio.timeout(PATIENCE):
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
    return head, body


def intents(served: Served) -> list[Any]:
    handler: Recorder = served.handler
    return handler.intents


async def assert_authenticated(client: Raw, served: Served) -> None:
    """The connection is authenticated as ann: its join reaches the handler and its heartbeat is answered."""
    client.write(text(JOIN), text(BEAT))
    assert (await client.message())["type"] == "room:heartbeat:ack"
    assert intents(served)[-2] == want.Join("lobby", "ann", "", None, "members", 2)


# Ways to send a token.


async def test_a_token_in_the_first_message_admits_the_requests_behind_it():
    expires = int(time.time()) + 60
    async with serving(**KEYS) as served, await served.raw() as client:
        client.write(auth(token(exp=expires)), text(JOIN), text(BEAT))
        accepted = await client.message()
        assert (
            expires * 1000 - 60_000
            <= time.time() * 1000 + accepted.pop("expiresIn")
            <= expires * 1000 + 60_000
        )
        assert accepted == {"type": "auth:ok", "userId": "ann", "expiresAt": expires * 1000, "id": 1}
        assert (await client.message())["type"] == "room:heartbeat:ack"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_a_token_may_come_in_the_authorization_header(scheme):
    async with (
        serving(**KEYS) as served,
        await served.raw(Authorization=f"{scheme} {token()}") as client,
    ):
        assert (await client.message())["userId"] == "ann"
        await assert_authenticated(client, served)


async def test_a_token_may_come_in_a_subprotocol_and_is_not_echoed():
    value = token()
    async with serving(**KEYS) as served, await served.raw(handshake=False) as client:
        head = await client.shake_hands(Sec_WebSocket_Protocol=f"reactor.json, reactor.token.{value}")
        assert b"Sec-WebSocket-Protocol: reactor.json\r\n" in head
        assert value.encode() not in head
        reply = await client.message()
        assert (reply["type"], reply["userId"]) == ("auth:ok", "ann")
        assert "id" not in reply
        await assert_authenticated(client, served)


async def test_without_authentication_a_token_in_the_handshake_is_ignored():
    async with (
        serving() as served,
        await served.raw(Authorization="Bearer x", Sec_WebSocket_Protocol="reactor.json, reactor.token.x"),
    ):
        await served.handler.until(lambda: len(served.handler.opened_) == 1)


# Unauthenticated clients.


async def test_an_unauthenticated_client_is_rejected_and_closed_at_the_time_out():
    began = time.monotonic()
    async with serving(**KEYS, auth_timeout=0.4) as served, await served.raw() as client:
        client.write(text(JOIN))
        error = await client.message()
        assert (error["code"], error["id"], error["roomId"]) == ("unauthorized", 2, "lobby")
        # Its requests do not extend the time-out.
        client.write(text(BEAT))
        while (received := await client.frame())[0] == Opcode.TEXT:
            assert b'"unauthorized"' in received[1]
            await asyncio.sleep(0.02)
            client.write(text(BEAT))
        assert received[0] == Opcode.CLOSE
        assert int.from_bytes(received[1][:2]) == 4001
        assert 0.4 <= time.monotonic() - began < BELOW_DEFAULT
        assert intents(served) == []


@pytest.mark.parametrize(("value", "code"), [("nonsense", "unauthorized"), (token(exp=1), "token_expired")])
async def test_an_invalid_first_token_closes_the_connection(value, code):
    async with serving(**KEYS) as served, await served.raw() as client:
        client.write(auth(value), text(JOIN))
        error = await client.message()
        assert (error["type"], error["code"], error["id"]) == ("error", code, 1)
        assert await client.close_code() == 4001
        assert intents(served) == []


async def test_an_invalid_token_in_the_header_is_answered_with_401():
    async with serving(**KEYS) as served, await served.raw(handshake=False) as client:
        client.write(request(Authorization="Bearer nonsense"))
        head, body = await http_response(client)
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b'WWW-Authenticate: Bearer error="invalid_token"' in head
        assert b"not a valid token" in body
        assert served.handler.opened_ == []


async def test_an_invalid_token_in_a_subprotocol_is_rejected_after_the_handshake():
    async with (
        serving(**KEYS) as served,
        await served.raw(Sec_WebSocket_Protocol="reactor.json, reactor.token.nonsense") as client,
    ):
        assert (await client.message())["code"] == "unauthorized"
        assert await client.close_code() == 4001


async def test_other_authorization_schemes_are_ignored():
    async with serving(**KEYS) as served, await served.raw(Authorization="Basic YTpi") as client:
        client.write(auth(token()))
        assert (await client.message())["type"] == "auth:ok"


async def test_a_token_in_a_subprotocol_works_with_messagepack():
    async with (
        serving(**KEYS) as served,
        await served.raw(Sec_WebSocket_Protocol=f"reactor.msgpack, reactor.token.{token()}") as client,
    ):
        opcode, _ = await client.frame()
        assert opcode == Opcode.BINARY


# Expiry of a token.


async def test_an_expired_token_is_requested_again_and_closes_the_connection_after_the_grace():
    async with serving(**KEYS, auth_grace=1.5) as served, await served.raw() as client:
        client.write(auth(token(exp=time.time() + 1.5)))
        expires_at = (await client.message())["expiresAt"] / 1000
        error = await client.message()
        assert (error["type"], error["code"]) == ("error", "token_expired")
        assert "id" not in error
        assert -0.01 < time.time() - expires_at < BELOW_DEFAULT
        client.write(text(BEAT))
        assert (await client.message())["type"] == "room:heartbeat:ack", "requests are still processed"
        assert await client.close_code() == 4001
        assert 1.5 <= time.time() - expires_at < BELOW_DEFAULT


async def test_a_new_token_within_the_grace_keeps_the_connection():
    async with serving(**KEYS, auth_grace=PATIENCE) as served, await served.raw() as client:
        client.write(auth(token(exp=time.time() + 1.5)))
        await client.message()
        assert (await client.message())["code"] == "token_expired"
        client.write(auth(token(exp=time.time() + 1.5), id=7))
        assert (await client.message())["id"] == 7
        # The second token expires too, and is requested again.
        assert (await client.message())["code"] == "token_expired"
        client.write(auth(token()))
        assert (await client.message())["type"] == "auth:ok"
        await assert_authenticated(client, served)


@pytest.mark.parametrize(("sub", "code"), [("bob", "forbidden"), ("", "unauthorized")])
async def test_a_new_token_of_another_user_or_an_invalid_one_changes_nothing(sub, code):
    async with serving(**KEYS) as served, await served.raw() as client:
        client.write(auth(token()), auth(token(sub=sub), id=2))
        await client.message()
        error = await client.message()
        assert (error["code"], error["id"]) == (code, 2)
        await assert_authenticated(client, served)


async def test_a_new_token_without_a_joined_room_closes_the_connection():
    async with serving(**KEYS) as served, await served.raw() as client:
        client.write(auth(token(rooms=["lobby"])), text(JOIN), auth(token(rooms=["other"]), id=3))
        assert (await client.message())["type"] == "auth:ok"
        assert (await client.message())["type"] == "auth:ok"
        error = await client.message()
        assert (error["code"], error["roomId"]) == ("forbidden", "lobby")
        assert await client.close_code() == 4001


async def test_closed_connections_leave_no_state():
    async with serving(**KEYS) as served:
        for number in range(10):
            async with await served.raw() as client:
                if number % 2:
                    client.write(auth(token()))
                    await client.message()
        await served.handler.until(lambda: len(served.handler.closed_) == 10)
        manager = served.gateway._manager
        assert manager is not None
        assert manager.auth is not None
        assert manager.auth._contexts == {}
        assert manager.context.wheel._slots == {}


async def test_the_connections_of_one_user_are_limited():
    async with (
        serving(**KEYS, max_per_user=2) as served,
        await served.raw() as one,
        await served.raw(Authorization=f"Bearer {token()}") as two,
    ):
        one.write(auth(token()))
        assert (await one.message())["type"] == (await two.message())["type"] == "auth:ok"
        async with await served.raw() as three, await served.raw() as other:
            three.write(auth(token()), text(JOIN))
            assert (await three.message())["code"] == "too_many_connections"
            assert await three.close_code() == 4029
            other.write(auth(token(sub="bob")))
            assert (await other.message())["type"] == "auth:ok"
        one.write(auth(token()))  # a fresh token is no further connection
        assert (await one.message())["type"] == "auth:ok"
        two.writer.transport.abort()
        await served.handler.until(lambda: len(served.handler.closed_) == 3)
        async with await served.raw(Authorization=f"Bearer {token()}") as late:
            assert (await late.message())["type"] == "auth:ok"
        manager = served.gateway._manager
        assert manager is not None
        assert manager.auth is not None
        await served.handler.until(lambda: len(served.handler.closed_) == 4)
        assert [len(manager.auth.connections_of(user)) for user in ("ann", "bob")] == [1, 0]


# Hooks.

HOOK: dict[str, Any] = {"auth_hook": "tests.support.hooks:check"}


async def test_a_hook_receives_the_arrival_and_returns_the_identity():
    hooks.CALLS.clear()
    async with (
        serving(**HOOK) as served,
        await served.raw(X_Hint="hello", X_Forwarded_For="203.0.113.7") as client,
    ):
        client.write(auth("ann"), text(JOIN), text(BEAT))
        assert await client.message() == {"type": "auth:ok", "userId": "ann", "id": 1}
        assert (await client.message())["type"] == "room:heartbeat:ack"
        assert intents(served)[0].user_id == "ann"
        ((value, arrival),) = hooks.CALLS
        assert value == "ann"
        assert (arrival.address, arrival.path) == ("203.0.113.7", "/ws")
        assert arrival.headers["x-hint"] == "hello"


async def test_requests_wait_for_a_slow_hook():
    async with (
        serving(**HOOK) as served,
        await served.raw() as client,
        await served.raw(Authorization="Bearer ann!") as other,
    ):
        client.write(auth("ann soon"), text(JOIN), auth("ann"), text(BEAT))
        assert (await client.message())["code"] == "too_many_pending"
        assert [(await client.message())["type"] for _ in range(2)] == ["auth:ok", "room:heartbeat:ack"]
        assert intents(served)[0].user_id == "ann soon"
        assert (await other.message())["expiresAt"] > time.time() * 1000


async def test_early_messages_are_kept_as_bytes_and_released_with_their_connection():
    large = client_frame(
        Opcode.BINARY, msgspec.msgpack.encode({**JOIN, "username": "x" * 250, "data": [[]] * 2000})
    )
    login = client_frame(Opcode.BINARY, msgspec.msgpack.encode({"type": "auth", "token": "slow"}))
    async with serving(**HOOK, auth_timeout=PATIENCE) as served:
        manager = served.gateway._manager
        assert manager is not None
        assert manager.auth is not None
        budget = manager.auth._early
        clients = [
            await served.raw(Sec_WebSocket_Protocol="reactor.msgpack", X_Forwarded_For=f"10.0.0.{number}")
            for number in range(5)
        ]
        tracemalloc.start()
        for client in clients:
            client.write(login, large * 32)
        # 32 of 2,300 bytes each, of which the first 8 KiB are free.
        await until(lambda: budget.bytes.used > 5 * 60_000)
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert taken < 5 * 150_000  # the same 160 messages, decoded, take 20 MB
        for client in clients:
            client.writer.transport.abort()
        await until(lambda: budget.bytes.used == 0)


@pytest.mark.parametrize(
    ("value", "code", "close_code"),
    [
        ("bob", "unauthorized", 4001),
        ("stale", "token_expired", 4001),
        ("broken", "unavailable", 1011),
        ("none", "unavailable", 1011),
        ("slow", "unavailable", 1011),
    ],
)
async def test_a_hook_that_rejects_fails_or_is_slow_affects_only_that_client(value, code, close_code):
    # The time-out also limits how late the two tokens may be sent, so it is short only where it has to pass.
    timeout = 1.5 if value == "slow" else PATIENCE
    async with serving(**HOOK, auth_timeout=timeout) as served, await served.raw() as client:
        client.write(auth(value))
        async with await served.raw(Authorization="Bearer ann") as other:
            assert (await other.message())["type"] == "auth:ok"
            error = await client.message()
            assert (error["code"], error["id"]) == (code, 1)
            assert await client.close_code() == close_code
            await assert_authenticated(other, served)


async def test_a_token_sent_in_time_gets_the_whole_time_out_of_the_hook():
    async with serving(**HOOK, auth_timeout=2.4) as served, await served.raw() as client:
        await asyncio.sleep(0.6)  # the time-out for sending a token then passes before the hook's
        client.write(auth("slow"))
        assert (await client.message())["code"] == "unavailable"
        assert await client.close_code() == 1011


async def test_a_hook_that_fails_on_a_new_token_changes_nothing():
    async with serving(**HOOK) as served, await served.raw() as client:
        client.write(auth("ann"))
        await client.message()
        client.write(auth("broken", id=2))
        error = await client.message()
        assert (error["code"], error["id"]) == ("unavailable", 2)
        await assert_authenticated(client, served)


async def test_a_blocking_hook_runs_in_a_thread():
    hooks.RELEASED.clear()
    async with (
        serving(auth_hook="tests.support.hooks:check_in_a_thread", auth_timeout=1.5) as served,
        await served.raw() as client,
        await served.raw() as other,
    ):
        client.write(auth("stuck"))
        other.write(auth("ann"))
        assert (await other.message())["userId"] == "ann"
        assert (await client.message())["code"] == "unavailable"
    hooks.RELEASED.set()


async def test_the_result_of_a_hook_is_ignored_after_the_client_has_disconnected():
    hooks.CALLS.clear()
    async with serving(**HOOK) as served:
        async with await served.raw() as client:
            client.write(auth("soon"))
            await until(lambda: [value for value, _ in hooks.CALLS] == ["soon"])
        await served.handler.until(lambda: len(served.handler.closed_) == 1)
        await until(lambda: not served.gateway._manager.auth._tasks)  # type: ignore[union-attr]
        assert intents(served) == []


async def test_a_stopping_server_does_not_wait_for_hooks():
    hooks.CALLS.clear()
    began = time.monotonic()
    async with serving(**HOOK, close_timeout=0.2) as served:
        client = await served.raw()
        client.write(auth("slow"))
        await until(lambda: [value for value, _ in hooks.CALLS] == ["slow"])
    client.writer.transport.abort()
    assert time.monotonic() - began < BELOW_DEFAULT


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("tests.support.missing:check", "No module named"),
        ("tests.support.hooks:missing", "no attribute"),
        ("tests.support.hooks:not_callable", "is not a function"),
    ],
)
def test_a_hook_that_cannot_be_imported_is_an_error_at_the_start(hook, words):
    with pytest.raises(SettingError, match=words):
        Gateway(Settings(auth_hook=hook), Recorder())
