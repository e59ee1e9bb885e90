"""The command `reactor`: runs what was asked for; whatever goes wrong becomes one line and an exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from reactor.errors import ReactorError

_HELP = "`reactor --help` lists the commands."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 it did not work, 2 it was called wrongly, 130 by Ctrl-C.

    A command that gives a number ends with that.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader down the pipe has enough; Python must not complain about it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _run(given: list[str]) -> int:
    from cyclopts import CycloptsError

    from reactor.cli.commands import app

    try:
        command, bound, _ = app.parse_args(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(f"{_one_line(error)} {_hint(given)}", 2)
    try:
        return _call(command, bound.args, bound.kwargs)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, a person gets one line
        return _report(error, given)


def _call(command: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> int:
    import inspect

    if not inspect.iscoroutinefunction(command):
        return _as_code(command(*args, **kwargs))
    import anyio

    from reactor.cli.commands import serve

    signals: list[signal.Signals] = []
    given: list[object] = []

    async def do() -> None:
        given.append(await command(*args, **kwargs))

    async def run() -> None:
        # A running server ends in good order by itself when a signal comes.
        if command is serve:
            await command(*args, **kwargs)
        else:
            await _until_signalled(do, signals)

    try:
        anyio.run(run, backend_options={"use_uvloop": True})
    except BaseException:
        # Whoever asked for the end does not care what broke on the way, be it a library's own CancelledError.
        if not signals:
            raise
    return 128 + signals[0] if signals else _as_code(*given)


def _as_code(given: object = None) -> int:
    return given if isinstance(given, int) else 0


async def _until_signalled(work: Callable[[], Awaitable[object]], signals: list[signal.Signals]) -> None:
    """Do the work, or stop it when a signal asks for that, and note the signal.

    asyncio itself cancels once, and `asyncio.wait_for`, which redis-py uses, can swallow that
    (https://github.com/python/cpython/issues/86296); a cancel scope goes on until the work has ended.
    """
    import anyio

    async def listen() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                signals.append(number)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await work()
        tasks.cancel_scope.cancel()


def _report(error: BaseException, given: list[str]) -> int:
    """Say in one line what went wrong; where it did, only to who asked for it."""
    if _debugging(given):
        traceback.print_exception(error)
    known = _first_known(error)
    if isinstance(known, ReactorError):
        return _fail(str(known), known.exit_code)
    if isinstance(known, BrokenPipeError):
        raise known
    what = str(known).partition("\n")[0]
    return _fail(
        f"unexpected {type(known).__name__}{f' ({what})' if what else ''}; "
        "run it again with --log-level debug to see where, and report it.",
        1,
    )


def _first_known(error: BaseException) -> BaseException:
    """Look through groups for an error of ours, else give the first of any kind."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [_first_known(one) for one in error.exceptions]
    return next((one for one in inner if isinstance(one, ReactorError)), inner[0])


def _debugging(given: list[str]) -> bool:
    flag = "--log-level=debug" in given or ("--log-level", "debug") in pairwise(given)
    return flag or os.environ.get("REACTOR_LOG_LEVEL") == "debug"


def _one_line(error: Exception) -> str:
    from cyclopts import UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{error.unused_tokens[0]!r} is an argument too many."
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?")) else f"{text}."


def _hint(given: list[str]) -> str:
    from reactor.cli.commands import app

    name = given[0] if given else ""
    return f"`reactor {name} --help` says what it takes." if name in app else _HELP


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"error: {line}\n")
    return code
