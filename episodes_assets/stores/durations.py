"""How long the fleet took for a day's jobs, as it wrote down with their outcomes."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.planning.throughput import MOST_POINTS, FinishedBy
from episodes_assets.postgres.connect import Connection


@dataclass(frozen=True)
class AlgorithmDuration:
    """What computing an algorithm took, without the reading of viewings that all share.

    Attributes:
        algorithm_id: The algorithm.
        jobs: Jobs with an outcome.
        batches: Batches that they were computed in.
        seconds: All of them together.
        median: Of a batch, in seconds.
        p95: The 95th percentile of a batch, in seconds.
    """

    algorithm_id: int
    jobs: int
    batches: int
    seconds: float
    median: float
    p95: float


@dataclass(frozen=True)
class SlowBatch:
    """Jobs that were computed together, or one alone.

    Attributes:
        day: Their day.
        chunk: Their chunk.
        jobs: How many.
        epid: The episode of a job that was alone.
        algorithm_id: Its algorithm.
        seconds: Reading and computing them.
        worker: Who did it.
    """

    day: dt.date
    chunk: int
    jobs: int
    epid: int | None
    algorithm_id: int | None
    seconds: float
    worker: str


def by_algorithm(connection: Connection, plan_ids: Sequence[int]) -> list[AlgorithmDuration]:
    """What each algorithm took in some plans."""
    with connection.cursor(row_factory=class_row(AlgorithmDuration)) as cursor:
        cursor.execute(
            """
            SELECT algorithm_id, sum(own.jobs)::bigint AS jobs, count(*) AS batches,
                sum(own.seconds) AS seconds,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY own.seconds) AS median,
                percentile_cont(0.95) WITHIN GROUP (ORDER BY own.seconds) AS p95
            FROM ledger.batches, unnest(algorithm_ids, algorithm_jobs, algorithm_seconds)
                AS own (algorithm_id, jobs, seconds)
            WHERE plan_id = ANY (%s) GROUP BY algorithm_id ORDER BY algorithm_id
            """,
            [list(plan_ids)],
        )
        return cursor.fetchall()


def slowest(connection: Connection, plan_ids: Sequence[int], limit: int) -> list[SlowBatch]:
    """The batches of some plans that took longest, the slowest first."""
    with connection.cursor(row_factory=class_row(SlowBatch)) as cursor:
        cursor.execute(
            """
            WITH slow AS (
                SELECT * FROM ledger.batches WHERE plan_id = ANY (%s)
                ORDER BY seconds DESC, plan_id, first_position LIMIT %s
            )
            SELECT day, chunk, slow.jobs, epid, algorithm_id, seconds, worker
            FROM slow
            CROSS JOIN LATERAL (
                SELECT day FROM ledger.plans WHERE plans.plan_id = slow.plan_id OFFSET 0
            ) AS plan
            LEFT JOIN LATERAL (
                SELECT epid, algorithm_id FROM ledger.jobs
                WHERE jobs.plan_id = slow.plan_id AND position = first_position AND slow.jobs = 1 OFFSET 0
            ) AS job ON true
            ORDER BY seconds DESC, plan_id, first_position
            """,
            [list(plan_ids), limit],
        )
        return cursor.fetchall()


def finished_over_time(connection: Connection, plan_ids: Sequence[int]) -> list[FinishedBy]:
    """How many jobs of some plans had succeeded by when, in at most `MOST_POINTS` steps.

    Begins with none when the first was begun; empty when nothing is known.
    """
    rows = connection.execute(
        """
        WITH chosen AS (
            SELECT jobs, finished_at, finished_at - make_interval(secs => seconds) AS began
            FROM ledger.batches WHERE plan_id = ANY (%(plan_ids)s)
        ), span AS (SELECT min(began) AS began, max(finished_at) AS ended FROM chosen)
        SELECT began, NULL FROM span WHERE began IS NOT NULL
        UNION ALL
        (
            SELECT max(finished_at), (sum(sum(jobs)) OVER (ORDER BY max(finished_at)))::bigint
            FROM chosen, span
            GROUP BY ceil(%(steps)s * extract(epoch FROM finished_at - span.began)
                / nullif(extract(epoch FROM span.ended - span.began), 0) - 1e-6)
            ORDER BY 1
        )
        """,
        {"plan_ids": list(plan_ids), "steps": MOST_POINTS - 1},
    ).fetchall()
    return [FinishedBy(at, jobs or 0) for at, jobs in rows]
