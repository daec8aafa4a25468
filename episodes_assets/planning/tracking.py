"""Which episodes a day tracks for the first time."""

import datetime as dt

import numpy as np
import pandas as pd

from episodes_assets.planning.episode_set import EpisodeIds, EpisodeSet

REACH = 0  # the algorithm whose first job catches up from the premiere


def newly_tracked(drop: pd.DataFrame, tracked_before: EpisodeSet, day: dt.date) -> EpisodeIds:
    """The episodes that join the tracked ones on a day.

    Args:
        drop: Valid rows of the day: `epid` (int64), `algorithm_id` (int), `premier_date`
            (datetime64, may be missing).
        tracked_before: The episodes tracked as of the day before.
        day: The day.

    Returns:
        Ascending epids of rows of `reach` that have premiered and are not tracked yet, each once.
    """
    premiered = (drop["algorithm_id"] == REACH) & (drop["premier_date"] <= pd.Timestamp(day))
    candidates = np.unique(drop.loc[premiered, "epid"].to_numpy(dtype=np.int64))
    return candidates[~tracked_before.contains(candidates)]
