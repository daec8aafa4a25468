"""How fast a day's jobs are worked, when they will be finished at that speed, and when to report it.

Pure functions of counts and times. Counting finished jobs is `ledger/batches.py`, showing them `defs/` and
`dashboard/`.
"""

import datetime as dt
from dataclasses import dataclass

# Dagster's UI shows Markdown in its place only up to 1,000 characters, and base64 adds a third to these.
MOST_POINTS = 25


@dataclass(frozen=True)
class FinishedBy:
    """How many jobs were finished by a time.

    Attributes:
        at: The time.
        jobs: All that were finished by then.
    """

    at: dt.datetime
    jobs: int


# Each report is kept for ever in Dagster's event log. At this share of the time that has passed, six hours
# of work with at first ten seconds between reports make 240, a whole day 310.
SHARE_OF_ELAPSED = 0.02


def pause_between_reports(shortest: float, elapsed: float) -> float:
    """Seconds from one report to the next.

    Args:
        shortest: Seconds between the first ones.
        elapsed: Seconds since the reports began.
    """
    return max(shortest, SHARE_OF_ELAPSED * elapsed)


# Long enough for several of the largest batches, short enough to follow a fleet that grows or shrinks.
RECENT = dt.timedelta(seconds=60)
# Shorter times give no meaningful throughput.
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
    """The throughput over the recent past, or since the work began if that is later.

    Args:
        work: What was finished within `RECENT`; None when nothing was.
        now: The time.
    """
    if work is None:
        return 0.0
    elapsed = min(max(now - work.began, LEAST), RECENT)
    return work.jobs / elapsed.total_seconds()


def expected_end(unfinished: int, rate: float, now: dt.datetime) -> dt.datetime | None:
    """When jobs will be finished at this throughput; None when that is unknown.

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
