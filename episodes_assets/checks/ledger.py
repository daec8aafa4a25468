"""Checks of `episode_jobs` and `job_outcomes`: the plan, how fast it was made, outcomes, and stalled days.

The ledger must hold exactly the planned jobs, about as many as usual, and account for each once. The duration
of planning is compared with that of earlier steps, so that a slow one is reported long before it reaches a
time limit. The rule by which an open day is stalled, and its hint, are `OpenDay`: for the check, its alert,
the step that waits and `episodes jobs status` alike. Jobs and days are read by `ledger/verify.py` and
`ledger/progress.py`, earlier durations from Dagster's records by `defs/assets/episode_jobs.py`.
"""

import datetime as dt
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from episodes_assets.checks import verdicts

# A worker that stops gives back what it has claimed as well, once.
GIVEN_BACK_OFTEN = 3


@dataclass(frozen=True)
class OpenDay:
    """A day with unfinished jobs, as the ledger and PgQueuer have it.

    Attributes:
        day: The day.
        waiting: Jobs that no worker has claimed.
        running: Jobs that a worker has claimed.
        moved_at: When a job was finished or retried last, or else when the day was handed to the fleet or
            planned.
        claimed_by: The worker that holds the oldest claim; None when there is none.
        claimed_at: When it took it.
        messages: Live messages of the day.
        lost_messages: Unfinished chunks that no live message names.
        silent_messages: Messages that a worker has picked and does not beat its heart for.
        fleet_moved_at: When a job of any day was finished or retried last; None when none ever was.
        times_given_back: How often a message was put back whose chunk was begun since `moved_at`: the most of
            any.
        begun_at: When such a chunk was begun last; None when none was.
        begun_by: The worker that did.
    """

    day: dt.date
    waiting: int
    running: int
    moved_at: dt.datetime
    claimed_by: str | None
    claimed_at: dt.datetime | None
    messages: int
    lost_messages: int
    silent_messages: int
    fleet_moved_at: dt.datetime | None
    times_given_back: int
    begun_at: dt.datetime | None
    begun_by: str | None

    @property
    def jobs(self) -> int:
        """Unfinished jobs."""
        return self.waiting + self.running

    def is_stalled(self, now: dt.datetime, limit: dt.timedelta) -> bool:
        """Whether nothing has been finished for too long, and not because others are served first."""
        if now - self.moved_at <= limit:
            return False
        fleet_moves = self.fleet_moved_at is not None and now - self.fleet_moved_at <= limit
        has_its_turn = self.claimed_at is not None and now - self.claimed_at > limit
        has_fault = self.lost_messages > 0 or self.silent_messages > 0 or self.is_given_back
        return has_its_turn or not fleet_moves or has_fault

    @property
    def is_given_back(self) -> bool:
        """Whether workers begin with it and finish nothing: not for what any of its jobs does."""
        return self.times_given_back >= GIVEN_BACK_OFTEN

    def describe(self) -> str:
        """What is stuck since when and what to do, as a line for people."""
        return (
            f"{self.day}: nothing finished since {self.moved_at:%Y-%m-%d %H:%M} UTC: {self.what_is_stuck}. "
            f"What to do: {self.what_to_do}"
        )

    @property
    def what_is_stuck(self) -> str:
        """One clause for people."""
        if self.silent_messages:
            return (
                f"{self.running:,} jobs are claimed, and the workers of {self.silent_messages:,} messages "
                f"have fallen silent, among them {self.claimed_by}"
            )
        if self.is_given_back:
            return (
                f"workers begin with its {self.jobs:,} jobs and give them back, {self.begun_by} last at "
                f"{self.begun_at:%H:%M:%S} UTC"
            )
        if self.running:
            return (
                f"{self.running:,} jobs are running and none has ended; "
                f"{self.claimed_by} has had its own since {self.claimed_at:%H:%M:%S} UTC"
            )
        if self.lost_messages:
            return f"{self.waiting:,} jobs wait, and {self.lost_messages:,} of their messages are missing"
        return f"{self.waiting:,} jobs wait in {self.messages:,} messages, and no worker takes them"

    @property
    def what_to_do(self) -> str:
        """One clause for people."""
        if self.is_given_back and not self.silent_messages:
            return (
                "read the log of that worker, which says why: a lake that it cannot read "
                "(`episodes lake verify` names damaged files), say, or an algorithm that it does not have"
            )
        if self.running:
            return (
                "read the log of that worker; a job that hangs is ended at its time limit "
                "(EPISODES_JOB_TIMEOUT_SECONDS), a worker that is gone loses its jobs to the others"
            )
        if self.lost_messages:
            return "switch the sensor fan_out on, or materialise job_outcomes: both send them again"
        return (
            "see that workers run (`episodes worker`) and reach the queue and the lake, then "
            "materialise job_outcomes again"
        )


EACH_OPEN_DAY_PROGRESSES = "each_open_day_progresses"


def stalled_days(days: Sequence[OpenDay], now: dt.datetime, limit: dt.timedelta) -> list[OpenDay]:
    """Those that are stalled, in their order.

    Args:
        days: Days with unfinished jobs.
        now: The time.
        limit: How long nothing may be finished.
    """
    return [day for day in days if day.is_stalled(now, limit)]


def each_open_day_progresses(
    days: Sequence[OpenDay], now: dt.datetime, limit: dt.timedelta
) -> verdicts.Verdict:
    """Whether no day with unfinished jobs is stalled; with the arguments of `stalled_days`."""
    stalled = stalled_days(days, now, limit)
    return verdicts.Verdict(
        EACH_OPEN_DAY_PROGRESSES,
        passed=not stalled,
        message="; ".join(day.describe() for day in stalled)
        or "each day with unfinished jobs makes progress",
        facts={"days with unfinished jobs": len(days)},
        offending=[
            {
                "day": str(day.day),
                "waiting": day.waiting,
                "running": day.running,
                "last finished": day.moved_at.isoformat(timespec="seconds"),
                "oldest claim": day.claimed_by or "-",
                "live messages": day.messages,
                "lost messages": day.lost_messages,
                "silent workers' messages": day.silent_messages,
                "times given back": day.times_given_back,
            }
            for day in stalled
        ],
    )


PLANNING_IS_AS_FAST_AS_USUAL = "planning_is_as_fast_as_usual"
FAR_SLOWER = 5.0
# Nobody waits for a step of a few seconds, and small ones vary by more than any factor.
NEVER_SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Planning:
    """A step that planned some days.

    Attributes:
        days: How many.
        rows: Catalogue rows of all of them.
        seconds: What it took.
    """

    days: int
    rows: int
    seconds: float


def usual_seconds(days: int, rows: int, history: Sequence[Planning]) -> float | None:
    """What planning is to take, by what it took before.

    Each earlier step says what a day took; more rows a day may take longer in proportion, fewer need not
    take less, because a step has costs of its own.

    Args:
        days: Days to plan.
        rows: Catalogue rows of all of them.
        history: Earlier steps, the latest first.

    Returns:
        Seconds; None when fewer than `LEAST_HISTORY` steps cannot say.
    """
    recent = history[: verdicts.HISTORY_DAYS]
    if len(recent) < verdicts.LEAST_HISTORY:
        return None
    return days * statistics.median(
        each.seconds / each.days * max(1.0, (rows / days) / max(each.rows / each.days, 1.0))
        for each in recent
    )


def slow_after(days: int, rows: int, history: Sequence[Planning]) -> float | None:
    """The seconds after which a planning step is far slower than usual; None without enough history."""
    usual = usual_seconds(days, rows, history)
    return None if usual is None else max(NEVER_SLOW_SECONDS, FAR_SLOWER * usual)


def describe_slow(limit: float, *, seconds: float, usual: float, is_running: bool) -> str:
    """The warning about a planning step that is far slower than usual."""
    so_far = "has taken" if is_running else "took"
    return (
        f"planning {so_far} {seconds:,.1f} s, its history says {usual:,.1f} s and at most {limit:,.1f} s: "
        "look for a lock or a busy server (pg_stat_activity of the queue and results databases) and for a "
        "change of the planning code (`make bench` measures it)"
    )


def planning_is_as_fast_as_usual(step: Planning, history: Sequence[Planning]) -> verdicts.Verdict:
    """Whether a planning step took about what its history says; a warning if it was far slower.

    Args:
        step: The step.
        history: Earlier ones, the latest first.
    """
    usual = usual_seconds(step.days, step.rows, history)
    limit = slow_after(step.days, step.rows, history)
    facts: dict[str, verdicts.Number] = {"seconds": step.seconds, "days": step.days, "rows": step.rows}
    if usual is None or limit is None:
        facts["history"] = verdicts.NOT_ENOUGH
        return verdicts.Verdict(
            PLANNING_IS_AS_FAST_AS_USUAL,
            passed=True,
            message=verdicts.NOT_ENOUGH,
            facts=facts,
            is_error=False,
        )
    facts |= {"usual seconds": round(usual, 3), "slow after seconds": round(limit, 3)}
    is_slow = step.seconds > limit
    return verdicts.Verdict(
        PLANNING_IS_AS_FAST_AS_USUAL,
        passed=not is_slow,
        message=describe_slow(limit, seconds=step.seconds, usual=usual, is_running=False)
        if is_slow
        else "as it should be",
        facts=facts,
        is_error=False,
    )


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


def every_due_row_has_one_job(days: Sequence[LedgerDay]) -> verdicts.Verdict:
    """Whether the jobs read back from the ledger are those that were planned."""
    return verdicts.verdict_of_days(
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
        hint=verdicts.repair_hint("ledger", "queue"),
        facts={
            "due": sum(each.due for each in days),
            "in the ledger": sum(each.stored for each in days),
            "repeated": sum(each.repeated for each in days),
        },
    )


def job_count_is_usual(jobs: Mapping[dt.date, int], days: Sequence[dt.date]) -> verdicts.Verdict:
    """Whether each day has about as many jobs as those of the two weeks before it.

    Args:
        jobs: Jobs of the days, and of the days before them that are planned.
        days: The days to check, in order.
    """
    return verdicts.count_is_usual(
        JOB_COUNT_IS_USUAL,
        jobs,
        days,
        what="jobs",
        low=LEAST_JOBS,
        high=MOST_JOBS,
        hint="compare the viewed episodes, the accepted rows and the newly tracked episodes of {day} with "
        "those of the days before",
    )


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


def every_job_has_one_outcome(days: Sequence[OutcomesDay]) -> verdicts.Verdict:
    """Whether jobs = outcomes + waived jobs on each day, none twice, none of a superseded plan."""
    return verdicts.verdict_of_days(
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
        hint=verdicts.repair_hint("ledger", "queue"),
        facts={
            "jobs": sum(each.jobs for each in days),
            "outcomes": sum(each.outcomes for each in days),
            "waived": sum(each.waived for each in days),
        },
    )
