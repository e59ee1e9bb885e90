"""Reports the expiry lab: tables for a terminal and for README.md, and the data of `reactor doctor`."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.benchmarks.expiry.matrix import WAYS
from scripts.benchmarks.expiry.stages import STAGES
from scripts.benchmarks.figures import write_json
from scripts.benchmarks.running import ROOT, console

DOCTOR_TABLE = ROOT / "reactor" / "doctor" / "expiry_table.json"
README = ROOT / "scripts" / "README.md"
_BETWEEN = re.compile(r"(<!-- table: expiry -->\n).*?(<!-- end expiry -->)", re.DOTALL)
_STAGES = ("stage", "p50", "p99")
_RATES = (
    "expiries", "bare touch p50", "p99", "client p50", "p99", "p99.9", "noticed",
    "heartbeat p99 before", "meanwhile", "node CPU each", "Redis CPU each",
)  # fmt: skip

Row = tuple[str, ...]


def late(value: float | None) -> str:
    """Return a lateness in ms as text; what was never noticed has none."""
    if value is None or not math.isfinite(value):
        return "never"
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def matrix_head(result: dict[str, Any]) -> Row:
    """Return the columns of the matrix: one for each server."""
    return ("idle keys", "way", *result["servers"], "Redis CPU a second")


def matrix_rows(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows of the matrix: p50 and p99 of each way on each server, and how many were noticed."""
    cells = {(cell["keys"], cell["way"], cell["server"]): cell for cell in result.get("matrix", ())}
    for keys in sorted({keys for keys, _, _ in cells}):
        for way in WAYS:
            found = [cells.get((keys, way, server)) for server in result["servers"]]
            if any(found):
                used = sorted(cell["redis_cpu"] * 1000 for cell in found if cell is not None)
                cpu = f"{used[0]:.0f} to {used[-1]:.0f} ms" if used[-1] >= 1 else "less than 1 ms"
                yield f"{keys:,}", result["labels"][way], *map(_cell, found), cpu


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    times = f"{late(cell['p50_ms'])}, {late(cell['p99_ms'])}"
    missing = cell["delivered"] < cell["probes"]
    return f"{times} ({cell['delivered']} of {cell['probes']})" if missing else times


def stage_rows(result: dict[str, Any]) -> Iterator[Row]:
    """Return the stages, and below them the sum as clients see it beside a bare touch."""
    stages = result.get("stages")
    if not stages:
        return
    for name, (_, about) in STAGES.items():
        figures = stages["stages"].get(name)
        times = [f"{figures[key]:.2f} ms" if figures else "" for key in ("p50_ms", "p99_ms")]
        yield f"{name}: {about}", *times
    for name, label in (("client", "**together, to the client**"), ("touch", "**a bare touch**")):
        yield label, *(late(stages[name][key]) for key in ("p50_ms", "p99_ms"))
    yield "Redis CPU of all these seconds", f"{stages['redis_cpu_s']:.2f} s", ""


def ratio_line(result: dict[str, Any]) -> str:
    """Return how many times the lateness of a bare touch the whole path takes."""
    stages = result.get("stages")
    if not stages:
        return ""
    ratios = []
    for name in ("p50", "p99"):
        ours, least = (stages[side][f"{name}_ms"] for side in ("client", "touch"))
        ratios.append(f"{name} {ours / least:.1f}" if math.isfinite(ours) and least else f"{name} never")
    return (
        f"On {stages['server']} ({stages['version']}), {stages['members']:,} idle members, "
        f"{stages['client']['probes']:,} silent clients. Times the lateness of a bare touch in "
        f"the same seconds: {', '.join(ratios)}."
    )


def rate_rows(result: dict[str, Any]) -> Iterator[Row]:
    """Return the rows of the rates."""
    for row in result.get("rates", {}).get("rows", ()):
        touch, client = row["touch"], row["pacemaker"]
        yield (
            row["rate"], late(touch["p50_ms"]), late(touch["p99_ms"]),
            *(late(client[name]) for name in ("p50_ms", "p99_ms", "p999_ms")),
            f"{client['delivered']:,} of {client['probes']:,}",
            late(row["heartbeat_quiet"]["p99_ms"]), late(row["heartbeat_busy"]["p99_ms"]),
            f"{row['node_cpu_us']:.0f} us", f"{row['redis_cpu_us']:.0f} us",
        )  # fmt: skip


def markdown(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    machine, parts = result["machine"], []
    before, after = result["load_average"]
    if result.get("matrix"):
        parts.append(_table(matrix_head(result), matrix_rows(result)))
        parts.append(
            f"p50 and p99 of {result['probes']} keys in each cell; `never` is later than "
            f"{result['patience']:g} s. The CPU is that of all that Redis did meanwhile; the pacemaker and "
            "the bare read share theirs.\n"
        )
    if result.get("stages"):
        parts += [_table(_STAGES, stage_rows(result)), ratio_line(result) + "\n"]
    if rates := result.get("rates"):
        parts.append(_table(_RATES, rate_rows(result)))
        parts.append(
            f"On {rates['server']} ({rates['version']}), in {rates['rooms']} rooms with one client each, "
            "which sends a heartbeat every 0.5 s; one waits up to 0.1 s for others. "
            "CPU includes these heartbeats.\n"
        )
    versions = ", ".join(f"{name} {version}" for name, version in result["servers"].items())
    parts.append(
        f"Made on {machine['cores']} cores of {machine['cpu']}, {machine['system']}, Python "
        f"{machine['python']}, at commit {machine['commit']}, with a load between {min(before, after)} "
        f"and {max(before, after)}. Releases: {versions}.\n"
    )
    return "\n".join(parts)


def print_report(result: dict[str, Any]) -> None:
    """Print all tables."""
    tables = (
        (matrix_head(result), matrix_rows(result)),
        (_STAGES, stage_rows(result)),
        (_RATES, rate_rows(result)),
    )  # fmt: skip
    for head, rows in tables:
        table = Table(*head, box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        if table.row_count:
            console.print(table)
    console.print(ratio_line(result))


def doctor_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what `reactor doctor` knows of each server and number of keys."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in result.get("matrix", ()):
        row = rows.setdefault(
            (cell["server"], cell["keys"]),
            {
                "server": cell["server"],
                "keys": cell["keys"],
                "probes": cell["probes"],
                "within_s": result["patience"],
            },
        )
        row[cell["way"]] = {
            "delivered": cell["delivered"],
            "p50_ms": _whole(cell["p50_ms"]), "p99_ms": _whole(cell["p99_ms"]),
        }  # fmt: skip
    return [rows[place] for place in sorted(rows)]


def _whole(value: float) -> float:
    return round(value, 1) if math.isfinite(value) else math.inf


def read_result(path: Path) -> dict[str, Any]:
    """Return a result as it was before it was written: what was never noticed is infinitely late."""
    result: dict[str, Any] = json.loads(path.read_text())
    return {**_numbers(result), "machine": result["machine"]}


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return math.inf if value is None else value


def update_documents(result: dict[str, Any], readme: Path = README, doctor: Path = DOCTOR_TABLE) -> None:
    """Write the tables into README.md, and the doctor's data."""
    text = readme.read_text(encoding="utf-8")
    readme.write_text(
        _BETWEEN.sub(lambda found: found[1] + markdown(result) + found[2], text), encoding="utf-8"
    )
    if result.get("matrix"):
        machine = result["machine"]
        about = f"{machine['cores']} cores, {machine['date'][:10]}, commit {machine['commit']}"
        write_json(doctor, {"measured": about, "rows": doctor_rows(result)})


def _table(head: Sequence[str], rows: Iterator[Row]) -> str:
    lines = [tuple(head), ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
