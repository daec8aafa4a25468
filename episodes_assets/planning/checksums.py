"""Checksums of what a day planned and tracked: equal content, equal checksum, on any machine."""

import hashlib

import numpy as np
import pandas as pd

from episodes_assets.planning.episode_set import EpisodeIds


def plan_checksum(jobs: pd.DataFrame) -> str:
    """The checksum of a day's jobs as `plan_jobs` returns them."""
    digest = hashlib.sha256()
    digest.update(jobs["epid"].to_numpy().astype("<i8").tobytes())
    digest.update(jobs["algorithm_id"].to_numpy().astype("<i2").tobytes())
    starts = jobs["window_start"].to_numpy().astype("datetime64[D]")
    digest.update(starts.astype(np.int64).astype("<i8").tobytes())
    return digest.hexdigest()


def state_checksum(previous: str, newly_tracked: EpisodeIds) -> str:
    """The checksum of the tracked episodes as of a day.

    Chained, so that it costs what is new in the day and still depends on all days before.

    Args:
        previous: The checksum as of the day before; empty at the beginning.
        newly_tracked: Ascending epids that the day added.
    """
    digest = hashlib.sha256(previous.encode())
    digest.update(newly_tracked.astype("<i8").tobytes())
    return digest.hexdigest()
