"""Which jobs a day yields, and from which date each looks back.

The system this replaces rebuilt and searched a list of the tracked episodes for every one of
1,402,909 rows and took 55 minutes; here a row is never looked at alone. `benchmarks/planning.py`
keeps the proof.
"""

import datetime as dt

import numpy as np
import pandas as pd

from episodes_assets.planning.tracking import REACH, EpisodeIds

JOB_COLUMNS = ("epid", "algorithm_id", "window_start")


def plan_jobs(
    drop: pd.DataFrame, viewed: EpisodeIds, tracked_before: EpisodeIds, day: dt.date
) -> pd.DataFrame:
    """Plan a day's jobs.

    A row's window starts at its premiere when it asks for `reach` and its episode is not tracked as
    of the day before, else at its start date. It is due when its window has begun and its episode was
    viewed on the day or is newly tracked.

    Args:
        drop: The day's valid rows: `epid` (int64), `algorithm_id` (int), `premier_date` and
            `start_date` (datetime64, may be missing).
        viewed: The epids viewed on the day, in any order.
        tracked_before: The epids tracked as of the day before, in any order.
        day: The day.

    Returns:
        `epid` (int64), `algorithm_id` (int16), `window_start` (datetime64[s]), a row for each job,
        ordered by epid and algorithm_id.
    """
    today = pd.Timestamp(day)
    catches_up = (drop["algorithm_id"] == REACH) & ~_among(drop["epid"], tracked_before)
    window_start = drop["premier_date"].where(catches_up, drop["start_date"])
    newly_tracked = catches_up & (drop["premier_date"] <= today)
    due = (window_start <= today) & (
        _among(drop["epid"], viewed) | _among(drop["epid"], drop.loc[newly_tracked, "epid"].to_numpy())
    )
    return (
        pd.DataFrame(
            {
                "epid": drop["epid"].astype("int64"),
                "algorithm_id": drop["algorithm_id"].astype("int16"),
                "window_start": window_start.astype("datetime64[s]"),
            }
        )
        .loc[due]
        .sort_values(["epid", "algorithm_id"], ignore_index=True)
    )


def _among(epids: pd.Series, known: EpisodeIds) -> pd.Series:
    """Which of `epids` are in `known`, by hashing."""
    return epids.isin(np.unique(known))
