"""Planning a day at full size: whole columns against row by row.

The row-wise variants do what the replaced system did: for each row, look its episode up among the tracked
ones, kept in a list or in a set. The list would take the better part of an hour, so it runs on a slice of the
rows and its time is scaled up; the table says so.
"""

import datetime as dt
import time
from collections.abc import Collection

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from episodes_assets.planning.episode_set import EpisodeSet
from episodes_assets.planning.jobs import plan_jobs
from episodes_assets_tests.planning.reference import plan_jobs_reference

ROWS = 1_402_909
TRACKED = 50_000
SLICE = 2_000
VIEWED = 60_000
DAY = dt.date(2018, 3, 10)


def drop_of(rows: int) -> pd.DataFrame:
    """A drop of the size that the replaced system had to plan."""
    random = np.random.default_rng(1)
    start = np.datetime64(DAY, "s") - random.integers(-5, 900, (2, rows)) * np.timedelta64(86_400, "s")
    return pd.DataFrame(
        {
            "epid": np.arange(rows) // 2,
            "algorithm_id": (np.arange(rows) % 2).astype(np.int16),
            "premier_date": start[0],
            "start_date": start[1],
        }
    )


def row_wise(drop: pd.DataFrame, viewed: set[int], tracked: Collection[int]) -> float:
    """Seconds that the row-wise reference takes."""
    began = time.perf_counter()
    plan_jobs_reference(drop, viewed, tracked, DAY)
    return time.perf_counter() - began


def main() -> None:
    """Measure all three in one run and print them side by side."""
    random = np.random.default_rng(2)
    drop = drop_of(ROWS)
    tracked = random.choice(ROWS // 2, TRACKED, replace=False)
    viewed = random.choice(ROWS // 2, VIEWED, replace=False)
    viewed_set, tracked_set = set(viewed.tolist()), set(tracked.tolist())

    began = time.perf_counter()
    jobs = plan_jobs(drop, EpisodeSet.of(viewed), EpisodeSet.of(tracked), DAY)
    vectorised = time.perf_counter() - began
    by_set = row_wise(drop, viewed_set, tracked_set)
    part = drop.sample(SLICE, random_state=1)
    by_list = row_wise(part, viewed_set, tracked.tolist()) * ROWS / SLICE

    table = Table(title=f"Planning {ROWS:,} rows against {TRACKED:,} tracked: {len(jobs):,} jobs")
    table.add_column("how")
    table.add_column("seconds", justify="right")
    table.add_column("times vectorised", justify="right")
    for how, seconds in (
        ("whole columns", vectorised),
        ("row by row, tracked in a set", by_set),
        (f"row by row, tracked in a list (from {SLICE:,} rows)", by_list),
    ):
        table.add_row(how, f"{seconds:,.2f}", f"{seconds / vectorised:,.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
