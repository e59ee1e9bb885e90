"""A node that starts before Redis waits for it, and ends only where waiting does not help."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import servers
from tests.support.command import environment
from tests.support.nodes import wait_for_event
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE, until_blocking

PASSWORD = "a password"


class Starting:
    """A `reactor serve` that may not serve yet."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def until(self, event: str) -> dict[str, Any]:
        """Read its log up to the line with this event."""
        return wait_for_event(self.process, event)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET request; status 0 where it does not listen."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def end(self, number: signal.Signals | None = None) -> tuple[int, list[str]]:
        """Send a signal, if given; the exit code and the last lines of the log."""
        if number is not None:
            self.process.send_signal(number)
        _, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, log.splitlines()


@contextmanager
def starting(url: str, *flags: str) -> Iterator[Starting]:
    port = free_port()
    command = (sys.executable, "-m", "reactor", "serve", "--port", str(port), "--redis-url", url, *flags)
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Starting(process, port)
        finally:
            process.kill()


async def opens(port: int) -> bool:
    """Whether a WebSocket opens; where it does not, the response must be a 503 that says when to return."""
    try:
        async with connect(f"ws://127.0.0.1:{port}/ws"):
            return True
    except InvalidStatus as error:
        if error.response.status_code != 503 or not error.response.headers["Retry-After"]:
            raise
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_node_that_starts_before_redis_listens_and_serves_once_redis_answers(
    bundled_server: Server, workers: str
) -> None:
    bundled_server.kill()
    with starting(bundled_server.url, "--workers", workers) as node:
        waited = await to_thread.run_sync(node.until, "redis_awaited")
        assert "nothing listens there" in waited["reason"]
        until_blocking(lambda: node.get("/healthz")[0] == 200)
        status, reason = node.get("/readyz")
        assert status == 503
        assert reason.startswith("waiting for Redis: ")
        assert str(bundled_server.port) not in reason, "anyone may read it"
        assert not await opens(node.port)
        bundled_server.start()
        await to_thread.run_sync(node.until, "serving")
        assert await opens(node.port)
        until_blocking(lambda: node.get("/readyz")[0] == 200)
        code, log = node.end(signal.SIGTERM)
        assert code == 0, log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_ends_a_node_that_waits_for_a_silent_redis(
    bundled_server: Server, number: signal.Signals, workers: str
) -> None:
    bundled_server.pause()
    try:
        with starting(bundled_server.url, "--workers", workers) as node:
            until_blocking(lambda: node.get("/readyz")[0] == 503)
            began = time.monotonic()
            code, log = node.end(number)
            assert code == 0, log
            assert time.monotonic() - began < 4, "no timeout of a command is waited for"
    finally:
        bundled_server.resume()


def test_a_node_waits_while_redis_loads_its_data(tmp_path: Path) -> None:
    binary, reason = servers.find("valkey")
    assert binary is not None, reason
    config = {"dir": str(tmp_path), "key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    redis = Server("valkey", binary, config).start()
    try:
        redis.control.eval("for i = 1, 3000 do redis.call('SET', 'other:' .. i, i) end", 0)
        redis.control.save()
        redis.kill()
        with starting(redis.url) as node:
            node.until("redis_awaited")
            redis.start()
            assert "loading" in node.until("redis_awaited")["reason"]
            node.until("serving")
            assert node.get("/readyz")[0] == 200
    finally:
        redis.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wrong_password_ends_it_with_one_line(bundled_server: Server, workers: str) -> None:
    bundled_server.control.config_set("requirepass", PASSWORD)
    try:
        with starting(f"redis://:wrong@127.0.0.1:{bundled_server.port}", "--workers", workers) as node:
            code, log = node.end()
    finally:
        bundled_server.control.config_set("requirepass", "")
    assert code == 1
    errors = [line for line in log if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].endswith("rejects the user name or password; correct them in the address.")
    assert "Traceback" not in "".join(log)
    assert not any(json.loads(line)["level"] == "error" for line in log if line.startswith("{"))


def test_a_fault_that_shows_only_when_redis_is_there_ends_it_too(bundled_server: Server) -> None:
    bundled_server.kill()
    with starting(f"redis+cluster://127.0.0.1:{bundled_server.port}") as node:
        node.until("redis_awaited")
        bundled_server.start()
        code, log = node.end()
    assert code == 1
    assert "is not a cluster; use redis://HOST:PORT." in log[-1]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_signal_closes_the_connections_at_once(bundled_server: Server, workers: str) -> None:
    flags = ("--workers", workers, "--drain-seconds", "600s")
    with starting(bundled_server.url, *flags) as node:
        await to_thread.run_sync(node.until, "serving")
        async with AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(connect(f"ws://127.0.0.1:{node.port}/ws"))
            node.process.send_signal(signal.SIGTERM)
            for _ in range(3 if workers == "2" else 1):  # the parent, and each worker
                await to_thread.run_sync(node.until, "stopping")
            code, log = await to_thread.run_sync(node.end, signal.SIGTERM)
            assert code == 0, log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_while_it_waits_for_redis_does_not_end_it(bundled_server: Server, workers: str) -> None:
    bundled_server.kill()
    with starting(bundled_server.url, "--workers", workers) as node:
        node.until("redis_awaited")
        node.process.send_signal(signal.SIGHUP)
        bundled_server.start()
        node.until("settings_reloaded")
        code, log = node.end(signal.SIGTERM)
        assert code == 0, log
