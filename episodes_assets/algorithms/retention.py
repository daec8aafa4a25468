"""How much of an episode its viewers stay for."""

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Relate each view to the longest one of its episode in the window.

    The length of an episode is not known; the longest watch stands in for it. Without a view of more
    than zero seconds there is no share.
    """
    by_job = viewings.groupby("job", sort=False)
    longest = by_job["seconds_watched"].transform("max")
    share = (viewings["seconds_watched"] / longest).where(longest > 0)
    shares = share.groupby(viewings["job"], sort=False)
    metrics = pd.DataFrame(
        {
            "share_completed": by_job["completed"].mean(),
            "mean_share": shares.mean(),
            "median_share": shares.median(),
        }
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
)
