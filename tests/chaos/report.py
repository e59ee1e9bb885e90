"""Prints a line for each schedule, the evidence of each finding, and a summary by fault."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.chaos.run import Outcome, by_fault

COLUMNS = (
    ("seed", 6), ("shape", 8), ("server", 7), ("faults", 50), ("clients", 7), ("sockets", 7),
    ("departures", 10), ("recovery", 8), ("seconds", 7), ("findings", 8),
)  # fmt: skip
"""The columns and their widths. recovery: seconds from the last fault until the state was correct."""

MOST_EVIDENCE = 12
_WIDE = 150


class Report:
    """Prints to a console. `rerun` is the command that runs one schedule again, without the seed."""

    def __init__(self, console: Console, rerun: str) -> None:
        self._console, self._rerun = console, rerun
        self._console.width = max(self._console.width, _WIDE)

    def header(self) -> None:
        self._row(*(Text(name, style="bold") for name, _ in COLUMNS))

    def outcome(self, outcome: Outcome, *, whole_log: bool = False) -> None:
        """Print the line of a schedule and its findings."""
        found = sum(finding.rule != "log" for finding in outcome.findings)
        self._row(
            str(outcome.seed), outcome.shape, outcome.kind, outcome.title, str(outcome.clients),
            str(outcome.sockets), str(outcome.departures), f"{outcome.recovered:.1f}",
            f"{outcome.seconds:.1f}",
            Text(str(found), style="bold red" if found else "green"),
        )  # fmt: skip
        seen: dict[str, int] = {}
        for finding in outcome.findings:
            seen[finding.rule] = seen.get(finding.rule, 0) + 1
            if finding.rule == "log" and not whole_log:
                continue
            if seen[finding.rule] > 3 and not whole_log:
                continue
            self._console.print(Text(f"   {finding.rule}: {finding.text}", style="red"))
            evidence = finding.evidence if whole_log else finding.evidence[-MOST_EVIDENCE:]
            for line in evidence:
                self._console.print(Text(f"      {line}" if whole_log else f"      {line[:400]}"))
        if found:
            sums = ", ".join(f"{number} {rule}" for rule, number in seen.items() if rule != "log")
            rerun = f"{self._rerun} --only {outcome.seed}"
            self._console.print(Text(f"   {sums}. Run it again: {rerun}", style="bold"))

    def summary(self, outcomes: list[Outcome], seconds: float) -> None:
        """Print the totals by fault and of all schedules."""
        table = Table("fault", "schedules", "with findings", "departures", title="by fault")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, (injected, bad, departures) in by_fault(outcomes).items():
            table.add_row(
                name, str(injected), Text(str(bad), style="bold red" if bad else "green"), str(departures)
            )
        self._console.print(table)
        bad = sum(bool(outcome.findings) for outcome in outcomes)
        times = sorted(outcome.recovered for outcome in outcomes) or [0.0]
        self._console.print(
            f"{len(outcomes)} schedules, {sum(outcome.clients for outcome in outcomes)} clients, "
            f"{sum(outcome.sockets for outcome in outcomes)} sockets, "
            f"{sum(outcome.departures for outcome in outcomes)} departures in {seconds:.0f} s; "
            f"recovered after {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s (longest); "
            f"with findings: {bad}"
        )

    def _row(self, *cells: str | Text) -> None:
        grid = Table.grid(padding=(0, 1))
        for _, width in COLUMNS:
            grid.add_column(width=width)
        grid.add_row(*cells)
        self._console.print(grid)
