"""What a worker does to the ledger: each function one statement, valid only under the current claim.

PgQueuer gives a message to another worker when the first one falls silent, and nothing stops the
first from going on. So each pick stamps a new claim on the chunk's jobs, and every later statement
names it: a worker that lost its claim changes nothing. PgQueuer does not count a pick after a kill as
an attempt either, so the ledger counts starts before a job runs.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from episodes_assets.fleet.messages import ChunkMessage

AsyncConnection = psycopg.AsyncConnection[Any]


class ClaimLost(Exception):
    """The jobs are another worker's by now, or their plan was superseded."""


@dataclass(frozen=True)
class ClaimedJob:
    """A job that is this worker's to run."""

    job_id: int
    epid: int
    algorithm_id: int
    window_start: dt.date
    starts: int


@dataclass(frozen=True)
class Claim:
    """A chunk's open jobs under one claim."""

    token: uuid.UUID
    day: dt.date
    jobs: Sequence[ClaimedJob]


@dataclass(frozen=True)
class JobFailure:
    """Why a start of a job came to nothing."""

    error: str
    traceback: str


async def claim_chunk(connection: AsyncConnection, message: ChunkMessage, worker: str) -> Claim | None:
    """Claim the chunk's jobs that are not finished; None when there is none left to do."""
    token = uuid.uuid4()
    cursor = await connection.execute(
        """
        UPDATE ledger.jobs
        SET state = 'running', claim = %(token)s, claimed_by = %(worker)s, claimed_at = now()
        FROM ledger.plans
        WHERE jobs.plan_id = %(plan_id)s AND jobs.chunk = %(chunk)s
            AND jobs.state IN ('waiting', 'running')
            AND plans.plan_id = jobs.plan_id AND superseded_at IS NULL
        RETURNING job_id, epid, algorithm_id, window_start, starts, day
        """,
        {"token": token, "worker": worker, "plan_id": message.plan_id, "chunk": message.chunk},
    )
    rows = sorted(await cursor.fetchall())
    if not rows:
        return None
    return Claim(token, day=rows[0][-1], jobs=[ClaimedJob(*row[:-1]) for row in rows])


async def count_start(connection: AsyncConnection, claim: Claim, jobs: Sequence[ClaimedJob]) -> None:
    """Count a start of these jobs; call it right before they run.

    Raises:
        ClaimLost: If any of them is not this claim's any more.
    """
    cursor = await connection.execute(
        "UPDATE ledger.jobs SET starts = starts + 1 WHERE job_id = ANY (%s) AND claim = %s"
        " AND state = 'running'",
        [[job.job_id for job in jobs], claim.token],
    )
    if cursor.rowcount != len(jobs):
        raise ClaimLost


async def uncount_start(connection: AsyncConnection, claim: Claim, jobs: Sequence[ClaimedJob]) -> None:
    """Take a start back that was no fault of these jobs."""
    await connection.execute(
        "UPDATE ledger.jobs SET starts = starts - 1 WHERE job_id = ANY (%s) AND claim = %s AND starts > 0",
        [[job.job_id for job in jobs], claim.token],
    )


async def write_outcomes(
    connection: AsyncConnection,
    claim: Claim,
    jobs: Sequence[ClaimedJob],
    outcomes: Mapping[str, Sequence[Any]],
    worker: str,
) -> int:
    """Write the outcomes of the jobs that still are this claim's.

    Args:
        connection: To `queue`, as a worker.
        claim: Under which they ran.
        jobs: The jobs.
        outcomes: In the jobs' order: `covered_from`, `metrics` (JSON text), `algorithm_version`.
        worker: This worker's name.

    Returns:
        How many were written.
    """
    cursor = await connection.execute(
        """
        WITH computed AS (
            SELECT * FROM unnest(%(job_ids)s::bigint[], %(covered_from)s::date[],
                %(metrics)s::text[], %(versions)s::text[])
                AS computed (job_id, covered_from, metrics, algorithm_version)
        ), finished AS (
            UPDATE ledger.jobs
            SET state = 'succeeded', claim = NULL, error = NULL, traceback = NULL
            FROM computed
            WHERE jobs.job_id = computed.job_id AND claim = %(token)s AND state = 'running'
            RETURNING jobs.job_id
        )
        INSERT INTO ledger.outcomes (job_id, covered_from, metrics, algorithm_version, worker)
        SELECT job_id, covered_from, metrics::jsonb, algorithm_version, %(worker)s
        FROM computed JOIN finished USING (job_id)
        ON CONFLICT (job_id) DO UPDATE SET covered_from = excluded.covered_from,
            metrics = excluded.metrics, algorithm_version = excluded.algorithm_version,
            worker = excluded.worker, finished_at = now()
        """,
        {
            "job_ids": [job.job_id for job in jobs],
            "covered_from": list(outcomes["covered_from"]),
            "metrics": list(outcomes["metrics"]),
            "versions": list(outcomes["algorithm_version"]),
            "token": claim.token,
            "worker": worker,
        },
    )
    return cursor.rowcount


async def record_failure(
    connection: AsyncConnection,
    claim: Claim,
    job: ClaimedJob,
    failure: JobFailure,
    max_starts: int,
) -> bool:
    """Let a failed job wait for another start, or hold it when it has had its starts.

    Returns:
        Whether it is held.
    """
    cursor = await connection.execute(
        """
        UPDATE ledger.jobs
        SET state = CASE WHEN starts >= %(max_starts)s THEN 'held' ELSE 'waiting' END,
            error = %(error)s, traceback = %(traceback)s, claim = NULL
        WHERE job_id = %(job_id)s AND claim = %(token)s AND state = 'running'
        RETURNING state
        """,
        {
            "max_starts": max_starts,
            "error": failure.error,
            "traceback": failure.traceback,
            "job_id": job.job_id,
            "token": claim.token,
        },
    )
    row = await cursor.fetchone()
    return row is not None and row[0] == "held"


async def give_back(connection: AsyncConnection, claim: Claim) -> None:
    """Let whatever is still running under the claim wait for another worker."""
    await connection.execute(
        "UPDATE ledger.jobs SET state = 'waiting', claim = NULL"
        " WHERE job_id = ANY (%s) AND claim = %s AND state = 'running'",
        [[job.job_id for job in claim.jobs], claim.token],
    )
