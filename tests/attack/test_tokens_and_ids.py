"""Tokens on a complete server, tokens in logs, hostile ids, and settings that concern security."""

import asyncio
import json
import re
import signal
import ssl
import time
from typing import Any

import jwt
import pytest
from redis import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from reactor.settings import Settings
from reactor.settings.load import advice
from tests.attack.attackers import HOSTILE
from tests.support.certificates import trusting, write_certificate
from tests.support.command import reactor
from tests.support.nodes import NodeProcess, served, serving
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import public_jwk, signed, write_jwks
from tests.support.waiting import PATIENCE

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
SECRET = "a secret of this test and its server"


def token(user: str = "ann", **claims: Any) -> str:
    payload = {"sub": user, "exp": time.time() + 60, "rooms": ["lobby"]} | claims
    return jwt.encode(payload, SECRET, algorithm="HS256")


def bearer(value: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {value}"}}


async def test_a_token_allows_its_rooms_and_no_others(bundled_server: Server):
    async with (
        served(bundled_server, auth_secret=SECRET) as node,
        RawClient.connect(node, **bearer(token("bob", rooms=["*"]))) as bob,
        RawClient.connect(node, **bearer(token(name="Ann", data={"team": 1}))) as ann,
    ):
        await bob.join("lobby", "bob")
        await bob.join("cellar", "bob")
        joined = await ann.answer("join_room", roomId="lobby")
        assert joined["userId"] == "ann"
        (seen,) = (await bob.receive("room:diff", roomId="lobby"))["joined"]
        assert (seen["userId"], seen["username"], seen["data"]) == ("ann", "Ann", {"team": 1})
        assert (await ann.answer("room:count", roomId="lobby"))["count"] == 2
        for kind in ("join_room", "room:members", "room:count", "room:is_present"):
            error = await ann.answer(kind, roomId="cellar", userId="ann")
            assert (error["type"], error["code"], error["roomId"]) == ("error", "forbidden", "cellar")
        for fields in ({"userId": "bob"}, {"username": "Bob"}, {"data": 2}):
            assert (await ann.answer("join_room", roomId="lobby", **fields))["code"] == "forbidden"
        assert (await ann.answer("room:update", roomId="lobby", data=2))["code"] == "forbidden"
        assert (await ann.answer("room:heartbeat", roomId="lobby"))["type"] == "room:heartbeat:ack"
        # Requests about a room that the connection has not joined are rejected.
        for kind in ("room:heartbeat", "room:away", "leave_room"):
            assert (await ann.answer(kind, roomId="cellar"))["code"] == "not_joined"


async def test_further_tokens_cost_what_their_check_takes(bundled_server: Server):
    costs = {"cost_per_second": 5, "cost_burst": 10}
    async with (
        served(bundled_server, auth_secret=SECRET, **costs) as node,
        RawClient.connect(node, **bearer(token())) as ann,
    ):
        await ann.receive("auth:ok")
        async with asyncio.timeout(PATIENCE):
            while (answer := await ann.answer("auth", token=token()))["type"] == "auth:ok":
                pass
            assert (answer["code"], answer["retryAfter"] > 0) == ("too_many_requests", True)
            while (answer := await ann.answer("auth", token=token()))["type"] != "auth:ok":
                assert answer["code"] == "too_many_requests"
        assert (await ann.answer("room:heartbeat"))["type"] == "room:heartbeat:ack"


async def test_a_member_with_an_expired_token_leaves_after_the_grace(bundled_server: Server):
    async with (
        served(bundled_server, auth_secret=SECRET, auth_grace=0.3, grace=0.5) as node,
        RawClient.connect(node, **bearer(token("bob"))) as bob,
        RawClient.connect(node, **bearer(token(exp=time.time() + 3))) as ann,
    ):
        await bob.join("lobby", "bob")
        await ann.answer("join_room", roomId="lobby")
        await ann.receive("error", code="token_expired")
        assert await ann.closed() == 4001
        assert await bob.receive_departure_of("ann") == "disconnected"


async def test_an_invalid_authorization_header_is_a_401(bundled_server: Server):
    async with served(bundled_server, auth_secret=SECRET) as node:
        with pytest.raises(InvalidStatus) as caught:
            async with RawClient.connect(node, **bearer("nonsense")):
                pytest.fail("the connection opened")
        assert caught.value.response.status_code == 401


async def test_no_token_reaches_the_log(bundled_server: Server):
    rejected = 0
    tokens = [token(), token(exp=1), token("x" * 300), "nonsense-but-secret.nonsense.nonsense"]
    with serving(
        "--redis-url", bundled_server.socket_url, "--log-level", "debug", "--log-format", "json",
        "--auth-timeout", "1", REACTOR_AUTH_SECRET=SECRET,
    ) as process:  # fmt: skip
        node = NodeProcess(None, int(process.socket.rpartition(":")[2].removesuffix("/ws")))  # type: ignore[arg-type]
        for value in tokens:
            for options in (bearer(value), {"subprotocols": ["reactor.json", f"reactor.token.{value}"]}, {}):
                try:
                    async with RawClient.connect(node, **options) as client:
                        await client.send("auth", token=value)
                        await client.send("join_room", roomId="lobby", userId=value[:200])
                        await client.send("auth", token={"a": value})
                        await client.socket.send(f"{{{value}")
                        await asyncio.sleep(0.05)  # the server reads it before the connection closes
                except (InvalidStatus, ConnectionClosed):
                    rejected += 1
        process.process.send_signal(signal.SIGTERM)
        assert process.process.stderr is not None
        log = process.process.stderr.read()
    assert "stopping" in log
    assert rejected > 5
    for value in tokens:
        assert value not in log
        assert value.split(".")[-1] not in log
    assert SECRET not in log


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_reloads_keys_and_certificate(bundled_server: Server, tmp_path, workers):
    cert, key = write_certificate(tmp_path, "one")
    jwks = write_jwks(tmp_path / "keys.json", public_jwk("EdDSA", 0, kid="old"))
    with serving(
        "--redis-url", bundled_server.socket_url, "--workers", str(workers), "--log-format", "json",
        "--tls-cert", str(cert), "--tls-key", str(key), "--auth-jwks", str(jwks),
    ) as process:  # fmt: skip
        assert process.socket.startswith("wss://")

        async def authenticate(context: ssl.SSLContext, value: str) -> None:
            async with connect(process.socket, ssl=context, **bearer(value)) as socket:
                assert json.loads(await socket.recv())["userId"] == "ann"

        old = trusting(cert)
        await authenticate(old, signed("EdDSA", 0, kid="old"))
        write_certificate(tmp_path, "two")
        write_jwks(jwks, public_jwk("EdDSA", 1, kid="new"))
        process.process.send_signal(signal.SIGHUP)
        new = trusting(cert)
        deadline = time.monotonic() + PATIENCE
        accepted = 0
        while accepted < 2 * workers:
            assert time.monotonic() < deadline
            try:
                await authenticate(new, signed("EdDSA", 1, kid="new"))
                accepted += 1
            except ssl.SSLError:
                accepted = 0
                await asyncio.sleep(0.05)
        with pytest.raises(ssl.SSLError):
            await authenticate(old, signed("EdDSA", 0, kid="old"))
        assert process.process.poll() is None


# Ids.


async def test_hostile_ids_are_stored_and_returned_unchanged(bundled_server: Server):
    """Each hostile id is a separate room and user: none matches another or breaks out of its key."""
    names = [name for name in HOSTILE if len(name.encode()) <= 256 and not CONTROL.search(name)]
    async with (
        served(bundled_server, messages_per_second=0) as node,
        RawClient.connect(node) as client,
        RawClient.connect(node) as witness,
    ):
        for name in names:
            fields = {"roomId": name, "userId": name, "username": name, "data": {name: name}}
            joined = await client.answer("join_room", **fields)
            assert (joined["roomId"], joined["userId"], joined["count"]) == (name, name, 1), joined
        for name in names:
            reply = await witness.answer("room:members", roomId=name)
            (member,) = reply["members"]
            assert (member["userId"], member["username"], member["data"]) == (name, name, {name: name})
            other = names[names.index(name) - 1]
            assert not (await witness.answer("room:is_present", roomId=name, userId=other))["present"]
        assert (await client.answer("room:heartbeat"))["type"] == "room:heartbeat:ack"
        left = names[::2]
        for name in left:
            await client.answer("leave_room", roomId=name)
        for name in names:
            assert (await witness.answer("room:count", roomId=name))["count"] == (name not in left)
        with Redis.from_url(bundled_server.url) as redis:
            keys = [key.decode() for key in redis.keys("*")]
        assert all(key.startswith(("{reactor:", "reactor:")) for key in keys), keys


async def test_ids_with_control_characters_are_rejected(bundled_server: Server):
    async with served(bundled_server) as node, RawClient.connect(node) as client:
        for invalid in (
            "a\nb",
            "a\rb",
            "\x00",
            "\x1b[2J",
            "\x7f",
            "\x85",
            "\ud800",
            "",
            "x" * 257,
            "é" * 129,
        ):
            for fields in ({"roomId": invalid, "userId": "u"}, {"roomId": "r", "userId": invalid}):
                await client.socket.send(json.dumps({"type": "join_room", "id": 1, **fields}))
                error = await client.receive("error")
                assert error["code"] in {"bad_id", "bad_json", "bad_message"}, (invalid, error)
        assert (await client.answer("room:heartbeat"))["type"] == "room:heartbeat:ack"


# The command.


def test_the_token_command_creates_a_valid_token():
    flags = ("--room", "a*", "--room", "b", "--name", "Ann", "--data", '{"x": 1}', "--ttl", "2m")
    result = reactor("token", "ann", *flags, REACTOR_AUTH_SECRET=SECRET)
    assert result.code == 0
    claims = jwt.decode(result.out.strip(), SECRET, algorithms=["HS256"])
    assert claims.pop("exp") - claims.pop("iat") == 120
    assert claims == {"sub": "ann", "rooms": ["a*", "b"], "name": "Ann", "data": {"x": 1}}
    without_rooms = reactor("token", "42", "--secret", SECRET, "--auth-audience", "us")
    claims = jwt.decode(without_rooms.out.strip(), SECRET, algorithms=["HS256"], audience="us")
    assert "rooms" not in claims
    assert claims["sub"] == "42"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 1, "No secret to sign with"),
        (("--secret", "short"), 2, "--secret is not shown here, but takes 32 bytes or more"),
        (("--secret", SECRET, "--data", "{"), 2, "--data is not JSON"),
        (("--secret", SECRET, "--ttl", "soon"), 2, "--ttl is"),
        (("--secret", SECRET, "--name", "a\nb"), 1, "control character"),
        (("--secret", SECRET, "--data", json.dumps("x" * 5000)), 1, "data takes 5002 bytes"),
    ],
)
def test_invalid_arguments_of_the_token_command_are_an_error_of_one_line(arguments, code, words):
    result = reactor("token", "ann", *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert result.err.count("\n") == 1
    assert "short" not in result.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--auth-secret", "tooshort"), "--auth-secret is not shown here"),
        (("--auth-jwks", "/nowhere/keys.json"), "auth_jwks /nowhere/keys.json cannot be read"),
        (("--auth-hook", "nowhere:check"), "cannot be imported"),
        (("--tls-cert", "/nowhere/cert.pem"), "tls_key is not"),
        (("--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"), "cannot be read"),
        (("--trusted-proxies", "everyone"), "--trusted-proxies is"),
        (("--auth-jwks", "/nowhere/keys.json", "--workers", "2"), "keys.json cannot be read"),
    ],
)
def test_invalid_settings_are_an_error_of_one_line(flags, words):
    result = reactor("serve", "--port", "0", *flags)
    assert result.code == 2, result.err
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "tooshort" not in result.err


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "reactor.example"}, True),
        ({"host": "0.0.0.0", "auth_secret": SECRET}, False),
    ],
)
def test_a_public_server_without_tokens_logs_a_warning(settings, warned):
    lines = advice(Settings(**settings), {})
    assert any("no token is required" in line for line in lines) is warned
