"""Reports the expiry benchmark: figures of each mechanism, table, verdict, files."""

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
    """Summarise a mechanism. A missing notification counts as infinitely late."""
    failed = [outcome.failed for outcome in outcomes if outcome.failed]
    good = sorted((one for one in outcomes if not one.failed), key=lambda one: one.deadline)
    wrong = {outcome.reason for outcome in good} - {"inactivity_timeout", ""}
    sides: dict[str, Any] = {}
    for side, lates in (
        ("client", [outcome.client_late() for outcome in good]),
        ("others", [outcome.others_late() for outcome in good]),
    ):
        notified = [late for late in lates if late < math.inf]
        sides[side] = {
            "delivered": len(notified), "min_ms": _round(min(notified, default=math.inf)),
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
    """Return the figures as a table."""
    table = Table(
        title=f"Lateness after an expiry, {result['members']:,} idle members, {result['server_name']}",
        title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for heading in ("mechanism", "receiver", "notified", "p50", "p99", "max"):
        left = heading in {"mechanism", "receiver"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for way in result["ways"].values():
        for side, receiver in (("client", "the silent member"), ("others", "the other member")):
            figures = way[side]
            table.add_row(
                way["label"] if side == "client" else "", receiver,
                f"{figures['delivered']:,} of {way['probes']:,}",
                *(milliseconds(figures[name], result["patience"]) for name in ("p50_ms", "p99_ms", "max_ms")),
                end_section=side == "others",
            )  # fmt: skip
    return table


def milliseconds(value: float, patience: float) -> str:
    """Format a lateness; a missing notification is later than the patience."""
    if not math.isfinite(value):
        return f"> {patience:g} s"
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def verdict(result: dict[str, Any]) -> str:
    """Return whether the goals with the pacemaker were reached."""
    way = result["ways"].get("pacemaker")
    if way is None:
        return ""
    client = way["client"]
    good = (
        client["delivered"] == way["probes"] and client["p50_ms"] <= GOAL_P50 and client["p99_ms"] <= GOAL_P99
    )
    goal = f"with the pacemaker: all notified, p50 at most {GOAL_P50:g} ms, p99 at most {GOAL_P99:g} ms"
    return f"[green]reached[/] {goal}" if good else f"[red]missed[/] {goal}"


def report(result: dict[str, Any], output: Path) -> None:
    """Print the table and write the files."""
    console.print(table_of(result))
    offsets: list[ClockOffset] = [clock for way in result["ways"].values() for clock in way["clock"]]
    worst = max(offsets, key=lambda clock: clock.error + abs(clock.offset))
    console.print(
        f"[dim]Offset of Redis's clock: {worst.offset * 1e6:+.0f} us, "
        f"known to {worst.error * 1e6:.0f} us. "
        f"A key expires in the millisecond after its deadline, so 1 ms is the minimum.[/]"
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
