"""Publishing: a day's rows, replaced in one transaction with its manifest and history.

The manifest (`published.days`) records what is published now; the history has a row for each change, and the
publisher's role can only add to it (append-only). Publishing is idempotent: what is published already is not
written again. Reading what is published is `publications`, comparing it with the ledger `verify`.
"""

import datetime as dt
from dataclasses import asdict

from psycopg import sql
from psycopg.types.json import Jsonb

from episodes_assets.errors import DayIncomplete, LedgerBehind
from episodes_assets.ledger.held import read_left_out
from episodes_assets.ledger.plans import Plan, require_plan
from episodes_assets.ledger.verify import (
    one_snapshot,
    read_algorithm_versions,
    stream_outcomes,
)
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.publications import COLUMNS, NAMES, Publication, PublishedDay, find_day

_VALUES = sql.SQL(", ").join(map(sql.Placeholder, NAMES))
_EXCLUDED = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in NAMES[1:])


def record_publication(results: Connection, publication: Publication, *, rows_changed: bool) -> None:
    """Write a changed publication into the manifest and the history; call it in a transaction.

    Args:
        results: To `results`, as the publisher.
        publication: As it is now.
        rows_changed: Whether the rows were replaced as well.
    """
    values = {
        **asdict(publication),
        "algorithm_versions": Jsonb(publication.algorithm_versions),
        "rows_changed": rows_changed,
    }
    results.execute(
        sql.SQL(
            """
            INSERT INTO published.days AS days ({columns}) VALUES ({values})
            ON CONFLICT (day) DO UPDATE SET {excluded},
                published_at = CASE WHEN %(rows_changed)s THEN now() ELSE days.published_at END
            """
        ).format(columns=COLUMNS, values=_VALUES, excluded=_EXCLUDED),
        values,
    )
    results.execute(
        sql.SQL("INSERT INTO published.history ({}) VALUES ({})").format(COLUMNS, _VALUES), values
    )


_RESULTS = """
    COPY published.results (day, epid, algorithm_id, window_start, window_end, covered_from, metrics)
    FROM STDIN
"""


def publish_day(
    queue: Connection, results: Connection, day: dt.date, code_version: str
) -> tuple[PublishedDay, bool]:
    """Replace a day's results by the outcomes of its current plan, in one transaction.

    Jobs that a recorded decision left out have no row; the manifest says how many and why.

    Args:
        queue: To `queue`, as the orchestrator.
        results: To `results`, as the publisher.
        day: A planned day.
        code_version: Of the publishing code.

    Returns:
        The day's manifest, and whether any row changed.

    Raises:
        DayNotPlanned: If the day has no plan.
        LedgerBehind: If the day was published from a later plan, which the ledger does not have.
        DayIncomplete: If a job of the plan has no outcome and is not left out. A blocking asset check
            would stop a publication only within its own run, so it is looked at here.
    """
    with results.transaction(), one_snapshot(queue):
        # Two publications of a day take turns.
        locks.lock_row(results, locks.RESULTS, f"publish {day}")
        # In its turn, not before: it may have been replaced while others published.
        plan = require_plan(queue, day)
        current = find_day(results, day)
        _refuse_older(plan, current)
        left_out, decision = read_left_out(queue, plan.plan_id)
        # A day that is published for the first time needs no look before the leap.
        rows, checksum = (0, "") if current is None else stream_outcomes(queue, plan, lambda _: None)
        changed = current is None or current.checksum != checksum
        if changed:
            results.execute("DELETE FROM published.results WHERE day = %s", [day])
            with results.cursor() as cursor, cursor.copy(_RESULTS) as copy:
                rows, checksum = stream_outcomes(queue, plan, copy.write)
        if rows != plan.jobs - left_out:
            raise DayIncomplete(
                f"{day} has outcomes for {rows:,} of its {plan.jobs:,} jobs"
                f"{f', and {left_out:,} are left out by decision' if left_out else ''}",
                f"see `episodes jobs status {day}`, then materialise job_outcomes",
            )
        publication = Publication(
            day=day,
            jobs=plan.jobs,
            rows=rows,
            left_out=left_out,
            decision=decision,
            checksum=checksum,
            snapshot_id=plan.snapshot_id,
            plan_id=plan.plan_id,
            plan_checksum=plan.checksum,
            plan_uid=plan.plan_uid,
            viewings_version=plan.viewings_version,
            viewings_digest=plan.viewings_digest,
            code_version=code_version,
            # Only new outcomes bring other versions, and those are of another plan or other rows.
            algorithm_versions=current.algorithm_versions
            if current and current.algorithm_versions and not changed and current.plan_uid == plan.plan_uid
            else read_algorithm_versions(queue, plan.plan_id),
        )
        if current is None or current.publication != publication:
            record_publication(results, publication, rows_changed=changed)
        manifest = find_day(results, day)
    assert manifest is not None  # noqa: S101  just written
    return manifest, changed


def _refuse_older(plan: Plan, current: PublishedDay | None) -> None:
    """Refuse to publish an older plan over a newer one, as with a ledger restored to an earlier moment."""
    if current is not None and current.plan_id > plan.plan_id:
        raise LedgerBehind(
            f"{plan.day} was published from plan {current.plan_id}, and the ledger only knows it up to plan"
            f" {plan.plan_id}: `queue` was restored to an earlier moment",
            f"see `episodes db status`; `episodes run {plan.day} --rework` plans and works the day anew",
        )
