"""Logging of the server to standard error: readable lines in a terminal, JSON lines otherwise.

A log that is full, slow or closed costs lines and nothing else: a thread writes them, behind a bounded queue.
"""

import atexit
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from reactor.settings import Settings

log = structlog.get_logger()

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_JSON = structlog.processors.JSONRenderer()
_level = logging.INFO

MAX_WAITING = 1 << 20
"""Bytes of lines that wait for a slow reader of the log; lines beyond that are lost and counted."""
DRAIN_TIMEOUT = 1.0
"""Seconds that the end of the process waits for lines to be written."""


class RateLimitedLog:
    """Logs each event at most once in 10 s, for what a client can repeat."""

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._logged_at: dict[str, float] = {}

    def warning(self, event: str, now: float, **fields: object) -> None:
        """Log a warning, unless the same event was logged within the interval; `now` is in seconds."""
        if self.is_due(event, now):
            log.warning(event, **fields)

    def is_due(self, event: str, now: float) -> bool:
        """Return whether the event is to be logged now; if so, it is not due again within the interval."""
        due = now - self._logged_at.get(event, -self._interval) >= self._interval
        if due:
            self._logged_at[event] = now
        return due


class LogWriter:
    """Writes lines to a file descriptor from a thread, so that `write` neither blocks nor raises.

    A line that finds the queue full, or cannot be written (a full disk, a reader that has gone), is lost. As
    soon as lines can be written again, the event `log_lines_lost` says how many were lost.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._waiting = 0  # bytes, with the line that is being written
        self._changed = threading.Condition()
        self._unreported = 0
        self._line_open = False  # a part of a line was written, and the rest was lost
        self.lost = 0
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    def write(self, text: str) -> None:
        """Queue a line for the thread."""
        line = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._waiting + len(line) > MAX_WAITING:
                self._count_lost()
            else:
                self._lines.append(line)
                self._waiting += len(line)
                self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing: the thread writes each line at once."""

    def drain(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Wait until all lines are written or lost, for at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
            written = self._write_line(line)
            with self._changed:
                self._waiting -= len(line)
                if not written:
                    self._count_lost()
                lost = self._unreported if written else 0
                self._unreported -= lost
                self._changed.notify_all()
            if lost:
                log.warning("log_lines_lost", lines=lost)

    def _write_line(self, line: bytes) -> bool:
        # One write for each line: workers share the stream, and their lines must not be mixed.
        rest = memoryview(b"\n" + line if self._line_open else line)
        try:
            while rest:
                try:
                    size = os.write(self._fd, rest)
                except BlockingIOError:  # another program made the terminal or pipe non-blocking
                    select.select((), (self._fd,), ())
                    continue
                self._line_open = size < len(rest)
                rest = rest[size:]
        except OSError:
            return False
        return True

    def _count_lost(self) -> None:
        self.lost += 1
        self._unreported += 1


_writer: LogWriter | None = None


def lines_lost() -> int:
    """Return how many lines of the log this process has lost."""
    return _writer.lost if _writer is not None else 0


def drain_log() -> None:
    """Wait for a moment until the lines that were logged are written."""
    if _writer is not None:
        _writer.drain()


atexit.register(drain_log)


def _log_stream() -> TextIO | LogWriter:
    global _writer  # noqa: PLW0603 - a process has one standard error
    try:
        fd = sys.stderr.fileno()
    except (AttributeError, OSError):
        return sys.stderr  # replaced by an object in memory, which neither blocks nor fails
    if _writer is None:
        _writer = LogWriter(fd)
    return _writer


def set_up_logs(settings: Settings) -> None:
    """Configure structlog for the process, and route the standard library's `logging` through it."""
    set_log_level(settings.log_level)
    in_terminal = sys.stderr.isatty()
    readable = settings.log_format == "console" or (settings.log_format == "auto" and in_terminal)
    colors = in_terminal and "NO_COLOR" not in os.environ
    renderers: list[structlog.typing.Processor] = [_ordered, _JSON]
    if readable:
        renderers = [_escaped, structlog.dev.ConsoleRenderer(colors=colors)]
    structlog.configure(
        processors=[
            _drop_below_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
            _error_of_exception,
            *renderers,
        ],
        # The level may change while loggers are cached: `_drop_below_level` applies it.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(_log_stream()),  # type: ignore[arg-type]  # it writes and flushes
        cache_logger_on_first_use=True,
    )
    logging.getLogger().handlers = [_ToStructlog()]
    logging.getLogger("asyncio").addFilter(_is_not_noise)


def log_level() -> str:
    """Return the lowest level that is logged."""
    return next(name for name, number in _LEVELS.items() if number == _level)


def set_log_level(level: str) -> None:
    """Log from this level on: debug, info, warning or error. May be called again at any time."""
    global _level  # noqa: PLW0603 - a process has one log
    _level = _LEVELS[level]
    logging.getLogger().setLevel(max(_level, logging.WARNING))


def printable(value: Any) -> str:
    """The text of a value with unprintable characters as escapes, so that it cannot control a terminal."""
    text = value if isinstance(value, str) else str(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _is_not_noise(record: logging.LogRecord) -> bool:
    """Whether the record is not asyncio's complaint about an unread error of a broken connection.

    The user of the connection gets the same error; whether asyncio complains depends on when its stream is
    garbage collected.
    """
    broken = record.exc_info is not None and isinstance(record.exc_info[1], ConnectionError)
    return not (broken and record.getMessage().startswith("Future exception was never retrieved"))


class _ToStructlog(logging.Handler):
    """Passes records of `logging` to structlog, so that all lines have one format."""

    def emit(self, record: logging.LogRecord) -> None:
        event = record.getMessage().partition("\n")[0]
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().log(record.levelno, event, logger=record.name, exc_info=exc_info)


def _drop_below_level(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _LEVELS.get(method, logging.ERROR) < _level:
        raise structlog.DropEvent
    return event


def _error_of_exception(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace an exception by its type and message; only the level `debug` shows tracebacks."""
    if _level == logging.DEBUG:
        return _full_traceback(logger, method, event)
    exc_info = event.pop("exc_info", None)
    error = (
        sys.exc_info()[1] if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    )
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return event


def _ordered(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put timestamp, level and event first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _escaped(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape text that comes from clients, for the terminal; JSON escapes it anyway."""
    texts = {key: _shown(key, value) for key, value in event.items() if isinstance(value, str)}
    return {**event, **texts}


def _shown(key: str, value: str) -> str:
    if key == "exception":  # a traceback keeps its lines
        return "\n".join(map(printable, value.split("\n")))
    return printable(value)


def _full_traceback(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not event.get("exc_info"):
        event.pop("exc_info", None)
    return structlog.processors.format_exc_info(logger, method, event)
