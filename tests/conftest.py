"""Fixtures of all tests: uvloop, on which the server runs, and the two kinds of Redis server."""

import asyncio
import gc
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

# No deadline: the duration of an example depends on the load of the machine.
hypothesis.settings.register_profile("reactor", deadline=None, print_blob=True)
hypothesis.settings.load_profile("reactor")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure() -> None:
    """End the run at once, with one line, where the server that was chosen for it is missing."""
    for kind in servers.KINDS:
        binary, missing = servers.find(kind)
        if binary is None and os.environ.get(servers.CHOICE):
            raise pytest.UsageError(missing)


def pytest_collection_finish() -> None:
    """Take what importing and collecting the tests has created out of the garbage collector's work.

    There are 600,000 objects, and a full collection among them takes 0.4 s of CPU time, on a busy machine
    more than a second, in which neither the test nor the nodes in its process do anything: members that send
    heartbeats expire, and grace periods pass.
    """
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    """Name the servers of the run."""
    found = [servers.find(kind) for kind in servers.KINDS]
    return [f"server: {servers.version_of(path) if path else missing}" for path, missing in found]


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Servers]:
    """The servers of this test run by kind, each started at its first use and reset at each."""
    started: dict[str, Server] = {}

    def get(kind: str) -> Server:
        kind = servers.standing_for(kind)
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
    """A reset server; the test runs on the bundled Valkey and on the Redis on PATH, or on the one chosen."""
    return running_servers(request.param)


@pytest.fixture
def bundled_server(running_servers: Servers) -> Server:
    """The bundled Valkey, or the server chosen for the run, reset."""
    return running_servers("valkey")


@pytest.fixture
def redis7_server(running_servers: Servers) -> Server:
    """The Redis on PATH, or the server chosen for the run, reset."""
    return running_servers("redis7")


@pytest.fixture
def fresh(redis_server: Server) -> Server:
    """An alias of `redis_server`, for tests that need only the reset."""
    return redis_server


@pytest.fixture
def own_runtime_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with a short path for embedded servers, separate from those that the developer runs."""
    folder = Path("/tmp") / f"rt-{os.getpid()}-{tmp_path_factory.mktemp('x').name}"
    folder.mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # the watcher of a server may remove its own at this moment
