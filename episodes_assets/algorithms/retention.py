"""How much of an episode its viewers stay for."""

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Relate each view to the longest one of its episode in the window.

    The length of an episode is not known; the longest watch stands in for it. Without a view of more
    than zero seconds there is no share.
    """
    by_job = viewings.groupby("job", sort=False)
    seconds = by_job["seconds_watched"]
    longest = seconds.max()
    longest = longest.where(longest > 0)
    views = by_job.size()
    # One division of whole numbers for each job: a sum of shares would depend on their order.
    metrics = pd.DataFrame(
        {
            "share_completed": by_job["completed"].sum() / views,
            "mean_share": seconds.sum() / (views * longest),
            "median_share": seconds.median() / longest,
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
    may_be_missing=("share_completed", "mean_share", "median_share"),
)
