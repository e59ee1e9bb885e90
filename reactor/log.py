"""How the server logs: lines for people in a terminal, JSON lines for machines, all to standard error."""

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
    """Set up structlog for the whole process, and send through it what libraries log by themselves."""
    level = _LEVELS[settings.log_level]
    in_terminal = sys.stderr.isatty()
    for_people = settings.log_format == "console" or (settings.log_format == "auto" and in_terminal)
    colors = in_terminal and "NO_COLOR" not in os.environ
    renderers: list[structlog.typing.Processor] = [_in_order, _JSON]
    if for_people:
        renderers = [_all_printable, structlog.dev.ConsoleRenderer(colors=colors)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people),
            _whole_traceback if level == logging.DEBUG else _one_line_for_an_exception,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line: workers share the stream, and their lines must not run into each other.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("asyncio").addFilter(_is_news)


def printable(value: Any) -> str:
    """Write a value so that it cannot move the cursor or hide: what does not print is shown by its code."""
    text = value if isinstance(value, str) else str(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop why a link broke when asyncio's streams complain that nobody asked their own future for it.

    Whoever used the link was told; whether it complains depends on the order in which garbage is collected.
    """
    broke = record.exc_info is not None and isinstance(record.exc_info[1], ConnectionError)
    return not (broke and record.getMessage().startswith("Future exception was never retrieved"))


class _ToStructlog(logging.Handler):
    """Hands on what was logged by `logging`, so that one stream has one form."""

    def emit(self, record: logging.LogRecord) -> None:
        event = record.getMessage().partition("\n")[0]
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().log(record.levelno, event, logger=record.name, exc_info=exc_info)


def _one_line_for_an_exception(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say what an exception was, not where: a traceback is for `debug`."""
    exc_info = event.pop("exc_info", None)
    error = (
        sys.exc_info()[1] if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    )
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return event


def _in_order(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Begin each line with what it is read by."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _all_printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what clients send from steering the terminal; JSON escapes it by itself."""
    texts = {key: _shown(key, value) for key, value in event.items() if isinstance(value, str)}
    return {**event, **texts}


def _shown(key: str, value: str) -> str:
    if key == "exception":  # a traceback keeps its lines
        return "\n".join(map(printable, value.split("\n")))
    return printable(value)


def _whole_traceback(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not event.get("exc_info"):
        event.pop("exc_info", None)
    return structlog.processors.format_exc_info(logger, method, event)
