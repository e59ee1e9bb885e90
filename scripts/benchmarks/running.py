"""What benchmarks share: their arguments, and a run with many sockets that cleans up however it ends."""

import argparse
import asyncio
import resource
import signal
import sys
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import uvloop
from rich.console import Console

from reactor.errors import ReactorError

ROOT = Path(__file__).resolve().parents[2]
console = Console()
DEFAULT_OUTPUT = Path("build/bench")
TRIAL = "small sizes, to check that it runs"


def benchmark_parser(
    doc: str | None,
    files: str,
    *,
    server: bool = True,
    redis_url: bool = True,
    quick: str | None = None,
    started: str = "the bundled one",
) -> argparse.ArgumentParser:
    """Return a parser with the arguments that the benchmarks share.

    doc: the script's docstring; its first line is the usage. files: the names of the files in `--output`.
    server, redis_url: whether the script takes `--server`, `--redis-url`, of which one may be given. started:
    the server that is started where none is named. quick: the help of `--quick`, for scripts that have
    smaller sizes; None for others.
    """
    usage, _, about = (doc or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=usage, epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # An empty group, where neither is taken, cannot be printed by Python 3.11.
    where = parser.add_mutually_exclusive_group() if redis_url or server else parser
    if redis_url:
        where.add_argument(
            "--redis-url", help="a running server; the benchmark deletes its own keys at the end"
        )
    if server:
        where.add_argument(
            "--server", type=Path, help=f"a redis-server or valkey-server to start ({started})"
        )
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help=f"folder for {files} (build/bench)"
    )
    return parser


def chosen(parser: argparse.ArgumentParser, option: str, text: str, known: Iterable[str]) -> list[str]:
    """Return the names in a list with commas; end with a usage error when one is not known."""
    names, known = text.split(","), list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{option} takes {', '.join(known)}; there is no {', '.join(unknown)}")
    return names


def parse_sizes(
    parser: argparse.ArgumentParser, given: Sequence[str] | None, **small: Any
) -> argparse.Namespace:
    """Read the command line; with `--quick` the defaults are `small`. A size that is named itself stays."""
    arguments = parser.parse_args(given)
    if arguments.quick:
        parser.set_defaults(**small)
        arguments = parser.parse_args(given)
    return arguments


def allow_many_files() -> None:
    """Raise the limit of open files to the maximum for this user."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_benchmark(main: Coroutine[Any, Any, None]) -> int:
    """Run until it ends, or until Ctrl-C or SIGTERM, then clean up; return the exit code."""
    allow_many_files()
    failed = stopped = False
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stopped = runner.run(_until_stopped(main))
    except* ReactorError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"error: {error}", file=sys.stderr)
        failed = True
    if stopped:
        console.print("[yellow]stopped, and cleaned up[/]")
    return 130 if stopped else int(failed)


async def _until_stopped(main: Coroutine[Any, Any, None]) -> bool:
    """Return whether it was stopped by a signal; the second one ends the process at once.

    The scope cancels whatever is awaited until its end. A task is cancelled once, and before Python 3.12
    asyncio.wait_for, by which redis-py sends, can lose that.
    """
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        scope.cancel()

    with anyio.CancelScope() as scope:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await main
    return scope.cancelled_caught
