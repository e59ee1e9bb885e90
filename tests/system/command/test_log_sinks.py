"""A log that is full, slow or closed loses lines, counts them, and never stops the server."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.sync.client import ClientConnection, connect

from reactor.log import MAX_WAITING, LogWriter
from tests.support.command import environment
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE, until_blocking

Stderr = int | IO[bytes]


@contextmanager
def server(
    redis: Server, stderr: Stderr, *flags: str, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[Any, int]]:
    """A server with this standard error, ready, and its port."""
    port = free_port()
    command = [*prefix, sys.executable, "-m", "reactor", "serve", "--redis-url", redis.url]
    command += ["--port", str(port), "--drain-seconds", "0", *flags]
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    ) as process:
        try:
            until_blocking(lambda: ready(port), what="the server is ready")
            yield process, port
        finally:
            process.kill()


def ready(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def make_it_log(redis: Server) -> None:
    """Cut the subscriptions, which the server logs, and wait until it has new ones."""

    def connections() -> int:
        return int(redis.control.info("stats")["total_connections_received"])

    before = connections()
    redis.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    until_blocking(lambda: connections() > before, what="the server subscribes again")


def answer_to_join(client: ClientConnection, user_id: str) -> Any:
    client.send(json.dumps({"type": "join_room", "roomId": "quiz", "userId": user_id}))
    return json.loads(client.recv(timeout=PATIENCE))


def full_disk() -> IO[bytes]:
    return Path("/dev/full").open("wb")


def closed_pipe() -> IO[bytes]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "wb")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("sink", [full_disk, closed_pipe], ids=lambda sink: sink.__name__)
def test_a_log_that_cannot_be_written_does_not_stop_the_server(
    bundled_server: Server, sink: Callable[[], IO[bytes]], workers: str
) -> None:
    with sink() as stderr, server(bundled_server, stderr, "--workers", workers) as (process, port):
        make_it_log(bundled_server)
        until_blocking(lambda: ready(port), what="the server is ready again")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_closed_standard_streams_are_as_good_as_dev_null(bundled_server: Server) -> None:
    shell = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with server(bundled_server, subprocess.DEVNULL, prefix=shell) as (process, port):
        make_it_log(bundled_server)
        until_blocking(lambda: ready(port), what="the server is ready again")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_an_error_that_cannot_be_printed_is_still_an_exit_code() -> None:
    with closed_pipe() as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "reactor", "serve", "--ttl", "nonsense"],
            env=environment(), stderr=stderr, stdout=subprocess.DEVNULL, check=False, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["size", "--users", "10"]])
def test_output_on_a_full_disk_is_one_line_of_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reactor", *arguments], env=environment(), stdout=full, check=False,
            stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device.\n"


def test_a_slow_reader_costs_lines_and_not_time() -> None:
    reader, writer = os.pipe()
    log = LogWriter(writer)
    line = "x" * 1023 + "\n"
    for _ in range(3 * MAX_WAITING // len(line)):
        log.write(line)  # returns though nothing is read
    assert 1.5 * MAX_WAITING < log.lost * len(line) < 2.1 * MAX_WAITING
    with os.fdopen(reader, "rb") as stream:
        for _ in range(MAX_WAITING // len(line)):
            assert stream.readline() == line.encode()
    os.close(writer)


def test_what_was_lost_is_reported_when_lines_can_be_written_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    log = LogWriter(os.dup(ours.fileno()))
    log.write("lost\n")
    log.drain()
    assert log.lost == 1
    ours.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.dup2(ours.fileno(), log._fd)
        log.write("written\n")
        log.drain()
        assert theirs.recv(100) == b"written\n"
    os.close(log._fd)
    assert "log_lines_lost" in capsys.readouterr().out  # structlog as it is without `set_up_logs`


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_reloads_the_log_level_and_the_rules_of_rooms(
    bundled_server: Server, tmp_path: Path, workers: str
) -> None:
    config, log = tmp_path / "reactor.toml", tmp_path / "log"
    config.write_text('log_level = "error"\n')

    def reloaded() -> int:
        events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
        return events.count("settings_reloaded")

    with (
        log.open("wb") as stderr,
        server(bundled_server, stderr, "--config", str(config), "--workers", workers) as (process, port),
    ):
        config.write_text('log_level = "info"\n[rooms.quiz]\nmax_members = 1\n')
        process.send_signal(signal.SIGHUP)
        until_blocking(lambda: reloaded() == int(workers), what="every node has reloaded its settings")
        with connect(f"ws://127.0.0.1:{port}/ws") as ann, connect(f"ws://127.0.0.1:{port}/ws") as bob:
            assert answer_to_join(ann, "ann")["type"] == "room:joined"
            assert answer_to_join(bob, "bob")["code"] == "room_full"
        config.write_text("nonsense\n")
        process.send_signal(signal.SIGHUP)
        until_blocking(
            lambda: log.read_text().count("settings_not_reloaded") == int(workers),
            what="a wrong file is logged",
        )
        assert ready(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_file_of_settings_that_cannot_be_read_to_its_end_holds_up_no_client(
    bundled_server: Server, tmp_path: Path
) -> None:
    """As on a file system that hangs; here a FIFO, whose reader waits for a writer."""
    config, log = tmp_path / "reactor.toml", tmp_path / "log"
    config.write_text('log_level = "info"\n')
    with (
        log.open("wb") as stderr,
        server(bundled_server, stderr, "--config", str(config)) as (process, port),
        connect(f"ws://127.0.0.1:{port}/ws") as ann,
    ):
        config.unlink()
        os.mkfifo(config)
        process.send_signal(signal.SIGHUP)
        with config.open("w") as writer:  # opened once the server reads
            assert answer_to_join(ann, "ann")["type"] == "room:joined"
            writer.write('log_level = "info"\n')
        until_blocking(lambda: "settings_reloaded" in log.read_text(), what="the settings are reloaded")
        process.send_signal(signal.SIGHUP)
        with config.open("w"):
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
