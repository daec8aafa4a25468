"""Planning row by row: the rules in their plainest form, for tests and benchmarks only."""

import datetime as dt
from collections.abc import Collection

import pandas as pd


def newly_tracked_reference(drop: pd.DataFrame, tracked_before: Collection[int], day: dt.date) -> list[int]:
    """What `newly_tracked` returns."""
    found = set()
    for row in drop.to_dict("records"):
        premier = row["premier_date"]
        if (
            row["algorithm_id"] == 0
            and not pd.isna(premier)
            and premier.date() <= day
            and row["epid"] not in tracked_before
        ):
            found.add(int(row["epid"]))
    return sorted(found)


def plan_jobs_reference(
    drop: pd.DataFrame, viewed: Collection[int], tracked_before: Collection[int], day: dt.date
) -> list[tuple[int, int, dt.date]]:
    """What `plan_jobs` returns, as (epid, algorithm_id, window_start)."""
    new = set(newly_tracked_reference(drop, tracked_before, day))
    jobs = []
    for row in drop.to_dict("records"):
        epid, algorithm_id = int(row["epid"]), int(row["algorithm_id"])
        catches_up = algorithm_id == 0 and epid not in tracked_before
        start = row["premier_date"] if catches_up else row["start_date"]
        if pd.isna(start) or start.date() > day:
            continue
        if epid in viewed or epid in new:
            jobs.append((epid, algorithm_id, start.date()))
    return sorted(jobs)
