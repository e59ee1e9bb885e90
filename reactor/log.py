"""Logging of the server to standard error: readable lines in a terminal, JSON lines otherwise."""

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from reactor.settings import Settings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_JSON = structlog.processors.JSONRenderer()


def set_up_logs(settings: Settings) -> None:
    """Configure structlog for the process, and route the standard library's `logging` through it."""
    level = _LEVELS[settings.log_level]
    in_terminal = sys.stderr.isatty()
    readable = settings.log_format == "console" or (settings.log_format == "auto" and in_terminal)
    colors = in_terminal and "NO_COLOR" not in os.environ
    renderers: list[structlog.typing.Processor] = [_ordered, _JSON]
    if readable:
        renderers = [_escaped, structlog.dev.ConsoleRenderer(colors=colors)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
            _full_traceback if level == logging.DEBUG else _exception_as_one_line,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write for each line: workers share the stream, and their lines must not be mixed.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("asyncio").addFilter(_is_not_noise)


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


def _exception_as_one_line(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace the traceback by the exception's type and message; only `debug` shows tracebacks."""
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
