"""Held jobs for people to read, a few at a time however many there are."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.postgres.connect import Connection

# An algorithm may say anything; what matters stands at the end.
TRACEBACK_CHARACTERS = 8_000
ERROR_CHARACTERS = 500


@dataclass(frozen=True)
class ShownJob:
    """A job that failed for the last time.

    Attributes:
        day: Its day.
        plan_id: Its plan.
        position: Where it stands in its plan.
        epid: The episode.
        algorithm_id: The analysis.
        starts: How often it was started alone.
        error: Why it is held, at most `ERROR_CHARACTERS` of it.
        traceback: Of that, the last `TRACEBACK_CHARACTERS`; None when there is none.
        is_cut: Whether the traceback is longer.
        is_waived: Whether the day is published without it.
    """

    day: dt.date
    plan_id: int
    position: int
    epid: int
    algorithm_id: int
    starts: int
    error: str
    traceback: str | None
    is_cut: bool
    is_waived: bool


@dataclass(frozen=True)
class SharedError:
    """An error, and how many of a plan's jobs are held for it."""

    error: str
    jobs: int


def read_held_jobs(
    connection: Connection, plan_ids: Sequence[int], each: int, after: int = -1
) -> list[ShownJob]:
    """The first held and waived jobs of each of some plans, in the order of the plans.

    Args:
        connection: To `queue`.
        plan_ids: The plans.
        each: How many of each.
        after: Only those that stand behind this position.
    """
    with connection.cursor(row_factory=class_row(ShownJob)) as cursor:
        cursor.execute(
            """
            SELECT day, plan_id, position, epid, algorithm_id, starts, left(error, %(error)s) AS error,
                right(traceback, %(traceback)s) AS traceback,
                coalesce(length(traceback) > %(traceback)s, false) AS is_cut,
                waiver_id IS NOT NULL AS is_waived
            FROM unnest(%(plan_ids)s::bigint[]) WITH ORDINALITY AS wanted (plan_id, place)
            CROSS JOIN LATERAL (
                SELECT day FROM ledger.plans WHERE plans.plan_id = wanted.plan_id OFFSET 0
            ) AS plan
            CROSS JOIN LATERAL (
                SELECT position, starts, error, traceback, waiver_id FROM ledger.lone_jobs
                WHERE lone_jobs.plan_id = wanted.plan_id AND is_held AND position > %(after)s
                ORDER BY position LIMIT %(each)s
            ) AS held
            CROSS JOIN LATERAL (
                SELECT epid, algorithm_id FROM ledger.jobs
                WHERE jobs.plan_id = wanted.plan_id AND jobs.position = held.position OFFSET 0
            ) AS job
            ORDER BY place, position
            """,
            {
                "plan_ids": list(plan_ids),
                "each": each,
                "after": after,
                "error": ERROR_CHARACTERS,
                "traceback": TRACEBACK_CHARACTERS,
            },
        )
        return cursor.fetchall()


def read_shared_errors(connection: Connection, plan_id: int, limit: int) -> list[SharedError]:
    """What a plan's jobs are held or waived for, the most frequent first."""
    with connection.cursor(row_factory=class_row(SharedError)) as cursor:
        cursor.execute(
            """
            SELECT left(error, %s) AS error, count(*)::int AS jobs
            FROM ledger.lone_jobs WHERE plan_id = %s AND is_held
            GROUP BY 1 ORDER BY jobs DESC, error LIMIT %s
            """,
            [ERROR_CHARACTERS, plan_id, limit],
        )
        return cursor.fetchall()
