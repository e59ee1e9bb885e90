"""The command `reactor`: runs a command; every error becomes one line and an exit code."""

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import pairwise

from reactor.errors import ReactorError

_HELP = "`reactor --help` lists the commands."
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C.

    A command that returns a number exits with it.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe has closed it. Python would report that again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _open_closed_streams() -> None:
    """Open /dev/null as each standard stream that the caller has closed (`2>&-`).

    Its descriptor would otherwise become a socket's, to which the next message would be written.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")


def _run(given: list[str]) -> int:
    try:
        from cyclopts import CycloptsError

        from reactor.cli.commands import app
    except ModuleNotFoundError as error:
        return _report(error, given)
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
    except Exception as error:  # noqa: BLE001 - every error becomes one line
        return _report(error, given)


def _call(command: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> int:
    import inspect

    if not inspect.iscoroutinefunction(command):
        return _exit_code(command(*args, **kwargs))
    import anyio

    from reactor.cli.commands import serve

    signals: list[signal.Signals] = []
    results: list[object] = []

    async def do() -> None:
        results.append(await command(*args, **kwargs))

    async def run() -> None:
        # The server handles signals itself, and stops gracefully.
        if command is serve:
            await command(*args, **kwargs)
        else:
            await _until_signalled(do, signals)

    try:
        anyio.run(run, backend_options={"use_uvloop": True})
    except BaseException:
        # After a signal, errors of the interrupted work do not matter; a library may raise CancelledError.
        if not signals:
            raise
    return 128 + signals[0] if signals else _exit_code(*results)


def _exit_code(result: object = None) -> int:
    return result if isinstance(result, int) else 0


async def _until_signalled(work: Callable[[], Awaitable[object]], signals: list[signal.Signals]) -> None:
    """Do the work, or cancel it when a signal arrives; the signal is appended to `signals`.

    asyncio itself cancels once, and `asyncio.wait_for`, which redis-py uses, can swallow that
    (https://github.com/python/cpython/issues/86296); a cancel scope cancels until the work has ended.
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
    """Print the error in one line, and its traceback only at log level debug; the exit code."""
    if _debug(given):
        traceback.print_exception(error)
    main = _main_error(error)
    if isinstance(main, ModuleNotFoundError) and not (main.name or "").startswith("reactor"):
        return _fail(f"{main.name} is not installed: pip install 'reactor-presence[server]'.", 1)
    if isinstance(main, ReactorError):
        return _fail(str(main), main.exit_code)
    if isinstance(main, BrokenPipeError):
        raise main
    if isinstance(main, OSError) and main.errno in _DISK_FULL:
        return _fail(f"{main.filename or 'the output'} cannot be written: {main.strerror}.", 1)
    message = str(main).partition("\n")[0]
    return _fail(
        f"unexpected {type(main).__name__}{f' ({message})' if message else ''}; "
        "run it again with --log-level debug for the traceback, and report it.",
        1,
    )


def _main_error(error: BaseException) -> BaseException:
    """The first ReactorError in the error and its nested groups, or else the first error of any kind."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    errors = [_main_error(inner) for inner in error.exceptions]
    return next((inner for inner in errors if isinstance(inner, ReactorError)), errors[0])


def _debug(given: list[str]) -> bool:
    flag = "--log-level=debug" in given or ("--log-level", "debug") in pairwise(given)
    return flag or os.environ.get("REACTOR_LOG_LEVEL") == "debug"


def _one_line(error: Exception) -> str:
    from cyclopts import UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{error.unused_tokens[0]!r} is an unexpected argument."
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?")) else f"{text}."


def _hint(given: list[str]) -> str:
    from reactor.cli.commands import app

    name = given[0] if given else ""
    return f"`reactor {name} --help` shows its usage." if name in app else _HELP


def _fail(line: str, code: int) -> int:
    from reactor.log import drain_log

    drain_log()
    with suppress(OSError):  # where standard error cannot be written, the exit code has to do
        sys.stderr.write(f"error: {line}\n")
    return code
