"""Which jobs a day yields, which episodes it tracks for the first time, and how its jobs are cut into chunks.

Everything works on whole columns, never row by row: the system this replaces searched a list of the tracked
episodes for every one of 1,402,909 rows and took 55 minutes (`make bench` measures both). A chunk is what
travels together: one message, one claim, one micro-batch. Equal jobs give a plan the same checksum on any
machine. Recording a plan is `ledger/plans.py`.
"""

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from episodes_assets.algorithms.declaration import REACH
from episodes_assets.planning.episode_set import EpisodeIds, EpisodeSet


def newly_tracked(drop: pd.DataFrame, tracked_before: EpisodeSet, day: dt.date) -> EpisodeIds:
    """The episodes that join the tracked ones on a day.

    Args:
        drop: Valid rows of the day: `epid` (int64), `algorithm_id` (int), `premier_date`
            (datetime64, may be missing).
        tracked_before: The episodes tracked as of the day before.
        day: The day.

    Returns:
        Ascending epids of rows of `reach` that have premiered and are not tracked yet, each once.
    """
    premiered = (drop["algorithm_id"] == REACH) & (drop["premier_date"] <= pd.Timestamp(day))
    candidates = np.unique(drop.loc[premiered, "epid"].to_numpy(dtype=np.int64))
    return candidates[~tracked_before.contains(candidates)]


def newly_tracked_of_day(
    parts: Iterable[pd.DataFrame], tracked_before: EpisodeSet, day: dt.date
) -> EpisodeIds:
    """The episodes that join the tracked ones on a day, from its whole drop.

    Args:
        parts: The drop's valid rows, each episode in one part, as `newly_tracked` takes them; at least one
            part.
        tracked_before: The episodes tracked as of the day before.
        day: The day.

    Returns:
        Epids, each once.
    """
    return np.concatenate([newly_tracked(part, tracked_before, day) for part in parts])


def plan_checksum(jobs: pd.DataFrame) -> str:
    """The checksum of a day's jobs as `plan_jobs` returns them."""
    digest = hashlib.sha256()
    digest.update(jobs["epid"].to_numpy().astype("<i8").tobytes())
    digest.update(jobs["algorithm_id"].to_numpy().astype("<i2").tobytes())
    starts = jobs["window_start"].to_numpy().astype("datetime64[D]")
    digest.update(starts.astype(np.int64).astype("<i8").tobytes())
    return digest.hexdigest()


def window_starts(drop: pd.DataFrame, tracked_before: EpisodeSet) -> pd.Series:
    """The first date that each row of a drop would have analysed.

    The premiere where the row asks for `reach` and its episode is not tracked as of the day before, else
    the start date.

    Args:
        drop: `epid` (int64), `algorithm_id` (int), `premier_date` and `start_date` (datetime64, may be
            missing).
        tracked_before: The episodes tracked as of the day before.

    Returns:
        datetime64, with the drop's index.
    """
    catches_up = (drop["algorithm_id"] == REACH) & ~tracked_before.contains(drop["epid"].to_numpy())
    return drop["premier_date"].where(catches_up, drop["start_date"])


def plan_jobs(
    drop: pd.DataFrame, viewed: EpisodeSet, tracked_before: EpisodeSet, day: dt.date
) -> pd.DataFrame:
    """Plan a day's jobs, or those of a part of its drop that has all rows of its episodes.

    A row is due when its window has begun and its episode was viewed on the day or is newly tracked.

    Args:
        drop: Valid rows: `epid` (int64), `algorithm_id` (int), `premier_date` and `start_date`
            (datetime64, may be missing).
        viewed: The episodes viewed on the day.
        tracked_before: The episodes tracked as of the day before.
        day: The day.

    Returns:
        `epid` (int64), `algorithm_id` (int16), `window_start` (datetime64[s]), a row for each job,
        ordered by epid and algorithm_id.
    """
    today = pd.Timestamp(day)
    window_start = window_starts(drop, tracked_before)
    new = newly_tracked(drop, tracked_before, day)
    epids = drop["epid"].to_numpy()
    due = (window_start <= today) & (viewed.contains(epids) | np.isin(epids, new))
    return (
        pd.DataFrame(
            {
                "epid": drop["epid"].astype("int64"),
                "algorithm_id": drop["algorithm_id"].astype("int16"),
                "window_start": window_start.astype("datetime64[s]"),
            }
        )
        .loc[due]
        .sort_values(["epid", "algorithm_id"], ignore_index=True)
    )


def plan_day(
    parts: Iterable[pd.DataFrame], viewed: EpisodeSet, tracked_before: EpisodeSet, day: dt.date
) -> pd.DataFrame:
    """Plan a day's jobs from its whole drop, part by part.

    Args:
        parts: The drop's valid rows, each episode in one part, as `plan_jobs` takes them; at least one part.
        viewed: The episodes viewed on the day.
        tracked_before: The episodes tracked as of the day before.
        day: The day.

    Returns:
        As `plan_jobs`.
    """
    return pd.concat([plan_jobs(part, viewed, tracked_before, day) for part in parts], ignore_index=True)


@dataclass(frozen=True)
class PlannedJobs:
    """A day's jobs, and those among them that a release can do.

    Validation refuses rows of an algorithm that there is not. A drop that was taken before one was removed
    has its rows all the same, and no worker does their jobs.

    Attributes:
        all: As `plan_day` returns them.
        all_checksum: Of those.
        known: Those of algorithms that the release knows.
        known_checksum: Of those.
        unknown: How many the others are, by `algorithm_id`.
    """

    all: pd.DataFrame
    all_checksum: str
    known: pd.DataFrame
    known_checksum: str
    unknown: Mapping[int, int]

    @classmethod
    def of(cls, jobs: pd.DataFrame, known_ids: Collection[int]) -> "PlannedJobs":
        """A day's jobs, given the ids of the release's algorithms."""
        checksum = plan_checksum(jobs)
        is_known = jobs["algorithm_id"].isin(list(known_ids))
        if is_known.all():
            return cls(jobs, checksum, jobs, checksum, {})
        known = jobs.loc[is_known].reset_index(drop=True)
        counts = jobs.loc[~is_known, "algorithm_id"].value_counts()
        unknown = {int(number): int(count) for number, count in zip(counts.index, counts, strict=True)}
        return cls(jobs, checksum, known, plan_checksum(known), unknown)

    @property
    def checksums(self) -> tuple[str, str]:
        """Of a plan with these jobs: with all of them, or with those that are known."""
        return self.all_checksum, self.known_checksum


LONG_WINDOW_DAYS = 35
# Few inputs keep viewings for longer: a premiere long ago is no more work than this.
MOST_WINDOW_DAYS = 400
SHORT_FIRST = 1
# Up to this window a chunk has as many jobs as an ordinary one; of 400 days about half of them. Each day's
# file is opened and decoded for a chunk anew: with fewer jobs that takes longer than all the rest.
LONG_WORK_DAYS = 6 * LONG_WINDOW_DAYS


def into_chunks(jobs: pd.DataFrame, day: dt.date, chunk_jobs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut a day's jobs into chunks of bounded work.

    Jobs that look back for more than `LONG_WINDOW_DAYS` get chunks of their own, with fewer jobs the
    further they look back beyond `LONG_WORK_DAYS`, and yield to the others: a catch-up must not keep a day's
    ordinary jobs waiting. Within a chunk jobs are ordered by epid, so that what it reads of the viewings lies
    together.

    Args:
        jobs: As `plan_jobs` returns them.
        day: Their day.
        chunk_jobs: Jobs in a chunk of short windows.

    Returns:
        The jobs in the order of their positions in the plan, and the chunks: `chunk`, `first_position`,
        `jobs`, `priority` (higher goes first).
    """
    window_days = ((pd.Timestamp(day) - jobs["window_start"]).dt.days + 1).to_numpy()
    is_long = window_days > LONG_WINDOW_DAYS
    order = np.argsort(is_long, kind="stable")
    short = int((~is_long).sum())
    work = window_days[order[short:]].clip(LONG_WORK_DAYS, MOST_WINDOW_DAYS)
    bin_of_work = (np.cumsum(work) - work) // (chunk_jobs * LONG_WORK_DAYS)
    label = np.concatenate([np.arange(short) // chunk_jobs, (short // chunk_jobs + 1) + bin_of_work])
    first = np.flatnonzero(np.diff(label, prepend=-1))
    chunks = pd.DataFrame(
        {
            "chunk": np.arange(len(first)),
            "first_position": first,
            "jobs": np.diff(first, append=len(jobs)),
            "priority": np.where(first < short, SHORT_FIRST, 0),
        }
    )
    return jobs.iloc[order].reset_index(drop=True), chunks
