"""How the doctor's findings are shown: as tables for people, as objects with stable keys for programs."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reactor.cli import output
from reactor.doctor.finding import Finding
from reactor.log import printable
from reactor.settings.kinds import redacted

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def as_dict(finding: Finding, *, fixed: bool) -> dict[str, Any]:
    """A finding for a program. `fix` is the command by which --fix would mend it, or null."""
    return {
        "check": finding.check,
        "severity": finding.severity,
        "where": finding.where,
        "what": finding.what,
        "found": finding.found,
        "wanted": finding.wanted,
        "mend": finding.mend,
        "fix": str(finding.fix) if finding.fix else None,
        "fixed": fixed,
    }


def tell(findings: Sequence[Finding], url: str, *, looked: bool) -> None:
    """Print the report for people: Redis, the settings, what mends what, and the sum of it."""
    of_redis = [finding for finding in findings if finding.check != "settings"]
    of_settings = [finding for finding in findings if finding.check == "settings"]
    mends: list[str] = []
    _section(f"Redis at {redacted(url)}", of_redis, mends)
    _section("Settings", of_settings, mends)
    if mends:
        output.print_line("\nMends (commands are for redis-cli, on each server concerned)\n")
    for number, mend in enumerate(mends, 1):
        Console(soft_wrap=True).print(Text(f"[{number}] {printable(mend)}"))
    output.print_line(f"\n{_verdict(findings, looked=looked)}")


def _section(title: str, findings: Sequence[Finding], mends: list[str]) -> None:
    places = {finding.where for finding in findings if finding.where}
    sets = _sets(findings)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "WHAT", *(["WHERE"] if len(places) > 1 else []), "FOUND", "WANTED", "MEND"):
        table.add_column(column, overflow="fold", no_wrap=column in {"", "WHAT", "MEND"})
    for same in _together(findings):
        finding = same[0]
        where = [one.where for one in same]
        cells = [finding.what]
        if len(places) > 1:
            cells.append(sets.get(frozenset(where)) or " ".join(where))
        cells += [finding.found, finding.wanted, _number(finding.mend, mends)]
        table.add_row(
            Text(finding.severity, style=_STYLES[finding.severity]),
            *(Text(printable(cell)) for cell in cells),
        )
    output.print_line(f"\n{title}\n")
    Console().print(table)


def _sets(findings: Sequence[Finding]) -> dict[frozenset[str], str]:
    """Sets of several servers that have a name: all of them, and all of a kind."""
    kinds: dict[str, set[str]] = {}
    for finding in findings:
        if finding.check == "reachable":
            kinds.setdefault(finding.what, set()).add(finding.where)
    primaries, replicas = kinds.get("primary", set()), kinds.get("replica", set())
    named = [
        ("Sentinels", kinds.get("Sentinel", set())),
        ("primaries", primaries),
        ("replicas", replicas),
        ("servers", primaries | replicas),
    ]
    return {frozenset(where): f"all {len(where)} {word}" for word, where in named if len(where) > 1}


def _together(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings that differ only in their server, in one group."""
    groups: dict[Any, list[Finding]] = {}
    for finding in findings:
        alike = (finding.check, finding.what, finding.found, finding.wanted, finding.mend, finding.severity)
        groups.setdefault(alike, []).append(finding)
    return list(groups.values())


def _number(mend: str, mends: list[str]) -> str:
    """Where a mend stands below the tables: whole and on a line of its own, to be copied."""
    if not mend:
        return ""
    if mend not in mends:
        mends.append(mend)
    return f"[{mends.index(mend) + 1}]"


def _verdict(findings: Sequence[Finding], *, looked: bool) -> str:
    rows = [same[0] for same in _together(findings)]
    problems = sum(row.severity == "problem" for row in rows)
    notes = sum(row.severity == "note" for row in rows)
    counted = ", ".join(
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((problems, "problem"), (notes, "note"))
        if count
    )
    if not looked:
        return f"Could not look at this Redis. {counted}."
    fixes = len({finding.mend for finding in findings if finding.fix})
    hint = f" `reactor doctor --fix` offers to set {fixes} of the mends." if fixes else ""
    return f"{counted or 'All is well'}.{hint}"
