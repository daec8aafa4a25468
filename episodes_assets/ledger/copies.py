"""For labs: a day's plan with its jobs, chunks and outcomes, read whole from one ledger and put into another.

Names of workers, errors and tracebacks are not read: the role that reads may not see them. Nothing here
changes an existing plan; ordinary plans are recorded by `plans.py`.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.ledger.plans import copy_rows, find_plan, skip_numbers
from episodes_assets.postgres.arrow import RepeatableRead
from episodes_assets.postgres.connect import Connection

# A superseded plan has neither jobs nor outcomes any more.
_PLANS = """
    SELECT day, plan_id, plan_uid::text AS plan_uid, jobs, checksum, snapshot_id, code_version, planned_at,
        fanned_out_at, tracked_checksum, viewings_version, viewings_digest
    FROM ledger.plans WHERE day = ANY ({days}::date[]) AND superseded_at IS NULL ORDER BY day
"""
_JOBS = """
    SELECT position, epid, algorithm_id, window_start
    FROM ledger.jobs WHERE plan_id = {plan_id}::bigint ORDER BY position
"""
_FIRST_WINDOW = "SELECT min(window_start) AS first FROM ledger.jobs WHERE plan_id = {plan_id}::bigint"
_CHUNKS = """
    SELECT chunk, first_position, jobs, priority
    FROM ledger.chunks WHERE plan_id = {plan_id}::bigint ORDER BY chunk
"""
_OUTCOMES = """
    SELECT position, covered_from, metrics::text AS metrics, algorithm_version, finished_at
    FROM ledger.outcomes WHERE plan_id = {plan_id}::bigint ORDER BY position
"""
_WAIVED = """
    SELECT position FROM ledger.job_attempts
    WHERE plan_id = {plan_id}::bigint AND waiver_id IS NOT NULL ORDER BY position
"""
_BATCHES = """
    SELECT plan_id, first_position, chunk, jobs, seconds, algorithm_ids::text AS algorithm_ids,
        algorithm_jobs::text AS algorithm_jobs, algorithm_seconds::text AS algorithm_seconds, finished_at
    FROM ledger.batches WHERE plan_id = {plan_id}::bigint ORDER BY first_position
"""
_LEFT_OUT = "left out by the source"
_DECIDED_BY = "lab"


def read_current_plans(queue: RepeatableRead, days: Sequence[dt.date]) -> pa.Table:
    """The current plans of some days, by day, of those that have one.

    Args:
        queue: To `queue`, as its reader.
        days: The days.
    """
    return queue.read(_PLANS, days=list(days))


@dataclass(frozen=True)
class PlanRows:
    """What a plan consists of.

    Attributes:
        jobs: `position`, `epid`, `algorithm_id`, `window_start`, by position.
        chunks: `chunk`, `first_position`, `jobs`, `priority`, by chunk.
        outcomes: `position`, `covered_from`, `metrics` (JSON text), `algorithm_version`, `finished_at`, by
            position.
        waived: `position` of the jobs that a decision left out, by position.
        batches: `plan_id`, `first_position`, `chunk`, `jobs`, `seconds` and more, by position; empty where
            the jobs are not all of their plan's.
    """

    jobs: pa.Table
    chunks: pa.Table
    outcomes: pa.Table
    waived: pa.Table
    batches: pa.Table


def read_jobs(queue: RepeatableRead, plan_id: int) -> pa.Table:
    """A plan's jobs, by position; raises as `read_plan_rows`."""
    return queue.read(_JOBS, plan_id=plan_id)


def read_first_window(queue: RepeatableRead, plan_id: int) -> dt.date | None:
    """The first date in the windows of a plan's jobs; None for a plan without jobs; raises as above."""
    first: dt.date | None = queue.read(_FIRST_WINDOW, plan_id=plan_id)["first"][0].as_py()
    return first


def read_chunks(queue: RepeatableRead, plan_id: int) -> pa.Table:
    """A plan's chunks, by number; raises as `read_plan_rows`."""
    return queue.read(_CHUNKS, plan_id=plan_id)


def read_batches(queue: RepeatableRead, plan_id: int) -> pa.Table:
    """A plan's micro-batches, by position; raises as `read_plan_rows`."""
    return queue.read(_BATCHES, plan_id=plan_id)


def read_plan_rows(queue: RepeatableRead, plan_id: int) -> PlanRows:
    """All that a plan consists of.

    Args:
        queue: To `queue`, as its reader.
        plan_id: A current plan.

    Raises:
        StatementFailed: If a statement ends half-way.
        SystemFailure: If the server has no room left.
    """
    return PlanRows(
        read_jobs(queue, plan_id),
        read_chunks(queue, plan_id),
        queue.read(_OUTCOMES, plan_id=plan_id),
        queue.read(_WAIVED, plan_id=plan_id),
        read_batches(queue, plan_id),
    )


@dataclass(frozen=True)
class PlanRecord:
    """A plan as another ledger gets it.

    Attributes:
        day: The day.
        plan_id: As in the source.
        plan_uid: As in the source.
        checksum: Of its jobs.
        snapshot_id: The drop they were planned from, as the lake beside this ledger calls it.
        code_version: Of the planning code.
        planned_at: When it was planned in the source.
        fanned_out_at: When its jobs were handed to the fleet there.
        tracked_checksum: Of the tracked episodes they were planned from.
        viewings_version: The version of the viewings, in the lake beside this ledger.
        viewings_digest: Of its content.
    """

    day: dt.date
    plan_id: int
    plan_uid: uuid.UUID
    checksum: str
    snapshot_id: str
    code_version: str
    planned_at: dt.datetime
    fanned_out_at: dt.datetime | None
    tracked_checksum: str | None
    viewings_version: int
    viewings_digest: str


def put_plan(queue: Connection, plan: PlanRecord, rows: PlanRows, workers: str) -> bool:
    """Put a finished plan with all that belongs to it into a ledger, in one transaction.

    Args:
        queue: To `queue` in autocommit mode, as the orchestrator.
        plan: The plan.
        rows: Its rows; each job has an outcome or is waived.
        workers: What stands in place of those who worked.

    Returns:
        Whether it was put; a day that has a plan already keeps it.
    """
    with queue.transaction():
        if find_plan(queue, plan.day) is not None:
            return False
        skip_numbers(queue, plan.plan_id)
        queue.execute(
            """
            INSERT INTO ledger.plans (
                plan_id, day, jobs, checksum, snapshot_id, code_version, planned_at, fanned_out_at,
                plan_uid, tracked_checksum, viewings_version, viewings_digest
            ) OVERRIDING SYSTEM VALUE
            VALUES (
                %(plan_id)s, %(day)s, %(jobs)s, %(checksum)s, %(snapshot_id)s, %(code_version)s,
                %(planned_at)s, %(fanned_out_at)s, %(plan_uid)s, %(tracked_checksum)s,
                %(viewings_version)s, %(viewings_digest)s
            )
            """,
            {**vars(plan), "jobs": len(rows.jobs)},
        )
        own = {"plan_id": plan.plan_id}
        chunks = _counted(rows)
        copy_rows(queue, "COPY ledger.chunks ({columns}) FROM STDIN (FORMAT csv)", _with(chunks, own))
        copy_rows(queue, "COPY ledger.jobs ({columns}) FROM STDIN (FORMAT csv)", _with(rows.jobs, own))
        by = {**own, "worker": workers}
        copy_rows(queue, "COPY ledger.outcomes ({columns}) FROM STDIN (FORMAT csv)", _with(rows.outcomes, by))
        batches = rows.batches.drop_columns(["plan_id"])
        copy_rows(queue, "COPY ledger.batches ({columns}) FROM STDIN (FORMAT csv)", _with(batches, by))
        if len(rows.waived):
            _waive(queue, plan.plan_id, rows.waived)
    return True


def _counted(rows: PlanRows) -> pa.Table:
    """The chunks with how many of their jobs have an outcome, and how many are waived."""
    first = rows.chunks["first_position"].to_numpy()
    ends = first + rows.chunks["jobs"].to_numpy()
    counted = rows.chunks
    for name, of in (("succeeded", rows.outcomes), ("held", rows.waived)):
        positions = of["position"].to_numpy()
        count = positions.searchsorted(ends) - positions.searchsorted(first)
        counted = counted.append_column(name, pa.array(count))
    return counted


def _with(rows: pa.Table, constants: Mapping[str, object]) -> pa.Table:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), len(rows)))
    for at, column in enumerate(rows.schema):
        if pa.types.is_timestamp(column.type):  # which CSV would have without its zone
            shown = pc.strftime(rows[column.name], format="%Y-%m-%d %H:%M:%S+00")
            rows = rows.set_column(at, column.name, shown)
    return rows


def _waive(queue: Connection, plan_id: int, waived: pa.Table) -> None:
    row = queue.execute(
        "INSERT INTO ledger.waivers (plan_id, jobs, reason, decided_by) VALUES (%s, %s, %s, %s)"
        " RETURNING waiver_id",
        [plan_id, len(waived), _LEFT_OUT, _DECIDED_BY],
    ).fetchone()
    assert row is not None  # noqa: S101  RETURNING
    attempts = _with(
        waived,
        {"plan_id": plan_id, "starts": 1, "is_held": True, "error": _LEFT_OUT, "waiver_id": row[0]},
    )
    copy_rows(queue, "COPY ledger.job_attempts ({columns}) FROM STDIN (FORMAT csv)", attempts)
