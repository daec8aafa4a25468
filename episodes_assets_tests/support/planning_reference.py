"""Planning row by row: the rules in their plainest form, for tests and benchmarks only."""

import datetime as dt
from collections.abc import Callable, Collection

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


def window_starts_reference(
    drop: pd.DataFrame, tracked_before: Callable[[], Collection[int]]
) -> list[dt.date | None]:
    """What `window_starts` returns, row by row as the replaced system did it.

    Args:
        drop: A day's rows.
        tracked_before: Called for each row, as the replaced system did: it built the list of tracked
            episodes anew each time and searched it from the front. Handing out one and the same set
            was its remedy.
    """
    starts = []
    for row in drop.to_dict("records"):
        tracked = tracked_before()
        catches_up = row["algorithm_id"] == 0 and int(row["epid"]) not in tracked
        start = row["premier_date"] if catches_up else row["start_date"]
        starts.append(None if pd.isna(start) else start.date())
    return starts
