"""The log: one line for each event, JSON for machines, and tracebacks only at level debug."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from reactor.log import printable, set_up_logs
from reactor.settings import Settings

Logged = Callable[[], list[str]]


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Logged]:
    """What was written to standard error, by lines; the test run's own logging is put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield lines
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_json_lines_begin_with_time_level_and_event(logged: Logged):
    set_up_logs(Settings())
    structlog.get_logger().info("joined", room="a\nb", count=2)
    (line,) = logged()
    assert list(json.loads(line)) == ["timestamp", "level", "event", "room", "count"]
    assert json.loads(line)["room"] == "a\nb"
    assert json.loads(line)["timestamp"].endswith("Z")


def test_the_level_applies(logged: Logged):
    set_up_logs(Settings(log_level="warning"))
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in logged()] == ["loud"]


def test_an_exception_is_one_line(logged: Logged):
    set_up_logs(Settings())
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        structlog.get_logger().exception("it failed")
    (line,) = logged()
    assert json.loads(line)["error"] == "ValueError: first"
    assert "Traceback" not in line


def test_debug_includes_the_traceback(logged: Logged):
    set_up_logs(Settings(log_level="debug"))
    try:
        raise ValueError("first")
    except ValueError:
        structlog.get_logger().exception("it failed")
    structlog.get_logger().debug("calm")
    failed, calm = (json.loads(line) for line in logged())
    assert "Traceback" in failed["exception"]
    assert "test_debug_includes_the_traceback" in failed["exception"]
    assert "exception" not in calm


def test_logs_of_libraries_have_the_same_form(logged: Logged):
    set_up_logs(Settings())
    logging.getLogger("asyncio").error("Task was destroyed\nsource: x", exc_info=ValueError("inner"))
    logging.getLogger("websockets").info("not heard at info")
    (line,) = logged()
    said = json.loads(line)
    assert (said["level"], said["event"], said["logger"]) == ("error", "Task was destroyed", "asyncio")
    assert said["error"] == "ValueError: inner"


@pytest.mark.parametrize(("error", "lines"), [(BrokenPipeError(32, "Broken pipe"), 0), (ValueError("no"), 1)])
def test_an_unretrieved_connection_error_is_not_logged(logged: Logged, error: Exception, lines: int):
    set_up_logs(Settings())
    try:
        raise error
    except type(error):
        logging.getLogger("asyncio").exception("Future exception was never retrieved\nfuture: ...")
    assert len(logged()) == lines


def test_console_lines_are_for_people(logged: Logged):
    set_up_logs(Settings(log_format="console"))
    structlog.get_logger().warning("redis_away", reason="gone\x1b[2J")
    (line,) = logged()
    assert "redis_away" in line
    assert "\x1b" not in line


HOSTILE = [
    "a\nb",
    "a\r\x1b[2K{}",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\u2028b\u2029c",
    "\u202egpj",
    '"}\n{"level": "error"',
]


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("text", HOSTILE)
def test_no_id_adds_a_line_or_controls_the_terminal(logged: Logged, text: str, log_format: str):
    set_up_logs(Settings(log_format=log_format, log_level="debug"))
    structlog.get_logger().warning(
        "a client does not read", room=text, more=[text], deep={"key": text}, raw=text.encode()
    )
    logging.getLogger("library").error("of %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger().exception("it failed", room=text)
    written = "\n".join(logged())
    assert not [char for char in written if not char.isprintable() and char != "\n"]
    events = ("a client does not read", "of ", "it failed")
    if log_format == "json":
        assert [
            json.loads(line)["event"].startswith(event)
            for line, event in zip(written.split("\n"), events, strict=True)
        ]
        assert [json.loads(line)["level"] for line in written.split("\n")] == ["warning", "error", "error"]
        assert json.loads(written.split("\n")[0])["room"] == text
    else:
        own = [line for line in written.split("\n") if any(event in line for event in events)]
        assert len(own) == 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("grün 漢字 🎉", "grün 漢字 🎉"),
        ("a\nb\x1b[2J", "a\\nb\\x1b[2J"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        (7, "7"),
    ],
)
def test_unprintable_characters_are_escaped(value, shown):
    assert printable(value) == shown
