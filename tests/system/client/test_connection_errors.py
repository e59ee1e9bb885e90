"""Why there is no connection is visible: in the client's error, and as an event."""

import asyncio
import time
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from reactor.client import Client, Status, reconnector
from reactor.client.dial import Dialer
from reactor.client.reconnector import TokenRenewal
from reactor.errors import ConnectionClosed, ReactorError, ServerUnreachable, SettingError, TokenFailed
from reactor.protocol.codec import JSON
from reactor.protocol.messages import AuthOk
from tests.support.certificates import trusting, write_certificate
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.clients import client_of, ended, url_of

SECRET = "a secret of the tests, as long as it has to be"


def token_for(seconds: float) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + seconds, "rooms": ["*"]}, SECRET)


class Stop(Exception):
    permanent = True


async def test_failed_attempts_are_reported_until_one_succeeds(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        errors: list[ReactorError] = []
        client.on("connection-error", errors.append)
        proxy.refuse = True
        proxy.cut()
        await until(lambda: len(errors) >= 3)
        lost, *failed = errors
        assert isinstance(lost, ConnectionClosed)
        assert "1006" in str(lost)
        assert all(isinstance(error, ServerUnreachable) for error in failed)
        assert client.error is not None
        assert client.status is Status.RECONNECTING
        proxy.refuse = False
        await until(lambda: client.status is Status.CONNECTED)
        assert client.error is None


async def test_an_origin_that_is_not_allowed_is_named(bundled_server: Server):
    async with served(bundled_server, origins=("https://app.example",)) as node:
        client = Client(url_of(node), origin="https://other.example")
        with pytest.raises(ServerUnreachable, match="origin not allowed") as refused:
            async with client:
                pytest.fail("not let in")
        assert refused.value.status == 403
        assert "the server's setting origins" in str(refused.value)


async def test_the_status_of_a_refused_handshake_is_reported_while_reconnecting(bundled_server: Server):
    answers: list[int | None] = [None, 503, 502, 404]

    def answer(connection: ServerConnection, _: Request) -> Response | None:
        status = answers.pop(0) if answers else None
        return connection.respond(status, "the node is stopping") if status else None

    async def close(connection: ServerConnection) -> None:
        await connection.close(1001)

    async with serve(close, "127.0.0.1", 0, process_request=answer) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        errors: list[ReactorError] = []
        async with client_of(port) as client:
            client.on("connection-error", errors.append)
            await until(lambda: len(errors) >= 4)
    statuses = [error.status for error in errors if isinstance(error, ServerUnreachable)]
    assert statuses[:3] == [503, 502, 404]
    assert "HTTP status 503: the node is stopping" in str(errors[1])
    assert "HTTP status 502 instead of a WebSocket: check the address" in str(errors[2])


async def refused_by(url: str, **options: Any) -> str:
    with pytest.raises(ServerUnreachable) as caught:
        async with Client(url, **options):
            pytest.fail("not let in")
    return str(caught.value)


async def test_faults_of_tls_are_named_with_their_fix(bundled_server: Server, tmp_path: Path):
    cert, key = write_certificate(tmp_path, "one")
    async with served(bundled_server, tls_cert=cert, tls_key=key) as node:
        port = node.gateway.port
        line = await refused_by(f"wss://127.0.0.1:{port}")
        assert "its certificate cannot be verified" in line
        assert line.endswith(
            "name the file of its authority in SSL_CERT_FILE, or give a context as the option ssl"
        )
        line = await refused_by(f"wss://localhost:{port}", ssl=trusting(cert))
        assert line.endswith("use a name that it has in the address")
        line = await refused_by(f"ws://127.0.0.1:{port}")
        assert line.endswith("check the address, which begins with wss:// where the server has TLS")
        async with Client(f"wss://127.0.0.1:{port}", ssl=trusting(cert)) as client:
            assert await client.count("lobby") == 0


async def test_tls_to_a_server_without_it_is_named(bundled_server: Server):
    async with served(bundled_server) as node:
        line = await refused_by(f"wss://127.0.0.1:{node.gateway.port}")
    assert "use ws:// where the server has no TLS" in line


@pytest.mark.parametrize("by", ["None", "an exception"])
async def test_a_token_function_can_stop_the_client(bundled_server: Server, by):
    calls = 0

    def token() -> str | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            return token_for(60)
        if by == "None":
            return None
        raise Stop("logged out")

    async with (
        served(bundled_server, auth_secret=SECRET.encode()) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port, token=token) as client,
    ):
        errors: list[ReactorError] = []
        client.on("connection-error", errors.append)
        room = await client.join("lobby")
        proxy.cut()
        end = await ended(room)
        assert isinstance(end, ConnectionClosed)
        assert ("returned None" if by == "None" else "logged out") in str(end)
        assert client.status is Status.CLOSED
        assert isinstance(client.error, TokenFailed)
        assert client.error.permanent
        assert errors[-1] is client.error
        with pytest.raises(ConnectionClosed):
            await client.join("lobby")
    assert calls == 2


async def test_a_token_function_that_stops_during_a_renewal_closes_the_connection(
    bundled_server: Server, monkeypatch
):
    monkeypatch.setattr(reconnector, "RENEW_FLOOR", 0.05)
    tokens = [token_for(1.5)]
    async with (
        served(bundled_server, auth_secret=SECRET.encode()) as node,
        client_of(node, token=lambda: tokens.pop() if tokens else None) as client,
    ):
        room = await client.join("lobby")
        assert isinstance(await ended(room), ConnectionClosed)
        await until(lambda: not node.gateway.connections)


async def test_a_failing_token_function_is_reported_and_asked_again(bundled_server: Server):
    async def token() -> str:
        if errors[:1] and len(errors) < 3:
            raise LookupError("the session store is down")
        return token_for(60)

    async with (
        served(bundled_server, auth_secret=SECRET.encode()) as node,
        Proxy.to(node.gateway.port) as proxy,
    ):
        errors: list[ReactorError] = []
        async with client_of(proxy.port, token=token) as client:
            client.on("connection-error", errors.append)
            room = await client.join("lobby")
            proxy.cut()
            await until(lambda: room.status is Status.CONNECTED and len(errors) >= 3)
            failed = [error for error in errors if isinstance(error, TokenFailed)]
            assert [str(error) for error in failed] == [
                "the token function failed (LookupError('the session store is down'))"
            ] * 2
            assert not failed[0].permanent


async def test_a_token_function_that_does_not_return_is_reported_and_asked_again(bundled_server: Server):
    hangs: list[asyncio.Event] = []

    async def token() -> str:
        if errors and len(hangs) < 2:
            hangs.append(asyncio.Event())
            await hangs[-1].wait()
        return token_for(60)

    async with (
        served(bundled_server, auth_secret=SECRET.encode()) as node,
        Proxy.to(node.gateway.port) as proxy,
    ):
        errors: list[ReactorError] = []
        async with client_of(proxy.port, token=token, open_timeout=0.5) as client:
            client.on("connection-error", errors.append)
            room = await client.join("lobby")
            proxy.cut()
            await until(lambda: len(hangs) == 2 and room.status is Status.CONNECTED)
            failed = [str(error) for error in errors if isinstance(error, TokenFailed)]
            assert failed == ["the token function has not returned within 0.5 s"] * 2


@pytest.mark.parametrize("value", [7, b"token", "t\u00f6ken", "\ud83d"])
async def test_what_is_no_token_is_reported_before_anything_is_sent(bundled_server: Server, value):
    async with served(bundled_server) as node:
        with pytest.raises(TokenFailed, match="not a token"):
            async with client_of(node, token=lambda: value):
                pytest.fail("no token")
        with pytest.raises(SettingError, match="token takes text"):
            client_of(node, token=7)
        for text in ("t\u00f6ken", "\ud83d"):
            with pytest.raises(SettingError, match="not ASCII"):
                client_of(node, token=text)


class SafeText(str):
    """As frameworks mark text that needs no escaping; the encoder takes no subclass of str."""

    __slots__ = ()


async def test_a_token_may_be_text_of_a_subclass(bundled_server: Server):
    token = SafeText(token_for(100))
    async with served(bundled_server, auth_secret=SECRET.encode()) as node:
        for given in (token, lambda: token):
            async with client_of(node, token=given) as client:
                assert (await client.join("lobby")).user_id == "ann"


async def test_a_token_function_whose_own_work_was_cancelled_is_called_again(bundled_server: Server):
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            await cancelled
        return token_for(100)

    async with (
        served(bundled_server, auth_secret=SECRET.encode()) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port, token=token) as client,
    ):
        errors: list[ReactorError] = []
        client.on("connection-error", errors.append)
        room = await client.join("lobby")
        proxy.cut()
        await until(lambda: calls == 3 and room.status is Status.CONNECTED)
        assert [str(error) for error in errors if isinstance(error, TokenFailed)] == [
            "the token function was cancelled"
        ]


class Renewals:
    """A connection whose server says of each token that it expires at once, or as given."""

    def __init__(self, reply: AuthOk) -> None:
        self.asked = 0
        self.renewal = TokenRenewal(
            Dialer("ws://host/ws", JSON, lambda: "token", {}), 1.0, lambda error: pytest.fail(str(error))
        )
        self._reply = reply

    async def ask(self, *_: object) -> None:
        self.asked += 1
        self.renewal.accepted(self._reply)

    async def run(self, seconds: float) -> int:
        self.renewal.accepted(self._reply)
        with anyio.move_on_after(seconds):
            await self.renewal.run(self)  # type: ignore[arg-type]
        return self.asked


async def test_a_clock_that_is_ahead_does_not_renew_tokens_without_end(monkeypatch):
    almost_over = AuthOk("ann", int(time.time() * 1000) + 20)
    monkeypatch.setattr(reconnector, "RENEW_FLOOR", 0.3)
    assert 1 <= await Renewals(almost_over).run(0.7) <= 3
    # The server says how long it is, whatever this machine's clock shows.
    assert await Renewals(AuthOk("ann", int(time.time() * 1000) + 20, 3_600_000)).run(0.3) == 0
    assert await Renewals(AuthOk("ann", int(time.time() * 1000) + 3_600_000, 40)).run(0.3) >= 1
