"""Gates of `episode_jobs`: the ledger has exactly the planned jobs, and about as many as usual."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from episodes_assets.gates.bands import count_is_usual
from episodes_assets.gates.verdicts import Verdict, judge_days

EVERY_DUE_ROW_HAS_ONE_JOB = "every_due_row_has_one_job"
JOB_COUNT_IS_USUAL = "job_count_is_usual"

# Premieres and the viewers' weekends move the jobs of a day far more than its catalogue.
LEAST_JOBS, MOST_JOBS = 0.2, 5.0


@dataclass(frozen=True)
class LedgerDay:
    """What a day was to have and what its ledger has.

    Attributes:
        day: The day.
        due: Jobs that its rows yield.
        checksum: Of those jobs.
        stored: Jobs read back from the ledger.
        stored_checksum: Of those jobs.
        repeated: Stored jobs of an episode and algorithm that have another one.
    """

    day: dt.date
    due: int
    checksum: str
    stored: int
    stored_checksum: str
    repeated: int

    @property
    def is_exact(self) -> bool:
        """Whether the ledger has the jobs that are due, each once."""
        return not self.repeated and (self.stored, self.stored_checksum) == (self.due, self.checksum)


def every_due_row_has_one_job(days: Sequence[LedgerDay]) -> Verdict:
    """Whether the jobs read back from the ledger are those that were planned."""
    return judge_days(
        EVERY_DUE_ROW_HAS_ONE_JOB,
        [
            {
                "day": str(each.day),
                "due": each.due,
                "in the ledger": each.stored,
                "repeated": each.repeated,
                "planned": each.checksum[:16],
                "stored": each.stored_checksum[:16],
            }
            for each in days
            if not each.is_exact
        ],
        fault="the ledger does not have exactly the jobs that are due",
        mend="something else writes to the schema `ledger` of the queue database; stop it, then run "
        "`episodes run {day} --rework` (or materialise {day} with `rework` of episode_jobs), which plans "
        "the day anew and works all its jobs again",
        facts={
            "due": sum(each.due for each in days),
            "in the ledger": sum(each.stored for each in days),
            "repeated": sum(each.repeated for each in days),
        },
    )


def job_count_is_usual(jobs: Mapping[dt.date, int], days: Sequence[dt.date]) -> Verdict:
    """Whether each day has about as many jobs as those of the two weeks before it.

    Args:
        jobs: Jobs of the days, and of the days before them that are planned.
        days: The days to judge, in order.
    """
    return count_is_usual(
        JOB_COUNT_IS_USUAL,
        jobs,
        days,
        what="jobs",
        low=LEAST_JOBS,
        high=MOST_JOBS,
        mend="compare the viewed episodes, the accepted rows and the newly tracked episodes of {day} with "
        "those of the days before",
    )
