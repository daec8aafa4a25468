"""Never ends for one job."""

import os
import time

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"hangs_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        time.sleep(3600)
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=91,
    name="hangs",
    version="1",
    description="Never ends for one job.",
    columns={"hangs_count": Metric.INTEGER},
    compute=compute,
    timeout_seconds=1.5,
)
