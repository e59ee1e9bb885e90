"""Close codes that say come again or stay away, and tokens that run out."""

import asyncio
import time

import anyio
import jwt
import pytest

from reactor.client import Status, reconnector
from reactor.errors import (
    ConnectionClosed,
    ServerUnreachable,
)
from reactor.protocol.closing import CloseCode
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import RoomRecorder, client_of, ended
from tests.system.client.interceptor import Interceptor

SECRET = "a secret of the tests, as long as it has to be"


# Also those of a proxy: 1000 for an idle tunnel, 1008 for a long one, others of its own.
@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 3000, 4000, 4008, 4029, 4999]
)
async def test_close_codes_after_which_the_client_reconnects(bundled_server: Server, code):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
        await interceptor.close_all(code)
        await recorder.until_statuses(Status.RECONNECTING, Status.CONNECTED)
        assert recorder.events == []


async def test_a_missing_token_is_a_reason_to_give_up(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        statuses: list[Status] = []
        client.on("status", statuses.append)
        room = await client.join("lobby", user_id="ann")
        await interceptor.close_all(4001, "so it is")
        end = await ended(room)
        assert isinstance(end, ConnectionClosed)
        assert end.code == 4001
        assert client.error == end
        assert "so it is" in str(end)
        assert statuses == [Status.CLOSED]
        with pytest.raises(ConnectionClosed, match="so it is"):
            await client.join("lobby", user_id="ann")
        with pytest.raises(ConnectionClosed):
            await room.update(username="Ann")
        with pytest.raises(ConnectionClosed):
            await client.count("lobby")


async def test_a_server_without_authentication_accepts_a_client_with_a_token(bundled_server: Server):
    for token in ("secret", lambda: "secret"):
        async with (
            served(bundled_server) as node,
            Interceptor.before(node) as interceptor,
            client_of(interceptor.port, token=token) as client,
        ):
            await client.join("lobby", user_id="ann")
            assert [message["type"] for message in interceptor.received[0]] == ["auth", "join_room"]
            assert interceptor.received[0][0]["token"] == "secret"


async def test_an_expired_token_is_replaced_by_a_fresh_one(bundled_server: Server):
    given: list[str] = []

    async def token() -> str:
        await asyncio.sleep(0)
        given.append(f"token {len(given)}")
        return given[-1]

    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port, token=token) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
        interceptor.close_code = lambda message: 4001 if message.get("token") == "token 1" else None
        await interceptor.close_all(CloseCode.UNAUTHORISED)
        await recorder.until_statuses(Status.RECONNECTING, Status.CONNECTED)
        assert given == ["token 0", "token 1", "token 2"]
        assert [said[0]["token"] for said in interceptor.received] == given
        interceptor.close_code = lambda message: 4001 if message["type"] == "auth" else None
        await interceptor.close_all(CloseCode.UNAUTHORISED)
        end = await ended(recorder.room)
        assert isinstance(end, ConnectionClosed)
        assert end.code == 4001
        assert len(given) == 5, "two in a row that are not taken are enough"


async def test_a_refused_first_token_raises_when_the_block_is_entered(bundled_server: Server):
    async with served(bundled_server) as node, Interceptor.before(node) as interceptor:
        interceptor.close_code = lambda message: 4001 if message["type"] == "auth" else None
        with pytest.raises(ConnectionClosed, match="4001: unauthorised"):
            async with client_of(interceptor.port, token="wrong"):
                pytest.fail("not let in")
        assert len(interceptor.received) == 1

    def broken() -> str:
        raise LookupError("no such secret")

    async with served(bundled_server) as node:
        with pytest.raises(ServerUnreachable, match="no such secret"):
            async with client_of(node, token=broken):
                pytest.fail("no token")


async def test_a_token_is_renewed_before_it_expires(bundled_server: Server, monkeypatch):
    monkeypatch.setattr(reconnector, "RENEW_FLOOR", 0.1)
    given: list[str] = []

    def token() -> str:
        # Half of what is left of a short life is the time for the next one.
        given.append(jwt.encode({"sub": "ann", "exp": time.time() + 1, "rooms": ["*"]}, SECRET))
        return given[-1]

    async with (
        served(bundled_server, auth_secret=SECRET.encode(), auth_leeway=0) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port, token=token) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby"))
        assert recorder.room.user_id == "ann"
        assert recorder.room.me is not None
        with anyio.fail_after(PATIENCE):
            while len(given) < 4:
                await client.is_present("lobby", "ann")
                await anyio.sleep(0.1)
        assert recorder.statuses == []
        assert [said["token"] for said in interceptor.received[0] if said["type"] == "auth"] == given
        assert len(interceptor.received) == 1


async def test_a_failing_token_function_is_called_again(bundled_server: Server, monkeypatch):
    monkeypatch.setattr(reconnector, "RENEW_RETRY", 0.05)
    monkeypatch.setattr(reconnector, "RENEW_FLOOR", 0.05)
    calls: list[float] = []

    async def token() -> str:
        calls.append(time.time())
        if len(calls) in (2, 3):
            raise LookupError("not now")
        return jwt.encode({"sub": "ann", "exp": time.time() + 1.5, "rooms": ["*"]}, SECRET)

    async with (
        served(bundled_server, auth_secret=SECRET.encode(), auth_leeway=0) as node,
        client_of(node, token=token) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
        await until(lambda: len(calls) >= 4)
        assert await client.count("lobby") == 1
        assert recorder.statuses == []
