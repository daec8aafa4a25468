"""The gate of `job_outcomes`: each job of a plan is accounted for once."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.gates.verdicts import Verdict, judge_days

EVERY_JOB_HAS_ONE_OUTCOME = "every_job_has_one_outcome"


@dataclass(frozen=True)
class OutcomesDay:
    """A day's plan and what became of its jobs.

    Attributes:
        day: The day.
        jobs: Jobs of its plan.
        stored: Jobs in the ledger.
        outcomes: Outcomes of its plan.
        waived: Jobs that somebody decided to do without.
        repeated: Jobs accounted for more than once.
        superseded: Outcomes of plans of the day that are superseded.
    """

    day: dt.date
    jobs: int
    stored: int
    outcomes: int
    waived: int
    repeated: int
    superseded: int

    @property
    def is_exact(self) -> bool:
        """Whether each job is accounted for once, and nothing else is."""
        return (
            self.jobs == self.stored == self.outcomes + self.waived
            and not self.repeated
            and not self.superseded
        )


def every_job_has_one_outcome(days: Sequence[OutcomesDay]) -> Verdict:
    """Whether jobs = outcomes + waived jobs on each day, none twice, none of a superseded plan."""
    return judge_days(
        EVERY_JOB_HAS_ONE_OUTCOME,
        [
            {
                "day": str(each.day),
                "jobs": each.jobs,
                "in the ledger": each.stored,
                "outcomes": each.outcomes,
                "waived": each.waived,
                "repeated": each.repeated,
                "of superseded plans": each.superseded,
            }
            for each in days
            if not each.is_exact
        ],
        fault="jobs are not accounted for exactly once",
        mend="something else writes to the schema `ledger` of the queue database; stop it, then run "
        "`episodes run {day} --rework` (or materialise {day} with `rework` of episode_jobs), which plans "
        "the day anew and works all its jobs again",
        facts={
            "jobs": sum(each.jobs for each in days),
            "outcomes": sum(each.outcomes for each in days),
            "waived": sum(each.waived for each in days),
        },
    )
