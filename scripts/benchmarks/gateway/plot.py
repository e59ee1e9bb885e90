"""Plots the gateway benchmark: the ratio to the peer, and how costs grow."""

from pathlib import Path
from typing import Any

from scripts.benchmarks.gateway.tables import FIGURES

INK, FAINT, PAPER, OURS, OTHER = "#1f2937", "#6b7280", "#ffffff", "#0f766e", "#c2410c"


def plot_gateway(result: dict[str, Any], path: Path) -> bool:
    """Plot the result; return False without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError:
        return False
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "reactor"}
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.6), dpi=160, facecolor=PAPER, gridspec_kw={"width_ratios": [1.4, 1]}
    )
    _ratios(left, result)
    _growth(right, result.get("growth", {}))
    for axes in (left, right):
        axes.tick_params(length=0, colors=FAINT)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#9ca3af")
        axes.minorticks_off()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return True


def _ratios(axes: Any, result: dict[str, Any]) -> None:
    bars = []
    for line in FIGURES:
        ours, theirs = line.of(result, "reactor"), line.of(result, "socketio")
        if ours and theirs:
            bars.append((line.work, ours / theirs if line.more_is_better else theirs / ours))
    bars.reverse()
    axes.barh([work for work, _ in bars], [times for _, times in bars], color=OURS, height=0.6)
    axes.axvline(1, color=OTHER, linewidth=1.5)
    for place, (_, times) in enumerate(bars):
        axes.text(times * 1.06, place, f"{times:.1f}", va="center", color=INK, fontweight="bold")
    if bars:
        axes.set_xscale("log")
        axes.set_xlim(0.5, max(times for _, times in bars) * 2)
        axes.set_xticks([1, 3, 10, 30], labels=["as Socket.IO + ioredis", "3 x", "10 x", "30 x"])
    axes.set_title(
        "times better than Socket.IO + ioredis, at the same work", loc="left", color=INK, fontweight="bold"
    )


def _growth(axes: Any, growth: dict[str, Any]) -> None:
    colours = {"connections": OURS, "members": OTHER, "workers": "#6d28d9"}
    for what, rows in growth.items():
        first = rows[0]
        for key, style in (("heartbeat_us", "-"), ("join_us", "--")):
            axes.plot(
                [row[what] / first[what] for row in rows], [row[key] / first[key] for row in rows],
                style, marker="o", color=colours[what],
                label=f"{what}, {'a heartbeat' if key == 'heartbeat_us' else 'a join'}",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_ylim(top=max(2.0, axes.get_ylim()[1]))
    axes.grid(visible=True, axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_xticks([1, 10, 100, 1000], labels=["1 x", "10 x", "100 x", "1,000 x"])
    axes.set_xlabel("times as many", color=FAINT)
    axes.set_title("cost of one operation", loc="left", color=INK, fontweight="bold")
    if growth:
        axes.legend(frameon=False, fontsize=8, handlelength=3.5)
