"""What a worker does to the ledger, valid only under the current claim; and the session in which it does it.

PgQueuer gives a message to another worker when the first one falls silent, and nothing stops the first from
going on. So each pick stamps a new claim on the chunk (a fencing token), and every later statement names
it: a worker that lost its claim changes nothing, neither outcomes nor durations, and takes back no more than
the starts that it has counted. PgQueuer does not count a pick after a kill as an attempt either, so the
ledger counts starts before anything runs. `GuardedLedger` gives a silent server up, and a database that is
no longer the worker's own. When what is called is `worker/chunk.py`; what people do with failed jobs, `held`.
"""

import asyncio
import datetime as dt
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import psycopg

from episodes_assets.errors import DatabaseUnreachable, SystemFailure
from episodes_assets.failures import storable
from episodes_assets.ledger.dispatch import ChunkMessage
from episodes_assets.postgres import admission
from episodes_assets.postgres.connect import AsyncConnection
from episodes_assets.postgres.databases import Database


class ClaimLost(Exception):
    """The chunk is another worker's by now, or its plan was superseded, or its day was cancelled."""


class ClaimedJob(NamedTuple):
    """A job that this worker has claimed.

    Attributes:
        position: Of the job in its plan.
        epid: The episode.
        algorithm_id: The analysis.
        window_start: The first date it looks at.
        starts: How often it was started alone.
    """

    position: int
    epid: int
    algorithm_id: int
    window_start: dt.date
    starts: int


@dataclass(frozen=True)
class Claim:
    """A chunk's open jobs under one claim.

    Attributes:
        token: Identifies the claim: a fencing token.
        plan_id: The plan.
        chunk: The chunk.
        day: The plan's day.
        starts: How often jobs of the chunk were started together.
        jobs: The open jobs, by position.
        viewings_version: The version of the lake's viewings to compute them from; None for a plan from before
            the lake.
        viewings_digest: Of that version's content; None where it was not recorded.
    """

    token: uuid.UUID
    plan_id: int
    chunk: int
    day: dt.date
    starts: int
    jobs: Sequence[ClaimedJob]
    viewings_version: int | None
    viewings_digest: str | None = None


@dataclass(frozen=True)
class Took:
    """The duration of jobs that were computed together.

    Attributes:
        seconds: From their start to the last result: reading and computing.
        by_algorithm: Seconds of computing by `algorithm_id`, without reading.
    """

    seconds: float
    by_algorithm: Mapping[int, float]


@dataclass(frozen=True)
class JobFailure:
    """Why a start failed."""

    error: str
    traceback: str
    is_time_limit: bool = False


async def claim_chunk(connection: AsyncConnection, message: ChunkMessage, worker: str) -> Claim | None:
    """Claim a chunk; None when none of its jobs is left to do."""
    token = uuid.uuid4()
    cursor = await connection.execute(
        """
        WITH plan AS MATERIALIZED (
            SELECT day, viewings_version, viewings_digest, superseded_at
            FROM ledger.plans WHERE plan_id = %(plan_id)s
        )
        UPDATE ledger.chunks SET claim = %(token)s, claimed_by = %(worker)s, claimed_at = now()
        FROM plan
        WHERE plan_id = %(plan_id)s AND chunk = %(chunk)s AND succeeded + held < jobs
            AND superseded_at IS NULL
        RETURNING day, viewings_version, viewings_digest, starts, first_position, first_position + jobs
        """,
        {"token": token, "worker": worker, "plan_id": message.plan_id, "chunk": message.chunk},
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    day, viewings_version, viewings_digest, starts, first, end = row
    # A statement of its own: it must see what the claim before this one has just written.
    cursor = await connection.execute(
        """
        WITH jobs AS (
            SELECT position, epid, algorithm_id, window_start FROM ledger.jobs
            WHERE plan_id = %(plan_id)s AND position >= %(first)s AND position < %(end)s
        ), job_attempts AS (
            SELECT position, starts, is_held FROM ledger.job_attempts
            WHERE plan_id = %(plan_id)s AND position >= %(first)s AND position < %(end)s
        ), outcomes AS (
            SELECT position FROM ledger.outcomes
            WHERE plan_id = %(plan_id)s AND position >= %(first)s AND position < %(end)s
        )
        SELECT position, epid, algorithm_id, window_start, coalesce(starts, 0)
        FROM jobs LEFT JOIN job_attempts USING (position)
        WHERE NOT coalesce(is_held, false)
            AND NOT EXISTS (SELECT FROM outcomes WHERE outcomes.position = jobs.position)
        ORDER BY position
        """,
        {"plan_id": message.plan_id, "first": first, "end": end},
    )
    jobs = [ClaimedJob(*row) for row in await cursor.fetchall()]
    return Claim(token, message.plan_id, message.chunk, day, starts, jobs, viewings_version, viewings_digest)


async def count_start(connection: AsyncConnection, claim: Claim, jobs: Sequence[ClaimedJob]) -> None:
    """Count a start of these jobs; call it right before they run.

    Jobs that start together are counted at their chunk, one that starts alone by itself.

    Raises:
        ClaimLost: If the chunk is not this claim's any more.
    """
    if len(jobs) > 1:
        cursor = await connection.execute(
            "UPDATE ledger.chunks SET starts = starts + 1 WHERE plan_id = %s AND chunk = %s AND claim = %s",
            [claim.plan_id, claim.chunk, claim.token],
        )
    else:
        cursor = await connection.execute(
            """
            INSERT INTO ledger.job_attempts (plan_id, position, starts)
            SELECT plan_id, %s, 1 FROM ledger.chunks
            WHERE plan_id = %s AND chunk = %s AND claim = %s FOR UPDATE
            ON CONFLICT (plan_id, position) DO UPDATE SET starts = job_attempts.starts + 1
            """,
            [jobs[0].position, claim.plan_id, claim.chunk, claim.token],
        )
    if cursor.rowcount != 1:
        raise ClaimLost


async def uncount_start(connection: AsyncConnection, claim: Claim, jobs: Sequence[ClaimedJob]) -> None:
    """Uncount a start that failed for another reason than these jobs, such as an outage.

    Also where the chunk is another's by now: an outage that ends a session may last until then, and nobody
    else takes this start back. What is held is left as it was decided.
    """
    if len(jobs) > 1:
        await connection.execute(
            "UPDATE ledger.chunks SET starts = starts - 1"
            " WHERE plan_id = %s AND chunk = %s AND starts > 0 AND succeeded + held < jobs",
            [claim.plan_id, claim.chunk],
        )
    else:
        await connection.execute(
            "UPDATE ledger.job_attempts SET starts = starts - 1"
            " WHERE plan_id = %s AND position = %s AND starts > 0 AND NOT is_held",
            [claim.plan_id, jobs[0].position],
        )


async def write_outcomes(
    connection: AsyncConnection,
    claim: Claim,
    jobs: Sequence[ClaimedJob],
    outcomes: Mapping[str, Sequence[Any]],
    worker: str,
    took: Took,
) -> None:
    """Write the outcomes of some of a claim's jobs, and how long they took; the last ones release the claim.

    Args:
        connection: To `queue`, as a worker.
        claim: Under which they ran.
        jobs: The jobs.
        outcomes: In the jobs' order: `covered_from`, `metrics` (JSON text in one line), `algorithm_version`.
        worker: This worker's name.
        took: How long they took, together.

    Raises:
        ClaimLost: If the chunk is not this claim's any more; nothing is written.
    """
    jobs_by_algorithm = Counter(job.algorithm_id for job in jobs)
    versions = {
        version: number for number, version in enumerate(dict.fromkeys(outcomes["algorithm_version"]), 1)
    }
    cursor = await connection.execute(
        """
        WITH mine AS (
            UPDATE ledger.chunks
            SET succeeded = succeeded + %(count)s,
                moved_at = now(),
                claim = CASE WHEN succeeded + held + %(count)s < jobs THEN claim END
            WHERE plan_id = %(plan_id)s AND chunk = %(chunk)s AND claim = %(token)s
            RETURNING plan_id, chunk
        ), timed AS (
            INSERT INTO ledger.batches (plan_id, first_position, chunk, jobs, seconds, algorithm_ids,
                algorithm_jobs, algorithm_seconds, worker)
            SELECT plan_id, %(first)s, chunk, %(count)s, %(seconds)s, %(algorithm_ids)s,
                %(algorithm_jobs)s, %(algorithm_seconds)s, %(worker)s
            FROM mine
            -- Outcomes that were lost are computed again, and their old duration may still be there.
            ON CONFLICT DO NOTHING
        )
        INSERT INTO ledger.outcomes (plan_id, position, covered_from, metrics, algorithm_version, worker)
        SELECT plan_id, position, covered_from, metrics::jsonb, (%(versions)s::text[])[version], %(worker)s
        FROM mine, unnest(
            string_to_array(%(positions)s, E'\\n')::integer[],
            string_to_array(%(covered_from)s, E'\\n', '')::date[],
            string_to_array(%(metrics)s, E'\\n'),
            string_to_array(%(version_numbers)s, E'\\n')::integer[]
        ) AS computed (position, covered_from, metrics, version)
        """,
        {
            "count": len(jobs),
            "plan_id": claim.plan_id,
            "chunk": claim.chunk,
            "token": claim.token,
            "worker": worker,
            # A line for each job: psycopg escapes the elements of an array one by one in Python, which takes
            # longer than to compute them.
            "positions": _lines(job.position for job in jobs),
            "covered_from": _lines(each or "" for each in outcomes["covered_from"]),
            "metrics": _lines(outcomes["metrics"]),
            "version_numbers": _lines(versions[each] for each in outcomes["algorithm_version"]),
            "versions": list(versions),
            "first": min(job.position for job in jobs),
            "seconds": took.seconds,
            "algorithm_ids": list(jobs_by_algorithm),
            "algorithm_jobs": list(jobs_by_algorithm.values()),
            "algorithm_seconds": [float(took.by_algorithm.get(each, 0)) for each in jobs_by_algorithm],
        },
    )
    if cursor.rowcount != len(jobs):
        raise ClaimLost


def _lines(values: Iterable[object]) -> str:
    return "\n".join(map(str, values))


async def record_failures(
    connection: AsyncConnection,
    claim: Claim,
    jobs: Sequence[ClaimedJob],
    failure: JobFailure,
    max_starts: int,
    *,
    uncounted_starts: int = 0,
) -> int:
    """Record why jobs failed, as far as a database can hold that; hold those that have no starts left.

    Args:
        connection: To `queue`, as a worker.
        claim: Under which they failed.
        jobs: One that was started alone, or several that share the failure.
        failure: Why.
        max_starts: Starts after which a job is held.
        uncounted_starts: Starts of each that `count_start` has not counted.

    Returns:
        How many are held.

    Raises:
        ClaimLost: If the chunk is not this claim's any more.
    """
    cursor = await connection.execute(
        """
        WITH mine AS (
            SELECT plan_id FROM ledger.chunks
            WHERE plan_id = %(plan_id)s AND chunk = %(chunk)s AND claim = %(token)s FOR UPDATE
        ), failed AS (
            INSERT INTO ledger.job_attempts AS attempts (plan_id, position, starts, is_held, error, traceback)
            SELECT plan_id, position, %(more)s, %(more)s >= %(max_starts)s, %(error)s, %(traceback)s
            FROM mine, unnest(%(positions)s::integer[]) AS position
            ON CONFLICT (plan_id, position) DO UPDATE SET starts = attempts.starts + %(more)s,
                is_held = attempts.starts + %(more)s >= %(max_starts)s,
                error = excluded.error, traceback = excluded.traceback
            RETURNING is_held
        ), counted AS (
            UPDATE ledger.chunks
            SET held = held + (SELECT count(*) FROM failed WHERE is_held), moved_at = now()
            WHERE plan_id = %(plan_id)s AND chunk = %(chunk)s AND claim = %(token)s
                AND EXISTS (SELECT FROM failed WHERE is_held)
        )
        SELECT count(*), count(*) FILTER (WHERE is_held) FROM failed
        """,
        {
            "more": uncounted_starts,
            "max_starts": max_starts,
            "error": storable(failure.error),
            "traceback": storable(failure.traceback),
            "plan_id": claim.plan_id,
            "chunk": claim.chunk,
            "positions": [job.position for job in jobs],
            "token": claim.token,
        },
    )
    row = await cursor.fetchone()
    failed, held = row or (0, 0)
    if failed != len(jobs):
        raise ClaimLost
    return int(held)


async def release_claim(connection: AsyncConnection, claim: Claim) -> None:
    """Release a claim, so that another worker may claim what is left of the chunk."""
    await connection.execute(
        "UPDATE ledger.chunks SET claim = NULL WHERE plan_id = %s AND chunk = %s AND claim = %s",
        [claim.plan_id, claim.chunk, claim.token],
    )


T = TypeVar("T")
# Errors that no job has caused. An OSError is not among them: an algorithm may raise one each time.
INFRASTRUCTURE = (SystemFailure, psycopg.OperationalError, psycopg.InterfaceError)


class GuardedLedger:
    """The ledger in one session, with a time limit for each statement.

    Args:
        connection: To `queue` in autocommit mode, as a worker; each statement is a transaction.
        environment: The worker's own.
        silence_seconds: How long a statement may take; after that, PgQueuer gives the worker's messages to
            others.
    """

    def __init__(self, connection: AsyncConnection, environment: str, silence_seconds: float) -> None:
        self.connection = connection
        self._environment = environment
        self._silence_seconds = silence_seconds

    async def execute(self, statement: Coroutine[None, None, T]) -> T:
        """Await a statement on the connection, such as `claim_chunk`; returns its result.

        Raises:
            DatabaseUnreachable: If the server is silent for too long. The connection is closed then, since
                cancelling the statement would wait for the silent server.
        """
        task = asyncio.ensure_future(statement)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._silence_seconds)
        except asyncio.CancelledError:
            await self._give_up(task)
            raise
        if not done:
            await self._give_up(task)
            raise DatabaseUnreachable(f"the queue was silent for {self._silence_seconds:g} seconds")
        return task.result()

    async def _give_up(self, task: asyncio.Future[Any]) -> None:
        await self.connection.close()
        task.cancel()
        await asyncio.wait({task}, timeout=1)

    async def ask(self) -> None:
        """Have the server answer, so that no proxy takes the connection for an idle one.

        Raises:
            DatabaseUnreachable: As `execute`.
        """
        await self.execute(self.connection.execute("SELECT"))

    async def require_admission(self) -> None:
        """Check stamp and schema again, which may be changed while a worker runs.

        Raises:
            WrongEnvironment: If the queue belongs to another environment by now.
            SchemaTooOld: If its schema is of an older release by now.
            SchemaTooNew: If its schema is of a newer release by now.
            DatabaseUnreachable: As `execute`.
        """
        cursor = await self.execute(self.connection.execute(admission.READ_ADMISSION))
        found = await cursor.fetchone()
        admission.require_admission(
            found or admission.NOTHING_FOUND, Database.QUEUE, self._environment, "the queue"
        )
