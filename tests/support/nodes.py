"""Starts reactor nodes for tests: in this process, or as `reactor serve` in a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import anyio

from reactor.admin import serving_admin
from reactor.server.node import Node
from reactor.server.process import serve_node
from reactor.settings import Settings
from tests.support.command import ROOT, environment
from tests.support.servers import Server
from tests.support.waiting import PATIENCE

_SERVE = (sys.executable, "-m", "reactor", "serve")


@asynccontextmanager
async def served(server: Server, **settings: Any) -> AsyncIterator[Node]:
    """A node in this process, on any free port, without limits of rate and cost and drain time unless set."""
    defaults: dict[str, Any] = {
        "redis_url": server.socket_url, "port": 0, "drain_seconds": 0, "messages_per_second": 0,
        "cost_per_second": 0,
    }  # fmt: skip
    try:
        async with serve_node(Settings(**(defaults | settings)), admin=serving_admin) as node:
            yield node
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None  # pytest shows a failed assertion in full only outside a group


class NodeProcess:
    """A node in a process of its own, which a test may stop, freeze or kill."""

    def __init__(self, child: "asyncio.subprocess.Process", port: int, log: Sequence[str] = ()) -> None:
        self._child = child
        self.port = port
        self._log = log

    @classmethod
    @asynccontextmanager
    async def start(cls, server: Server, **settings: Any) -> AsyncIterator[Self]:
        """Start `reactor serve` with the settings as flags, and wait until it accepts clients.

        The test fails at the end of the block if the log has a line of level error.
        """
        defaults: dict[str, Any] = {
            "redis_url": server.socket_url, "port": 0, "drain_seconds": 0, "log_format": "json",
            "messages_per_second": 0, "cost_per_second": 0,
        }  # fmt: skip
        flags = [
            part
            for name, value in (defaults | settings).items()
            for part in (f"--{name.replace('_', '-')}", _as_flag(value))
        ]
        child = await asyncio.create_subprocess_exec(
            *_SERVE, *flags, cwd=ROOT, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert child.stderr is not None
        log: list[str] = []
        reading: asyncio.Task[None] | None = None
        try:
            with anyio.fail_after(PATIENCE):
                async for line in child.stderr:
                    log.append(line.decode())
                    event = json.loads(line)
                    if event["event"] == "serving":
                        break
                else:
                    raise AssertionError(f"the node did not start: {''.join(log)}")
            reading = asyncio.create_task(_read_rest(child.stderr, log))
            yield cls(child, int(event["socket"].rpartition(":")[2].removesuffix("/ws")), log)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
            # To its end, also where the start failed: an open pipe is an error of the next test.
            await (_read_rest(child.stderr, log) if reading is None else reading)
            sys.stdout.write("".join(log))
        assert not [line for line in log if json.loads(line).get("level") == "error"]

    def send(self, number: int) -> None:
        """Send the process a signal."""
        os.kill(self._child.pid, number)

    def has_logged(self, event: str, times: int = 1) -> bool:
        """Whether there have been so many log lines with this event."""
        return [json.loads(line)["event"] for line in self._log].count(event) >= times

    async def kill(self) -> None:
        """SIGKILL: the kernel closes its sockets, and it sends nothing more to Redis."""
        self.send(signal.SIGKILL)
        await self._child.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end of a process that was sent a signal; the exit code."""
        with anyio.fail_after(PATIENCE):
            return await self._child.wait()


async def _read_rest(stream: asyncio.StreamReader, log: list[str]) -> None:
    async for line in stream:
        log.append(line.decode())  # noqa: PERF401 - tests read it meanwhile


def _as_flag(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


@dataclass
class Serving:
    """A running `reactor serve`, and the log line with which it reported that it serves."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    @property
    def socket(self) -> str:
        """The URL of its WebSocket."""
        return str(self.said["socket"])


@contextmanager
def serving(*arguments: str, **env: str) -> Iterator[Serving]:
    """`reactor serve` on a free port, for tests without an event loop; killed at the end if it still runs."""
    process = subprocess.Popen(
        [*_SERVE, "--port", "0", "--drain-seconds", "0", *arguments],
        env=environment(**env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield Serving(process, wait_for_event(process, "serving"))
        finally:
            process.kill()


def wait_for_event(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the log on stderr up to the line with this event; that line."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if entry.get("event") == event:
            return entry
    raise AssertionError(f"no event {event!r} in the log: {''.join(seen)}")
