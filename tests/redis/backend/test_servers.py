"""The servers that the tests run on can be chosen, reset, killed, paused and restarted."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.support import servers
from tests.support.command import ROOT
from tests.support.servers import Server
from tests.support.waiting import PATIENCE


def test_a_server_is_reset_for_each_test(redis_server: Server, running_servers):
    control = redis_server.control
    control.set("key", "value")
    control.config_set("notify-keyspace-events", "KEA")
    control.config_set("maxmemory", "5mb")
    control.acl_setuser("someone", enabled=True)
    control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    digest = control.script_load("return 1")
    again = running_servers(redis_server.kind)
    assert again is redis_server
    assert control.dbsize() == 0
    assert control.script_exists(digest) == [False]
    assert set(control.config_get("notify-keyspace-events")["notify-keyspace-events"] or "") == {"E", "x"}
    assert control.config_get("maxmemory")["maxmemory"] == "0"
    assert control.acl_users() == ["default"]


def test_a_server_that_was_reset_has_forgotten_what_it_saved(redis_server: Server, running_servers):
    redis_server.control.set("key", "of an earlier test")
    redis_server.control.save()
    running_servers(redis_server.kind)
    redis_server.kill()
    redis_server.start()
    assert redis_server.control.dbsize() == 0


def test_a_server_can_be_killed_and_started_again_on_the_same_address(redis_server: Server):
    client = redis.Redis.from_url(redis_server.url, retry=None)
    client.set("key", "value")
    before = redis_server.pid
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.start()
    assert redis_server.pid != before
    assert client.get("key") is None
    client.close()


def test_a_paused_server_answers_nothing(redis_server: Server):
    client = redis.Redis.from_url(redis_server.socket_url, socket_timeout=0.1, retry=None)
    client.ping()
    redis_server.pause()
    try:
        with pytest.raises(redis.TimeoutError):
            client.ping()
    finally:
        redis_server.resume()
    assert client.ping()
    client.close()


def test_without_the_active_cycle_a_key_expires_only_when_touched(redis_server: Server):
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    with redis_server.control.pubsub() as events:
        events.subscribe("__keyevent@0__:expired")
        assert events.get_message(timeout=2)["type"] == "subscribe"
        redis_server.control.set("key", "value", px=20)
        assert events.get_message(timeout=0.3) is None
        assert redis_server.control.pttl("key") == -2
        assert events.get_message(timeout=2)["data"] == "key"


def test_a_server_does_not_outlive_its_watcher(bundled_server: Server):
    pid = os.pidfd_open(bundled_server.pid)
    assert bundled_server._watch is not None
    bundled_server._watch.send_signal(signal.SIGKILL)
    assert select.select([pid], [], [], 5)[0]
    os.close(pid)
    bundled_server._watch.wait(PATIENCE)  # the server may end first; `start` needs to know that both have


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is PATH, with programs that say the versions of servers."""
    for name, said in (
        ("redis-server", "Redis server v=7.0.15 sha=0:0 malloc=libc"),
        ("redis-server-old", "Redis server v=8.0.2 sha=0:0 malloc=libc"),
        ("redis-server-new", "Redis server v=8.0.10 sha=0:0 malloc=libc"),
        ("valkey-server", "Valkey server v=9.1.2 sha=0:0 malloc=libc"),
        ("valkey-server-broken", "no server at all"),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o700)
    # As on Debian, where one program of several names is the server and its tools.
    (tmp_path / "tools").write_text(
        "#!/bin/sh\ncase $0 in */valkey-server-8) echo 'Valkey server v=8.1.1 sha=0:0' ;; esac\n"
    )
    (tmp_path / "tools").chmod(0o700)
    (tmp_path / "valkey-server-8").symlink_to("tools")
    (tmp_path / "redis-server.conf").write_text("port 6379\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_server_is_chosen_by_product_and_version_the_newest_that_fits(programs: Path):
    for name, file in (
        ("redis-7", "redis-server"),
        ("redis-8.0", "redis-server-new"),
        ("redis-8.0.2", "redis-server-old"),
        ("valkey-9.1", "valkey-server"),
        (str(programs / "redis-server-old"), "redis-server-old"),
        (str(programs / "valkey-server-8"), "valkey-server-8"),
    ):
        assert servers.chosen(name) == (programs / file, ""), name


def test_a_server_that_is_missing_is_reported_in_one_line(programs: Path):
    there = "redis-7.0.15, redis-8.0.2, redis-8.0.10, valkey-8.1.1, valkey-9.1.2"
    fix = "a path can be given in its place"
    for name in ("redis-8.1", "redis-8.0.1", "valkey-7"):
        assert servers.chosen(name) == (None, f"no program of {name} on PATH, which has {there}; {fix}")
    assert servers.chosen("memcached") == (
        None,
        "memcached names no server: bundled, a path, or product and version, such as redis-8.0",
    )
    for path in (programs / "valkey-server-broken", programs / "redis-server.conf", programs / "none"):
        assert servers.chosen(str(path)) == (None, f"{path} is no program of a Redis or Valkey server")


def test_a_run_on_a_missing_server_ends_at_once_with_one_line(programs: Path):
    python = [sys.executable, "-m", "pytest", "-n", "0", "tests/unit/test_project.py"]
    environment = {**os.environ, servers.CHOICE: "redis-6"}
    ended = subprocess.run(python, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert ended.stderr.strip().startswith("ERROR: no program of redis-6 on PATH, which has redis-7.0.15")
    assert len(ended.stderr.strip().splitlines()) == 1
