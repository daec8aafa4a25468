"""The plots of the benchmarks' page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, MaxNLocator

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "episodes"  # the same figures, the same file
COLOURS = {"whole columns": "tab:blue", "row-wise set": "tab:orange", "row-wise list": "tab:red"}
LINES = ("-", "--")


def start_dates(figures: Sequence[Any], day_rows: int, path: Path) -> None:
    """Seconds against rows, on log axes, for the three implementations."""
    figure, axes = plt.subplots(figsize=(9, 4.5))
    for line, tracked in zip(LINES, sorted({f.facts["tracked"] for f in figures}), strict=False):
        for how, colour in COLOURS.items():
            own = sorted(
                (f.facts["rows"], f.seconds)
                for f in figures
                if f.facts["tracked"] == tracked and f.facts["how"] == how
            )
            label = f"{how}, {tracked:,} tracked"
            axes.loglog(*zip(*own, strict=True), line, marker="o", ms=4, color=colour, label=label)
            rows, seconds = own[-1]
            if rows < day_rows:
                axes.loglog([rows, day_rows], [seconds, seconds * day_rows / rows], ":", color=colour)
    axes.axhline(3600, color="grey", lw=0.8)
    axes.text(day_rows, 3600 * 1.2, "an hour", color="grey", fontsize=8, ha="right")
    axes.set(xlabel="catalogue rows", ylabel="seconds (dotted: extrapolated)")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    _save(figure, path)


def backfill(measured: Any, path: Path) -> None:
    """The cost of each day of a backfill against its number."""
    costs = measured.facts["day_costs"]
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(range(2, len(costs) + 2), [1000 * cost for cost in costs], ".", ms=3)
    axes.set(xlabel="day of the backfill", ylabel="milliseconds", ylim=(0, None))
    _save(figure, path)


def fleet(figures: Sequence[Any], path: Path) -> None:
    """Jobs per second against the size of chunks, the number of workers, and the length of windows."""
    series = (
        ("chunks of", "chunk_jobs", "jobs in a chunk"),
        ("workers:", "workers", "workers"),
        ("windows of", "window_days", "days in a window"),
    )
    figure, all_axes = plt.subplots(1, len(series), figsize=(9, 3.2), sharey=True)
    for axes, (name, fact, label) in zip(all_axes, series, strict=True):
        own = sorted((f.facts[fact], f.facts["jobs"] / f.seconds) for f in figures if f.name.startswith(name))
        axes.plot(*zip(*own, strict=True), marker="o")
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(EngFormatter())
        if fact == "chunk_jobs":
            axes.set_xscale("log")
        if fact == "workers":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    all_axes[0].set_ylim(bottom=0)
    all_axes[0].set_ylabel("jobs per second")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
