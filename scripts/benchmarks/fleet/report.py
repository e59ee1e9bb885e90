"""What came out of the fleet benchmark: the table, and whether the figures are reached."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.benchmarks.running import console

SLACK = 2.0
"""Seconds that may pass beside lease and grace until a dead node's members are told of."""
WHOLE_WITHIN = 5.0
"""Seconds after an outage."""
EXIT_WITHIN = 10.0
"""Seconds from SIGTERM to the end of a node."""
GROWTH = 1.0
"""Commands for each expiry that a further node may cost."""

Row = tuple[str, str, str, bool | None]
"""What it is, how it came out, what is to be reached, and whether it is; None where nothing is."""


def report(result: dict[str, Any], output: Path) -> None:
    """Print the table."""
    table = Table(
        title=f"A fleet on {result['server_name']}, {result['machine']['cores']} cores",
        title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for heading in ("what", "measured", "to reach", ""):
        table.add_column(heading, no_wrap=heading != "what")
    for part, rows in (("ghosts", ghosts), ("deploy", deploy), ("outage", outages), ("expiries", expiries)):
        if part in result:
            for what, measured, goal, reached in rows(result):
                mark = "" if reached is None else "[green]reached[/]" if reached else "[red]missed[/]"
                table.add_row(what, measured, goal, mark)
            table.add_section()
    console.print(table)
    console.print(f"written: {output / 'fleet.json'}")


def ghosts(result: dict[str, Any]) -> Iterator[Row]:
    """Tell of killed nodes."""
    rounds, settings = result["ghosts"], result["settings"]
    goal = settings["lease"] + settings["grace"] + SLACK
    last = [one["last_s"] or math.inf for one in rounds]
    expected, once = (sum(one[name] for one in rounds) for name in ("to_be_told", "told_once"))
    wrong = sum(one["told_wrongly"] + one["wrong_joins"] for one in rounds)
    times = ", ".join(f"{seconds:.1f}" for seconds in sorted(last))
    yield (
        f"a node of two killed, {len(rounds)} times: until the last was told", f"{times} s", f"{goal:g} s",
        max(last) <= goal,
    )  # fmt: skip
    yield (
        "told exactly once", f"{once:,} of {expected:,}, {wrong} wrongly", "all, none",
        once == expected and not wrong,
    )  # fmt: skip


def deploy(result: dict[str, Any]) -> Iterator[Row]:
    """Tell of the deploy."""
    found = result["deploy"]
    restarts = found["restarts"]
    yield (
        f"{found['nodes']} nodes deployed under {found['clients']:,} clients: leaves, joins seen",
        f"{found['leaves_seen']}, {found['joins_seen']}", "0, 0",
        found["leaves_seen"] == found["joins_seen"] == 0 and found["whole_at_the_end"],
    )  # fmt: skip
    slowest = max(one["stopped_s"] for one in restarts)
    yield (
        "from SIGTERM to exit code 0", f"{slowest:.1f} s", f"{EXIT_WITHIN:g} s",
        slowest <= EXIT_WITHIN and not any(one["exit_code"] for one in restarts),
    )  # fmt: skip
    whole = ", ".join(f"{one['whole_s']:.1f}" for one in restarts)
    yield "from SIGTERM until all are back and hold the right lists", f"{whole} s", "", None
    yield (
        "one client's time without a connection",
        f"p50 {found['away_p50_s']:.1f} s, max {found['away_max_s']:.1f} s", "", None,
    )  # fmt: skip


def outages(result: dict[str, Any]) -> Iterator[Row]:
    """Tell of the outages."""
    for one in result["outage"]:
        whole = math.inf if one["whole_s"] is None else one["whole_s"]
        yield (
            f"Redis away for {one['outage_s']:g} s, {one['clients']:,} clients, {one['label']}: whole after",
            f"{whole:.1f} s", f"{WHOLE_WITHIN:g} s", whole <= WHOLE_WITHIN and not one["wrong_at_the_end"],
        )  # fmt: skip
        yield (
            "leaves, joins seen", f"{one['leaves_seen']}, {one['joins_seen']}", "0, 0",
            one["leaves_seen"] == one["joins_seen"] == 0,
        )  # fmt: skip


def expiries(result: dict[str, Any]) -> Iterator[Row]:
    """Tell what expiries cost."""
    found = result["expiries"]
    first = found[0]
    for one in found:
        further = one["nodes"] - first["nodes"]
        each = (one["commands_an_expiry"] - first["commands_an_expiry"]) / further if further else 0.0
        yield (
            f"Redis commands an expiry, {one['nodes']} node{'s' if one['nodes'] > 1 else ''}",
            f"{one['commands_an_expiry']:.1f}", f"+{GROWTH:g} a node" if further else "",
            each <= GROWTH if further else None,
        )  # fmt: skip
