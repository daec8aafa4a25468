"""Wants more memory than it may have for one job."""

import os

import numpy as np
import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

TWO_GIGABYTES = 2 << 30
POISONED = pd.Timestamp("2018-02-13")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    metrics = pd.DataFrame({"eats_memory_count": counts})
    poisoned = (jobs["window_start"] == POISONED) & ("FIXED" not in os.environ)
    if poisoned.any():
        metrics["eats_memory_count"] += int(np.ones(TWO_GIGABYTES // 8)[0])
    return metrics


ALGORITHM = Algorithm(
    algorithm_id=92,
    name="eats_memory",
    version="1",
    description="Wants more memory than it may have for one job.",
    columns={"eats_memory_count": Metric.INTEGER},
    compute=compute,
)
