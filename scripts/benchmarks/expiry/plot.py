"""Plots the share of clients notified within a time after an expiry, on a logarithmic scale."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INK, FAINT, PAPER = "#1f2937", "#6b7280", "#ffffff"
COLOURS = {"pacemaker": "#0f766e", "events": "#c2410c", "sweep": "#6d28d9"}
MARKS_MS = {1: "1 ms", 10: "10 ms", 100: "100 ms", 1_000: "1 s", 10_000: "10 s", 60_000: "1 min"}
POINTS = 250
"""Maximum number of points of a curve; more would only make the file larger."""


def plot_expiry(result: dict[str, Any], path: Path) -> bool:
    """Plot the result of the expiry benchmark; return False without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError:
        return False
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 10, "svg.hashsalt": "reactor"}
    patience = result["patience"] * 1000
    figure, axes = plt.subplots(figsize=(9, 4.4), dpi=160, facecolor=PAPER)
    axes.set_facecolor(PAPER)
    for way, figures in result["ways"].items():
        notified, probes = _lateness_of(figures["client"]), figures["probes"]
        colour = COLOURS[way]
        axes.step(*_curve(notified, probes, patience), where="post", color=colour, linewidth=2.4, zorder=3)
        others = _curve(_lateness_of(figures["others"]), probes, patience)
        axes.step(
            *others, where="post", color=colour, linewidth=1.0, linestyle=(0, (4, 2)), alpha=0.8, zorder=2
        )
        _label(axes, way, figures, patience)
    axes.set_xscale("log")
    marks = {late: mark for late, mark in MARKS_MS.items() if late <= patience}
    axes.set_xticks(list(marks), labels=list(marks.values()))
    axes.set_xlim(0.7, patience)
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25 %", "50 %", "75 %", "100 %"])
    axes.minorticks_off()
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.8, zorder=0)
    axes.tick_params(length=0, colors=FAINT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#9ca3af")
    axes.set_xlabel("time after the deadline of the silent member (logarithmic)", color=FAINT)
    figure.suptitle(
        f"Expiry lateness: "
        f"{result['members']:,} idle members, {result['probes']:,} probes",
        x=0.02, ha="left", fontsize=13, fontweight="bold", color=INK,
    )  # fmt: skip
    machine = result["machine"]
    axes.set_title(
        f"share of probes notified: solid, the silent member; dashed, the other.  {result['server_name']}, "
        f"{machine['cores']} cores",
        loc="left", fontsize=9, color=FAINT, x=-0.058, pad=9,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1.03))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return True


def _lateness_of(side: dict[str, Any]) -> list[float]:
    """Return the lateness of each notified probe, in ascending order."""
    return sorted(late for late in side["late_ms"] if late is not None and math.isfinite(late))


def _curve(notified: Sequence[float], probes: int, patience: float) -> tuple[list[float], list[float]]:
    """Return the steps of the share that was notified, thinned out."""
    step = max(1, len(notified) // POINTS)
    ranks = sorted({*range(0, len(notified), step), len(notified) - 1}) if notified else []
    times, shares = [notified[rank] for rank in ranks], [(rank + 1) / probes for rank in ranks]
    if len(notified) < probes:
        times, shares = [*times, patience], [*shares, len(notified) / probes]
    return [times[0], *times], [0.0, *shares]


def _label(axes: Any, way: str, figures: dict[str, Any], patience: float) -> None:
    """Label a curve. A figure is None if too few probes were notified."""
    notified, probes = _lateness_of(figures["client"]), figures["probes"]
    text = f"{figures['label']}\n{len(notified):,} of {probes:,} notified"
    for name in ("p50", "p99"):
        late = figures["client"][f"{name}_ms"]
        if late is not None and math.isfinite(late):
            text += f", {name} {_time(late)}"
    placed: dict[str, Any] = {"color": COLOURS[way], "fontsize": 9.5, "fontweight": "bold", "zorder": 4}
    if way == "pacemaker":
        axes.text(
            (notified[len(notified) // 2] if notified else 1.0) * 1.9,
            0.62,
            text,
            ha="left",
            va="center",
            **placed,
        )
    elif len(notified) < 0.9 * probes:
        axes.text(patience / 180, len(notified) / probes + 0.03, text, ha="right", va="bottom", **placed)
    else:
        axes.text(notified[int(len(notified) * 0.36)] * 0.8, 0.45, text, ha="right", va="center", **placed)


def _time(late: float) -> str:
    return f"{late:.1f} ms" if late < 1000 else f"{late / 1000:.0f} s"
