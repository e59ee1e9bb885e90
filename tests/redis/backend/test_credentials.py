"""The password of Redis is rotated while a server runs."""

import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from reactor.backend import credentials
from reactor.backend.connect import open_backend, target_of
from reactor.errors import RedisMisconfigured, RedisUnreachable, SettingError
from reactor.presence.lua_sources import lua_sources
from reactor.server.process import serve_node
from reactor.settings import Settings
from reactor.settings.load import load
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until


@contextmanager
def password(server: Server, secret: str) -> Iterator[None]:
    server.control.config_set("requirepass", secret)
    try:
        yield
    finally:
        server.control.config_set("requirepass", "")


def cut_all(server: Server) -> None:
    """End every connection but that of the test, as a server does whose sessions expire."""
    for kind in ("normal", "pubsub"):
        server.control.execute_command("CLIENT", "KILL", "TYPE", kind)


async def test_new_connections_use_the_password_that_the_file_has_now(
    redis_server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "reactor.toml"

    def write(secret: str) -> None:
        file.write_text(f'redis_url = "redis://:{secret}@127.0.0.1:{redis_server.port}"')

    def read() -> Settings:
        return load({"config": str(file), "port": "0", "drain_seconds": "0"}, {})

    write("first")
    with password(redis_server, "first"):
        async with serve_node(read(), load=read) as node, RawClient.connect(node) as ann:
            await ann.join("lobby", "ann")
            redis_server.control.config_set("requirepass", "second")
            write("second")
            cut_all(redis_server)
            await until(lambda: node.channels.listening and node.backend.healthy)
            await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
            listed = await ann.ask("room:members", "room:members", roomId="lobby")
            assert [member["userId"] for member in listed["members"]] == ["ann"]


async def test_a_function_returns_the_password_of_each_new_connection(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    module = types.ModuleType("password_of_the_test")
    secret = "first"

    def give() -> tuple[str, str]:
        calls.append(secret)
        return "default", secret

    module.give = give  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = Settings(redis_url=redis_server.url, redis_credentials="password_of_the_test:give")
    sources = lua_sources(departures_kept=10, database=0)
    with password(redis_server, "first"):
        backend = await open_backend(target_of(settings), sources)
        assert await backend.run_id()
        await backend.aclose()
        secret = "second"
        redis_server.control.config_set("requirepass", secret)
        cut_all(redis_server)
        backend = await open_backend(target_of(settings), sources)
        assert await backend.run_id()
        assert calls[-1] == "second"
        await backend.aclose()
        secret = "wrong"
        with pytest.raises(RedisMisconfigured, match="rejects the user name or password"):
            await open_backend(target_of(settings), sources)


@contextmanager
def function(monkeypatch: pytest.MonkeyPatch, give: Callable[[], object]) -> Iterator[str]:
    """The name of an operator's function, for the setting."""
    module = types.ModuleType("credentials_of_the_test")
    module.give = give  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield f"{module.__name__}:give"


async def returns_a_coroutine() -> str:
    return "secret"


def leaves() -> str:
    raise SystemExit(3)


def fails() -> str:
    raise ValueError("sealed\nand more")


@pytest.mark.parametrize(
    ("give", "problem"),
    [
        (lambda: None, "it returned NoneType; return a password, or (user, password)"),
        (lambda: 5, "it returned int; return"),
        (lambda: b"secret", "it returned bytes; return"),
        (lambda: ("a", "b", "secret"), "it returned a tuple of str, str, str; return"),
        (lambda: ("default", None), "it returned a tuple of str, NoneType; return"),
        (lambda: "", "it returned an empty user or password"),
        (lambda: "\udcff", "it returned text that is no UTF-8"),
        (returns_a_coroutine, "it is async; make it a plain function"),
        (leaves, "SystemExit: 3"),
        (fails, "ValueError: sealed."),
    ],
)
async def test_a_function_that_returns_no_login_is_named_in_one_line(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch, give: Callable[[], object], problem: str
) -> None:
    with function(monkeypatch, give) as name:
        settings = Settings(redis_url=bundled_server.url, redis_credentials=name)
        with pytest.raises(SettingError) as caught:
            await open_backend(target_of(settings), lua_sources(departures_kept=10, database=0))
        line = str(caught.value)
        assert line.startswith(f"redis_credentials {name} failed: ")
        assert problem in line
        assert "\n" not in line
        assert "secret" not in line


async def test_a_password_that_a_function_returned_is_not_to_be_corrected_in_the_address(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with function(monkeypatch, lambda: ("default", "wrong")) as name, password(bundled_server, "first"):
        settings = Settings(redis_url=bundled_server.url, redis_credentials=name)
        with pytest.raises(RedisMisconfigured, match=f"correct what redis_credentials {name} returns"):
            await open_backend(target_of(settings), lua_sources(departures_kept=10, database=0))


async def test_a_function_that_hangs_at_the_start_is_named_and_asked_again(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "FIRST_READ_TIMEOUT", 0.2)
    released, calls = threading.Event(), list[int]()

    def give() -> str:
        calls.append(1)
        released.wait()
        return "first"

    with function(monkeypatch, give) as name, password(bundled_server, "first"):
        settings = Settings(redis_url=bundled_server.url, redis_credentials=name)
        target, sources = target_of(settings), lua_sources(departures_kept=10, database=0)
        try:
            for _ in range(3):
                with pytest.raises(RedisUnreachable, match=f"redis_credentials {name} did not return within"):
                    await open_backend(target, sources)
            assert len(calls) == 1, "a call that hangs is waited for, and not made again beside itself"
        finally:
            released.set()
        backend = await open_backend(target, sources)
        assert await backend.run_id()
        await backend.aclose()


async def test_while_a_function_hangs_connections_use_the_last_login_and_the_server_stops(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    released.set()

    def give() -> str:
        released.wait()
        return "first"

    with function(monkeypatch, give) as name, password(bundled_server, "first"):
        try:
            async with (
                served(bundled_server, redis_url=bundled_server.url, redis_credentials=name) as node,
                RawClient.connect(node) as ann,
            ):
                await ann.join("lobby", "ann")
                released.clear()
                with structlog.testing.capture_logs() as log:
                    cut_all(bundled_server)
                    await until(lambda: any(line["event"] == "redis_credentials_failed" for line in log))
                    await until(lambda: node.readiness.status()[0] and node.recovery.state.name == "HEALTHY")
                await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
                cut_all(bundled_server)
        finally:
            released.set()


async def test_a_password_that_is_refused_on_a_unix_socket_is_named_so(redis_server: Server) -> None:
    with password(redis_server, "first"):
        url = redis_server.socket_url.replace("unix://", "unix://:first@")
        async with served(redis_server, redis_url=url) as node:
            redis_server.control.config_set("requirepass", "second")
            cut_all(redis_server)
            await until(lambda: "correct the password in redis_url" in node.readiness.status()[1])
            redis_server.control.config_set("requirepass", "first")
            await until(lambda: node.readiness.status()[0])


def test_a_function_that_cannot_be_imported_is_refused_in_one_line() -> None:
    settings = Settings(redis_url="redis://h", redis_credentials="no.such.module:function")
    with pytest.raises(SettingError, match=r"redis_credentials .* cannot be imported"):
        target_of(settings)
