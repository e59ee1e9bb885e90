"""The tables of the gateway benchmark, for a terminal and as Markdown."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

_BETWEEN = re.compile(r"(<!-- table: gateway -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Figure:
    """One figure: its place in the result, its format, and the goal."""

    work: str
    part: str
    key: str
    text: Callable[[float], str]
    goal: float
    more_is_better: bool = True

    def of(self, result: dict[str, Any], name: str) -> float | None:
        """Return the figure of one server, if it was measured."""
        found: Any = result.get(self.part, {}).get(name, {})
        for key in self.key.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, int | float) else None

    def beside_goal(self, value: float) -> str:
        """Return the figure as text, with more digits where it would read like a goal that it misses."""
        text = self.text(value)
        if self.goal == _NO_GOAL or self.reached(value) or text != self.text(self.goal):
            return text
        unit = text.partition(" ")[2]
        scale = {"KiB": 1024.0}.get(unit, 1.0)
        return f"{value / scale:,.2f} {unit}".strip()

    def reached(self, value: float) -> bool:
        """Whether the goal was reached."""
        return value >= self.goal if self.more_is_better else value <= self.goal


def _count(value: float) -> str:
    digits = 2 if value >= 1000 else 1  # more digits would be noise
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


_NO_GOAL = float("inf")
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
        "5,000 clients join rooms of 50, room after room: joins a CPU-second",
    ),
    (
        "storm",
        "at_once.joins_per_cpu_second",
        3_000,
        "5,000 clients join all these rooms at the same time: joins a CPU-second",
    ),
    ("one_room", "events_per_cpu_second", 3_000_000, "one room filled to 5,000: member events a CPU-second"),
    (
        "one_room",
        "lone.deliveries_per_cpu_second",
        100_000,
        "a single join in this room: deliveries a CPU-second",
    ),
)
_LESS = (
    (
        "kept",
        "server_cpu_seconds",
        _seconds,
        1.2,
        "server CPU for the heartbeats of 5,000 joined clients in 60 s",
    ),
    ("kept", "bytes_a_connection", _kib, 9 * 1024, "memory of a joined idle connection"),
    (
        "one_room",
        "seconds",
        _seconds,
        3.0,
        "one room filled to 5,000: time until every client has the whole list",
    ),
    (
        "one_room",
        "lone.server_part_ms_p50",
        _ms,
        50,
        "a single join in this room: from its arrival to the last write, p50",
    ),
    (
        "one_room",
        "lone.last_client_ms_p50",
        _ms,
        _NO_GOAL,
        "a single join in this room: until the last client has received it, p50",
    ),
    ("one_room", "list.ms_p50", _ms, 5, "a list of this room, p50"),
    (
        "kept",
        "other_messages",
        _count,
        0,
        "messages other than acknowledgements in rooms that are idle for 60 s",
    ),
    ("kept", "redis_cpu_seconds", _seconds, _NO_GOAL, "Redis CPU for these 5,000 clients in these 60 s"),
    ("kept", "redis_bytes_a_member", _bytes, _NO_GOAL, "Redis memory of a member"),
)
FIGURES = (
    *(Figure(work, part, key, _count, goal) for part, key, goal, work in _MORE),
    *(Figure(work, part, key, text, goal, False) for part, key, text, goal, work in _LESS),
)


REASONS = {
    "per_cpu_second": "half is the interpreter, two fifths the kernel, with a read and a write for each",
    "server_cpu_seconds": "each of 12,000 heartbeats arrives alone, and costs a wake-up, a read and a write "
    "with cold caches; this is most of it (compare the bare echo below). A batch for Redis every 0.1 s adds "
    "a tenth, and the timers of the node take 0.2 s",
    "at_once.joins_per_cpu_second": "the changes of a room are so far apart that a join causes 13 messages: "
    "a third is the kernel, most of it for writing them; half is the interpreter",
    "in_turn.joins_per_cpu_second": "half is the interpreter, a third the kernel",
    "events_per_cpu_second": "half is the kernel, which copies 3 GB of lists and changes",
    "seconds": "the server works for half of that time; the load generator has to read 3 GB, shares its core "
    "with Redis, and is never idle",
    "lone.server_part_ms_p50": "5,000 writes of 6 us each, nearly all of it in the kernel; building them "
    "takes 5 ms, Redis and the list for the new member 1 ms",
    "lone.deliveries_per_cpu_second": "6 us per write, nearly all of it in the kernel",
    "list.ms_p50": "the load generator's time to read half a megabyte",
}
"""Why a goal was missed, by perf and py-spy."""


def missed(result: dict[str, Any]) -> Iterator[str]:
    """Return a sentence for each goal that was missed, with the reason."""
    for line in FIGURES:
        ours = line.of(result, "reactor")
        if ours is not None and not line.reached(ours):
            missed_goal = f"{line.work}, {line.beside_goal(ours)} with a goal of {line.text(line.goal)}"
            yield f"Missed: {missed_goal}. By profile: {REASONS.get(line.key, 'not known')}.\n"


def ratio(line: Figure, ours: float | None, theirs: float | None) -> str:
    """Return how many times better our figure is."""
    if not ours or not theirs:
        return ""
    times = ours / theirs if line.more_is_better else theirs / ours
    return f"{times:.1f} x" if times < 10 else f"{times:.0f} x"


def rows_of(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Return work, our figure, that of Socket.IO, the ratio and the goal, for each measured figure."""
    for line in FIGURES:
        ours, theirs = line.of(result, "reactor"), line.of(result, "socketio")
        if ours is None:
            continue
        goal = "" if line.goal == _NO_GOAL else line.text(line.goal)
        if goal and not line.reached(ours):
            goal += ", missed"
        yield (
            line.work, line.beside_goal(ours), "" if theirs is None else line.text(theirs),
            ratio(line, ours, theirs), goal,
        )  # fmt: skip


def centrifugo_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return work, our figure, that of Centrifugo, and the ratio, where it was measured."""
    for line in FIGURES:
        ours, theirs = line.of(result, "reactor"), line.of(result, "centrifugo")
        if ours is not None and theirs is not None and line.key != "other_messages":
            yield line.work, line.text(ours), line.text(theirs), ratio(line, ours, theirs)


def echo_rows(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the figures of the bare echo servers."""
    for name in ("websockets", "picows"):
        found = result.get("heartbeats", {}).get(name)
        if found:
            yield name, _count(found["per_cpu_second"])


def _echoes(result: dict[str, Any]) -> str:
    rates = " and ".join(f"{name} {figure}" for name, figure in echo_rows(result))
    text = f"Bare echo servers, at messages of the same size and without any work: {rates} a CPU-second."
    if alone := result.get("kept", {}).get("picows"):
        seconds, messages = _seconds(alone["server_cpu_seconds"]), alone["heartbeats"]
        text += f" On {messages:,} messages in those 60 s, each of them alone, picows spends {seconds}."
    return text + "\n"


def growth_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return the cost of the operations by size."""
    for what in ("connections", "members", "workers"):
        for row in result.get("growth", {}).get(what, ()):
            costs = [f"{row[key]:.0f} us" for key in ("heartbeat_us", "join_us")]
            redis = [f"{row[key]:.1f} us" for key in ("heartbeat_redis_us", "join_redis_us")]
            name = what if row[what] > 1 else what[:-1]
            bare = f"{row['bare_redis_us']:.1f} us" if "bare_redis_us" in row else ""
            cells = f"{row[what]:,} {name}", costs[0], redis[0], costs[1], redis[1], bare
            yield cells if _has_bare(result) else cells[:-1]


def _has_bare(result: dict[str, Any]) -> bool:
    """Return whether bare commands were measured, too."""
    return any("bare_redis_us" in row for row in result["growth"].get("members", ()))


def slow_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return the effect of clients that do not read."""
    for name, row in result.get("slow", {}).items():
        yield (
            "all clients read" if name == "awake" else f"{row['stalled']} of {row['members']} do not read",
            _ms(row["others_ms_p50"]), _ms(row["others_ms_p99"]), _seconds(row["server_cpu_seconds"]),
            f"{max(0, row['most_bytes_more']) / 2**20:.1f} MiB", str(row["cut_off"]),
        )  # fmt: skip


MAIN = ("work", "reactor", "Socket.IO 4 + ioredis", "ratio", "goal")
CENTRIFUGO = ("work", "reactor", "Centrifugo 6", "ratio")
CENTRIFUGO_NOTE = (
    "Centrifugo keeps presence in Redis under a TTL, too. There the server sends the heartbeats, and renews "
    "what is in Redis by itself; a client that vanishes is noticed by the missing answer.\n"
)
ECHO = ("bare echo", "messages a CPU-second")
GROWTH = (
    "size", "a heartbeat: server", "Redis", "a join and a leave: server", "Redis", "bare commands: Redis",
)  # fmt: skip
GROWTH_NOTE = (
    "The cost is that of all workers together; the load is proportional to their number. Every worker with a "
    "member in a room receives its changes, so a join costs more with each further worker.\n"
)
BARE_NOTE = (
    "Bare commands write and delete such keys and entries, 32 members at a time, without script, check or "
    "diff: what they cost more among more members is Redis's memory alone.\n"
)
SLOW = (
    "clients",
    "received by the reading clients, p50",
    "p99",
    "server CPU",
    "extra memory",
    "closed with 4008",
)


def markdown(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    machine = result["machine"]
    parts = [_table(MAIN, rows_of(result))]
    parts += missed(result)
    if list(centrifugo_rows(result)):
        parts += [_table(CENTRIFUGO, centrifugo_rows(result)), CENTRIFUGO_NOTE]
    if list(echo_rows(result)):
        parts.append(_echoes(result))
    if result.get("slow"):
        parts.append(_table(SLOW, slow_rows(result)))
    if result.get("growth"):
        bare = _has_bare(result)
        parts.append(_table(GROWTH if bare else GROWTH[:-1], growth_rows(result)))
        parts += [GROWTH_NOTE, BARE_NOTE] if bare else [GROWTH_NOTE]
    parts.append(
        f"Made on {machine['cores']} cores of {machine['cpu']}, {machine['system']}, "
        f"Python {machine['python']}, {result['redis']}, at commit {_commits(result)}.\n"
    )
    return "\n".join(parts)


def _commits(result: dict[str, Any]) -> str:
    """Return the commit that was measured; of each part, where they differ."""
    parts_of: dict[str, list[str]] = {}
    for part, measured in result["measured"].items():
        parts_of.setdefault(measured["commit"], []).append(part)
    if len(parts_of) == 1:
        return next(iter(parts_of))
    return "; ".join(f"{commit} ({', '.join(parts)})" for commit, parts in parts_of.items())


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def print_tables(result: dict[str, Any]) -> None:
    """Print all tables."""
    console = Console()
    tables = (
        (MAIN, rows_of(result)), (CENTRIFUGO, centrifugo_rows(result)), (ECHO, echo_rows(result)),
        (SLOW, slow_rows(result)), (GROWTH, growth_rows(result)),
    )  # fmt: skip
    for head, rows in tables:
        table = Table(*head)
        for row in rows:
            table.add_row(*row, style="red" if row[-1].endswith("missed") else None)
        if table.row_count:
            console.print(table)


def put_into(readme: str, table: str) -> str:
    """Insert the tables between their marks."""
    return _BETWEEN.sub(lambda found: found[1] + table + found[2], readme)
