"""`reactor doctor`: its output, its questions, its exit codes."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.redis.doctor.examination import flags, untouched
from tests.support.cluster_set import ClusterSet
from tests.support.command import Answer, environment, reactor, reactor_in_terminal
from tests.support.nodes import serving
from tests.support.servers import Server, free_port

CTRL_C = "\x03"
KEYS = ["check", "severity", "where", "what", "found", "wanted", "fix", "command", "fixed"]


@pytest.fixture
def stock(redis_server: Server) -> Server:
    """A server with the defaults of Redis: it publishes no `expired` events."""
    redis_server.control.config_set("notify-keyspace-events", "")
    return redis_server


def in_terminal(*arguments: str, answers: str) -> Answer:
    """Run it in a terminal, and type these answers."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # In its own session, so that Ctrl-C in that terminal reaches only it.
        ["setsid", "--ctty", sys.executable, "-m", "reactor", *arguments],
        env=environment(TERM="dumb"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    todo = list(answers)
    with process, suppress(OSError):
        while chunk := os.read(ours, 65536):
            written += chunk
            if written.endswith(b"[y/N] ") and todo:
                key = todo.pop(0)
                os.write(ours, key.encode() if key == CTRL_C else f"{key}\n".encode())
    os.close(ours)
    return Answer(process.returncode, written.decode().replace("\r\n", "\n"), "")


def test_json_has_stable_keys(stock: Server):
    with untouched(stock):
        answer = reactor("doctor", "--redis-url", stock.url)
    assert (answer.code, answer.err) == (1, "")
    assert all(list(line) == KEYS for line in answer.lines)
    events = next(line for line in answer.lines if line["check"] == "events")
    assert events == {
        "check": "events",
        "severity": "problem",
        "where": f"127.0.0.1:{stock.port}",
        "what": "notify-keyspace-events",
        "found": '"" (nothing)',
        "wanted": "E and x (or A)",
        "fix": "CONFIG SET notify-keyspace-events Ex",
        "command": "CONFIG SET notify-keyspace-events Ex",
        "fixed": False,
    }


def test_a_terminal_gets_tables(stock: Server):
    answer = reactor_in_terminal("doctor", REACTOR_REDIS_URL=stock.url.replace("://", "://:@"))
    assert answer.code == 1
    for text in (
        f"Redis at redis://:***@127.0.0.1:{stock.port}/0",
        "Settings",
        "WHAT",
        "FOUND",
        "WANTED",
        "] CONFIG SET notify-keyspace-events Ex",
        "2 problems, 1 note. `reactor doctor --fix`",
    ):
        assert text in answer.out
    assert reactor_in_terminal("doctor", "--json", REACTOR_REDIS_URL=stock.url).out.startswith('{"check":')


def test_fix_without_a_terminal_needs_yes(stock: Server):
    answer = reactor("doctor", "--fix", "--redis-url", stock.url)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "error: --fix asks before it changes anything, but there is no terminal here: add --yes.\n"
    )
    assert stock.control.config_get("notify-keyspace-events") == {"notify-keyspace-events": ""}


def test_fix_with_yes_applies_without_asking(stock: Server):
    answer = reactor("doctor", "--fix", "--yes", "--redis-url", stock.url)
    assert answer.code == 0
    assert f"  127.0.0.1:{stock.port}  CONFIG SET notify-keyspace-events Ex\n" in answer.err
    assert "has no configuration file: the change is lost when it restarts." in answer.err
    events = next(line for line in answer.lines if line["check"] == "events")
    assert (events["severity"], events["fixed"], events["command"]) == ("ok", True, None)
    again = reactor("doctor", "--fix", "--yes", "--redis-url", stock.url)
    assert (again.code, again.err) == (0, "There is nothing to apply.\n")


def test_ctrl_c_at_the_question_changes_nothing(stock: Server):
    answer = in_terminal("doctor", "--fix", "--redis-url", stock.url, answers=CTRL_C)
    assert answer.code == 130
    assert "Traceback" not in answer.out
    assert flags(stock) == set()


def test_fix_asks_before_it_applies(stock: Server):
    answer = in_terminal("doctor", "--fix", "--redis-url", stock.url, answers="n")
    assert answer.code == 1
    assert answer.out.index("CONFIG SET notify-keyspace-events Ex") < answer.out.index("Apply? [y/N]")
    assert stock.control.config_get("notify-keyspace-events") == {"notify-keyspace-events": ""}
    answer = in_terminal("doctor", "--fix", "--redis-url", stock.url, answers="y")
    assert answer.code == 0
    assert "1 note." in answer.out.splitlines()[-1]


@pytest.fixture
def with_file(stock: Server) -> Iterator[Server]:
    """The same kind of server, with a configuration file."""
    server = Server(stock.kind, stock._binary, {"notify-keyspace-events": ""})
    file = server.folder / "redis.conf"
    file.write_text("# mine\nnotify-keyspace-events K$\n")
    program = server.folder / "run"
    program.write_text(f"#!/bin/sh\nexec '{stock._binary}' redis.conf \"$@\"\n")
    program.chmod(0o700)
    server._binary = program
    server._config.pop("notify-keyspace-events")
    yield server.start()
    server.stop()


def test_fix_offers_to_write_the_configuration_file(with_file: Server):
    file = with_file.folder / "redis.conf"
    answer = in_terminal("doctor", "--fix", "--redis-url", with_file.url, answers="yn")
    assert answer.code == 0
    assert f"CONFIG REWRITE, to {file}" in answer.out
    assert "notify-keyspace-events K$\n" in file.read_text()
    with_file.control.config_set("notify-keyspace-events", "K$")
    assert in_terminal("doctor", "--fix", "--redis-url", with_file.url, answers="yy").code == 0
    assert file.read_text().startswith("# mine\n")
    line = next(line for line in file.read_text().splitlines() if line.startswith("notify-keyspace-events"))
    assert set(line.partition(" ")[2].strip('"')) == set("K$Ex")


def test_a_refused_fix_is_reported(stock: Server):
    rule = "~* &* +@all -config|set"
    stock.control.execute_command("ACL", "SETUSER", "ann", "on", ">pw", *rule.split())
    url = stock.url.replace("://", "://ann:pw@")
    answer = reactor("doctor", "--fix", "--yes", "--redis-url", url)
    assert answer.code == 1
    assert "CONFIG SET notify-keyspace-events Ex: refused: " in answer.err
    assert not any(line["fixed"] for line in answer.lines)


def test_connection_refused_is_exit_code_2():
    answer = reactor("doctor", "--redis-url", f"redis://:secret@127.0.0.1:{free_port()}")
    assert answer.code == 2
    assert answer.lines[0]["check"] == "reachable"
    assert "secret" not in answer.out + answer.err


@pytest.mark.usefixtures("own_runtime_folder")
def test_no_redis_is_configured():
    answer = reactor("doctor")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: No Redis is named, and this user runs no `reactor serve`")
    assert answer.err.count("\n") == 1


@pytest.mark.usefixtures("own_runtime_folder")
def test_without_an_address_the_embedded_server_of_a_running_node_is_examined():
    with serving():
        answer = reactor("doctor")
    assert answer.code == 0
    assert {line["severity"] for line in answer.lines} == {"ok"}


def test_a_wrong_call_is_exit_code_2(stock: Server):
    for arguments in (["--fixx"], ["--ttl", "abc"], ["--redis-url", "http://h"], ["now"]):
        assert reactor("doctor", *arguments).code == 2
    assert "The exit code is 0 when there is" in reactor("doctor", "--help").out


def test_settings_of_a_file_are_checked(redis7_server: Server, tmp_path):
    file = tmp_path / "reactor.toml"
    file.write_text('[rooms."quiz-*"]\nttl = "20s"\n')
    answer = reactor("doctor", "--redis-url", redis7_server.socket_url, "--config", str(file))
    assert answer.code == 1
    assert 'rooms."quiz-*"' in json.dumps([line["found"] for line in answer.lines]).replace("\\", "")


def test_servers_with_the_same_finding_share_a_row(cluster: ClusterSet):
    said = reactor_in_terminal("doctor", "--redis-url", cluster.admin_url, COLUMNS="120", LINES="50").out
    (of_flags,) = [line for line in said.splitlines() if "notify-keyspace" in line]
    assert "all 6 servers" in of_flags
    assert "all 3 primaries" in said
    assert said.rstrip().endswith("\n1 note.")
