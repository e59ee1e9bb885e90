"""Prints results: tables and sentences in a terminal, JSON lines into a pipe or on request."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reactor.client.status import Status
from reactor.log import printable

STATUS_TEXTS = {
    Status.RECONNECTING: "the connection to the server is lost; trying again",
    Status.DEGRADED: "the server has no Redis; what it shows does not change",
}

_encoder = msgspec.json.Encoder()


def use_json(requested: bool) -> bool:
    """Whether to print JSON lines: on request, and where standard output is no terminal."""
    return requested or not sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Print one value as one line, and flush it: the reader of a pipe may be waiting for it."""
    sys.stdout.write(_encoder.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[str] = ()
) -> None:
    """Print a table; `numbers` names the columns that are aligned to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def print_line(text: str) -> None:
    """Print a line of text."""
    Console().print(Text(text))


def note(text: str) -> None:
    """Write a note for people to standard error; standard output is for results."""
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()


class StatusNotes:
    """Notes about the connection to a server: when it is lost or without Redis, and when it is back."""

    def __init__(self) -> None:
        self._was_connected = True

    def write(self, status: Status) -> None:
        """Write a note if the status is news."""
        if text := STATUS_TEXTS.get(status):
            note(f"{text}.")
            self._was_connected = False
        elif status is Status.CONNECTED and not self._was_connected:
            note("the server is back.")
            self._was_connected = True


def summary(counts: Mapping[str, int]) -> str:
    """The total and the counts by reason in one line, the most frequent reason first."""
    total = sum(counts.values())
    parts = ", ".join(
        f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1])
    )
    return f"{total} in total: {parts}" if parts else "none"


def local_time(milliseconds: int) -> str:
    """A timestamp (ms since 1970) as date and time in this machine's time zone."""
    when = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    return when.strftime("%Y-%m-%d %H:%M:%S")


def time_of_day(milliseconds: int | None = None) -> str:
    """The time of day of a timestamp (ms since 1970), or of now, in this machine's time zone."""
    when = datetime.now(UTC) if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return when.astimezone().strftime("%H:%M:%S")


def json_text(value: Any) -> str:
    """A value as compact JSON; empty where it is unset."""
    return "" if value is msgspec.UNSET else _encoder.encode(value).decode()
