"""Reading the ledger back, row by row: the jobs of plans, counted outcomes, outcomes as published lines.

For comparing with what was planned and published; the comparisons are in `checks/`. Quick answers from the
counters of chunks are in `progress`.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.rows import class_row

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.checks.consistency import RecordedPlan
from episodes_assets.checks.ledger import LedgerDay, OutcomesDay
from episodes_assets.checks.results import Rows
from episodes_assets.ledger.plans import Plan, require_current
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.postgres.connect import Connection, one_snapshot

_JOBS = """
    SELECT plan_id, epid, algorithm_id, window_start FROM ledger.jobs
    WHERE plan_id = ANY ({plans}::bigint[]) ORDER BY plan_id
"""


def read_ledger_days(connection: Connection, dsn: str, plans: Sequence[Plan]) -> list[LedgerDay]:
    """Read the jobs of some plans back, in the order of the plans and by one query.

    Args:
        connection: To `queue`.
        dsn: The same database.
        plans: The plans as they were recorded.

    Raises:
        PlanOvertaken: If one of them was replaced meanwhile.
    """
    from episodes_assets.postgres.arrow import stream_arrow

    stored = {}
    with stream_arrow(dsn, _JOBS, plans=[plan.plan_id for plan in plans]) as batches:
        for jobs in _by_plan(batches):
            stored[jobs["plan_id"][0].as_py()] = _count(jobs)
    require_current(connection, [plan.plan_id for plan in plans])
    none = (0, "", 0)
    found = [(plan, *stored.get(plan.plan_id, _count(_NO_JOBS) if not plan.jobs else none)) for plan in plans]
    return [
        LedgerDay(plan.day, plan.jobs, plan.checksum, rows, checksum, repeated)
        for plan, rows, checksum, repeated in found
    ]


def read_job_counts(connection: Connection, first: dt.date, last: dt.date) -> dict[dt.date, int]:
    """The jobs of the current plans of some days, by day.

    Args:
        connection: To `queue`.
        first: The first day.
        last: The last one, included.
    """
    return dict(
        connection.execute(
            "SELECT day, jobs FROM ledger.plans WHERE superseded_at IS NULL AND day BETWEEN %s AND %s",
            [first, last],
        ).fetchall()
    )


_NO_JOBS = pa.table(
    {
        "plan_id": pa.array([], pa.int64()),
        "epid": pa.array([], pa.int64()),
        "algorithm_id": pa.array([], pa.int16()),
        "window_start": pa.array([], pa.date32()),
    }
)


def _by_plan(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Cut a stream ordered by plan into the jobs of each."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        plan_ids = batch["plan_id"].to_numpy()
        ends = [*np.flatnonzero(np.diff(plan_ids)) + 1, len(plan_ids)]
        begin = 0
        for end in ends:
            piece = batch[begin:end]
            if waiting and piece.num_rows and waiting[0]["plan_id"][0] != piece["plan_id"][0]:
                yield pa.Table.from_batches(waiting)
                waiting = []
            waiting += [piece] if piece.num_rows else []
            begin = end
    if waiting:
        yield pa.Table.from_batches(waiting)


def _count(jobs: pa.Table) -> tuple[int, str, int]:
    """How many jobs a plan has in the ledger, their checksum, and how many are repeated."""
    jobs = jobs.sort_by([("epid", "ascending"), ("algorithm_id", "ascending")])
    epid, algorithm_id = jobs["epid"].to_numpy(), jobs["algorithm_id"].to_numpy()
    repeated = (np.diff(epid) == 0) & (np.diff(algorithm_id) == 0)
    frame = jobs.select(["epid", "algorithm_id", "window_start"]).to_pandas(date_as_object=False)
    return jobs.num_rows, plan_checksum(frame), int(repeated.sum())


AlgorithmVersions = Mapping[str, Sequence[str]]


_OUTCOME_COUNTS = """
    WITH current AS MATERIALIZED (
        SELECT plan_id, day, jobs FROM ledger.plans WHERE plan_id = ANY (%(plan_ids)s)
    ), stored AS (
        SELECT plan_id, count(*) AS stored
        FROM ledger.jobs WHERE plan_id = ANY (%(plan_ids)s) GROUP BY plan_id
    ), accounted AS (
        -- Whatever accounts for a job stands here once: a job that is waived has no outcome.
        SELECT plan_id, position, false AS is_waived
        FROM ledger.outcomes WHERE plan_id = ANY (%(plan_ids)s)
        UNION ALL
        SELECT plan_id, position, true
        FROM ledger.job_attempts WHERE waiver_id IS NOT NULL AND plan_id = ANY (%(plan_ids)s)
    ), counted AS (
        SELECT plan_id, count(*) FILTER (WHERE NOT is_waived) AS outcomes,
            count(*) FILTER (WHERE is_waived) AS waived, count(*) - count(DISTINCT position) AS repeated
        FROM accounted GROUP BY plan_id
    ), superseded AS (
        SELECT day, sum(outcomes) AS superseded
        FROM ledger.plans CROSS JOIN LATERAL (
            SELECT count(*) AS outcomes FROM ledger.outcomes WHERE outcomes.plan_id = plans.plan_id
        ) AS of_plan
        WHERE superseded_at IS NOT NULL AND day = ANY (ARRAY(SELECT day FROM current)) GROUP BY day
    )
    SELECT day, jobs, coalesce(stored, 0) AS stored, coalesce(outcomes, 0) AS outcomes,
        coalesce(waived, 0) AS waived, coalesce(repeated, 0) AS repeated,
        coalesce(superseded, 0)::bigint AS superseded
    FROM current LEFT JOIN stored USING (plan_id) LEFT JOIN counted USING (plan_id)
        LEFT JOIN superseded USING (day)
    ORDER BY day
"""


def count_outcomes(connection: Connection, plan_ids: Sequence[int]) -> list[OutcomesDay]:
    """Count the outcomes and waivers of the jobs of some days, in order.

    Args:
        connection: To `queue`.
        plan_ids: The days' plans.

    Raises:
        PlanOvertaken: If one of them was replaced meanwhile.
    """
    with connection.cursor(row_factory=class_row(OutcomesDay)) as cursor:
        cursor.execute(_OUTCOME_COUNTS, {"plan_ids": list(plan_ids)})
        counted = cursor.fetchall()
    require_current(connection, plan_ids)
    return counted


PUBLISHED_COLUMNS = "day, epid, algorithm_id, window_start, window_end, covered_from, metrics"


def copy_lines(rows: str) -> str:
    """The statement that copies rows out as published: in COPY's text format, by day, episode and algorithm.

    A day's checksum is taken of these lines, whether they come from the outcomes in the ledger or from what
    is published. Of rows that no database has, `published_checksum` builds the same lines.

    Args:
        rows: A query whose columns are called `PUBLISHED_COLUMNS`.
    """
    return (
        f"COPY (SELECT {PUBLISHED_COLUMNS} FROM ({rows}) AS rows ORDER BY day, epid, algorithm_id) TO STDOUT"  # noqa: S608
    )


OUTCOME_LINES = copy_lines(
    """
    SELECT day, epid, algorithm_id, window_start, day AS window_end, covered_from, metrics
    FROM ledger.plans JOIN ledger.jobs USING (plan_id) JOIN ledger.outcomes USING (plan_id, position)
    WHERE plans.plan_id = ANY (%(which)s) AND jobs.plan_id = ANY (%(which)s)
        AND outcomes.plan_id = ANY (%(which)s)
    """
)
# Of one plan, whose day is known: nothing is sorted by it.
PLAN_LINES = copy_lines(
    """
    SELECT %(day)s::date AS day, epid, algorithm_id, window_start, %(day)s::date AS window_end,
        covered_from, metrics
    FROM ledger.jobs JOIN ledger.outcomes USING (plan_id, position)
    WHERE plan_id = %(plan_id)s
    """
)
_BLOCK_BYTES = 1 << 18
# 50,000 outcomes are sorted in 8 MB; with PostgreSQL's default of 4 MB, in files.
_SORT_MEMORY = "64MB"
_LINES_AT_ONCE = 1 << 16
_DAY = itemgetter(slice(10))  # YYYY-MM-DD


def read_lines(connection: Connection, statement: str, which: Sequence[object]) -> dict[dt.date, Rows]:
    """The rows and the checksum of the lines of each day.

    Args:
        connection: To the database that has them.
        statement: Copies them out, by day; `%(which)s` stands for the days or plans.
        which: The days or plans.
    """
    found = {}
    with (
        _iso_dates(connection),
        connection.cursor() as cursor,
        cursor.copy(statement, {"which": which}) as copy,
    ):
        for day, lines in groupby(map(bytes, copy), _DAY):
            rows, digest = 0, hashlib.sha256()
            for line in lines:
                rows += 1
                digest.update(line)
            found[dt.date.fromisoformat(day.decode())] = Rows(rows, digest.hexdigest())
    return found


def published_checksum(jobs: pa.Table, outcomes: pa.Table, day: dt.date) -> tuple[int, str]:
    """How many rows outcomes would be published as, and the checksum of their lines: those of `copy_lines`.

    So a part of a plan, or a plan in files, can be compared with what is published.

    Args:
        jobs: `position`, `epid`, `algorithm_id` and `window_start`, by position.
        outcomes: `position`, `covered_from` and `metrics` (text), of some of the jobs, by position.
        day: The plan's day.
    """
    own = np.searchsorted(jobs["position"].to_numpy(), outcomes["position"].to_numpy())
    order = np.lexsort((jobs["algorithm_id"].to_numpy()[own], jobs["epid"].to_numpy()[own]))
    rows = jobs.take(pa.array(own[order]))
    metrics, covered = (outcomes[name].take(pa.array(order)) for name in ("metrics", "covered_from"))
    date = pa.scalar(day.isoformat())
    lines = pc.binary_join_element_wise(
        date,
        rows["epid"].cast(pa.string()),
        rows["algorithm_id"].cast(pa.string()),
        rows["window_start"].cast(pa.string()),
        date,
        pc.fill_null(covered.cast(pa.string()), "\\N"),
        pc.binary_join_element_wise(pc.replace_substring(metrics.cast(pa.string()), "\\", "\\\\"), "\n", ""),
        "\t",
    )
    digest = hashlib.sha256()
    for begin in range(0, len(lines), _LINES_AT_ONCE):
        digest.update("".join(lines[begin : begin + _LINES_AT_ONCE].to_pylist()).encode())
    return len(rows), digest.hexdigest()


@contextmanager
def _iso_dates(connection: Connection) -> Iterator[None]:
    """Have COPY write dates in ISO format in the block, whatever the server's setting."""
    with connection.transaction():
        connection.execute("SET LOCAL datestyle = 'ISO'")
        yield


_FINISHED = """
    SELECT coalesce(sum(jobs), 0)::bigint, coalesce(sum(succeeded), 0)::bigint
    FROM ledger.chunks WHERE plan_id = %s
"""
# Chunks that count other jobs as held than there are rows to say why. Waived jobs are held as well.
_MISCOUNTED = """
    SELECT count(*) FROM (
        SELECT first_position, jobs, held FROM ledger.chunks WHERE plan_id = %(plan_id)s
    ) AS chunks
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE is_held) AS held FROM ledger.job_attempts
        WHERE plan_id = %(plan_id)s AND position >= first_position AND position < first_position + jobs
        OFFSET 0
    ) AS attempts
    WHERE attempts.held <> chunks.held
"""


def describe_damage(connection: Connection, dsn: str, plan: Plan) -> str:
    """What of a plan is damaged: jobs, outcomes or both, in words; empty if nothing is.

    Workers write an outcome, or hold a job, and count it in its chunk in one statement, so rows and counts
    agree also while the day is being worked.

    Args:
        connection: To `queue`, in no transaction.
        dsn: The same database.
        plan: A current plan.

    Raises:
        PlanOvertaken: If it was replaced meanwhile.
    """
    (jobs,) = read_ledger_days(connection, dsn, [plan])
    with one_snapshot(connection):
        (outcomes,) = count_outcomes(connection, [plan.plan_id])
        row = connection.execute(_FINISHED, [plan.plan_id]).fetchone()
        miscounted = connection.execute(_MISCOUNTED, {"plan_id": plan.plan_id}).fetchone()
    of_chunks, succeeded = row if row else (0, 0)
    found = {
        "jobs": not jobs.is_exact or of_chunks != plan.jobs,
        "outcomes": outcomes.outcomes != succeeded or outcomes.repeated > 0 or outcomes.superseded > 0,
        "held jobs": miscounted is not None and miscounted[0] > 0,
    }
    return " and ".join(what for what, is_damaged in found.items() if is_damaged)


def stream_outcomes(queue: Connection, plan: Plan, write: Callable[[bytes], None]) -> tuple[int, str]:
    """Pass a plan's outcomes to a function, block by block; returns their number and checksum.

    Args:
        queue: To `queue`, in a transaction.
        plan: The plan.
        write: Gets each block of lines, as `copy_lines` has them.
    """
    queue.execute("SELECT set_config('work_mem', %s, true)", [_SORT_MEMORY])
    rows, digest = 0, hashlib.sha256()
    block = bytearray()

    def flush() -> None:
        nonlocal rows
        rows += block.count(b"\n")
        digest.update(block)
        write(bytes(block))
        block.clear()

    which = {"day": plan.day, "plan_id": plan.plan_id}
    with queue.cursor() as cursor, cursor.copy(PLAN_LINES, which) as copy:
        for row in copy:
            block += row
            if len(block) > _BLOCK_BYTES:
                flush()
        flush()
    return rows, digest.hexdigest()


def read_algorithm_versions(queue: Connection, plan_id: int) -> AlgorithmVersions:
    """The versions that computed a plan's outcomes, by the algorithm's name."""
    found = queue.execute(
        """
        SELECT algorithm_id, array_agg(algorithm_version ORDER BY algorithm_version)
        FROM (
            SELECT DISTINCT algorithm_id, algorithm_version
            FROM ledger.jobs JOIN ledger.outcomes USING (plan_id, position) WHERE plan_id = %s
        ) AS used
        GROUP BY algorithm_id ORDER BY algorithm_id
        """,
        [plan_id],
    ).fetchall()
    return {get_registry().name_of(number): versions for number, versions in found}


_RECORDED_PLANS = """
    SELECT plan_id, plan_uid, day, checksum, snapshot_id, tracked_checksum,
        superseded_at IS NULL AS is_current, jobs AS succeeded, viewings_version, viewings_digest
    FROM ledger.plans ORDER BY plan_id
"""


def read_recorded_plans(queue: Connection) -> tuple[list[RecordedPlan], int]:
    """All plans by their numbers, and the last number that was given.

    Args:
        queue: To `queue`, as the orchestrator.
    """
    with queue.cursor(row_factory=class_row(RecordedPlan)) as cursor:
        plans = cursor.execute(_RECORDED_PLANS).fetchall()
    # Few chunks are open at any time, and an index holds just those.
    unfinished = dict(
        queue.execute(
            "SELECT plan_id, sum(jobs - succeeded)::bigint FROM ledger.chunks WHERE succeeded < jobs"
            " GROUP BY plan_id"
        ).fetchall()
    )
    plans = [
        replace(plan, succeeded=plan.succeeded - unfinished[plan.plan_id])
        if plan.plan_id in unfinished
        else replace(plan, is_done=True)
        for plan in plans
    ]
    last = queue.execute(
        "SELECT last_value - 1 + is_called::integer FROM ledger.plans_plan_id_seq"
    ).fetchone()
    return plans, int(last[0]) if last else 0
