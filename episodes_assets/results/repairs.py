"""What was damaged and repaired, why and by whom: every statement on `published.repairs`; how to repair.

What is found damaged is decided where it is stored, in `state` (by the chain of `planning/episode_set.py`)
and `publish`, and in `provenance` for the database `queue`. Its repair is put on record here, which consumers
may read. The publisher can only add to it. A damaged plan is a row of another database than this, so its
repair is recorded just before; a step that fails in between and is retried records the same one again, which
changes nothing: a run has one record of each.
"""

import datetime as dt
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.postgres.connect import Connection


@dataclass(frozen=True)
class RepairDecision:
    """The decision to replace what is damaged of some days.

    Attributes:
        reason: Why.
        decided_by: Who decided it.
        run_id: The run that does so.
    """

    reason: str
    decided_by: str
    run_id: str


@dataclass(frozen=True)
class Repair:
    """Something that was repaired.

    Attributes:
        day: Of which day.
        what: What was damaged.
        reason: Why it was repaired.
        repaired_by: Who decided it.
        repaired_at: When.
    """

    day: dt.date
    what: str
    reason: str
    repaired_by: str
    repaired_at: dt.datetime


def record_repair(results: Connection, day: dt.date, what: str, decision: RepairDecision) -> None:
    """Put a repair on record, once for a run; call it in the transaction that makes it.

    Args:
        results: To `results`, as the publisher.
        day: Of which day.
        what: What was damaged.
        decision: Why it is repaired, who decided it, and which run makes it.
    """
    results.execute(
        """
        INSERT INTO published.repairs (day, what, reason, repaired_by, run_id) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING
        """,
        [day, what, decision.reason, decision.decided_by, decision.run_id],
    )


def read_repairs(results: Connection, day: dt.date) -> list[Repair]:
    """What of a day was repaired, in the order in which it was."""
    with results.cursor(row_factory=class_row(Repair)) as cursor:
        cursor.execute(
            """
            SELECT day, what, reason, repaired_by, repaired_at FROM published.repairs
            WHERE day = %s ORDER BY repair_id
            """,
            [day],
        )
        return cursor.fetchall()


def read_repairs_of_run(results: Connection, run_id: str) -> list[Repair]:
    """What a run has repaired so far, by day and in the order in which it was."""
    with results.cursor(row_factory=class_row(Repair)) as cursor:
        cursor.execute(
            """
            SELECT day, what, reason, repaired_by, repaired_at FROM (
                SELECT * FROM published.repairs WHERE run_id = %s OFFSET 0
            ) AS of_run ORDER BY day, repair_id
            """,
            [run_id],
        )
        return cursor.fetchall()


def repair_command(first: dt.date, last: dt.date) -> str:
    """The command that repairs some days, for a message that says what is damaged."""
    days = f"run {first}" if first == last else f"backfill {first} {last}"
    return f"episodes {days} --repair --reason WHY"
