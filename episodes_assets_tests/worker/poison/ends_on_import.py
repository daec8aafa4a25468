"""Ends whatever process imports it."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

if "FIXED" not in os.environ:
    os._exit(7)


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    return pd.DataFrame({"ends_on_import_count": counts})


ALGORITHM = Algorithm(
    algorithm_id=97,
    name="ends_on_import",
    version="1",
    description="Ends whatever process imports it.",
    columns={"ends_on_import_count": Metric.INTEGER},
    compute=compute,
)
