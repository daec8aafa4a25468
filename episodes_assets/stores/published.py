"""What consumers read in `results`: published rows and the manifest of published days."""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
from psycopg.rows import class_row

from episodes_assets.algorithms.registry import ALGORITHMS
from episodes_assets.databases.connections import Connection
from episodes_assets.errors import DayIncomplete
from episodes_assets.stores.ledger import Plan

# In COPY's text format, whose lines are also what a day's checksum is taken of.
_OUTCOMES = """
    COPY (
        SELECT %s::date, epid, algorithm_id, window_start, %s::date, covered_from, metrics
        FROM ledger.jobs JOIN ledger.outcomes USING (plan_id, position)
        WHERE plan_id = %s ORDER BY epid, algorithm_id
    ) TO STDOUT
"""
_RESULTS = """
    COPY published.results (day, epid, algorithm_id, window_start, window_end, covered_from, metrics)
    FROM STDIN
"""
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class PublishedDay:
    """A published day as its manifest has it.

    Attributes:
        day: The day.
        jobs: Jobs of the plan it was published from.
        rows: Rows published; as many.
        checksum: Of all its rows.
        plan_id: The plan it was published from.
        plan_checksum: That plan's checksum.
        published_at: When its rows were last replaced.
    """

    day: dt.date
    jobs: int
    rows: int
    checksum: str
    plan_id: int
    plan_checksum: str
    published_at: dt.datetime


def publish_day(
    queue: Connection, results: Connection, plan: Plan, code_version: str
) -> tuple[PublishedDay, bool]:
    """Replace a day's results by the outcomes of its plan, in one transaction.

    Args:
        queue: To `queue`, as the orchestrator.
        results: To `results`, as the publisher.
        plan: The day's current plan.
        code_version: Of the publishing code.

    Returns:
        The day's manifest, and whether any row changed.

    Raises:
        DayIncomplete: If a job of the plan has no outcome. A blocking asset check would stop a
            publication only within its own run, so it is looked at here.
    """
    with results.transaction(), _one_snapshot(queue):
        # Two publications of a day take turns.
        results.execute("SELECT pg_advisory_xact_lock(hashtext('publish'), %s)", [plan.day.toordinal()])
        current = find_day(results, plan.day)
        # A day that is published for the first time needs no look before the leap.
        rows, checksum = (0, "") if current is None else _stream_outcomes(queue, plan, lambda _: None)
        changed = current is None or current.checksum != checksum
        if changed:
            results.execute("DELETE FROM published.results WHERE day = %s", [plan.day])
            with results.cursor() as cursor, cursor.copy(_RESULTS) as copy:
                rows, checksum = _stream_outcomes(queue, plan, copy.write)
        if rows != plan.jobs:
            raise DayIncomplete(
                f"{plan.day} has outcomes for {rows:,} of its {plan.jobs:,} jobs",
                f"see `episodes jobs status {plan.day}`, then materialise job_outcomes",
            )
        if changed or current is None or current.plan_id != plan.plan_id:
            _upsert_day(results, plan, rows, checksum, code_version, changed=changed)
        day = find_day(results, plan.day)
    assert day is not None  # noqa: S101  just written
    return day, changed


@contextmanager
def _one_snapshot(queue: Connection) -> Iterator[None]:
    """Let all reads of the block see the ledger as of one moment."""
    with queue.transaction():
        queue.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        queue.execute("SET LOCAL datestyle = 'ISO'")  # what COPY writes is also what is checked
        yield


def _stream_outcomes(queue: Connection, plan: Plan, write: Callable[[bytes], None]) -> tuple[int, str]:
    """Hand a plan's outcomes on, block by block; how many there are, and their checksum."""
    rows, digest = 0, hashlib.sha256()
    block = bytearray()

    def flush() -> None:
        nonlocal rows
        rows += block.count(b"\n")
        digest.update(block)
        write(bytes(block))
        block.clear()

    with queue.cursor() as cursor, cursor.copy(_OUTCOMES, [plan.day, plan.day, plan.plan_id]) as copy:
        for row in copy:
            block += row
            if len(block) > _BLOCK_BYTES:
                flush()
        flush()
    return rows, digest.hexdigest()


def find_day(connection: Connection, day: dt.date) -> PublishedDay | None:
    """A published day's manifest, or None."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            "SELECT day, jobs, rows, checksum, plan_id, plan_checksum, published_at"
            " FROM published.days WHERE day = %s",
            [day],
        )
        return cursor.fetchone()


def published_plans(connection: Connection) -> dict[dt.date, int]:
    """The plan that each published day was published from."""
    return dict(connection.execute("SELECT day, plan_id FROM published.days").fetchall())


def read_rows(connection: Connection, day: dt.date, limit: int | None = None) -> pd.DataFrame:
    """A day's published rows, as `episodes results` shows and exports them.

    Returns:
        `day, epid, algorithm_id, window_start, window_end, covered_from`, then the metric columns of
        all algorithms, missing where an algorithm does not return them; by epid and algorithm_id.
    """
    keys = ["day", "epid", "algorithm_id", "window_start", "window_end", "covered_from"]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT day, epid, algorithm_id, window_start, window_end, covered_from, metrics
            FROM published.results WHERE day = %s ORDER BY epid, algorithm_id LIMIT %s
            """,
            [day, limit],
        )
        rows = pd.DataFrame(cursor.fetchall(), columns=[*keys, "metrics"])
    metrics = pd.DataFrame(rows["metrics"].tolist(), index=rows.index, dtype="object")
    columns = {name: metric.value for algorithm in ALGORITHMS for name, metric in algorithm.columns.items()}
    metrics = metrics.reindex(columns=list(columns)).astype(
        {name: "Int64" if kind == "integer" else "Float64" for name, kind in columns.items()}
    )
    return pd.concat([rows[keys], metrics], axis="columns")


def _upsert_day(
    results: Connection, plan: Plan, rows: int, checksum: str, code_version: str, *, changed: bool
) -> None:
    results.execute(
        """
        INSERT INTO published.days AS days (day, jobs, rows, checksum, plan_id, plan_checksum,
            code_version)
        VALUES (%(day)s, %(jobs)s, %(rows)s, %(checksum)s, %(plan_id)s, %(plan_checksum)s, %(code)s)
        ON CONFLICT (day) DO UPDATE SET jobs = excluded.jobs, rows = excluded.rows,
            checksum = excluded.checksum, plan_id = excluded.plan_id,
            plan_checksum = excluded.plan_checksum, code_version = excluded.code_version,
            published_at = CASE WHEN %(changed)s THEN now() ELSE days.published_at END
        """,
        {
            "day": plan.day,
            "jobs": plan.jobs,
            "rows": rows,
            "checksum": checksum,
            "plan_id": plan.plan_id,
            "plan_checksum": plan.checksum,
            "code": code_version,
            "changed": changed,
        },
    )
