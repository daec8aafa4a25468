"""Does not import, with a message that no database can hold."""

import os

import pandas as pd

from episodes_assets.algorithms.base import Algorithm, Metric

if "FIXED" not in os.environ:
    raise RuntimeError("bad \0 \ud800")


def compute(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    counts = viewings.groupby("job").size().reindex(jobs.index, fill_value=0)
    return pd.DataFrame({"says_no_text_count": counts})


ALGORITHM = Algorithm(
    algorithm_id=102,
    name="says_no_text",
    version="1",
    description="Does not import, with a message that no database can hold.",
    columns={"says_no_text_count": Metric.INTEGER},
    compute=compute,
)
