"""Which jobs a day yields, and from which date each looks back.

The system this replaces rebuilt and searched a list of the tracked episodes for every one of
1,402,909 rows and took 55 minutes; here a row is never looked at alone. `make bench`
keeps the proof.
"""

import datetime as dt

import numpy as np
import pandas as pd

from episodes_assets.planning.episode_set import EpisodeSet
from episodes_assets.planning.tracking import REACH, newly_tracked


def window_starts(drop: pd.DataFrame, tracked_before: EpisodeSet) -> pd.Series:
    """The first date that each row of a drop would have analysed.

    The premiere where the row asks for `reach` and its episode is not tracked as of the day before, else
    the start date.

    Args:
        drop: `epid` (int64), `algorithm_id` (int), `premier_date` and `start_date` (datetime64, may be
            missing).
        tracked_before: The episodes tracked as of the day before.

    Returns:
        datetime64, with the drop's index.
    """
    catches_up = (drop["algorithm_id"] == REACH) & ~tracked_before.contains(drop["epid"].to_numpy())
    return drop["premier_date"].where(catches_up, drop["start_date"])


def plan_jobs(
    drop: pd.DataFrame, viewed: EpisodeSet, tracked_before: EpisodeSet, day: dt.date
) -> pd.DataFrame:
    """Plan a day's jobs, or those of a part of its drop that has all rows of its episodes.

    A row is due when its window has begun and its episode was viewed on the day or is newly tracked.

    Args:
        drop: Valid rows: `epid` (int64), `algorithm_id` (int), `premier_date` and `start_date`
            (datetime64, may be missing).
        viewed: The episodes viewed on the day.
        tracked_before: The episodes tracked as of the day before.
        day: The day.

    Returns:
        `epid` (int64), `algorithm_id` (int16), `window_start` (datetime64[s]), a row for each job,
        ordered by epid and algorithm_id.
    """
    today = pd.Timestamp(day)
    window_start = window_starts(drop, tracked_before)
    new = newly_tracked(drop, tracked_before, day)
    epids = drop["epid"].to_numpy()
    due = (window_start <= today) & (viewed.contains(epids) | np.isin(epids, new))
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
