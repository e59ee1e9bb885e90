"""What came out of the expiry benchmark: the figures of a way, the table, the verdict, the files."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.benchmarks.clocks import ClockOffset
from scripts.benchmarks.expiry.plot import plot_expiry
from scripts.benchmarks.expiry.probes import Outcome
from scripts.benchmarks.figures import quantile, write_json
from scripts.benchmarks.running import console

GOAL_P50, GOAL_P99 = 5.0, 20.0
"""Milliseconds after the deadline, with the pacemaker."""


def summary(label: str, outcomes: Sequence[Outcome], *, settings: dict[str, Any]) -> dict[str, Any]:
    """Sum up a way. A probe that nobody told of counts as infinitely late."""
    failed = [outcome.failed for outcome in outcomes if outcome.failed]
    good = sorted((one for one in outcomes if not one.failed), key=lambda one: one.deadline)
    wrong = {outcome.reason for outcome in good} - {"inactivity_timeout", ""}
    sides: dict[str, Any] = {}
    for side, lates in (
        ("client", [outcome.client_late() for outcome in good]),
        ("others", [outcome.others_late() for outcome in good]),
    ):
        told = [late for late in lates if late < math.inf]
        sides[side] = {
            "delivered": len(told), "min_ms": _round(min(told, default=math.inf)),
            "p50_ms": _round(quantile(lates, 0.5)), "p99_ms": _round(quantile(lates, 0.99)),
            "max_ms": _round(max(lates, default=math.inf)), "late_ms": [_round(late) for late in lates],
        }  # fmt: skip
    return {
        "label": label, "settings": settings, "probes": len(outcomes), **sides,
        "deadlines_s": [round(outcome.deadline - good[0].deadline, 3) for outcome in good],
        "failed": failed[:10], "failures": len(failed), "wrong_reasons": sorted(wrong),
    }  # fmt: skip


def _round(late: float) -> float:
    return round(late, 3) if math.isfinite(late) else late


def table_of(result: dict[str, Any]) -> Table:
    """Lay the figures out for people."""
    table = Table(
        title=f"From the deadline to being told, {result['members']:,} idle members, {result['server_name']}",
        title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for heading in ("way", "to whom", "told", "p50", "p99", "max"):
        left = heading in {"way", "to whom"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for way in result["ways"].values():
        for side, who in (("client", "the member"), ("others", "the others")):
            figures = way[side]
            table.add_row(
                way["label"] if side == "client" else "", who,
                f"{figures['delivered']:,} of {way['probes']:,}",
                *(milliseconds(figures[name], result["patience"]) for name in ("p50_ms", "p99_ms", "max_ms")),
                end_section=side == "others",
            )  # fmt: skip
    return table


def milliseconds(value: float, patience: float) -> str:
    """Write a lateness; what was never told is later than the patience."""
    if not math.isfinite(value):
        return f"> {patience:g} s"
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def verdict(result: dict[str, Any]) -> str:
    """Say whether the pacemaker's way is as punctual as it has to be."""
    way = result["ways"].get("pacemaker")
    if way is None:
        return ""
    client = way["client"]
    good = (
        client["delivered"] == way["probes"] and client["p50_ms"] <= GOAL_P50 and client["p99_ms"] <= GOAL_P99
    )
    goal = f"with the pacemaker: all told, p50 at most {GOAL_P50:g} ms, p99 at most {GOAL_P99:g} ms"
    return f"[green]reached[/] {goal}" if good else f"[red]missed[/] {goal}"


def report(result: dict[str, Any], output: Path) -> None:
    """Print the table, and write the files."""
    console.print(table_of(result))
    offsets: list[ClockOffset] = [clock for way in result["ways"].values() for clock in way["clock"]]
    worst = max(offsets, key=lambda clock: clock.error + abs(clock.offset))
    console.print(
        f"[dim]Redis's clock against ours: {worst.offset * 1e6:+.0f} us, "
        f"known to {worst.error * 1e6:.0f} us. "
        f"A key lapses in the millisecond after its deadline, so 1 ms is the least.[/]"
    )
    for way in result["ways"].values():
        if way["failures"]:
            console.print(f"[red]{way['label']}: {way['failures']} probes failed: {way['failed'][0]}[/]")
        if way["wrong_reasons"]:
            console.print(
                f"[red]{way['label']}: left for other reasons: {', '.join(way['wrong_reasons'])}[/]"
            )
    console.print(verdict(result))
    write_json(output / "expiry.json", result)
    console.print(f"written: {output / 'expiry.json'}")
    if plot_expiry(result, output / "expiry.svg"):
        console.print(f"written: {output / 'expiry.svg'}")
    else:
        console.print("[yellow]no plot: matplotlib is missing, which the extra `bench` installs[/]")
