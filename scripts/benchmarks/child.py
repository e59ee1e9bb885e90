"""A server in a process of its own, which ends with its standard input: it never outlives the benchmark.

It says {"port": ...} once it serves, and answers each line that it is sent with one of its own, of JSON.
"""

import asyncio
import json
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


# Seen from the benchmark.


@asynccontextmanager
async def child_process(
    command: Sequence[str], *, cwd: Path = ROOT, cores: set[int] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A server and its port; it is stopped in order behind the block. cores: those that it may use.

    Raises ReactorError with the last of its log when it does not start.
    """
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            # Ctrl-C goes to the whole process group, and the benchmark stops its server itself.
            start_new_session=True,
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
    """Give what it answers now. Raises ReactorError when it has ended."""
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
    return " / ".join(lines[-3:]) if lines else "it said nothing"


# Inside the child.


class Questions(asyncio.Protocol):
    """Standard input: each line gets an answer, its end ends the process in good order."""

    def __init__(self, answer: Callable[[], dict[str, Any]] | None = None) -> None:
        self._answer = answer

    def data_received(self, data: bytes) -> None:
        """Answer."""
        for _ in range(data.count(b"\n") if self._answer else 0):
            assert self._answer is not None
            say(self._answer())

    def connection_lost(self, _exc: Exception | None) -> None:
        """End."""
        os.kill(os.getpid(), signal.SIGTERM)


def listen(answer: Callable[[], dict[str, Any]] | None = None) -> "asyncio.Future[Any]":
    """Begin to take questions; keep what comes back for as long as they are to be heard."""
    loop = asyncio.get_running_loop()
    return asyncio.ensure_future(loop.connect_read_pipe(lambda: Questions(answer), sys.stdin))


def say(message: dict[str, Any]) -> None:
    """Write one line."""
    print(json.dumps(message), flush=True)


def serve_as_given(serve: Callable[[Settings], Awaitable[None]]) -> int:
    """Serve with the settings given as JSON; `rooms` is a list of rules. The exit code."""
    # Standard output is for the answers.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
    allow_many_files()
    given = json.loads(sys.argv[1])
    given["rooms"] = tuple(RoomRule(**rule) for rule in given.get("rooms", ()))
    try:
        anyio.run(serve, Settings(**given), backend_options={"use_uvloop": True})
    except ReactorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
