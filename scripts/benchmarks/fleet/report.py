"""Reports the fleet benchmark: the table, and whether the goals were reached."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.benchmarks.running import console

SLACK = 2.0
"""Goal: seconds beyond lease and grace until the departures of a dead node are sent."""
CONVERGED_WITHIN = 5.0
"""Goal: seconds after an outage until everything is correct again."""
SCRIPT_US = 40.0
"""Goal: microseconds of Redis for each member that returns after it lost its data."""
EXIT_WITHIN = 10.0
"""Goal: seconds from SIGTERM to the exit of a node."""
GROWTH = 1.0
"""Goal: commands per expiry that each further node may add."""

RETURN_SHARE, RETURN_CPU = 0.05, 0.5
"""Goals: the share of the bytes and of the CPU time of lists that a return by position takes."""

Row = tuple[str, str, str, bool | None]
"""Description, measured value, goal, and whether it was reached; None without a goal."""


def report(result: dict[str, Any], output: Path) -> None:
    """Print the table."""
    table = Table(
        title=f"A fleet on {result['server_name']}, {result['machine']['cores']} cores",
        title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for heading in ("what", "measured", "goal", ""):
        table.add_column(heading, no_wrap=heading != "what")
    for part, rows in (
        ("ghosts", ghosts),
        ("deploy", deploy),
        ("outage", outages),
        ("returns", returns),
        ("expiries", expiries),
    ):
        if part in result:
            for what, measured, goal, reached in rows(result):
                mark = "" if reached is None else "[green]reached[/]" if reached else "[red]missed[/]"
                table.add_row(what, measured, goal, mark)
            table.add_section()
    console.print(table)
    console.print(f"written: {output / 'fleet.json'}")


def ghosts(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows about killed nodes."""
    rounds, settings = result["ghosts"], result["settings"]
    goal = settings["lease"] + settings["grace"] + SLACK
    last = [one["last_s"] or math.inf for one in rounds]
    expected, once = (
        sum(one[name] for one in rounds) for name in ("notifications_expected", "notified_once")
    )
    wrong = sum(one["notified_wrongly"] + one["wrong_joins"] for one in rounds)
    times = ", ".join(f"{seconds:.1f}" for seconds in sorted(last))
    yield (
        f"one of two nodes killed, {len(rounds)} times: last departure received", f"{times} s", f"{goal:g} s",
        max(last) <= goal,
    )  # fmt: skip
    yield (
        "departures received exactly once", f"{once:,} of {expected:,}, {wrong} wrongly", "all, none",
        once == expected and not wrong,
    )  # fmt: skip


def returns(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows about clients that return to another node."""
    found = result["returns"]
    for lists, diffs in zip(found[::2], found[1::2], strict=True):
        what = (
            f"{diffs['returned']:,} clients return, rooms of {diffs['room_size']}, "
            f"{diffs['changes_a_second']:g} changes a second"
        )
        share = diffs["room_bytes"] / max(1, lists["room_bytes"])
        yield (
            f"{what}: bytes of lists, and with recent diffs",
            f"{lists['room_bytes'] / 1e6:,.1f} MB, {diffs['room_bytes'] / 1e6:,.2f} MB ({share:.1%})",
            "5 %",
            share <= RETURN_SHARE,
        )
        cpu = diffs["cpu_s"] / max(0.001, lists["cpu_s"])
        yield (
            "the same: CPU of the node to which they return",
            f"{lists['cpu_s']:.2f} s, {diffs['cpu_s']:.2f} s ({cpu:.0%})", "50 %", cpu <= RETURN_CPU,
        )  # fmt: skip


def deploy(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows about the rolling deploy."""
    found = result["deploy"]
    restarts = found["restarts"]
    yield (
        f"{found['nodes']} nodes redeployed with {found['clients']:,} clients: leaves, joins seen",
        f"{found['leaves_seen']}, {found['joins_seen']}", "0, 0",
        found["leaves_seen"] == found["joins_seen"] == 0 and found["whole_at_the_end"],
    )  # fmt: skip
    slowest = max(one["stopped_s"] for one in restarts)
    yield (
        "from SIGTERM to exit code 0", f"{slowest:.1f} s", f"{EXIT_WITHIN:g} s",
        slowest <= EXIT_WITHIN and not any(one["exit_code"] for one in restarts),
    )  # fmt: skip
    converged = ", ".join(f"{one['whole_s']:.1f}" for one in restarts)
    yield "from SIGTERM until all clients are back with correct lists", f"{converged} s", "", None
    yield (
        "time of a client without a connection",
        f"p50 {found['away_p50_s']:.1f} s, max {found['away_max_s']:.1f} s", "", None,
    )  # fmt: skip


def outages(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows about the outages."""
    for one in result["outage"]:
        converged = math.inf if one["whole_s"] is None else one["whole_s"]
        yield (
            f"Redis {one['label']}, {one['outage_s']:g} s, {one['clients']:,} clients: until correct",
            f"{converged:.1f} s", f"{CONVERGED_WITHIN:g} s",
            converged <= CONVERGED_WITHIN and not one["wrong_at_the_end"],
        )  # fmt: skip
        if one.get("script_us_a_member") is not None:
            yield (
                "the same: time of Redis in scripts, a member",
                f"{one['script_us_a_member']:.0f} us", f"{SCRIPT_US:g} us",
                one["script_us_a_member"] <= SCRIPT_US,
            )  # fmt: skip
        yield (
            "leaves, joins seen", f"{one['leaves_seen']}, {one['joins_seen']}", "0, 0",
            one["leaves_seen"] == one["joins_seen"] == 0,
        )  # fmt: skip


def expiries(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows about the cost of expiries."""
    found = result["expiries"]
    first = found[0]
    for one in found:
        further = one["nodes"] - first["nodes"]
        each = (one["commands_an_expiry"] - first["commands_an_expiry"]) / further if further else 0.0
        yield (
            f"Redis commands per expiry, {one['nodes']} node{'s' if one['nodes'] > 1 else ''}",
            f"{one['commands_an_expiry']:.1f}", f"+{GROWTH:g} per node" if further else "",
            each <= GROWTH if further else None,
        )  # fmt: skip
