"""What every test shares: uvloop, as the server runs on it, and the two kinds of server."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
import uvloop

from tests.support import servers
from tests.support.servers import Server

Servers = Callable[[str], Server]

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile("reactor", deadline=None, print_blob=True)
hypothesis.settings.load_profile("reactor")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Servers]:
    """The servers of this run by kind, each started when it is first asked for."""
    started: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in started:
            binary, missing = servers.find(kind)
            if binary is None:
                pytest.skip(missing)
            started[kind] = Server(kind, binary).start()
        return started[kind].reset()

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture(params=servers.KINDS)
def redis_server(request: pytest.FixtureRequest, running_servers: Servers) -> Server:
    """A server as new; the test runs once on the bundled Valkey and once on the Redis on PATH."""
    return running_servers(request.param)


@pytest.fixture
def bundled_server(running_servers: Servers) -> Server:
    """The bundled Valkey, as new."""
    return running_servers("valkey")


@pytest.fixture
def redis7_server(running_servers: Servers) -> Server:
    """The Redis on PATH, as new."""
    return running_servers("redis7")


@pytest.fixture
def fresh(redis_server: Server) -> Server:
    """Another name of `redis_server`, for tests that use it for its effect alone."""
    return redis_server


@pytest.fixture
def own_runtime_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A short folder for embedded servers, apart from those that a person runs beside the tests."""
    folder = Path("/tmp") / f"rt-{os.getpid()}-{tmp_path_factory.mktemp('x').name}"
    folder.mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    shutil.rmtree(folder)
