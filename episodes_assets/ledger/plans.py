"""Each day's plan: find, lock, record, supersede and pin it; and every plan that a day has had.

Plans and chunks are locked in one order, so that there is no deadlock. A superseded plan loses its jobs and
keeps its row. The number of a published plan is never given again, even by a ledger that was restored to an
earlier moment: numbers begin above it, and a random uid tells plans apart besides. `docs/job-states.md` draws
the states of a job. Which jobs a plan has is decided in `planning/jobs.py`; workers change jobs in `claims`.
"""

import datetime as dt
import io
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import LiteralString

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from psycopg import sql
from psycopg.rows import class_row

from episodes_assets.errors import DayNotPlanned, LakeMissing, PlanOvertaken
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger.progress import read_progress
from episodes_assets.planning.jobs import into_chunks
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection


@dataclass(frozen=True)
class Plan:
    """A day's current plan.

    Attributes:
        plan_id: Grows with each plan of any day.
        plan_uid: Random and unique; a ledger that is restored to an earlier moment may give a number again.
        day: The day.
        jobs: How many jobs it has.
        checksum: Of those jobs.
        snapshot_id: The drop they were planned from.
        fanned_out_at: When the jobs were handed to the fleet; None before.
        viewings_version: The version of the lake's viewings they are computed from; None for a plan from
            before the lake.
        tracked_checksum: Of the tracked episodes they were planned from; None when nothing was tracked, or
            for a plan from before that was recorded.
        viewings_digest: Of that version's content; None for a plan from before that was recorded.
    """

    plan_id: int
    plan_uid: uuid.UUID
    day: dt.date
    jobs: int
    checksum: str
    snapshot_id: str
    fanned_out_at: dt.datetime | None
    viewings_version: int | None = None
    tracked_checksum: str | None = None
    viewings_digest: str | None = None


_PLAN = (
    "plan_id, plan_uid, day, jobs, checksum, snapshot_id, fanned_out_at, viewings_version, tracked_checksum,"
    " viewings_digest"
)


def find_plan(connection: Connection, day: dt.date) -> Plan | None:
    """The day's current plan, or None."""
    with connection.cursor(row_factory=class_row(Plan)) as cursor:
        cursor.execute(
            f"SELECT {_PLAN} FROM ledger.plans WHERE day = %s AND superseded_at IS NULL",  # noqa: S608
            [day],
        )
        return cursor.fetchone()


def require_plan(connection: Connection, day: dt.date) -> Plan:
    """The day's current plan.

    Raises:
        DayNotPlanned: If it has none.
    """
    plan = find_plan(connection, day)
    if plan is None:
        raise DayNotPlanned(f"{day} has no planned jobs", f"materialise episode_jobs of {day}")
    return plan


def lock_plan(connection: Connection, day: dt.date, *, with_chunks: bool = False) -> Plan:
    """Lock the day's current plan against replacement until the transaction ends.

    A plan and its chunks are locked in this order everywhere, which prevents deadlocks.

    Args:
        connection: To `queue`, in a transaction.
        day: A planned day.
        with_chunks: Lock its chunks as well: then no worker can claim, finish or hold a job of it.

    Raises:
        DayNotPlanned: If it has none.
    """
    is_current = False
    while not is_current:  # the lock's previous holder may have superseded it
        plan = require_plan(connection, day)
        row = connection.execute(
            "SELECT superseded_at IS NULL FROM ledger.plans WHERE plan_id = %s FOR UPDATE", [plan.plan_id]
        ).fetchone()
        is_current = row is not None and row[0]
    if with_chunks:
        connection.execute(
            "SELECT FROM ledger.chunks WHERE plan_id = %s ORDER BY chunk FOR UPDATE", [plan.plan_id]
        )
    return plan


def require_current(connection: Connection, plan_ids: Sequence[int]) -> None:
    """Refuse plans that were superseded meanwhile, whose jobs and outcomes are deleted.

    It is called after reading the jobs or outcomes, so that none of them was deleted before (TOCTOU).

    Raises:
        PlanOvertaken: If one of them is superseded.
    """
    row = connection.execute(
        """
        SELECT min(day) FROM (
            SELECT day, superseded_at FROM ledger.plans WHERE plan_id = ANY (%s) OFFSET 0
        ) AS named WHERE superseded_at IS NOT NULL
        """,
        [list(plan_ids)],
    ).fetchone()
    if row and row[0]:
        raise PlanOvertaken(
            f"the plan of {row[0]} was replaced by another run",
            f"that one goes on; `episodes jobs status {row[0]}` shows how far it is",
        )


def record_plan(
    connection: Connection,
    day: dt.date,
    jobs: pd.DataFrame,
    *,
    checksum: str,
    snapshot_id: str,
    code_version: str,
    chunk_jobs: int,
    viewings: PinnedVersion | None,
    tracked_checksum: str | None = None,
    above: int = 0,
    rework: bool = False,
    from_lake: bool = False,
    recheck: Callable[[], None] = lambda: None,
    find_damage: Callable[[Plan | None], str] = lambda _: "",
    before_new: Callable[[str], None] = lambda _: None,
) -> tuple[Plan, bool]:
    """Make `jobs` the day's plan, in one transaction.

    A day that has a plan with the same jobs keeps it, with its outcomes and its version of the viewings; only
    the drop and the tracked episodes that it names are updated. Any other plan is superseded, and so is a
    damaged one: its jobs and outcomes are deleted, its row stays.

    Args:
        connection: To `queue`, as the orchestrator.
        day: The day.
        jobs: As `plan_jobs` returns them.
        checksum: Of `jobs`.
        snapshot_id: The drop they were planned from.
        code_version: Of the planning code.
        chunk_jobs: Jobs in a chunk of short windows.
        viewings: The version of the lake's viewings they are to be computed from; None where the lake lacks
            the day, which then can only keep a plan that a release before the lake has made.
        tracked_checksum: Of the tracked episodes they were planned from; None when nothing was tracked.
        above: The newest plan that is known elsewhere; a new one gets a greater number.
        rework: Supersede a plan with the same jobs as well, so that all are worked again.
        from_lake: Supersede one that is of a release before the lake, and not finished, as well: its jobs are
            worked from one version of the lake, and none from what that release read.
        recheck: Called under the day's lock; raises if what the jobs were planned from has changed since
            (TOCTOU). Nothing is changed then.
        find_damage: Called under the day's lock; says in words what of the current plan is damaged, empty if
            nothing is. Of two repairs of a day, the second finds nothing.
        before_new: Called with the damage before a new plan is recorded; raises if its jobs cannot be
            computed.

    Returns:
        The day's plan, and whether it is a new one.

    Raises:
        LakeMissing: If it needs a new plan, and the lake lacks the day: no worker could compute it.
    """
    with connection.transaction():
        # Serialises the plannings of a day.
        locks.lock_row(connection, locks.LEDGER, f"plan {day}")
        # `recheck` and `find_damage` read on other connections, and may take long.
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        recheck()
        current = find_plan(connection, day)
        damage = find_damage(current)
        is_kept = current is not None and current.checksum == checksum and not (rework or damage)
        if current is not None and is_kept and from_lake:
            is_kept = not _is_unfinished_before_the_lake(connection, current)
        if current is not None and is_kept:
            return _update_origin(connection, current, snapshot_id, tracked_checksum), False
        before_new(damage)
        if viewings is None:
            raise LakeMissing(
                f"the lake has no viewings of {day} to compute its jobs from",
                f"materialise input_viewings of {day}",
            )
        _supersede(connection, day)
        skip_numbers(connection, above)
        with connection.cursor(row_factory=class_row(Plan)) as cursor:
            cursor.execute(
                f"""
                INSERT INTO ledger.plans (
                    day, jobs, checksum, snapshot_id, code_version, tracked_checksum, viewings_version,
                    viewings_digest
                )
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_PLAN}
                """,  # noqa: S608
                [
                    day,
                    len(jobs),
                    checksum,
                    snapshot_id,
                    code_version,
                    tracked_checksum,
                    *viewings,
                ],
            )
            plan = cursor.fetchone()
        assert plan is not None  # noqa: S101  RETURNING
        ordered, chunks = into_chunks(jobs, day, chunk_jobs)
        _copy_chunks(connection, plan.plan_id, chunks)
        _copy_jobs(connection, plan.plan_id, ordered)
    return plan, True


def _update_origin(
    connection: Connection, plan: Plan, snapshot_id: str, tracked_checksum: str | None
) -> Plan:
    """Update the drop and the tracked episodes that a plan names."""
    connection.execute(
        """
        UPDATE ledger.plans SET snapshot_id = %(snapshot)s, tracked_checksum = %(tracked)s
        WHERE plan_id = %(plan_id)s
            AND (snapshot_id, tracked_checksum) IS DISTINCT FROM (%(snapshot)s, %(tracked)s::text)
        """,
        {"snapshot": snapshot_id, "tracked": tracked_checksum, "plan_id": plan.plan_id},
    )
    return replace(plan, snapshot_id=snapshot_id, tracked_checksum=tracked_checksum)


def _is_unfinished_before_the_lake(connection: Connection, plan: Plan) -> bool:
    """Whether a plan names no version of the lake, and jobs of it are still to be worked."""
    if plan.viewings_version is not None:
        return False
    return not all(progress.is_done for progress in read_progress(connection, [plan.day]))


def skip_numbers(connection: Connection, above: int) -> None:
    """Advance the sequence beyond a number, in a ledger that was restored to an earlier moment.

    By nextval and not by setval, so that concurrent plannings never get the same number.
    """
    connection.execute(
        """
        SELECT nextval('ledger.plans_plan_id_seq')
        FROM ledger.plans_plan_id_seq, generate_series(last_value + is_called::integer, %s)
        """,
        [above],
    )


def _supersede(connection: Connection, day: dt.date) -> None:
    """Supersede a day's plan, if it has one; delete the jobs and outcomes of all that it ever had."""
    connection.execute(
        "UPDATE ledger.plans SET superseded_at = now() WHERE day = %s AND superseded_at IS NULL", [day]
    )
    plans = connection.execute("SELECT plan_id FROM ledger.plans WHERE day = %s", [day]).fetchall()
    plan_ids = [plan_id for (plan_id,) in plans]
    # Those that ended with held jobs are nobody's any more. A live one is left to the worker that has it or
    # gets it, which finds no job; so no lock is waited for that PgQueuer takes in another order (deadlock).
    connection.execute(
        """
        WITH ended AS (
            SELECT id FROM pgqueuer WHERE id = ANY (ARRAY(
                SELECT message_id FROM ledger.chunks
                WHERE plan_id = ANY (%s) AND succeeded < jobs AND message_id IS NOT NULL
            )) AND status NOT IN ('queued', 'picked')
            FOR UPDATE SKIP LOCKED
        )
        DELETE FROM pgqueuer WHERE id = ANY (ARRAY(SELECT id FROM ended))
        """,
        [plan_ids],
    )
    # Chunks first: workers lock them before they write any of the rest, so nothing of it comes afterwards.
    connection.execute("DELETE FROM ledger.chunks WHERE plan_id = ANY (%s)", [plan_ids])
    connection.execute("DELETE FROM ledger.outcomes WHERE plan_id = ANY (%s)", [plan_ids])
    connection.execute("DELETE FROM ledger.job_attempts WHERE plan_id = ANY (%s)", [plan_ids])
    connection.execute("DELETE FROM ledger.batches WHERE plan_id = ANY (%s)", [plan_ids])
    connection.execute("DELETE FROM ledger.jobs WHERE plan_id = ANY (%s)", [plan_ids])


def _copy_chunks(connection: Connection, plan_id: int, chunks: pd.DataFrame) -> None:
    statement = "COPY ledger.chunks (plan_id, chunk, first_position, jobs, priority) FROM STDIN (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(chunks.assign(plan_id=plan_id)[["plan_id", *chunks]].to_csv(index=False, header=False))


def _copy_jobs(connection: Connection, plan_id: int, jobs: pd.DataFrame) -> None:
    rows = pa.table(
        [
            pa.array(np.full(len(jobs), plan_id)),
            pa.array(np.arange(len(jobs))),
            pa.array(jobs["epid"]),
            pa.array(jobs["algorithm_id"]),
            pa.array(jobs["window_start"].to_numpy().astype("datetime64[D]")),
        ],
        names=["plan_id", "position", "epid", "algorithm_id", "window_start"],
    )
    copy_rows(connection, "COPY ledger.jobs ({columns}) FROM STDIN (FORMAT csv)", rows)


def copy_rows(connection: Connection, statement: LiteralString, rows: pa.Table) -> None:
    """Add rows to a table by COPY.

    Args:
        connection: Where to.
        statement: Copies from STDIN in the format CSV, into the columns `{columns}`.
        rows: With the names of these columns.
    """
    buffer = io.BytesIO()
    pa.csv.write_csv(rows, buffer, pa.csv.WriteOptions(include_header=False))
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    with connection.cursor() as cursor, cursor.copy(sql.SQL(statement).format(columns=columns)) as copy:
        copy.write(buffer.getvalue())


def read_viewings_versions(connection: Connection) -> set[PinnedVersion]:
    """The versions of the lake's viewings that any plan names, current or superseded."""
    found = connection.execute(
        "SELECT DISTINCT viewings_version, viewings_digest FROM ledger.plans"
        " WHERE viewings_version IS NOT NULL"
    ).fetchall()
    return {PinnedVersion(*each) for each in found}


def read_named_drops(connection: Connection) -> set[tuple[dt.date, str]]:
    """The drops that any plan was made from, current or superseded: days and ids."""
    found = connection.execute("SELECT DISTINCT day, snapshot_id FROM ledger.plans").fetchall()
    return {(day, snapshot_id) for day, snapshot_id in found}
