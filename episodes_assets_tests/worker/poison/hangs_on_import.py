"""Is imported for an hour."""

import os
import time

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

if "FIXED" not in os.environ:
    time.sleep(3600)


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    return pd.DataFrame({"hangs_on_import_count": counts})


ALGORITHM = Algorithm(
    algorithm_id=98,
    name="hangs_on_import",
    version="1",
    description="Is imported for an hour.",
    columns={"hangs_on_import_count": Metric.INTEGER},
    compute=compute,
)
