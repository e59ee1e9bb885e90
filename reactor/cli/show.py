"""How answers are shown: tables for people in a terminal, JSON lines into a pipe or when asked."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reactor.log import printable

_encoder = msgspec.json.Encoder()


def as_json(asked: bool) -> bool:
    """Say whether to write JSON lines."""
    return asked or not sys.stdout.isatty()


def json_line(value: Any) -> None:
    """Write one value as one line, at once: a reader down the pipe waits for it."""
    sys.stdout.write(_encoder.encode(value).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; `numbers` names the columns that stand to the right."""
    shown = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(shown)


def line(text: str) -> None:
    """Print a line for people."""
    Console().print(Text(text))


def sums(counts: Mapping[str, int]) -> str:
    """Put counts by reason into one line, the most frequent first."""
    total = sum(counts.values())
    parts = ", ".join(
        f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda one: -one[1])
    )
    return f"{total} in all: {parts}" if parts else "none"


def moment(milliseconds: int) -> str:
    """Write a time of the wire (ms since 1970) as the clock on this machine's wall."""
    when = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    return when.strftime("%Y-%m-%d %H:%M:%S")


def clock(milliseconds: int | None = None) -> str:
    """Write the time of day of a time of the wire (ms since 1970), or of now, on this machine's wall."""
    when = datetime.now(UTC) if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return when.astimezone().strftime("%H:%M:%S")


def compact(value: Any) -> str:
    """Write any JSON value in a table's cell; nothing where there is none."""
    return "" if value is msgspec.UNSET else _encoder.encode(value).decode()
