"""Held jobs: reading them, and what people decide about them: retry, waive, cancel.

A job is held when its last attempt has failed. Retrying gives it another round of attempts; a waiver, which
records who and why, lets its day be published without it; cancelling a day holds all that is not finished,
so it needs no state of its own. Failing a job is `claims`; who may decide is checked by the callers.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.errors import JobNotHeld, NothingToCancel, NothingToWaive, ReasonMissing
from episodes_assets.ledger import dispatch, plans
from episodes_assets.postgres.connect import Connection

# An algorithm's errors may have any length; the end of a traceback matters most.
TRACEBACK_CHARACTERS = 8_000
ERROR_CHARACTERS = 500


@dataclass(frozen=True)
class HeldJob:
    """A job that is held: its last attempt has failed, or its day was cancelled.

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


def read_held(
    connection: Connection,
    plan_ids: Sequence[int],
    *,
    each: int,
    most: int | None = None,
    after: int = -1,
    is_waived: bool | None = None,
) -> list[HeldJob]:
    """The first held and waived jobs of each of some plans, in the order of the plans.

    Jobs of superseded plans are left out.

    Args:
        connection: To `queue`.
        plan_ids: The plans.
        each: How many of each.
        most: How many of all of them; by default as many as there are.
        after: Only those after this position in their plan (keyset pagination).
        is_waived: Only the waived ones, or only those that are not; by default both.
    """
    with connection.cursor(row_factory=class_row(HeldJob)) as cursor:
        cursor.execute(
            """
            SELECT day, plan_id, position, epid, algorithm_id, starts, left(error, %(error)s) AS error,
                right(traceback, %(traceback)s) AS traceback,
                coalesce(length(traceback) > %(traceback)s, false) AS is_cut,
                waiver_id IS NOT NULL AS is_waived
            FROM unnest(%(plan_ids)s::bigint[]) WITH ORDINALITY AS wanted (plan_id, place)
            CROSS JOIN LATERAL (
                SELECT day FROM ledger.plans
                WHERE plans.plan_id = wanted.plan_id AND superseded_at IS NULL OFFSET 0
            ) AS plan
            CROSS JOIN LATERAL (
                SELECT position, starts, error, traceback, waiver_id FROM ledger.job_attempts
                WHERE job_attempts.plan_id = wanted.plan_id AND is_held AND position > %(after)s
                    AND (waiver_id IS NOT NULL) = coalesce(%(is_waived)s, waiver_id IS NOT NULL)
                ORDER BY position LIMIT %(each)s
            ) AS held
            CROSS JOIN LATERAL (
                SELECT epid, algorithm_id FROM ledger.jobs
                WHERE jobs.plan_id = wanted.plan_id AND jobs.position = held.position OFFSET 0
            ) AS job
            ORDER BY place, position LIMIT %(most)s
            """,
            {
                "plan_ids": list(plan_ids),
                "each": each,
                "most": most,
                "after": after,
                "is_waived": is_waived,
                "error": ERROR_CHARACTERS,
                "traceback": TRACEBACK_CHARACTERS,
            },
        )
        return cursor.fetchall()


def read_held_first(connection: Connection, plan_ids: Sequence[int], most: int) -> list[HeldJob]:
    """At most so many held jobs of some plans; if there are fewer, waived ones after them."""
    held = read_held(connection, plan_ids, each=most, most=most, is_waived=False)
    room = most - len(held)
    return [*held, *(read_held(connection, plan_ids, each=room, most=room, is_waived=True) if room else ())]


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
        # The lock keeps jobs from being held or released between the two statements.
        plan = plans.lock_plan(connection, day, with_chunks=True)
        row = connection.execute(
            """
            INSERT INTO ledger.waivers (plan_id, jobs, reason, decided_by)
            SELECT plan_id, count(*), %s, %s FROM ledger.job_attempts
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
            "UPDATE ledger.job_attempts SET waiver_id = %s"
            " WHERE plan_id = %s AND is_held AND waiver_id IS NULL",
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
                SELECT count(*) AS still_waived FROM ledger.job_attempts
                WHERE job_attempts.plan_id = waivers.plan_id AND job_attempts.waiver_id = waivers.waiver_id
            ) AS attempts
            ORDER BY waiver_id
            """,
            [list(plan_ids)],
        )
        return cursor.fetchall()


def cancel_day(connection: Connection, day: dt.date, *, reason: str, cancelled_by: str) -> int:
    """Hold all jobs of a day that are not finished, and delete the day's messages.

    Outcomes that are written stay, and so does what was held or waived before. A worker that computes
    jobs of the day finds its claim gone and writes nothing more. `retry_held_jobs` lets the day go on.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.
        reason: Why; it becomes part of the jobs' error.
        cancelled_by: Who decided it.

    Returns:
        How many jobs are held by it.

    Raises:
        DayNotPlanned: If the day has no plan.
        NothingToCancel: If all of its jobs are finished, held or waived.
        ReasonMissing: If the reason or the name is blank.
    """
    reason, cancelled_by = " ".join(reason.split()), " ".join(cancelled_by.split())
    if not reason:
        raise ReasonMissing("cancelling needs a reason", "say why the day is not worked any further")
    if not cancelled_by:
        raise ReasonMissing("cancelling needs a name", "say who decided it")
    with connection.transaction():
        plan_id = plans.lock_plan(connection, day, with_chunks=True).plan_id
        cancelled = _hold_open_jobs(connection, plan_id, f"by {cancelled_by}", reason)
        if not cancelled:
            raise NothingToCancel(
                f"no job of {day} waits or runs", f"see `episodes jobs status {day}` for what became of them"
            )
        _delete_messages(connection, plan_id)
        # Without its claim a worker writes nothing more.
        connection.execute(
            """
            UPDATE ledger.chunks
            SET held = jobs - succeeded, claim = NULL, message_id = NULL, moved_at = now()
            WHERE plan_id = %s AND succeeded + held < jobs
            """,
            [plan_id],
        )
    return cancelled


def _hold_open_jobs(connection: Connection, plan_id: int, by_whom: str, reason: str) -> int:
    return connection.execute(
        """
        INSERT INTO ledger.job_attempts AS attempts (plan_id, position, is_held, error)
        SELECT jobs.plan_id, jobs.position, true,
            format('cancelled %%s at %%s UTC: %%s', %(by_whom)s::text,
                to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), %(reason)s::text)
        FROM ledger.chunks
        CROSS JOIN LATERAL (
            SELECT plan_id, position FROM ledger.jobs
            WHERE plan_id = %(plan_id)s
                AND position >= first_position AND position < first_position + chunks.jobs
            EXCEPT ALL
            SELECT plan_id, position FROM ledger.outcomes
            WHERE plan_id = %(plan_id)s
                AND position >= first_position AND position < first_position + chunks.jobs
        ) AS jobs
        WHERE chunks.plan_id = %(plan_id)s AND succeeded + held < chunks.jobs
        -- A job that has failed before keeps the traceback of that.
        ON CONFLICT (plan_id, position) DO UPDATE SET is_held = true, error = excluded.error
        WHERE NOT attempts.is_held
        """,
        {"plan_id": plan_id, "by_whom": by_whom, "reason": reason},
    ).rowcount


def _delete_messages(connection: Connection, plan_id: int) -> None:
    # Without waiting for locks, as PgQueuer takes them in another order (deadlock). A message that is locked
    # may stay: the worker that gets it finds no open job.
    connection.execute(
        """
        WITH free AS (
            SELECT id FROM pgqueuer WHERE id = ANY (ARRAY(
                SELECT message_id FROM ledger.chunks WHERE plan_id = %s AND succeeded + held < jobs
            ))
            FOR UPDATE SKIP LOCKED
        )
        DELETE FROM pgqueuer WHERE id = ANY (ARRAY(SELECT id FROM free))
        """,
        [plan_id],
    )


def retry_held_jobs(connection: Connection, day: dt.date) -> int:
    """Release a day's held jobs to the fleet, with their counts of starts reset.

    Waived jobs are released as well: their waivers stay on record and cover none of them any more.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.

    Returns:
        How many jobs were held.

    Raises:
        DayNotPlanned: If the day has no plan.
    """
    with connection.transaction():
        plan_id = plans.lock_plan(connection, day, with_chunks=True).plan_id
        released = connection.execute(
            "DELETE FROM ledger.job_attempts WHERE plan_id = %s AND is_held", [plan_id]
        ).rowcount
        # `moved_at` as well, so that a day of long ago does not count as stalled at once.
        connection.execute(
            "UPDATE ledger.chunks SET held = 0, starts = 0, moved_at = now() WHERE plan_id = %s AND held > 0",
            [plan_id],
        )
        dispatch.fan_out_day(connection, day)
    return released


def retry_held_job(connection: Connection, day: dt.date, epid: int, algorithm_id: int) -> None:
    """Release one held or waived job of a day to the fleet.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.
        epid: The job's episode.
        algorithm_id: The job's analysis.

    Raises:
        DayNotPlanned: If the day has no plan.
        JobNotHeld: If no such job of the day is held.
    """
    with connection.transaction():
        plan_id = plans.lock_plan(connection, day, with_chunks=True).plan_id
        released = connection.execute(
            """
            DELETE FROM ledger.job_attempts
            WHERE plan_id = %(plan_id)s AND is_held AND position = (
                -- `plan_id + 0` is what the index is on.
                SELECT position FROM ledger.jobs
                WHERE plan_id + 0 = %(plan_id)s AND epid = %(epid)s AND algorithm_id = %(algorithm_id)s
            )
            RETURNING position
            """,
            {"plan_id": plan_id, "epid": epid, "algorithm_id": algorithm_id},
        ).fetchone()
        if released is None:
            raise JobNotHeld(
                f"no job of {day} for epid {epid} and algorithm {algorithm_id} is held",
                f"see `episodes jobs status {day}` for those that are",
            )
        connection.execute(
            """
            UPDATE ledger.chunks SET held = held - 1, starts = 0, moved_at = now()
            WHERE plan_id = %(plan_id)s
                AND %(position)s >= first_position AND %(position)s < first_position + jobs
            """,
            {"plan_id": plan_id, "position": released[0]},
        )
        dispatch.fan_out_day(connection, day)


@dataclass(frozen=True)
class SharedError:
    """An error, and how many of a plan's jobs are held for it."""

    error: str
    jobs: int


def read_shared_errors(connection: Connection, plan_id: int, limit: int) -> list[SharedError]:
    """What a plan's jobs are held or waived for, the most frequent first."""
    with connection.cursor(row_factory=class_row(SharedError)) as cursor:
        cursor.execute(
            """
            SELECT left(error, %s) AS error, count(*)::int AS jobs
            FROM ledger.job_attempts WHERE plan_id = %s AND is_held
            GROUP BY 1 ORDER BY jobs DESC, error LIMIT %s
            """,
            [ERROR_CHARACTERS, plan_id, limit],
        )
        return cursor.fetchall()
