"""What the ledger has of one episode on one day: the day's plans, and its jobs in the current one.

For whoever asks why a row of the results is what it is (`explanation/`). One statement reads a job with its
chunk, its attempts, its outcome, what that took and what was decided about it. It loads neither pandas nor
Arrow, which recording plans needs (`plans.py`).
"""

import datetime as dt
from typing import Any

from psycopg.rows import class_row, dict_row

from episodes_assets.explanation.records import DecisionRecord, JobRecord, OpenJobs, OutcomeRecord, PlanRecord
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import Connection

# As `held.ERROR_CHARACTERS`, whose module records plans.
_ERROR_CHARACTERS = 500
# As `held.cancel_day` writes it. What a worker writes begins with an exception's name, or with `started`.
_CANCELLED = r"^cancelled by .* at \d{4}-\d\d-\d\d \d\d:\d\d UTC: "


def read_plans(connection: Connection, day: dt.date) -> list[PlanRecord]:
    """All plans that a day has had, in the order in which they were made."""
    with connection.cursor(row_factory=class_row(PlanRecord)) as cursor:
        cursor.execute(
            """
            SELECT plan_id, plan_uid, jobs, snapshot_id, tracked_checksum, viewings_version, viewings_digest,
                code_version, planned_at, fanned_out_at, superseded_at
            FROM ledger.plans WHERE day = %s ORDER BY plan_id
            """,
            [day],
        )
        return cursor.fetchall()


def read_open_jobs(connection: Connection, day: dt.date) -> OpenJobs:
    """What is left to do of a day's current plan; nothing without a plan."""
    for progress in read_progress(connection, [day]):
        return OpenJobs(progress.waiting + progress.running, progress.held)
    return OpenJobs()


def read_jobs(connection: Connection, plan_id: int, epid: int) -> list[JobRecord]:
    """The jobs of an episode in a plan, by algorithm."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT algorithm_id, window_start, job.position, chunk, chunk_jobs, chunk_starts, claimed_by,
                claimed_at, is_claimed, coalesce(starts, 0) AS starts, coalesce(is_held, false) AS is_held,
                left(error, %(error)s) AS error,
                coalesce(is_held AND error ~ %(cancelled)s, false) AS is_cancelled,
                reason, decided_by, decided_at,
                covered_from, metrics, algorithm_version, outcome.worker, outcome.finished_at,
                seconds, together
            FROM (
                -- As its index has it.
                SELECT position, algorithm_id, window_start FROM ledger.jobs
                WHERE plan_id + 0 = %(plan_id)s AND epid = %(epid)s OFFSET 0
            ) AS job
            CROSS JOIN LATERAL (
                SELECT chunk, first_position, jobs AS chunk_jobs, starts AS chunk_starts, claimed_by,
                    claimed_at, claim IS NOT NULL AS is_claimed
                FROM ledger.chunks
                WHERE plan_id = %(plan_id)s AND first_position <= job.position ORDER BY chunk DESC LIMIT 1
            ) AS chunk
            LEFT JOIN LATERAL (
                SELECT starts, is_held, error, waiver_id FROM ledger.job_attempts
                WHERE plan_id = %(plan_id)s AND position = job.position OFFSET 0
            ) AS attempts ON true
            LEFT JOIN LATERAL (
                SELECT reason, decided_by, decided_at FROM ledger.waivers
                WHERE waivers.waiver_id = attempts.waiver_id OFFSET 0
            ) AS decision ON true
            LEFT JOIN LATERAL (
                SELECT covered_from, metrics, algorithm_version, worker, finished_at FROM ledger.outcomes
                WHERE plan_id = %(plan_id)s AND position = job.position OFFSET 0
            ) AS outcome ON true
            LEFT JOIN LATERAL (
                -- Outcomes and their batch are written in one transaction, at one time.
                SELECT seconds, jobs AS together FROM ledger.batches
                WHERE plan_id = %(plan_id)s
                    AND first_position >= chunk.first_position AND first_position <= job.position
                    AND batches.worker = outcome.worker AND batches.finished_at = outcome.finished_at
                ORDER BY first_position DESC LIMIT 1
            ) AS batch ON true
            ORDER BY algorithm_id
            """,
            {"plan_id": plan_id, "epid": epid, "error": _ERROR_CHARACTERS, "cancelled": _CANCELLED},
        )
        return [_job(said) for said in cursor.fetchall()]


def _job(said: dict[str, Any]) -> JobRecord:
    outcome = None
    if said["metrics"] is not None:
        names = (
            "covered_from", "metrics", "algorithm_version", "worker", "finished_at", "seconds", "together",
        )  # fmt: skip
        outcome = OutcomeRecord(**{name: said[name] for name in names})
    decision = None
    if said["reason"] is not None:
        decision = DecisionRecord(said["reason"], said["decided_by"], said["decided_at"])
    own = (
        "algorithm_id", "window_start", "position", "chunk", "chunk_jobs", "chunk_starts", "claimed_by",
        "claimed_at", "is_claimed", "starts", "is_held", "is_cancelled", "error",
    )  # fmt: skip
    return JobRecord(**{name: said[name] for name in own}, decision=decision, outcome=outcome)
