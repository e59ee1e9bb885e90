"""Opening Redis on real servers: each thing that can be wrong gives one line with its fix."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from reactor.backend import clients, diagnose
from reactor.backend.clients import (
    EventsState,
    check_version,
    ensure_events,
    open_command_client,
    pubsub_client,
)
from reactor.backend.target import parse_url
from reactor.errors import ReactorError, RedisMisconfigured, RedisTooOld, RedisUnreachable
from tests.support.certificates import write_certificate, write_issued_certificate
from tests.support.servers import Server, find, free_port
from tests.support.waiting import PATIENCE, until_blocking


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Redis]:
    client = await open_command_client(parse_url(url))
    try:
        yield client
    finally:
        await clients.close_client(client)


async def refused(url: str, kind: type[ReactorError]) -> str:
    """The one line of the error that opening this address raises."""
    with pytest.raises(kind) as caught:
        await open_command_client(parse_url(url))
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


async def test_databases_are_separate(redis_server: Server):
    async with opened(redis_server.url.replace("/0", "/3")) as client:
        await client.set("key", "value")
    async with opened(redis_server.url) as client:
        assert await client.get("key") is None


async def test_a_command_is_never_retried(redis_server: Server, monkeypatch):
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    async with opened(redis_server.url) as client:
        await client.set("n", 0)
        redis_server.pause()
        try:
            command = asyncio.ensure_future(client.incr("n"))
            await asyncio.wait([command], timeout=PATIENCE)
        finally:
            redis_server.resume()
        with pytest.raises(redis.TimeoutError):
            await command
        assert await client.get("n") == b"1"


async def test_a_subscription_may_wait_longer_than_a_command(redis_server: Server, monkeypatch):
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 0.05)
    client = pubsub_client(parse_url(redis_server.url))
    async with client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("channel")
        await pubsub.get_message(timeout=PATIENCE)
        waiting = asyncio.create_task(pubsub.get_message(timeout=PATIENCE))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        redis_server.control.publish("channel", "data")
        assert (await waiting)["data"] == b"data"


async def test_connection_refused(tmp_path):
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
        "redis://:***@no-such-host.invalid:1: the host name cannot be resolved; check it for typos."
    )


async def test_wrong_passwords(redis_server: Server):
    port = redis_server.port
    redis_server.control.acl_setuser("someone", enabled=True, passwords=["+secret-1"], categories=["+@all"])
    line = await refused(f"redis://someone:secret-2@127.0.0.1:{port}", RedisMisconfigured)
    address = f"redis://someone:***@127.0.0.1:{port}"
    assert line == f"{address} rejects the user name or password; correct them in the address."
    line = await refused(f"redis://:secret@127.0.0.1:{port}", RedisMisconfigured)
    assert "needs no password; remove it from the address." in line
    line = await refused(f"unix://someone:secret-2@{redis_server.socket}", RedisMisconfigured)
    assert line.endswith(" rejects the user name or password; correct them in the address.")


async def test_a_missing_password(redis_server: Server):
    redis_server.control.config_set("requirepass", "secret")
    try:
        line = await refused(redis_server.url, RedisMisconfigured)
        assert line == (
            f"{redis_server.url} requires a password; add it to the address, as in redis://:PASSWORD@host:6379."
        )
        async with opened(f"redis://:secret@127.0.0.1:{redis_server.port}") as client:
            assert await client.ping()
    finally:
        redis_server.control.config_set("requirepass", "")


async def test_a_user_without_permission(redis_server: Server):
    redis_server.control.acl_setuser("someone", enabled=True, passwords=["+secret"], commands=["+info"])
    line = await refused(f"redis://someone:secret@127.0.0.1:{redis_server.port}", RedisMisconfigured)
    assert "permissions to run the 'ping' command; grant it with ACL SETUSER, or use another user." in line


async def test_a_user_without_permission_for_info_is_accepted(redis_server: Server):
    redis_server.control.acl_setuser(
        "someone", enabled=True, passwords=["+secret"], commands=["+@all", "-info"], keys=["*"]
    )
    async with opened(f"redis://someone:secret@127.0.0.1:{redis_server.port}") as client:
        assert await client.ping()


@pytest.mark.parametrize("kind", ["TCP", "Unix socket"])
async def test_a_database_that_does_not_exist(redis_server: Server, kind: str):
    url = (
        f"unix://{redis_server.socket}?db=99"
        if kind == "Unix socket"
        else f"redis://127.0.0.1:{redis_server.port}/99"
    )
    line = await refused(url, RedisMisconfigured)
    assert line.endswith("has no database 99: use a lower number, or set databases on every server.")


async def test_tls_to_a_server_without_tls(redis_server: Server, monkeypatch):
    monkeypatch.setattr(clients, "CONNECT_TIMEOUT", 1.0)
    line = await refused(f"rediss://127.0.0.1:{redis_server.port}", RedisMisconfigured)
    assert line.endswith("does not use TLS on that port; use redis:// instead of rediss://.")


async def test_a_server_that_hangs(redis_server: Server, monkeypatch):
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 0.2)
    monkeypatch.setattr(diagnose, "_PROBE_TIMEOUT", 0.2)
    redis_server.pause()
    try:
        line = await refused(redis_server.url, RedisUnreachable)
    finally:
        redis_server.resume()
    assert "did not answer in time; check that it is running" in line


async def test_a_replica_is_rejected_and_its_primary_named(redis_server: Server):
    redis_server.control.replicaof("127.0.0.1", "1")
    try:
        line = await refused(redis_server.url, RedisMisconfigured)
    finally:
        redis_server.control.replicaof("NO", "ONE")
    assert line.endswith("is a read-only replica; use its primary, 127.0.0.1:1.")


async def test_too_many_clients(redis_server: Server):
    async with opened(redis_server.url) as client:
        redis_server.control.config_set("maxclients", "2")
        try:
            line = await refused(redis_server.url, RedisUnreachable)
        finally:
            redis_server.control.config_set("maxclients", "10000")
        assert "maxclients" in line
        assert await client.ping()


async def test_too_many_clients_are_named_although_the_connection_is_reset(redis_server: Server):
    """A command that Redis does not read any more turns its last words into a reset."""
    async with opened(redis_server.url):
        redis_server.control.config_set("maxclients", "1")
        try:
            lines = {await refused(redis_server.url, RedisUnreachable) for _ in range(10)}
        finally:
            redis_server.control.config_set("maxclients", "10000")
    assert lines == {f"{redis_server.url} has reached its limit of clients; raise maxclients."}


async def test_protected_mode_is_named():
    """Redis is in it towards other machines alone, so this server only says what Redis says."""

    async def deny(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-DENIED Redis is running in protected mode because protected mode is enabled ...\r\n")
        writer.close()

    async with await asyncio.start_server(deny, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = await refused(f"redis://127.0.0.1:{port}", RedisMisconfigured)
    assert "is in protected mode" in line
    assert "protected-mode no" in line


async def test_a_server_that_is_not_redis():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = await refused(f"redis://127.0.0.1:{port}", ReactorError)
    assert "is not a Redis server" in line or "check that it is Redis" in line


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A folder with key.pem and a self-signed cert.pem for 127.0.0.1."""
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


@contextmanager
def serving_tls(certificate: Path, key: Path, authority: Path) -> Iterator[int]:
    """Debian's Redis with only a TLS port; the bundled Valkey is built without TLS."""
    binary, missing = find("redis7")
    if binary is None:
        pytest.skip(missing)
    port = free_port()
    config = {"tls-port": str(port), "tls-cert-file": str(certificate), "tls-auth-clients": "no"}
    config |= {"tls-key-file": str(key), "tls-ca-cert-file": str(authority)}
    server = Server("redis7", binary, config)
    try:
        server.start()
    except redis.RedisError:
        server.stop()
        pytest.skip("this redis-server is built without TLS")
    yield port
    server.stop()


@pytest.fixture
def tls_server(certificate: Path):
    own = certificate / "cert.pem"
    with serving_tls(own, certificate / "key.pem", own) as port:
        yield port


async def test_tls(tls_server: int, certificate: Path):
    url = f"rediss://127.0.0.1:{tls_server}"
    async with opened(f"{url}?ssl_ca_certs={certificate}/cert.pem") as client:
        assert await client.ping()
    async with opened(f"{url}?ssl_cert_reqs=none&ssl_check_hostname=no") as client:
        assert await client.ping()
    line = await refused(url, RedisMisconfigured)
    assert "its certificate cannot be verified (self-signed certificate)" in line
    assert "ssl_ca_certs=ca.pem" in line
    line = await refused(f"{url}?ssl_ca_certs=/no/such/file", RedisMisconfigured)
    assert "a file named in the ssl_ options does not exist" in line


def make_certificate(folder: Path, name: str, *options: str) -> None:
    """A certificate of its own authority, NAME.pem, and its key, NAME.key."""
    command = f"openssl req -x509 -newkey rsa:2048 -keyout {name}.key -out {name}.pem -subj /CN={name}"
    subprocess.run([*command.split(), *options], cwd=folder, check=True, capture_output=True)


async def test_a_certificate_for_another_name_is_reported_as_such(
    tls_server: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(certificate)
    line = await refused(f"rediss://localhost:{tls_server}?ssl_ca_certs=cert.pem", RedisMisconfigured)
    assert "ostname mismatch" in line
    assert line.endswith("or issue one for this name.")


async def test_an_authority_that_has_expired_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    authority, certificate, key = write_issued_certificate(tmp_path, authority_days=-1)
    monkeypatch.chdir(tmp_path)
    with serving_tls(certificate, key, authority) as port:
        line = await refused(f"rediss://127.0.0.1:{port}?ssl_ca_certs=authority.pem", RedisMisconfigured)
    assert "the authority authority.test in ssl_ca_certs expired on 20" in line


async def test_a_certificate_of_the_server_that_has_expired_is_to_be_renewed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = write_certificate(tmp_path, "server", days=-1)
    monkeypatch.chdir(tmp_path)
    with serving_tls(certificate, key, certificate) as port:
        line = await refused(f"rediss://127.0.0.1:{port}?ssl_ca_certs=cert.pem", RedisMisconfigured)
    assert line.endswith("renew it on the server.")


async def test_faults_of_the_own_key_are_named_without_asking_for_a_password(
    tls_server: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(certificate)
    make_certificate(certificate, "own", "-passout", "pass:right")
    make_certificate(certificate, "other", "-nodes")
    url = f"rediss://127.0.0.1:{tls_server}?ssl_ca_certs=cert.pem&ssl_certfile=own.pem&ssl_keyfile="
    assert "add its password to the address as ssl_password" in await refused(
        f"{url}own.key", RedisMisconfigured
    )
    wrong = await refused(f"{url}own.key&ssl_password=wrong", RedisMisconfigured)
    assert "does not decrypt" in wrong
    assert "=wrong" not in wrong
    async with opened(f"{url}own.key&ssl_password=right") as client:
        assert await client.ping()
    assert "is not the key of the certificate" in await refused(f"{url}other.key", RedisMisconfigured)
    no_pem = f"rediss://127.0.0.1:{tls_server}?ssl_ca_certs=own.key"
    assert "ssl_ca_certs holds no certificate" in await refused(no_pem, RedisMisconfigured)


async def test_a_server_that_wants_a_certificate_of_its_clients(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(certificate)
    binary, missing = find("redis7")
    if binary is None:
        pytest.skip(missing)
    port = free_port()
    config = {"tls-port": str(port), "tls-cert-file": f"{certificate}/cert.pem", "tls-auth-clients": "yes"}
    config |= {"tls-key-file": f"{certificate}/key.pem", "tls-ca-cert-file": f"{certificate}/cert.pem"}
    server = Server("redis7", binary, config)
    try:
        server.start()
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs=cert.pem"
        assert "add ssl_certfile and ssl_keyfile" in await refused(url, RedisMisconfigured)
        # A command that is written at that moment can find the connection reset, and the reason lost.
        reset = await diagnose.explain(ConnectionResetError("Connection lost"), parse_url(url))
        assert "add ssl_certfile and ssl_keyfile" in str(reset)
    finally:
        server.stop()


@pytest.fixture
def tls_sentinel(tls_server: int, certificate: Path, tmp_path: Path) -> Iterator[int]:
    """A Sentinel that speaks TLS alone, for the server that does."""
    binary, _ = find("redis7")
    assert binary is not None
    port = free_port()
    file = tmp_path / "sentinel.conf"
    file.write_text(
        f"port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\ndir {tmp_path}\n"
        f"tls-cert-file {certificate}/cert.pem\ntls-key-file {certificate}/key.pem\n"
        f"tls-ca-cert-file {certificate}/cert.pem\nsentinel monitor main 127.0.0.1 {tls_server} 1\n"
    )
    tls: Any = {"ssl": True, "ssl_ca_certs": f"{certificate}/cert.pem"}
    with subprocess.Popen([binary, file, "--sentinel"], stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(host="127.0.0.1", port=port, protocol=2, **tls) as control:
                until_blocking(control.ping, what="the Sentinel answers", patience=PATIENCE)
            yield port
        finally:
            process.terminate()


async def test_sentinels_are_asked_over_tls(
    tls_sentinel: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("reactor.backend.clients.SENTINEL_TIMEOUT", PATIENCE)  # for a busy machine
    url = f"rediss+sentinel://127.0.0.1:{tls_sentinel}/main?ssl_ca_certs={certificate}/cert.pem"
    async with opened(url) as client:
        assert await client.ping()
    place = f"127.0.0.1:{tls_sentinel}/main"
    monkeypatch.chdir(certificate)  # plain text, to a Sentinel that has no plain port:
    url = f"rediss+sentinel://{place}?ssl_ca_certs=cert.pem&sentinel_tls=no"
    assert (await refused(url, RedisMisconfigured)).endswith("TLS on that port; leave out sentinel_tls=no.")
    line = await refused(f"redis+sentinel://{place}", RedisMisconfigured)
    assert line.endswith("use rediss+sentinel:// instead of redis+sentinel://.")


async def test_tls_to_a_sentinel_without_it(redis_server: Server):
    line = await refused(f"rediss+sentinel://127.0.0.1:{redis_server.port}/main", RedisMisconfigured)
    assert "?sentinel_tls=no where only the servers behind the Sentinels use TLS" in line


async def test_plain_text_to_a_server_with_tls(tls_server: int):
    line = await refused(f"redis://127.0.0.1:{tls_server}", RedisMisconfigured)
    assert line.endswith("uses TLS on that port; use rediss:// instead of redis://.")


@pytest.mark.parametrize("version", ["6.2.14", "5.0.7", "6"])
def test_an_old_version_is_rejected(version):
    with pytest.raises(RedisTooOld, match=r"is Redis .*; reactor needs Redis 7\.0 or later, or Valkey\."):
        check_version({"redis_version": version}, parse_url("redis://h"))


@pytest.mark.parametrize(
    "version", ["7.0.0", "7.0.15", "7.2.4", "8.6.1", "10.0.0-rc1", "7", "7.2-rc1", "x", ""]
)
def test_a_version_that_is_supported_or_not_readable_is_accepted(version):
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
async def test_expired_events_are_switched_on_beside_other_flags(redis_server: Server, before, kind, after):
    redis_server.control.config_set("notify-keyspace-events", before)
    async with opened(redis_server.url) as client:
        state = await ensure_events(client, parse_url(redis_server.url))
        assert (state.kind, state.ok) == (kind, True)
        now = redis_server.control.config_get("notify-keyspace-events")["notify-keyspace-events"]
        assert set(now or "") == set(after)
        assert await ensure_events(client, parse_url(redis_server.url)) == EventsState("ok")


async def test_with_manage_redis_off_the_configuration_is_left_alone(redis_server: Server):
    redis_server.control.config_set("notify-keyspace-events", "K$")
    async with opened(redis_server.url) as client:
        state = await ensure_events(client, parse_url(redis_server.url), manage=False)
    assert state.kind == "missing"
    assert "manage_redis is off" in state.line
    now = redis_server.control.config_get("notify-keyspace-events")["notify-keyspace-events"]
    assert set(now or "") == set("K$")


async def test_what_was_set_is_said_and_how_it_is_kept(redis_server: Server):
    redis_server.control.config_set("notify-keyspace-events", "")
    async with opened(redis_server.url) as client:
        state = await ensure_events(client, parse_url(redis_server.url))
    assert 'notify-keyspace-events was "", and was set to "Ex" from here' in state.line
    assert "CONFIG REWRITE keeps it" in state.line


async def limited(server: Server, *commands: str) -> str:
    """The address for a user whose ACL has these rules added."""
    server.control.acl_setuser(
        "someone", enabled=True, passwords=["+secret"], commands=["+@all", *commands], keys=["*"]
    )
    return f"redis://someone:secret@127.0.0.1:{server.port}"


async def test_events_that_the_user_may_not_switch_on(redis_server: Server):
    redis_server.control.config_set("notify-keyspace-events", "K$")
    url = await limited(redis_server, "-config|set")
    async with opened(url) as client:
        state = await ensure_events(client, parse_url(url))
    assert (state.kind, state.ok) == ("missing", False)
    assert "publishes no expired events, and this server does not switch them on (" in state.line
    assert 'write "notify-keyspace-events ' in state.line
    assert "or run redis-cli CONFIG SET notify-keyspace-events " in state.line
    assert set(state.line.rpartition(" ")[2].rstrip(".")) == set("K$Ex")
    assert "\n" not in state.line
    assert "secret" not in state.line


async def test_a_configuration_that_the_user_may_not_read(redis_server: Server):
    url = await limited(redis_server, "-config")
    async with opened(url) as client:
        state = await ensure_events(client, parse_url(url))
    assert (state.kind, state.ok) == ("unknown", False)
    assert (
        "does not show notify-keyspace-events to this user; whether it publishes expired events is known "
        in state.line
    )


async def test_ensure_events_on_a_killed_server(redis_server: Server):
    async with opened(redis_server.url) as client:
        redis_server.kill()
        with pytest.raises(RedisUnreachable):
            await ensure_events(client, parse_url(redis_server.url))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(101, "Network is unreachable"),
            "the host cannot be reached (Network is unreachable); check the network.",
        ),
        (
            PermissionError(13, "Permission denied"),
            "this user may not open the socket; check unixsocketperm.",
        ),
        (
            ssl.SSLError(1, "[SSL: BAD] bad"),
            "the TLS handshake failed ([SSL: BAD] bad); check the ssl_ options.",
        ),
        (redis.BusyLoadingError("x"), "is still loading its data; try again later."),
        (redis.InvalidResponse("x"), "is not a Redis server; check the host and port."),
        (
            redis.ConnectionError("max number of clients reached"),
            "has reached its limit of clients; raise maxclients.",
        ),
    ],
)
async def test_errors_that_these_servers_cannot_produce_are_explained_too(error, line):
    assert str(await diagnose.explain(error, parse_url("redis://h"))).endswith(line)


@pytest.mark.parametrize("turns", range(6))
async def test_a_command_whose_connection_is_closed_before_it_is_written_fails_as_a_broken_connection(
    redis_server: Server, turns: int
) -> None:
    async with opened(redis_server.socket_url) as client:
        command = asyncio.ensure_future(client.ping())
        for _ in range(turns):
            await asyncio.sleep(0)
        for connection in client.connection_pool._in_use_connections:
            await connection.disconnect(nowait=True)
        with suppress(*clients.CONNECTION_ERRORS):
            await command
