"""Decisions to publish a day without its held jobs, as `ledger.waivers` records them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.errors import NothingToWaive, ReasonMissing
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.ledger import lock_plan


@dataclass(frozen=True)
class Waiver:
    """A recorded decision.

    Attributes:
        waiver_id: Grows with each decision.
        plan_id: The plan it was made about.
        jobs: How many held jobs it covered when it was made.
        still_waived: How many of them are still left out; the others were retried since.
        reason: Why.
        decided_by: Who decided.
        decided_at: When.
    """

    waiver_id: int
    plan_id: int
    jobs: int
    still_waived: int
    reason: str
    decided_by: str
    decided_at: dt.datetime


def waive_held_jobs(connection: Connection, day: dt.date, *, reason: str, decided_by: str) -> Waiver:
    """Let a day be published without the jobs that are held at this moment.

    A job that is held later is not covered.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.
        reason: Why; consumers read it in `published.days`.
        decided_by: Who decided it.

    Raises:
        DayNotPlanned: If the day has no plan.
        NothingToWaive: If no job of it is held, or all that are were waived before.
        ReasonMissing: If the reason or the name is blank.
    """
    reason, decided_by = reason.strip(), decided_by.strip()
    if not reason:
        raise ReasonMissing("a waiver needs a reason", "say why the day is published without the held jobs")
    if not decided_by:
        raise ReasonMissing("a waiver needs a name", "say who decided it")
    with connection.transaction():
        # No job is held or released in between.
        plan = lock_plan(connection, day, with_chunks=True)
        row = connection.execute(
            """
            INSERT INTO ledger.waivers (plan_id, jobs, reason, decided_by)
            SELECT plan_id, count(*), %s, %s FROM ledger.lone_jobs
            WHERE plan_id = %s AND is_held AND waiver_id IS NULL GROUP BY plan_id
            RETURNING waiver_id, jobs, decided_at
            """,
            [reason, decided_by, plan.plan_id],
        ).fetchone()
        if row is None:
            raise NothingToWaive(
                f"no job of {day} is held and not waived yet", f"see `episodes jobs status {day}`"
            )
        waiver_id, jobs, decided_at = row
        connection.execute(
            "UPDATE ledger.lone_jobs SET waiver_id = %s WHERE plan_id = %s AND is_held AND waiver_id IS NULL",
            [waiver_id, plan.plan_id],
        )
    return Waiver(waiver_id, plan.plan_id, jobs, jobs, reason, decided_by, decided_at)


def read_left_out(connection: Connection, plan_id: int) -> tuple[int, str]:
    """How many of a plan's jobs are waived; why, and who decided it."""
    row = connection.execute(
        "SELECT jobs, decision FROM ledger.left_out WHERE plan_id = %s", [plan_id]
    ).fetchone()
    return (0, "") if row is None else (int(row[0]), str(row[1]))


def read_waivers(connection: Connection, plan_ids: Sequence[int]) -> list[Waiver]:
    """All decisions about some plans, in the order in which they were made."""
    with connection.cursor(row_factory=class_row(Waiver)) as cursor:
        cursor.execute(
            """
            SELECT waiver_id, plan_id, jobs, still_waived, reason, decided_by, decided_at
            FROM (SELECT * FROM ledger.waivers WHERE plan_id = ANY (%s) OFFSET 0) AS waivers
            CROSS JOIN LATERAL (
                SELECT count(*) AS still_waived FROM ledger.lone_jobs
                WHERE lone_jobs.plan_id = waivers.plan_id AND lone_jobs.waiver_id = waivers.waiver_id
            ) AS lone
            ORDER BY waiver_id
            """,
            [list(plan_ids)],
        )
        return cursor.fetchall()
