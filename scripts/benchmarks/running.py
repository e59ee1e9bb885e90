"""Runs a benchmark with many sockets, and cleans up after every kind of end."""

import asyncio
import resource
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from reactor.errors import ReactorError

ROOT = Path(__file__).resolve().parents[2]
console = Console()


def allow_many_files() -> None:
    """Raise the limit of open files to the maximum for this user."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_benchmark(main: Coroutine[Any, Any, None]) -> int:
    """Run until it ends, or until Ctrl-C or SIGTERM, then clean up; return the exit code."""
    allow_many_files()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return _run(main)
    except KeyboardInterrupt:
        console.print("[yellow]stopped, and cleaned up[/]")
        return 130


def _run(main: Coroutine[Any, Any, None]) -> int:
    code = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except* ReactorError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"error: {error}", file=sys.stderr)
        code = 1
    return code
