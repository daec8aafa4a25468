"""What consumers read in `results`: published rows, replaced a day at a time.

`publications.py` has the manifest that is written in the same transaction.
"""

import datetime as dt

import pandas as pd

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.errors import DayIncomplete, LedgerBehind
from episodes_assets.ledger.held import read_left_out
from episodes_assets.ledger.plans import Plan, require_plan
from episodes_assets.ledger.verify import one_snapshot, read_algorithm_versions, stream_outcomes
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.publications import Publication, PublishedDay, find_day, record_publication

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
    """A ledger that was restored to an earlier moment does not replace what was published since."""
    if current is not None and current.plan_id > plan.plan_id:
        raise LedgerBehind(
            f"{plan.day} was published from plan {current.plan_id}, and the ledger only knows it up to plan"
            f" {plan.plan_id}: `queue` was restored to an earlier moment",
            f"see `episodes db status`; `episodes run {plan.day} --rework` plans and works the day anew",
        )


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
    algorithms = get_registry().by_id.values()
    columns = {name: metric.value for algorithm in algorithms for name, metric in algorithm.columns.items()}
    metrics = metrics.reindex(columns=list(columns)).astype(
        {name: "Int64" if kind == "integer" else "Float64" for name, kind in columns.items()}
    )
    return pd.concat([rows[keys], metrics], axis="columns")
