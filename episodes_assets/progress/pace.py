"""The pace of a day's jobs, and when they will be finished at that pace."""

import datetime as dt
from dataclasses import dataclass

# Long enough for several of the largest batches, short enough to follow a fleet that grows or shrinks.
RECENT = dt.timedelta(seconds=60)
# Of less, nothing can be told.
LEAST = dt.timedelta(seconds=1)


@dataclass(frozen=True)
class RecentWork:
    """What was finished recently.

    Attributes:
        jobs: Jobs finished within `RECENT` before now.
        began: When the first batch of them was begun.
    """

    jobs: int
    began: dt.datetime


def jobs_per_second(work: RecentWork | None, now: dt.datetime) -> float:
    """The pace over the recent past, or since the work began if that is later.

    Args:
        work: What was finished within `RECENT`; None when nothing was.
        now: The time.
    """
    if work is None:
        return 0.0
    elapsed = min(max(now - work.began, LEAST), RECENT)
    return work.jobs / elapsed.total_seconds()


def expected_end(unfinished: int, rate: float, now: dt.datetime) -> dt.datetime | None:
    """When jobs will be finished at this pace; None when that cannot be told.

    Args:
        unfinished: Jobs that wait or run.
        rate: Jobs a second.
        now: The time.
    """
    if unfinished == 0 or rate <= 0:
        return None
    try:
        return now + dt.timedelta(seconds=unfinished / rate)
    except OverflowError:  # after the year 9999
        return None
