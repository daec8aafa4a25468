"""Which cause the records show: whether a row was due, and from that and all else why it is there or not.

The rules of planning are applied to one row here; `planning/jobs.py` has them for whole columns, and a test
compares the two. Each cause is described in `causes`; what an answer says is put together in `explaining`.
"""

import datetime as dt
from dataclasses import dataclass

from episodes_assets.algorithms.declaration import REACH
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.days import FIRST_DAY
from episodes_assets.explanation.causes import Cause
from episodes_assets.explanation.records import (
    CatalogueRow,
    DropRecord,
    JobRecord,
    PlanRecord,
    Records,
    Unknown,
)


@dataclass(frozen=True)
class Due:
    """Whether a row of the catalogue was due on the day, by the records.

    Attributes:
        window_start: The first date it would have analysed; None for a row without it.
        catches_up: Whether that is the premiere, because the episode was not tracked before.
        newly_tracked: Whether the day tracks the episode for the first time.
        is_viewed: Whether it was viewed on the day.
        late: Its viewings on the day that were taken after the plan was made.
    """

    window_start: dt.date | None
    catches_up: bool
    newly_tracked: bool
    is_viewed: bool | Unknown
    late: int | Unknown

    def has_begun(self, day: dt.date) -> bool:
        """Whether the window has begun on a day."""
        return self.window_start is not None and self.window_start <= day


def is_newly_tracked(records: Records) -> bool:
    """Whether the day tracks the episode for the first time, as `planning.jobs.newly_tracked` decides it."""
    return not records.was_tracked_before and any(
        row.algorithm_id == REACH
        and isinstance(row.premier_date, dt.date)
        and row.premier_date <= records.day
        for row in records.accepted
    )


def window_start(row: CatalogueRow, *, was_tracked_before: bool) -> dt.date | None:
    """The first date that a row would have analysed, as `planning.jobs.window_starts` decides it."""
    catches_up = row.algorithm_id == REACH and not was_tracked_before
    begin = row.premier_date if catches_up else row.start_date
    return begin if isinstance(begin, dt.date) else None


def read_due(records: Records, row: CatalogueRow) -> Due:
    """Whether an accepted row was due."""
    viewings = records.viewings
    return Due(
        window_start=window_start(row, was_tracked_before=records.was_tracked_before),
        catches_up=row.algorithm_id == REACH and not records.was_tracked_before,
        newly_tracked=is_newly_tracked(records),
        is_viewed=viewings.is_viewed if viewings else Unknown("nothing was planned from viewings yet"),
        late=viewings.late if viewings else 0,
    )


def decide(records: Records, algorithm_id: int | None) -> Cause:
    """Why the episode's row of an analysis is there, or is not.

    Args:
        records: What is on record.
        algorithm_id: The analysis; None where no record names any.
    """
    if records.published_row_of(algorithm_id) is not None:
        return _why_there(records, algorithm_id)
    plan = records.plan
    if plan is None and records.manifest is None:
        return _of_day(records)
    job = records.job_of(algorithm_id)
    if plan is not None and job is not None:
        return _of_outcome(records, plan, job) if job.outcome else _of_open_job(records, plan, job)
    return _of_catalogue(records, algorithm_id)


def _why_there(records: Records, algorithm_id: int | None) -> Cause:
    manifest, plan = records.manifest, records.plan
    if manifest is None:
        return Cause.WRITTEN_BY_SOMETHING_ELSE
    if plan is not None and manifest.is_of(plan):
        has_job = records.job_of(algorithm_id) is not None
        return Cause.PUBLISHED if has_job else Cause.WRITTEN_BY_SOMETHING_ELSE
    if any(manifest.is_of(each) for each in records.plans):
        return Cause.PUBLISHED_FROM_OLDER_PLAN
    return Cause.PUBLISHED_FROM_UNKNOWN_PLAN


def _of_day(records: Records) -> Cause:
    """Why a day has neither a plan nor a publication."""
    day, state, drop = records.day, records.state, records.drops.used
    if day < FIRST_DAY:
        return Cause.BEFORE_FIRST_DAY
    if day >= records.today:
        return Cause.DAY_NOT_OVER
    if state.first is not None and (
        day < state.first or (day == state.first and state.first_origin == "import")
    ):
        return Cause.BEFORE_HISTORY
    if drop is None:
        return Cause.DAY_NOT_TAKEN
    if isinstance(drop, DropRecord) and drop.quarantined > records.quarantine_limit * drop.rows:
        return Cause.DROP_REFUSED
    return Cause.DAY_NOT_PLANNED


def _of_outcome(records: Records, plan: PlanRecord, job: JobRecord) -> Cause:
    """Why a job that has an outcome has no row."""
    manifest = records.manifest
    if manifest is None or not manifest.is_of(plan):
        return Cause.NOT_PUBLISHED_YET
    last = records.publications[-1].published_at if records.publications else manifest.published_at
    if manifest.left_out and job.outcome is not None and job.outcome.finished_at > last:
        return Cause.PUBLISHED_WITHOUT
    return Cause.ROW_MISSING


def _of_open_job(records: Records, plan: PlanRecord, job: JobRecord) -> Cause:
    """Why a job has no outcome."""
    if job.is_held:
        if job.decision is not None:
            return Cause.WAIVED
        return Cause.CANCELLED if job.is_cancelled else Cause.HELD
    if plan.viewings_version is None:
        return Cause.PLAN_BEFORE_LAKE
    if records.viewings is not None and isinstance(records.viewings.by_day, Unknown):
        return Cause.VIEWINGS_GONE
    if job.is_claimed:
        return Cause.RUNNING
    if plan.fanned_out_at is None:
        return Cause.NOT_HANDED_OUT
    return Cause.WAITING if job.error is None else Cause.RETRYING


def _of_catalogue(records: Records, algorithm_id: int | None) -> Cause:
    """Why a day that was planned has no such job."""
    used = records.drops.used
    if not isinstance(used, DropRecord) or isinstance(used.accepted, Unknown):
        return Cause.INPUTS_UNKNOWN
    row = records.accepted_row_of(algorithm_id)
    if row is not None:
        return _of_due(records, read_due(records, row), row.algorithm_id)
    if isinstance(used.refused, Unknown):
        return Cause.INPUTS_UNKNOWN
    if records.refused_rows_of(algorithm_id):
        return Cause.QUARANTINED
    if records.accepted or records.refused:
        return Cause.NOT_ASKED_FOR
    if records.tracked is not None or records.drops.last_seen is not None:
        return Cause.NOT_IN_DROP
    return Cause.NEVER_SEEN


def _of_due(records: Records, due: Due, algorithm_id: int | None) -> Cause:
    """Why an accepted row has no job in the plan."""
    if not due.has_begun(records.day):
        return Cause.WINDOW_NOT_BEGUN
    if not due.newly_tracked:
        if isinstance(due.is_viewed, Unknown):
            return Cause.INPUTS_UNKNOWN
        if not due.is_viewed:
            came_late = not isinstance(due.late, Unknown) and due.late > 0
            return Cause.VIEWED_LATE if came_late else Cause.NOT_VIEWED
    if records.plan is None:
        return Cause.INPUTS_UNKNOWN
    if records.plan.tracked_checksum != records.state.yesterday:
        return Cause.RECORDS_CHANGED
    return Cause.JOB_MISSING if algorithm_id in get_registry().ids else Cause.ALGORITHM_REMOVED
