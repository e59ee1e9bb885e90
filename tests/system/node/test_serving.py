"""A server inside a program: reactor.serving, the fixture of the pytest plugin, and Presence.open()."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import Any

import httpx
import pytest

import reactor
from tests.docs.documents import example
from tests.support.command import ROOT, environment
from tests.support.nodes import served
from tests.support.servers import Server
from tests.system.client.clients import url_of

MORE_TESTS = """
import json, urllib.request
import pytest
from reactor import Client, Presence

def test_the_same_server(reactor_server):
    request = urllib.request.Request(f"{reactor_server.admin_url}/v1/rooms/lobby/count",
                                     headers={"X-API-Key": reactor_server.admin_key})
    assert json.load(urllib.request.urlopen(request))["count"] == 0

@pytest.mark.anyio
async def test_an_asynchronous_test(reactor_server):
    async with Client(reactor_server.url) as client, Presence.open(reactor_server.redis_url) as presence:
        assert (await client.join("other", user_id=1)).count == 1
        assert await presence.is_present("other", "1")

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


async def test_a_program_serves_rooms_in_its_own_process():
    async with reactor.serving(ttl="2s", heartbeat_interval="500ms") as server:
        async with reactor.Client(server.url) as client:
            room = await client.join("lobby", user_id=1)
            assert [member.user_id for member in await server.presence.members("lobby")] == ["1"]
            async with httpx.AsyncClient(headers={"X-API-Key": server.admin_key}) as http:
                count = (await http.get(f"{server.admin_url}/v1/rooms/lobby/count")).json()["count"]
                assert count == 1
                assert "ReactorClient" in (await http.get(f"{server.page}client.js")).text
            await server.presence.kick("lobby", "1")
            assert isinstance(await room.ended(), reactor.ForceLeave)
        async with reactor.Presence.open(server.redis_url) as presence:
            assert await presence.rooms() == []
    with pytest.raises(reactor.RedisUnreachable):
        async with reactor.Presence.open(server.redis_url):
            pytest.fail("the embedded server ends with the block")


async def test_a_program_may_serve_twice_and_on_a_redis_of_its_own(redis_server: Server):
    async with (
        reactor.serving(redis_url=redis_server.url) as one,
        reactor.serving(redis_url=redis_server.url) as two,
        reactor.Client(one.url) as client,
    ):
        await client.join("lobby", user_id="ann")
        assert await two.presence.is_present("lobby", "ann")
        assert one.url != two.url


async def test_a_setting_that_is_invalid_is_named():
    with pytest.raises(reactor.SettingError, match="ttl"):
        async with reactor.serving(ttl="soon"):
            pytest.fail("it must not start")


@pytest.fixture
def own_folder(monkeypatch) -> Iterator[str]:
    """A folder in which this user runs no server yet; its path is short enough for sockets."""
    with TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.delenv("REACTOR_REDIS_URL", raising=False)
        yield folder


async def test_presence_without_an_argument_finds_a_server_of_this_user(own_folder: str):
    with pytest.raises(reactor.RedisUnreachable, match=r"Presence\.open, or by REACTOR_REDIS_URL"):
        async with reactor.Presence.open():
            pytest.fail("there is none")
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reactor", "serve", "--port", "0", "--log-format", "json",
        cwd=ROOT, env=environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert command.stderr is not None
        async for line in command.stderr:
            event = json.loads(line)
            if event["event"] == "serving":
                break
        else:
            pytest.fail("the command ended")
        async with reactor.Presence.open() as presence, reactor.Client(event["socket"]) as client:
            await client.join("lobby", user_id="ann")
            assert await presence.count("lobby") == 1
    finally:
        command.terminate()
        await command.communicate()


async def test_presence_without_an_argument_uses_the_redis_of_the_environment(
    bundled_server: Server, monkeypatch
):
    monkeypatch.setenv("REACTOR_REDIS_URL", bundled_server.url)
    async with served(bundled_server) as node, reactor.Client(url_of(node)) as client:
        await client.join("lobby", user_id="ann")
        async with reactor.Presence.open() as presence:
            assert await presence.count("lobby") == 1


async def test_the_example_of_the_document_prints_who_is_there(capsys):
    names: dict[str, Any] = {}
    exec(f"async def main():\n{indent(example('serving'), '    ')}", names)
    await names["main"]()
    assert "['Ann']" in capsys.readouterr().out


def test_the_fixture_serves_the_tests_of_an_application(tmp_path: Path):
    (tmp_path / "conftest.py").write_text(example("conftest"))
    (tmp_path / "test_application.py").write_text(example("pytest") + MORE_TESTS)
    # Where the package is installed pytest finds the plugin by itself; here it may not be.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:reactor", "-p", "reactor.pytest_plugin"]
    command += ["-p", "no:cacheprovider", "-p", "no:valkey", "-o", "asyncio_mode=strict"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment() | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
