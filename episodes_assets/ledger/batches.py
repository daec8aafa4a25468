"""What workers wrote down of the batches they finished: throughput, durations, the slowest ones.

A batch is the jobs that were computed together; `claims` writes its row with their outcomes. How far the days
are is `progress`; speeds and expected ends are computed in `planning/throughput.py`.
"""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg.rows import class_row

from episodes_assets.planning.throughput import MOST_POINTS, RECENT, FinishedBy, RecentWork
from episodes_assets.postgres.connect import Connection


def read_recent_work(connection: Connection, plan_ids: Sequence[int]) -> dict[int, RecentWork]:
    """What was finished within `RECENT`, by plan."""
    rows = connection.execute(
        """
        WITH recent AS MATERIALIZED (SELECT * FROM ledger.batches WHERE finished_at > now() - %s)
        SELECT plan_id, sum(jobs)::int, min(finished_at - make_interval(secs => seconds))
        FROM recent WHERE plan_id = ANY (%s) GROUP BY plan_id
        """,
        [RECENT, list(plan_ids)],
    ).fetchall()
    return {plan_id: RecentWork(jobs, began) for plan_id, jobs, began in rows}


def read_throughput(connection: Connection, *, bucket_seconds: float, buckets: int) -> list[float]:
    """Jobs a second in equal spans of time up to now, the oldest first.

    A batch counts over the whole time that it took, not at the moment when it was written.

    Args:
        connection: To `queue`.
        bucket_seconds: How long a span is.
        buckets: How many.
    """
    rows = connection.execute(
        """
        WITH batch AS (
            SELECT jobs, ended, ended + greatest(seconds, 0.001) AS began
            FROM ledger.batches
            -- Ages in seconds, so `began` is the greater one. Written while this begins counts as just now.
            CROSS JOIN LATERAL (
                SELECT greatest(extract(epoch FROM now() - finished_at)::float8, 0) AS ended
            ) AS age
            WHERE finished_at > now() - make_interval(secs => %(seconds)s * %(buckets)s)
        )
        SELECT bucket, sum(
            jobs * (least(began, (bucket + 1) * %(seconds)s) - greatest(ended, bucket * %(seconds)s))
            / (began - ended)
        ) / %(seconds)s
        FROM batch CROSS JOIN LATERAL generate_series(
            floor(ended / %(seconds)s)::int,
            least(floor(began / %(seconds)s), %(buckets)s - 1)::int
        ) AS bucket
        GROUP BY bucket
        """,
        {"seconds": float(bucket_seconds), "buckets": buckets},
    ).fetchall()
    found = {int(bucket): max(float(rate), 0.0) for bucket, rate in rows}
    return [found.get(bucket, 0.0) for bucket in reversed(range(buckets))]


def finished_over_time(connection: Connection, plan_ids: Sequence[int]) -> list[FinishedBy]:
    """How many jobs of some plans had succeeded at times, in at most `MOST_POINTS` steps.

    The first point is the start of the first batch, with no job; empty if no batch is recorded.
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


def durations_by_algorithm(connection: Connection, plan_ids: Sequence[int]) -> list[AlgorithmDuration]:
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
        worker: The worker that did so.
    """

    day: dt.date
    chunk: int
    jobs: int
    epid: int | None
    algorithm_id: int | None
    seconds: float
    worker: str


def slowest_batches(connection: Connection, plan_ids: Sequence[int], limit: int) -> list[SlowBatch]:
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


# Of the batches of some minutes, and of the algorithms of one: more than there ever are.
MOST_BATCHES, MOST_ALGORITHMS = 20_000, 1_000


class FinishedBatch(NamedTuple):
    """A batch as it is counted once.

    Attributes:
        plan_id: Its plan.
        first_position: Of its jobs; with the plan it identifies the batch.
        seconds: What computing it took, by algorithm.
    """

    plan_id: int
    first_position: int
    seconds: dict[int, float]


def read_batches_since(connection: Connection, moment: dt.datetime) -> list[FinishedBatch]:
    """The batches that were finished since a moment, the newest first, at most `MOST_BATCHES`.

    Workers write them. What none can have measured is left out, so that no row keeps the others from being
    counted.
    """
    rows = connection.execute(
        """
        SELECT plan_id, first_position, algorithm_ids, algorithm_seconds
        FROM ledger.batches
        WHERE finished_at > %s AND finished_at <= now()
            AND cardinality(algorithm_ids) = cardinality(algorithm_seconds)
            AND cardinality(algorithm_ids) <= %s
        ORDER BY finished_at DESC LIMIT %s
        """,
        [moment, MOST_ALGORITHMS, MOST_BATCHES],
    ).fetchall()
    return [
        FinishedBatch(plan_id, position, dict(zip(ids, seconds, strict=True)))
        for plan_id, position, ids, seconds in rows
        if all(isinstance(each, int) for each in ids)
        and all(isinstance(each, float) and 0 <= each < math.inf for each in seconds)
    ]
