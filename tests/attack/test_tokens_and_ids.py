"""What tokens allow, on a whole server; and that neither tokens nor ids get where they should not."""

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

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
SECRET = "what only this test and its server know of it"


def token(user: str = "ann", **claims: Any) -> str:
    made = {"sub": user, "exp": time.time() + 60, "rooms": ["lobby"]} | claims
    return jwt.encode(made, SECRET, algorithm="HS256")


def bearer(what: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {what}"}}


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
        (seen,) = (await bob.hear("room:diff", roomId="lobby"))["joined"]
        assert (seen["userId"], seen["username"], seen["data"]) == ("ann", "Ann", {"team": 1})
        assert (await ann.answer("room:count", roomId="lobby"))["count"] == 2
        for kind in ("join_room", "room:members", "room:count", "room:is_present"):
            error = await ann.answer(kind, roomId="cellar", userId="ann")
            assert (error["type"], error["code"], error["roomId"]) == ("error", "forbidden", "cellar")
        for fields in ({"userId": "bob"}, {"username": "Bob"}, {"data": 2}):
            assert (await ann.answer("join_room", roomId="lobby", **fields))["code"] == "forbidden"
        assert (await ann.answer("room:update", roomId="lobby", data=2))["code"] == "forbidden"
        assert (await ann.answer("room:heartbeat", roomId="lobby"))["type"] == "room:heartbeat:ack"
        # Heartbeats and the like of rooms that one is not in lead nowhere.
        for kind in ("room:heartbeat", "room:away", "leave_room"):
            assert (await ann.answer(kind, roomId="cellar"))["code"] == "not_joined"


async def test_a_member_with_an_expired_token_leaves_after_the_grace(bundled_server: Server):
    async with (
        served(bundled_server, auth_secret=SECRET, auth_grace=0.3, grace=0.5) as node,
        RawClient.connect(node, **bearer(token("bob"))) as bob,
        RawClient.connect(node, **bearer(token(exp=time.time() + 0.5))) as ann,
    ):
        await bob.join("lobby", "bob")
        await ann.answer("join_room", roomId="lobby")
        await ann.hear("error", code="token_expired")
        assert await ann.closed() == 4001
        assert await bob.hear_left("ann") == "disconnected"


async def test_an_invalid_authorization_header_is_a_401(bundled_server: Server):
    async with served(bundled_server, auth_secret=SECRET) as node:
        with pytest.raises(InvalidStatus) as caught:
            async with RawClient.connect(node, **bearer("nonsense")):
                pytest.fail("let in")
        assert caught.value.response.status_code == 401


async def test_no_token_reaches_the_log(bundled_server: Server):
    refused = 0
    tokens = [token(), token(exp=1), token("x" * 300), "nonsense-but-secret.nonsense.nonsense"]
    with serving(
        "--redis-url", bundled_server.socket_url, "--log-level", "debug", "--log-format", "json",
        "--auth-timeout", "1", REACTOR_AUTH_SECRET=SECRET,
    ) as process:  # fmt: skip
        node = NodeProcess(None, int(process.socket.rpartition(":")[2].removesuffix("/ws")))  # type: ignore[arg-type]
        for what in tokens:
            for options in (bearer(what), {"subprotocols": ["reactor.json", f"reactor.token.{what}"]}, {}):
                try:
                    async with RawClient.connect(node, **options) as client:
                        await client.say("auth", token=what)
                        await client.say("join_room", roomId="lobby", userId=what[:200])
                        await client.say("auth", token={"a": what})
                        await client.socket.send(f"{{{what}")
                        await asyncio.sleep(0.05)  # it is read before the socket goes
                except (InvalidStatus, ConnectionClosed):
                    refused += 1
        process.process.send_signal(signal.SIGTERM)
        assert process.process.stderr is not None
        log = process.process.stderr.read()
    assert "stopping" in log
    assert refused > 5
    for what in tokens:
        assert what not in log
        assert what.split(".")[-1] not in log
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

        async def enter(context: ssl.SSLContext, what: str) -> None:
            async with connect(process.socket, ssl=context, **bearer(what)) as socket:
                assert json.loads(await socket.recv())["userId"] == "ann"

        old = trusting(cert)
        await enter(old, signed("EdDSA", 0, kid="old"))
        write_certificate(tmp_path, "two")
        write_jwks(jwks, public_jwk("EdDSA", 1, kid="new"))
        process.process.send_signal(signal.SIGHUP)
        new = trusting(cert)
        deadline = time.monotonic() + 10
        met = 0
        while met < 2 * workers:
            assert time.monotonic() < deadline
            try:
                await enter(new, signed("EdDSA", 1, kid="new"))
                met += 1
            except ssl.SSLError:
                met = 0
                await asyncio.sleep(0.05)
        with pytest.raises(ssl.SSLError):
            await enter(old, signed("EdDSA", 0, kid="old"))
        assert process.process.poll() is None


# Ids.


async def test_hostile_ids_are_stored_and_returned_unchanged(bundled_server: Server):
    """Each hostile id is a room and a user of its own: none matches, escapes into or breaks another."""
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
            said = await witness.answer("room:members", roomId=name)
            (member,) = said["members"]
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
        for bad in ("a\nb", "a\rb", "\x00", "\x1b[2J", "\x7f", "\x85", "\ud800", "", "x" * 257, "é" * 129):
            for fields in ({"roomId": bad, "userId": "u"}, {"roomId": "r", "userId": bad}):
                await client.socket.send(json.dumps({"type": "join_room", "id": 1, **fields}))
                error = await client.hear("error")
                assert error["code"] in {"bad_id", "bad_json", "bad_message"}, (bad, error)
        assert (await client.answer("room:heartbeat"))["type"] == "room:heartbeat:ack"


# The command.


def test_the_token_command_creates_a_valid_token():
    flags = ("--room", "a*", "--room", "b", "--name", "Ann", "--data", '{"x": 1}', "--ttl", "2m")
    made = reactor("token", "ann", *flags, REACTOR_AUTH_SECRET=SECRET)
    assert made.code == 0
    claims = jwt.decode(made.out.strip(), SECRET, algorithms=["HS256"])
    assert claims.pop("exp") - claims.pop("iat") == 120
    assert claims == {"sub": "ann", "rooms": ["a*", "b"], "name": "Ann", "data": {"x": 1}}
    bare = reactor("token", "42", "--secret", SECRET, "--auth-audience", "us")
    claims = jwt.decode(bare.out.strip(), SECRET, algorithms=["HS256"], audience="us")
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
    made = reactor("token", "ann", *arguments)
    assert (made.code, made.out) == (code, "")
    assert words in made.err
    assert made.err.count("\n") == 1
    assert "short" not in made.err


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
    tried = reactor("serve", "--port", "0", *flags)
    assert tried.code == 2, tried.err
    last = tried.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "tooshort" not in tried.err


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
    assert any("no token is asked for" in line for line in lines) is warned
