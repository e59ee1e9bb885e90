"""Prints the doctor's findings: as tables in a terminal, as objects with stable keys for programs."""

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
    """A finding for a program. `command` is what --fix would send, or null."""
    return {
        "check": finding.check,
        "severity": finding.severity,
        "where": finding.where,
        "what": finding.what,
        "found": finding.found,
        "wanted": finding.wanted,
        "fix": finding.fix,
        "command": str(finding.command) if finding.command else None,
        "fixed": fixed,
    }


def as_line(finding: Finding) -> str:
    """A finding as one line of text."""
    where = f" ({finding.where})" if finding.where else ""
    wanted = f"; wanted: {finding.wanted}" if finding.wanted and finding.severity != "ok" else ""
    fix = f"; fix: {finding.fix}" if finding.fix else ""
    return printable(f"{finding.severity}: {finding.what}{where}: {finding.found}{wanted}{fix}")


def print_report(findings: Sequence[Finding], url: str, *, complete: bool) -> None:
    """Print the findings about Redis, those about the settings, the fixes, and a summary."""
    of_redis = [finding for finding in findings if finding.check != "settings"]
    of_settings = [finding for finding in findings if finding.check == "settings"]
    fixes: list[str] = []
    _section(f"Redis at {redacted(url)}", of_redis, fixes)
    _section("Settings", of_settings, fixes)
    if fixes:
        output.print_line("\nFixes (commands are for redis-cli, on each server concerned)\n")
    for number, fix in enumerate(fixes, 1):
        Console(soft_wrap=True).print(Text(f"[{number}] {printable(fix)}"))
    output.print_line(f"\n{_summary(findings, complete=complete)}")


def _section(title: str, findings: Sequence[Finding], fixes: list[str]) -> None:
    places = {finding.where for finding in findings if finding.where}
    sets = _sets(findings)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "WHAT", *(["WHERE"] if len(places) > 1 else []), "FOUND", "WANTED", "FIX"):
        table.add_column(column, overflow="fold", no_wrap=column in {"", "WHAT", "FIX"})
    for same in _grouped(findings):
        finding = same[0]
        where = [other.where for other in same]
        cells = [finding.what]
        if len(places) > 1:
            cells.append(sets.get(frozenset(where)) or " ".join(where))
        cells += [finding.found, finding.wanted, _number(finding.fix, fixes)]
        table.add_row(
            Text(finding.severity, style=_STYLES[finding.severity]),
            *(Text(printable(cell)) for cell in cells),
        )
    output.print_line(f"\n{title}\n")
    Console().print(table)


def _sets(findings: Sequence[Finding]) -> dict[frozenset[str], str]:
    """Sets of several servers with a name for them: all servers, and all of a kind."""
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


def _grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Groups of findings that differ only in their server."""
    groups: dict[Any, list[Finding]] = {}
    for finding in findings:
        key = (finding.check, finding.what, finding.found, finding.wanted, finding.fix, finding.severity)
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _number(fix: str, fixes: list[str]) -> str:
    """The number of a fix in the list below the tables, where it can be copied from one line."""
    if not fix:
        return ""
    if fix not in fixes:
        fixes.append(fix)
    return f"[{fixes.index(fix) + 1}]"


def _summary(findings: Sequence[Finding], *, complete: bool) -> str:
    rows = [same[0] for same in _grouped(findings)]
    problems = sum(row.severity == "problem" for row in rows)
    notes = sum(row.severity == "note" for row in rows)
    counted = ", ".join(
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((problems, "problem"), (notes, "note"))
        if count
    )
    if not complete:
        return f"Redis could not be examined. {counted}."
    commands = len({finding.fix for finding in findings if finding.command})
    hint = f" `reactor doctor --fix` can apply {commands} of the fixes." if commands else ""
    return f"{counted or 'All is well'}.{hint}"
