"""Publishing: a day's rows, replaced in one transaction with its manifest and history.

The manifest (`published.days`) records what is published now; the history has a row for each change.
Publishing is idempotent: what is published already is not written again. Comparing published rows with the
ledger is `verify`.
"""

import datetime as dt
import uuid
from dataclasses import asdict, dataclass, fields

import pandas as pd
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.errors import DayIncomplete, LedgerBehind
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger.held import read_left_out
from episodes_assets.ledger.plans import Plan, require_plan
from episodes_assets.ledger.verify import (
    AlgorithmVersions,
    one_snapshot,
    read_algorithm_versions,
    stream_outcomes,
)
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection


@dataclass(frozen=True)
class Publication:
    """What a day was published from, and what came of it.

    Attributes:
        day: The day.
        jobs: Jobs of the plan.
        rows: Rows published: a row for each job that is not left out.
        left_out: Held jobs that a recorded decision left out.
        decision: Why, and who decided it; empty when none is left out.
        checksum: Of all its rows.
        snapshot_id: The drop that the jobs were planned from; None where it was not recorded.
        plan_id: The plan.
        plan_checksum: That plan's checksum.
        code_version: Of the publishing code.
        algorithm_versions: By the algorithm's name, the versions that computed its rows; one, unless the
            fleet changed meanwhile.
        plan_uid: The plan, whatever its number; None where it was not recorded.
        viewings_version: The version of the lake's viewings that its rows were computed from; None for what
            was published before the lake.
        viewings_digest: Of that version's content; None where it was not recorded.
    """

    day: dt.date
    jobs: int
    rows: int
    left_out: int
    decision: str
    checksum: str
    snapshot_id: str | None
    plan_id: int
    plan_checksum: str
    code_version: str
    algorithm_versions: AlgorithmVersions
    plan_uid: uuid.UUID | None
    viewings_version: int | None
    viewings_digest: str | None


@dataclass(frozen=True)
class PublishedDay(Publication):
    """A publication as it is stored.

    Attributes:
        published_at: In the manifest, when the day's rows were last replaced; in the history, when the
            publication changed.
    """

    published_at: dt.datetime

    @property
    def publication(self) -> Publication:
        """Without the time."""
        return Publication(**{field.name: getattr(self, field.name) for field in fields(Publication)})


@dataclass(frozen=True)
class PublishedFrom:
    """What decides whether a day has to be published again: see `Publication`."""

    plan_id: int
    snapshot_id: str | None
    left_out: int
    decision: str
    plan_uid: uuid.UUID | None = None


_NAMES = [field.name for field in fields(Publication)]
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _NAMES))
_VALUES = sql.SQL(", ").join(map(sql.Placeholder, _NAMES))
_EXCLUDED = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in _NAMES[1:])


def find_day(connection: Connection, day: dt.date) -> PublishedDay | None:
    """A published day's manifest, or None."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL("SELECT {}, published_at FROM published.days WHERE day = %s").format(_COLUMNS), [day]
        )
        return cursor.fetchone()


def read_days(connection: Connection, first: dt.date, last: dt.date) -> list[PublishedDay]:
    """The manifests of the days from `first` to `last` that are published, by day."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {}, published_at FROM published.days WHERE day BETWEEN %s AND %s ORDER BY day"
            ).format(_COLUMNS),
            [first, last],
        )
        return cursor.fetchall()


def read_history(connection: Connection, day: dt.date) -> list[PublishedDay]:
    """A day's publications, in the order in which they were made."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {}, published_at FROM published.history WHERE day = %s ORDER BY publication_id"
            ).format(_COLUMNS),
            [day],
        )
        return cursor.fetchall()


def published_plans(connection: Connection) -> dict[dt.date, PublishedFrom]:
    """What each published day was published from."""
    rows = connection.execute(
        "SELECT day, plan_id, snapshot_id, left_out, decision, plan_uid FROM published.days"
    )
    return {day: PublishedFrom(*rest) for day, *rest in rows.fetchall()}


def newest_plan(connection: Connection) -> int:
    """The greatest number of a plan that was ever published; 0 when none was."""
    row = connection.execute("SELECT max(plan_id) FROM published.history").fetchone()
    return int(row[0]) if row and row[0] else 0


def read_other_than(
    connection: Connection, newest: PinnedVersion, upto: dt.date, limit: int
) -> dict[dt.date, PinnedVersion]:
    """The last published days up to one that are computed from another version of the lake's viewings.

    Args:
        connection: To `results`.
        newest: The version.
        upto: The last day that matters.
        limit: At most so many days.

    Returns:
        The version of each, by day in order.
    """
    found = connection.execute(
        """
        SELECT day, viewings_version, viewings_digest FROM published.days
        WHERE day <= %s AND (viewings_version <> %s OR viewings_digest <> %s) ORDER BY day DESC LIMIT %s
        """,
        [upto, *newest, limit],
    ).fetchall()
    return {day: PinnedVersion(*pinned) for day, *pinned in reversed(found)}


def read_viewings_versions(connection: Connection) -> set[PinnedVersion]:
    """The versions of the lake's viewings that anything that was ever published was computed from."""
    found = connection.execute(
        "SELECT DISTINCT viewings_version, viewings_digest FROM published.history"
        " WHERE viewings_version IS NOT NULL"
    ).fetchall()
    return {PinnedVersion(*each) for each in found}


def read_snapshot_ids(connection: Connection) -> set[str]:
    """The drops that anything that was ever published was made from, as far as it was recorded."""
    found = connection.execute(
        "SELECT DISTINCT snapshot_id FROM published.history WHERE snapshot_id IS NOT NULL"
    ).fetchall()
    return {snapshot_id for (snapshot_id,) in found}


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
        ).format(columns=_COLUMNS, values=_VALUES, excluded=_EXCLUDED),
        values,
    )
    results.execute(
        sql.SQL("INSERT INTO published.history ({}) VALUES ({})").format(_COLUMNS, _VALUES), values
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
