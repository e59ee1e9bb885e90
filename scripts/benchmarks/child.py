"""Runs a server as a child process that exits when its standard input closes, and so never outlives us.

The child prints {"port": ...} once it serves, and answers each line on its standard input with one of JSON.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import anyio
import structlog

from reactor.errors import ReactorError
from reactor.settings import RoomRule, Settings
from scripts.benchmarks.running import ROOT, allow_many_files

START_WITHIN = 30.0
STOP_WITHIN = 30.0
MAX_ANSWER = 1 << 24
"""Bytes of one answer at most."""


# In the benchmark.


@asynccontextmanager
async def child_process(
    command: Sequence[str], *, cwd: Path = ROOT, cores: set[int] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Start a server, yield its process and port, and stop it after the block. cores: CPU cores to use.

    Raises ReactorError with the end of its log if it does not start.
    """
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            # Otherwise Ctrl-C would reach the server, too; the benchmark stops it itself.
            start_new_session=True,
            limit=MAX_ANSWER,
            preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = b""
            with anyio.move_on_after(START_WITHIN):
                line = await process.stdout.readline()
            if not line:
                raise ReactorError(f"{' '.join(command[:3])} did not start: {_last_lines(log)}")
            yield process, json.loads(line)["port"]
        finally:
            with anyio.CancelScope(shield=True):
                process.stdin.close()
                with anyio.move_on_after(STOP_WITHIN):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def ask(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return its present status. Raises ReactorError if it has exited."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    line = await process.stdout.readline()
    if not line:
        raise ReactorError("the server has ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _last_lines(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) if lines else "it logged nothing"


# In the child.


class StatusRequests(asyncio.Protocol):
    """Standard input: each line is answered; its end shuts the process down."""

    def __init__(self, answer: Callable[[], dict[str, Any]] | None = None) -> None:
        self._answer = answer

    def data_received(self, data: bytes) -> None:
        """Answer each line."""
        for _ in range(data.count(b"\n") if self._answer else 0):
            assert self._answer is not None
            write_line(self._answer())

    def connection_lost(self, _exc: Exception | None) -> None:
        """Shut down."""
        os.kill(os.getpid(), signal.SIGTERM)


def answer_status_requests(answer: Callable[[], dict[str, Any]] | None = None) -> "asyncio.Future[Any]":
    """Start to answer lines on standard input; the caller must keep the returned future alive."""
    loop = asyncio.get_running_loop()
    return asyncio.ensure_future(loop.connect_read_pipe(lambda: StatusRequests(answer), sys.stdin))


def write_line(message: dict[str, Any]) -> None:
    """Write a message as one line of JSON to standard output."""
    print(json.dumps(message), flush=True)


def serve_with_json_settings(serve: Callable[[Settings], Awaitable[None]]) -> int:
    """Serve with the settings in the first argument, as JSON; `rooms` is a list of rules."""
    # Standard output carries the answers, so the log goes to standard error.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),  # as `reactor serve` does
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    allow_many_files()
    given = json.loads(sys.argv[1])
    given["rooms"] = tuple(RoomRule(**rule) for rule in given.get("rooms", ()))
    try:
        anyio.run(serve, Settings(**given), backend_options={"use_uvloop": True})
    except ReactorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
