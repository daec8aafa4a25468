"""How many watched an episode, and how much."""

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Count views, distinct viewers, seconds and completed views in the window."""
    by_job = viewings.groupby("job", sort=False)
    metrics = pd.DataFrame(
        {
            "views": by_job.size(),
            "viewers": by_job["viewer_id"].nunique(),
            "seconds_watched": by_job["seconds_watched"].sum(),
            "completed_views": by_job["completed"].sum(),
        }
    )
    return metrics.reindex(jobs.index, fill_value=0).astype("int64")


ALGORITHM = Algorithm(
    algorithm_id=0,
    name="reach",
    version="1",
    description="Views, distinct viewers, seconds watched and completed views in the window.",
    columns={
        "views": Metric.INTEGER,
        "viewers": Metric.INTEGER,
        "seconds_watched": Metric.INTEGER,
        "completed_views": Metric.INTEGER,
    },
    compute=compute,
)
