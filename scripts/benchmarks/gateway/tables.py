"""The tables of the gateway's benchmark: in a terminal, and in Markdown for the README."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

_BETWEEN = re.compile(r"(<!-- table: gateway -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One figure: where it is in the result, how it is told, and what was aimed at."""

    work: str
    part: str
    key: str
    tell: Callable[[float], str]
    aim: float
    more_is_better: bool = True

    def of(self, result: dict[str, Any], name: str) -> float | None:
        """Give the figure of one server, if it was measured."""
        found: Any = result.get(self.part, {}).get(name, {})
        for key in self.key.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, int | float) else None

    def reached(self, value: float) -> bool:
        """Whether the aim was reached."""
        return value >= self.aim if self.more_is_better else value <= self.aim


def _count(value: float) -> str:
    digits = 2 if value >= 1000 else 1  # of three that count, the last is noise
    step = 10 ** max(0, len(str(int(value))) - digits - 1)
    return f"{round(value / step) * step:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _bytes(value: float) -> str:
    return f"{value:.0f} B"


def _kib(value: float) -> str:
    return f"{value / 1024:.1f} KiB"


_NO_AIM = float("inf")
_MORE = (
    (
        "heartbeats",
        "per_cpu_second",
        75_000,
        "heartbeats acknowledged a CPU-second, 200 connections in a loop",
    ),
    (
        "storm",
        "in_turn.joins_per_cpu_second",
        3_000,
        "5,000 clients join rooms of 50 in turn: joins a CPU-second",
    ),
    ("storm", "at_once.joins_per_cpu_second", 3_000, "5,000 clients join all those rooms at once: the same"),
    ("one_room", "events_per_cpu_second", 3_000_000, "one room filled to 5,000: member events a CPU-second"),
    ("one_room", "lone.deliveries_per_cpu_second", 100_000, "a lone join in it: deliveries a CPU-second"),
)
_LESS = (
    ("kept", "server_cpu_seconds", _seconds, 1.2, "server CPU for 5,000 joined clients kept alive 60 s"),
    ("kept", "bytes_a_connection", _kib, 9 * 1024, "memory of a joined idle connection"),
    ("one_room", "seconds", _seconds, 3.0, "one room filled to 5,000: time until all see all"),
    (
        "one_room",
        "lone.server_part_ms_p50",
        _ms,
        50,
        "a lone join in it: from its arrival to the last write, p50",
    ),
    ("one_room", "lone.last_client_ms_p50", _ms, _NO_AIM, "the same: until the last client has it, p50"),
    ("one_room", "list.ms_p50", _ms, 5, "a list of that room, p50"),
    ("kept", "other_messages", _count, 0, "messages beside acknowledgements in rooms that idle for 60 s"),
    ("kept", "redis_cpu_seconds", _seconds, _NO_AIM, "Redis CPU for those 5,000 clients in those 60 s"),
    ("kept", "redis_bytes_a_member", _bytes, _NO_AIM, "Redis memory of a member"),
)
LINES = (
    *(Line(work, part, key, _count, aim) for part, key, aim, work in _MORE),
    *(Line(work, part, key, tell, aim, False) for part, key, tell, aim, work in _LESS),
)


REASONS = {
    "per_cpu_second": "half is the interpreter, two fifths the kernel, a read and a write for each",
    "server_cpu_seconds": "each of 12,000 heartbeats comes alone, and is a wake-up, a read and a write with "
    "cold caches, which is most of it (below: what a bare echo spends on them); a batch for Redis every "
    "0.1 s adds a tenth, and 0.2 s are the node's own clockwork",
    "at_once.joins_per_cpu_second": "the changes of a room lie so far apart that a join is 13 messages: "
    "a third is the kernel, most of it for writing them; half is the interpreter",
    "in_turn.joins_per_cpu_second": "half is the interpreter, a third the kernel",
    "events_per_cpu_second": "half is the kernel, copying 3 GB of lists and changes",
    "seconds": "the server works for half of that time; 3 GB have to be read by a load generator that shares "
    "its core with Redis, and that core has no rest",
    "lone.server_part_ms_p50": "5,000 writes at 6 us each, nearly all of it the kernel's; 5 ms go into "
    "putting them together, 1 ms into Redis and the joiner's list",
    "lone.deliveries_per_cpu_second": "6 us a write, nearly all of it the kernel's",
    "list.ms_p50": "the load generator's time to read half a megabyte",
}
"""Why an aim is missed where it is, by perf and py-spy."""


def missed(result: dict[str, Any]) -> Iterator[str]:
    """Tell of each aim that was missed, and why."""
    for line in LINES:
        ours = line.of(result, "reactor")
        if ours is not None and not line.reached(ours):
            told = f"{line.work}, {line.tell(ours)} where {line.tell(line.aim)} was aimed at"
            yield f"Missed: {told}. By profile: {REASONS.get(line.key, 'not known')}.\n"


def ratio(line: Line, ours: float | None, theirs: float | None) -> str:
    """Tell how many times better ours is."""
    if not ours or not theirs:
        return ""
    times = ours / theirs if line.more_is_better else theirs / ours
    return f"{times:.1f} x" if times < 10 else f"{times:.0f} x"


def rows_of(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Give work, ours, Socket.IO's, the ratio and the aim, for each figure that was measured."""
    for line in LINES:
        ours, theirs = line.of(result, "reactor"), line.of(result, "socketio")
        if ours is None:
            continue
        aim = "" if line.aim == _NO_AIM else line.tell(line.aim)
        if aim and not line.reached(ours):
            aim += ", missed"
        yield (
            line.work, line.tell(ours), "" if theirs is None else line.tell(theirs),
            ratio(line, ours, theirs), aim,
        )  # fmt: skip


def echo_rows(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the bare echo servers' figures."""
    for name in ("websockets", "picows"):
        found = result.get("heartbeats", {}).get(name)
        if found:
            yield name, _count(found["per_cpu_second"])


def _echoes(result: dict[str, Any]) -> str:
    told = " and ".join(f"{name} {figure}" for name, figure in echo_rows(result))
    text = f"Bare echo servers, at messages of the same size and without any work: {told} a CPU-second."
    if alone := result.get("kept", {}).get("picows"):
        seconds, messages = _seconds(alone["server_cpu_seconds"]), alone["heartbeats"]
        text += f" On {messages:,} messages in those 60 s, each of them alone, picows spends {seconds}."
    return text + "\n"


def growth_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Give the size and the cost of an operation at it."""
    for what in ("connections", "members", "workers"):
        for row in result.get("growth", {}).get(what, ()):
            costs = [f"{row[key]:.0f} us" for key in ("heartbeat_us", "join_us")]
            redis = [f"{row[key]:.1f} us" for key in ("heartbeat_redis_us", "join_redis_us")]
            name = what if row[what] > 1 else what[:-1]
            yield f"{row[what]:,} {name}", costs[0], redis[0], costs[1], redis[1]


def slow_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Give what others notice of readers that do not read."""
    for name, row in result.get("slow", {}).items():
        yield (
            "all read" if name == "awake" else f"{row['stalled']} of {row['members']} do not",
            _ms(row["others_ms_p50"]), _ms(row["others_ms_p99"]), _seconds(row["server_cpu_seconds"]),
            f"{max(0, row['most_bytes_more']) / 2**20:.1f} MiB", str(row["cut_off"]),
        )  # fmt: skip


MAIN = ("work", "reactor", "Socket.IO 4 + ioredis", "ratio", "aim")
ECHO = ("bare echo", "messages a CPU-second")
GROWTH = ("at", "a heartbeat: server", "Redis", "a join and a leave: server", "Redis")
GROWTH_TOLD = (
    "The cost is that of all workers, and with more of them there is more to do, so that each has as much as "
    "one alone. A change of a room is heard by every worker that has a member of it: so a join costs more "
    "with each of them.\n"
)
SLOW = ("of the readers", "others have it, p50", "p99", "server CPU", "memory on top", "cut off (4008)")


def markdown(result: dict[str, Any]) -> str:
    """Write the README's tables."""
    machine = result["machine"]
    parts = [_table(MAIN, rows_of(result))]
    parts += missed(result)
    if list(echo_rows(result)):
        parts.append(_echoes(result))
    if result.get("slow"):
        parts.append(_table(SLOW, slow_rows(result)))
    if result.get("growth"):
        parts.append(_table(GROWTH, growth_rows(result)))
        parts.append(GROWTH_TOLD)
    parts.append(
        f"Made on {machine['cores']} cores of {machine['cpu']}, {machine['system']}, "
        f"Python {machine['python']}, {result['redis']}, at commit {machine['commit']}.\n"
    )
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def print_tables(result: dict[str, Any]) -> None:
    """Print all tables."""
    console = Console()
    tables = (
        (MAIN, rows_of(result)), (ECHO, echo_rows(result)),
        (SLOW, slow_rows(result)), (GROWTH, growth_rows(result)),
    )  # fmt: skip
    for head, rows in tables:
        table = Table(*head)
        for row in rows:
            table.add_row(*row, style="red" if row[-1].endswith("missed") else None)
        if table.row_count:
            console.print(table)


def put_into(readme: str, table: str) -> str:
    """Put the tables between their marks."""
    return _BETWEEN.sub(lambda found: found[1] + table + found[2], readme)
