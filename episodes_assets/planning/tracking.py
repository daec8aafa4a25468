"""Which episodes a day tracks for the first time."""

import datetime as dt

import numpy as np
import numpy.typing as npt
import pandas as pd

REACH = 0  # the algorithm whose first job catches up from the premiere

EpisodeIds = npt.NDArray[np.int64]


def newly_tracked(drop: pd.DataFrame, tracked_before: EpisodeIds, day: dt.date) -> EpisodeIds:
    """The episodes that join the tracked ones on a day.

    Args:
        drop: The day's valid rows: `epid` (int64), `algorithm_id` (int), `premier_date`
            (datetime64, may be missing).
        tracked_before: The epids tracked as of the day before, in any order.
        day: The day.

    Returns:
        Ascending epids of rows of `reach` that have premiered and are not tracked yet, each once.
    """
    premiered = (drop["algorithm_id"] == REACH) & (drop["premier_date"] <= pd.Timestamp(day))
    candidates = drop.loc[premiered, "epid"].to_numpy(dtype=np.int64)
    return np.setdiff1d(candidates, tracked_before)
