"""Which of a day's jobs travel together: one message, one claim, one micro-batch."""

import datetime as dt

import numpy as np
import pandas as pd

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
