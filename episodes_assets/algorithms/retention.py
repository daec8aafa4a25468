"""The algorithm `retention`: how much of an episode its viewers stay for.

Shares are of the longest watch in the window, since no input has the length of an episode. How many watched
is `reach`. Rounding, and refusing values that are missing where they may not be, is `compute`.
"""

import itertools

import numpy as np
import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Relate each view to the longest one of its episode in the window.

    The length of an episode is not known; the longest watch stands in for it. Without a view of more
    than zero seconds there is no share.
    """
    seconds = viewings["seconds_watched"].to_numpy()
    # As they are ordered by job, each job's rows lie between two edges.
    edges = np.searchsorted(viewings["job"].to_numpy(), np.arange(len(jobs) + 1))
    in_order = seconds.astype(np.int32)
    for begin, end in itertools.pairwise(edges.tolist()):
        in_order[begin:end].sort()
    views = np.diff(edges)
    viewed = np.flatnonzero(views)
    begins, ends = edges[:-1][viewed], edges[1:][viewed]
    longest = in_order[ends - 1]
    longest = np.where(longest > 0, longest, np.nan)
    lower, upper = in_order[(begins + ends - 1) // 2], in_order[(begins + ends) // 2]
    completed = viewings["completed"].to_numpy()
    # One division of whole numbers for each job: a sum of shares would depend on their order.
    metrics = pd.DataFrame(
        {
            "share_completed": np.add.reduceat(completed, begins, dtype=np.int64) / views[viewed],
            "mean_share": np.add.reduceat(seconds, begins) / (views[viewed] * longest),
            "median_share": (lower + upper) / 2 / longest,
        },
        index=viewed,
    )
    return metrics.reindex(jobs.index).astype("float64")


ALGORITHM = Algorithm(
    algorithm_id=2,
    name="retention",
    version="1",
    description="Share of views completed, mean and median share of the longest watch.",
    columns={
        "share_completed": Metric.REAL,
        "mean_share": Metric.REAL,
        "median_share": Metric.REAL,
    },
    compute=compute,
    may_be_missing=("share_completed", "mean_share", "median_share"),
)
