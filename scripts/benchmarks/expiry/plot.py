"""Plots the expiry lab: for each way, server and number of idle keys, when an expiry is noticed."""

import math
from pathlib import Path
from typing import Any

from scripts.benchmarks.expiry.matrix import WAYS

INK, FAINT, PAPER = "#1f2937", "#6b7280", "#ffffff"
COLOURS = ("#0f766e", "#c2410c", "#6d28d9", "#1d4ed8", "#a16207", "#be185d", "#4b5563")
MARKS_MS = {1: "1 ms", 10: "10 ms", 100: "100 ms", 1_000: "1 s", 10_000: "10 s", 60_000: "1 min"}
_LEAST = 0.7  # ms, the left end


def plot_expiry(result: dict[str, Any], path: Path) -> bool:
    """Plot the matrix, one panel for each number of keys; return False without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
        from matplotlib.lines import Line2D  # noqa: PLC0415
    except ImportError:
        return False
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "reactor"}
    cells = result["matrix"]
    sizes = sorted({cell["keys"] for cell in cells})
    servers = [name for name in result["servers"] if any(cell["server"] == name for cell in cells)]
    ways = [way for way in WAYS if any(cell["way"] == way for cell in cells)]
    most = (result["patience"] + result["sweep"]) * 1000
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(3.4 + 3.1 * len(sizes), 1.6 + 0.62 * len(ways)), dpi=160, facecolor=PAPER,
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axes, keys in zip(panels[0], sizes, strict=True):
        _panel(axes, [cell for cell in cells if cell["keys"] == keys], servers, ways, most)
        axes.set_title(f"{keys:,} idle keys", loc="left", fontsize=10, color=INK)
    panels[0][0].set_yticks(range(len(ways)), labels=[result["labels"][way] for way in ways], color=INK)
    panels[0][0].invert_yaxis()
    handles = [
        Line2D([], [], color=COLOURS[place % len(COLOURS)], marker="o", markersize=4, label=name)
        for place, name in enumerate(servers)
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(servers), frameon=False, labelcolor=INK)
    figure.suptitle(
        "How late is an expired key noticed?  ●  half of them; line: to the 99th of 100; ▶  some never",
        x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.06, 1, 0.99))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return True


def _panel(axes: Any, cells: list[dict[str, Any]], servers: list[str], ways: list[str], most: float) -> None:
    axes.set_facecolor(PAPER)
    for cell in cells:
        place = servers.index(cell["server"])
        height = ways.index(cell["way"]) + (place - (len(servers) - 1) / 2) * 0.8 / max(len(servers), 1)
        colour = COLOURS[place % len(COLOURS)]
        half, nearly_all = (_within(cell[name], most) for name in ("p50_ms", "p99_ms"))
        axes.plot([half, nearly_all], [height, height], color=colour, linewidth=1.6, alpha=0.6, zorder=2)
        missing = cell["delivered"] < cell["probes"]
        if half < most:
            axes.plot([half], [height], "o", color=colour, markersize=3.6, zorder=3)
        if missing:
            axes.plot([most], [height], ">", color=colour, markersize=4.5, zorder=3, clip_on=False)
            axes.text(
                most * 1.25, height, f"{cell['delivered']} of {cell['probes']}", fontsize=6, color=colour,
                va="center", clip_on=False,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(_LEAST, most)
    marks = {at: mark for at, mark in MARKS_MS.items() if at <= most}
    axes.set_xticks(list(marks), labels=list(marks.values()))
    axes.minorticks_off()
    axes.grid(visible=True, axis="x", color="#e5e7eb", linewidth=0.8, zorder=0)
    for line in range(1, len(ways)):
        axes.axhline(line - 0.5, color="#f3f4f6", linewidth=0.8, zorder=0)
    axes.tick_params(length=0, labelcolor=FAINT, axis="x", labelsize=7.5)
    axes.tick_params(length=0, axis="y")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#9ca3af")


def _within(value: float | None, most: float) -> float:
    """Return a lateness within the panel; None: read from a file, where what is infinite has no number."""
    return min(max(value, _LEAST), most) if value is not None and math.isfinite(value) else most
