"""The command line: what each command prints, and one line for every error."""

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import reactor as package
from reactor import cli
from reactor.backend.embedded import running_urls
from reactor.cli import output
from reactor.errors import RedisUnreachable
from reactor.settings import setting_fields
from reactor.settings.load import flag_name
from tests.support.command import ended, environment, reactor, reactor_in_terminal
from tests.support.nodes import serving, wait_for_event
from tests.support.servers import Server, free_port
from tests.support.signing import SECRET
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("own_runtime_folder")


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended_with:
        cli.main(arguments)
    assert isinstance(ended_with.value.code, int)
    return ended_with.value.code, *capsys.readouterr()


async def joined(url: str, room: str, user: str, **more: object):
    """A connected client that has joined a room."""
    client = await connect(url)
    await client.send(json.dumps({"type": "join_room", "roomId": room, "userId": user, **more}))
    reply = json.loads(await client.recv())
    assert reply["type"] == "room:joined", reply
    return client


@contextmanager
def running(*arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A command that keeps running; killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reactor", *arguments],
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


async def last_message(client: ClientConnection) -> str:
    """The last message before the server closes the connection, which it has to do by itself."""
    message = ""
    with suppress(ConnectionClosed):
        while True:
            message = str(await client.recv())
    assert client.close_code == 4003
    return message


def test_version_by_command_and_by_module(capsys):
    assert called(capsys, "--version") == (0, f"{package.__version__}\n", "")
    assert reactor("--version").out == f"{package.__version__}\n"


def test_help_lists_the_commands(capsys):
    code, out, err = called(capsys, "--help")
    assert (code, err) == (0, "")
    for command in ("serve", "rooms", "members", "kick", "departures"):
        assert f" {command} " in out
    assert called(capsys)[1] == out


def test_help_of_serve_lists_every_setting_with_its_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    code, out, _ = called(capsys, "serve", "--help")
    assert code == 0
    for item in setting_fields():
        line = next(line for line in out.splitlines() if line.startswith(f"│ {flag_name(item.name)} "))
        assert item.metadata["about"] in line
        assert "[default: " in line
        assert item.metadata["kind"].word in line
    assert "REACTOR_TTL=10m" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serv"], 'Unknown command "serv". Did you mean "serve"?'),
        (["serve", "--tll", "5"], "Unknown option: --tll. Did you mean --ttl? `reactor serve --help` shows"),
        (["serve", "now"], "'now' is an unexpected argument. `reactor serve --help` shows its usage."),
        (["serve", "--ttl"], 'Command "serve" parameter --ttl requires an argument.'),
        (
            ["serve", "--ttl", "abc"],
            '--ttl is "abc", but takes seconds or a duration such as 90, 15s, 10m or 6h',
        ),
        (["serve", "--grace", "-1"], '--grace is "-1", but takes seconds or a duration'),
        (["serve", "--config", "/no/such"], "/no/such cannot be read: No such file or directory."),
        (["serve", "--redis-url", "redis://h/x"], 'has "x" where the database number belongs'),
        (
            ["rooms", "--redis-url", "http://h"],
            '--redis-url is "http://h", but takes an address such as redis://',
        ),
        (["kick", "lobby"], 'Command "kick" parameter USER requires an argument.'),
        (["members"], 'Command "members" parameter ROOM requires an argument.'),
        (["departures", "--since", "yesterday"], '--since is "yesterday", but takes seconds or a duration'),
    ],
)
def test_wrong_usage_gets_one_line_and_exit_code_2(capsys, monkeypatch, arguments, line):
    monkeypatch.setattr("reactor.log.set_up_logs", lambda settings: None)
    code, out, err = called(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert line in err
    assert err.count("\n") == 1


def test_a_token_has_the_claims_that_its_options_name(capsys, monkeypatch):
    monkeypatch.setenv("REACTOR_AUTH_SECRET", SECRET)

    def claims(*options: str) -> dict[str, object]:
        code, printed, problems = called(capsys, "token", "ann", *options)
        assert (code, problems) == (0, "")
        made: dict[str, object] = jwt.decode(printed.strip(), SECRET, algorithms=["HS256"])
        assert made.pop("sub") == "ann"
        del made["iat"], made["exp"]
        return made

    assert claims() == {}
    assert claims("--room", "lobby", "--room", "game-*", "--name", "Ann") == {
        "rooms": ["lobby", "game-*"], "name": "Ann",
    }  # fmt: skip
    assert claims("--watch", "stage", "--people", "team-*", "--people", "7", "--where", "--no-send") == {
        "watch": ["stage"], "people": ["team-*", "7"], "where": True, "send": False,
    }  # fmt: skip


def test_an_invalid_environment_variable_is_named_in_full():
    answer = reactor("serve", REACTOR_SWEEP_INTERVAL="often")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        'error: REACTOR_SWEEP_INTERVAL is "often", but takes seconds or a duration '
        "such as 90, 15s, 10m or 6h, from 50ms to 1d, or 0 for off.\n"
    )


def test_without_a_redis_the_error_says_how_to_name_one(capsys):
    code, out, err = called(capsys, "rooms")
    assert (code, out) == (1, "")
    assert err == (
        "error: No Redis is named, and this user runs no `reactor serve` with an embedded server here. "
        "Name one with --redis-url or REACTOR_REDIS_URL.\n"
    )


@pytest.mark.parametrize("command", [["rooms"], ["members", "r"], ["kick", "r", "u"], ["departures"]])
def test_an_unreachable_redis_is_one_line(command):
    port = free_port()
    answer = reactor(*command, REACTOR_REDIS_URL=f"redis://:secret@127.0.0.1:{port}")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"error: redis://:***@127.0.0.1:{port}: nothing listens there; start Redis, or correct the address.\n"
    )


def test_a_port_in_use_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = reactor("serve", "--port", str(port))
    assert answer.code == 1
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert str(port) in last
    assert "Traceback" not in answer.err
    assert running_urls() == []


@pytest.mark.parametrize("debug", [False, True])
def test_an_unexpected_error_gets_one_line_and_a_traceback_only_at_debug(capsys, monkeypatch, debug):
    async def fail(*_: object, **__: object) -> None:
        raise ExceptionGroup("several", [ValueError("first line\nsecond line")])

    monkeypatch.setattr("reactor.server.process.run_node", fail)
    monkeypatch.setattr("reactor.log.set_up_logs", lambda settings: None)
    code, _, err = called(capsys, "serve", *(["--log-level", "debug"] if debug else []))
    assert code == 1
    assert err.splitlines()[-1] == (
        "error: unexpected ValueError (first line); "
        "run it again with --log-level debug for the traceback, and report it."
    )
    assert ("Traceback" in err) == debug
    assert debug or err.count("\n") == 1


def test_a_reactor_error_is_found_in_nested_groups(capsys, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise BaseExceptionGroup("", [ExceptionGroup("", [ValueError("x"), RedisUnreachable("It is away.")])])

    monkeypatch.setattr("reactor.server.process.run_node", fail)
    monkeypatch.setattr("reactor.log.set_up_logs", lambda settings: None)
    assert called(capsys, "serve") == (1, "", "error: It is away.\n")


@pytest.mark.usefixtures("own_runtime_folder")
async def test_all_commands_with_an_embedded_server():
    # Without pings: the clients of this process answer none while it waits for commands.
    with serving("--grace", "0", "--ping-interval", "0") as server:
        assert server.said["redis"] == "embedded"
        assert server.said["page"].startswith("http://127.0.0.1:")
        anna = await joined(server.socket, "lobby", "anna", username="Anna\u202e", data={"color": "red"})
        bert = await joined(server.socket, "lobby", "bert")
        carl = await joined(server.socket, "hall", "carl")

        assert reactor("rooms").lines == [{"roomId": "lobby", "count": 2}, {"roomId": "hall", "count": 1}]
        in_lobby = reactor("members", "lobby").lines
        assert [(member["userId"], member["connections"], member["away"]) for member in in_lobby] == [
            ("anna", 1, False),
            ("bert", 1, False),
        ]
        assert in_lobby[0]["data"] == {"color": "red"}
        assert reactor("members", "nobody").out == ""

        table = reactor_in_terminal("members", "lobby").out
        assert "USER" in table
        assert "Anna\\u202e" in table
        assert '{"color":"red"}' in table
        assert "2 members" in table
        assert "3 members" in reactor_in_terminal("rooms").out
        assert reactor_in_terminal("rooms", "--json").out.startswith('{"roomId":"lobby"')

        with running("departures", "--follow") as following:
            kicked = reactor("kick", "lobby", "bert", "--message", "Good night.")
            assert kicked.lines == [{"roomId": "lobby", "userId": "bert", "kicked": True}]
            assert '"message":"Good night."' in await last_message(bert)
            assert following.stdout is not None
            assert '"userId":"bert"' in following.stdout.readline()
            await carl.close()
            assert '"reason":"disconnected"' in following.stdout.readline()
            following.send_signal(signal.SIGINT)
            out, err = following.communicate(timeout=PATIENCE)
            assert (out, err) == ("", "")
            assert following.returncode == 130
        again = reactor("kick", "lobby", "bert")
        assert (again.code, again.err) == (
            1,
            "error: bert is not in lobby; `reactor members` lists its members.\n",
        )

        left = reactor("departures", "--since", "1h").lines
        assert {(one["roomId"], one["userId"], one["reason"]) for one in left} == {
            ("lobby", "bert", "kicked"),
            ("hall", "carl", "disconnected"),
        }
        assert [one["userId"] for one in reactor("departures", "--room", "hall").lines] == ["carl"]
        assert reactor("departures", "--totals").lines == [
            {"reason": "disconnected", "count": 1},
            {"reason": "kicked", "count": 1},
        ]
        assert reactor("departures", "--totals", "--room", "hall").lines == [
            {"reason": "disconnected", "count": 1}
        ]
        listed = reactor_in_terminal("departures").out
        assert "REASON" in listed
        assert "2 in total: " in listed
        await anna.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_embedded_server_outlives_serve(number, own_runtime_folder):
    with serving() as server:
        (url,) = running_urls()
        folder = next(own_runtime_folder.glob("*/*/pid")).parent
        pid = int((folder / "pid").read_text())
        watcher = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
        os.killpg(server.process.pid, number)
        code = server.process.wait(PATIENCE)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert ended(pid)
        assert ended(watcher)
        assert url.endswith(f"{folder.name}/redis.sock")
        assert running_urls() == []
        assert [path for path in own_runtime_folder.glob("*/*") if path.is_dir()] == []


async def test_serve_with_a_given_redis(redis_server: Server):
    url = redis_server.url.replace("127.0.0.1", ":@127.0.0.1")
    with serving("--redis-url", url, "--ttl", "1h", REACTOR_TLL="5") as server:
        assert server.said["redis"] == url.replace(":@", ":***@")
        client = await joined(server.socket, "lobby", "anna")
        assert reactor("rooms", REACTOR_REDIS_URL=url).lines == [{"roomId": "lobby", "count": 1}]
        await client.close()
        server.process.send_signal(signal.SIGTERM)
        assert wait_for_event(server.process, "stopping")
        assert server.process.wait(PATIENCE) == 0


def test_advice_on_settings_is_logged():
    with running("serve", "--port", "0", "--ttl", "10", REACTOR_TLL="5") as process:
        assert "REACTOR_TLL is not a setting" in wait_for_event(process, "setting")["advice"]
        assert "less than two intervals of heartbeat_interval" in wait_for_event(process, "setting")["advice"]


def test_serve_prints_its_addresses_in_a_terminal():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reactor", "serve", "--port", "0", "--drain-seconds", "0"],
        env=environment(TERM="dumb"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with process:
        written = ""
        while "Ctrl-C" not in written:
            written += os.read(ours, 65536).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    assert f"reactor {package.__version__} is serving" in written
    assert "Page    http://127.0.0.1:" in written
    assert "deleted at exit" in written


def test_of_several_servers_the_newest_is_used():
    with serving(), serving():
        urls = running_urls()
        assert len(urls) == 2
        answer = reactor("rooms")
        assert (answer.code, answer.out) == (0, "")
        assert answer.err == f"note: 2 servers run here; using the newest one, --redis-url {urls[0]}\n"


def test_a_closed_pipe_ends_the_command_quietly(redis_server: Server):
    with running("departures", "--follow", "--redis-url", redis_server.url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        # MONITOR shows when the command has begun to follow; then a member leaves.
        with redis_server.control.monitor() as monitor:
            for command in monitor.listen():
                if command["command"].upper().startswith("XREAD"):
                    break
        with serving("--redis-url", redis_server.url) as server:

            async def come_and_go() -> None:
                client = await joined(server.socket, "lobby", "anna")
                await client.send('{"type":"leave_room","roomId":"lobby"}')
                await client.recv()
                await client.close()

            asyncio.run(come_and_go())
            assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""


def test_a_summary_lists_the_most_frequent_reason_first():
    assert output.summary({"left": 1, "kicked": 3}) == "4 in total: 3 kicked, 1 left"
    assert output.summary({}) == "none"
