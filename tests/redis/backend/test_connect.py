"""Opening Redis: each thing that can be wrong gets one line with its mend, on real servers."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from reactor.backend import connect, diagnose
from reactor.backend.connect import EventsState, check_version, ensure_events, open_data, open_pubsub_client
from reactor.backend.target import parse_url
from reactor.errors import ReactorError, RedisMisconfigured, RedisTooOld, RedisUnreachable
from tests.support.servers import Server, find, free_port


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Redis]:
    client = await open_data(parse_url(url))
    try:
        yield client
    finally:
        await client.aclose()


async def refused(url: str, kind: type[ReactorError]) -> str:
    """The one line that opening this address gives."""
    with pytest.raises(kind) as caught:
        await open_data(parse_url(url))
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith(".")
    assert "secret" not in line
    assert len(line) < 220
    return line


async def test_open_by_tcp_and_by_socket(redis_server: Server):
    for url in (redis_server.url, redis_server.socket_url):
        async with opened(url) as client:
            assert await client.ping()
            await client.hset("key", "field", "value")
            assert await client.hgetall("key") == {b"field": b"value"}


async def test_databases_are_apart(redis_server: Server):
    async with opened(redis_server.url.replace("/0", "/3")) as client:
        await client.set("key", "value")
    async with opened(redis_server.url) as client:
        assert await client.get("key") is None


async def test_a_command_is_never_repeated(redis_server: Server, monkeypatch):
    monkeypatch.setattr(connect, "COMMAND_TIMEOUT", 0.2)
    async with opened(redis_server.url) as client:
        await client.set("n", 0)
        redis_server.pause()
        try:
            command = asyncio.ensure_future(client.incr("n"))
            await asyncio.wait([command], timeout=0.5)
        finally:
            redis_server.resume()
        with pytest.raises(redis.TimeoutError):
            await command
        assert await client.get("n") == b"1"


async def test_a_subscription_may_wait_longer_than_a_command(redis_server: Server, monkeypatch):
    monkeypatch.setattr(connect, "COMMAND_TIMEOUT", 0.05)
    client = await open_pubsub_client(parse_url(redis_server.url))
    async with client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("channel")
        await pubsub.get_message(timeout=1)
        waiting = asyncio.create_task(pubsub.get_message(timeout=5))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        redis_server.control.publish("channel", "data")
        assert (await waiting)["data"] == b"data"


async def test_nothing_listens(tmp_path):
    port = free_port()
    line = await refused(f"redis://127.0.0.1:{port}", RedisUnreachable)
    assert line == f"redis://127.0.0.1:{port}: nothing listens there; start Redis, or correct the address."
    line = await refused(f"redis://localhost:{port}", RedisUnreachable)
    assert "nothing listens there" in line
    assert "nothing listens there" in await refused(f"unix://{tmp_path}/redis.sock", RedisUnreachable)
    assert "nothing listens there" in await refused("unix:///etc/hostname", RedisUnreachable)


async def test_an_unknown_host():
    line = await refused("redis://:secret@no-such-host.invalid:1", RedisUnreachable)
    assert line == (
        "redis://:***@no-such-host.invalid:1: the name of the host is not known; see that it is right."
    )


async def test_wrong_passwords(redis_server: Server):
    port = redis_server.port
    redis_server.control.acl_setuser("someone", enabled=True, passwords=["+secret-1"], categories=["+@all"])
    line = await refused(f"redis://someone:secret-2@127.0.0.1:{port}", RedisMisconfigured)
    assert line == (
        f"redis://someone:***@127.0.0.1:{port} refuses the user or the password; correct them in the address."
    )
    line = await refused(f"redis://:secret@127.0.0.1:{port}", RedisMisconfigured)
    assert "has no password; leave the one in the address out." in line


async def test_a_missing_password(redis_server: Server):
    redis_server.control.config_set("requirepass", "secret")
    try:
        line = await refused(redis_server.url, RedisMisconfigured)
        assert line == f"{redis_server.url} wants a password; give it, as in redis://:PASSWORD@host:6379."
        async with opened(f"redis://:secret@127.0.0.1:{redis_server.port}") as client:
            assert await client.ping()
    finally:
        redis_server.control.config_set("requirepass", "")


async def test_a_user_without_permission(redis_server: Server):
    redis_server.control.acl_setuser("someone", enabled=True, passwords=["+secret"], commands=["+info"])
    line = await refused(f"redis://someone:secret@127.0.0.1:{redis_server.port}", RedisMisconfigured)
    assert "permissions to run the 'ping' command; grant it with ACL SETUSER, or give another user." in line


async def test_a_user_who_may_not_ask_for_the_version_gets_in(redis_server: Server):
    redis_server.control.acl_setuser(
        "someone", enabled=True, passwords=["+secret"], commands=["+@all", "-info"], keys=["*"]
    )
    async with opened(f"redis://someone:secret@127.0.0.1:{redis_server.port}") as client:
        assert await client.ping()


async def test_a_database_that_is_not_there(redis_server: Server):
    line = await refused(f"redis://127.0.0.1:{redis_server.port}/99", RedisMisconfigured)
    assert line.endswith("answers: DB index is out of range.")


async def test_tls_to_a_server_without_it(redis_server: Server, monkeypatch):
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT", 0.3)
    line = await refused(f"rediss://127.0.0.1:{redis_server.port}", RedisMisconfigured)
    assert line.endswith("speaks no TLS there; write redis:// in place of rediss://.")


async def test_a_server_that_hangs(redis_server: Server, monkeypatch):
    monkeypatch.setattr(connect, "COMMAND_TIMEOUT", 0.2)
    monkeypatch.setattr(diagnose, "_PROBE_SECONDS", 0.2)
    redis_server.pause()
    try:
        line = await refused(redis_server.url, RedisUnreachable)
    finally:
        redis_server.resume()
    assert "does not answer in time; see that it runs" in line


async def test_a_replica_is_refused_with_its_primary(redis_server: Server):
    redis_server.control.replicaof("127.0.0.1", "1")
    try:
        line = await refused(redis_server.url, RedisMisconfigured)
    finally:
        redis_server.control.replicaof("NO", "ONE")
    assert line.endswith("is a replica and takes no writes; give its primary, 127.0.0.1:1.")


async def test_too_many_clients(redis_server: Server):
    async with opened(redis_server.url) as client:
        redis_server.control.config_set("maxclients", "2")
        try:
            line = await refused(redis_server.url, RedisUnreachable)
        finally:
            redis_server.control.config_set("maxclients", "10000")
        assert "maxclients" in line
        assert await client.ping()


async def test_something_else_that_listens():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = await refused(f"redis://127.0.0.1:{port}", ReactorError)
    assert "is no Redis" in line or "see that it is Redis" in line


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A folder with key.pem and cert.pem for 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def tls_server(certificate: Path):
    """Debian's Redis with TLS alone; the bundled one is built without."""
    binary, missing = find("redis7")
    if binary is None:
        pytest.skip(missing)
    port = free_port()
    config = {"tls-port": str(port), "tls-cert-file": f"{certificate}/cert.pem", "tls-auth-clients": "no"}
    config |= {"tls-key-file": f"{certificate}/key.pem", "tls-ca-cert-file": f"{certificate}/cert.pem"}
    server = Server("redis7", binary, config)
    try:
        server.start()
    except redis.RedisError:
        server.stop()
        pytest.skip("this redis-server is built without TLS")
    yield port
    server.stop()


async def test_tls(tls_server: int, certificate: Path):
    url = f"rediss://127.0.0.1:{tls_server}"
    async with opened(f"{url}?ssl_ca_certs={certificate}/cert.pem") as client:
        assert await client.ping()
    async with opened(f"{url}?ssl_cert_reqs=none&ssl_check_hostname=no") as client:
        assert await client.ping()
    line = await refused(url, RedisMisconfigured)
    assert "its certificate is not trusted (self-signed certificate)" in line
    assert "ssl_ca_certs=ca.pem" in line
    line = await refused(f"{url}?ssl_ca_certs=/no/such/file", RedisMisconfigured)
    assert "a file that its ssl_ options name is not there" in line


async def test_no_tls_to_a_server_with_it(tls_server: int):
    line = await refused(f"redis://127.0.0.1:{tls_server}", RedisMisconfigured)
    assert line.endswith("speaks TLS there; write rediss:// in place of redis://.")


@pytest.mark.parametrize("version", ["6.2.14", "5.0.7", "x", ""])
def test_too_old(version):
    with pytest.raises(RedisTooOld, match=r"is Redis .*; reactor needs Redis 7\.0 or later, or Valkey\."):
        check_version({"redis_version": version}, parse_url("redis://h"))


@pytest.mark.parametrize("version", ["7.0.0", "7.0.15", "7.2.4", "8.6.1", "10.0.0-rc1"])
def test_new_enough(version):
    check_version({"redis_version": version}, parse_url("redis://h"))


@pytest.mark.parametrize(
    ("before", "kind", "after"),
    [
        ("", "set", "Ex"),
        ("KA", "set", "KEA"),
        ("gK", "set", "KEgx"),
        ("Kx", "set", "KEx"),
        ("E$", "set", "E$x"),
        ("Ex", "ok", "Ex"),
        ("KEA", "ok", "KEA"),
        ("Egx", "ok", "Egx"),
    ],
)
async def test_expired_events_are_switched_on_and_other_flags_stay(redis_server: Server, before, kind, after):
    redis_server.control.config_set("notify-keyspace-events", before)
    async with opened(redis_server.url) as client:
        state = await ensure_events(client, parse_url(redis_server.url))
        assert (state.kind, state.ok) == (kind, True)
        now = redis_server.control.config_get("notify-keyspace-events")["notify-keyspace-events"]
        assert set(now or "") == set(after)
        assert await ensure_events(client, parse_url(redis_server.url)) == EventsState("ok")


async def limited(server: Server, *commands: str) -> str:
    """The address for a user who may not do everything."""
    server.control.acl_setuser(
        "someone", enabled=True, passwords=["+secret"], commands=["+@all", *commands], keys=["*"]
    )
    return f"redis://someone:secret@127.0.0.1:{server.port}"


async def test_events_that_we_may_not_switch_on(redis_server: Server):
    redis_server.control.config_set("notify-keyspace-events", "K$")
    url = await limited(redis_server, "-config|set")
    async with opened(url) as client:
        state = await ensure_events(client, parse_url(url))
    assert (state.kind, state.ok) == ("missing", False)
    assert "sends no expired events, and we may not change that (" in state.line
    assert 'write "notify-keyspace-events ' in state.line
    assert "or run redis-cli CONFIG SET notify-keyspace-events " in state.line
    assert set(state.line.rpartition(" ")[2].rstrip(".")) == set("K$Ex")
    assert "\n" not in state.line
    assert "secret" not in state.line


async def test_events_that_we_may_not_see(redis_server: Server):
    url = await limited(redis_server, "-config")
    async with opened(url) as client:
        state = await ensure_events(client, parse_url(url))
    assert (state.kind, state.ok) == ("unknown", False)
    assert "does not show its notify-keyspace-events; for events it needs the flags E and x." in state.line


async def test_events_of_a_server_that_is_gone(redis_server: Server):
    async with opened(redis_server.url) as client:
        redis_server.kill()
        with pytest.raises(RedisUnreachable):
            await ensure_events(client, parse_url(redis_server.url))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(101, "Network is unreachable"),
            "there is no way there (Network is unreachable); see the network.",
        ),
        (
            PermissionError(13, "Permission denied"),
            "this user may not open that socket; see its unixsocketperm.",
        ),
        (ssl.SSLError(1, "[SSL: BAD] bad"), "TLS fails ([SSL: BAD] bad); see its ssl_ options."),
        (redis.BusyLoadingError("x"), "is still loading its data; try again when it has."),
        (redis.InvalidResponse("x"), "is no Redis; see that host and port are right."),
        (
            redis.ConnectionError("max number of clients reached"),
            "has as many clients as it takes; raise its maxclients.",
        ),
    ],
)
async def test_what_cannot_be_brought_about_here_has_its_line_too(error, line):
    assert str(await diagnose.explain(error, parse_url("redis://h"))).endswith(line)
