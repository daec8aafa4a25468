"""Publishing: a day's rows, replaced in one transaction with its manifest and history; then its titles.

The manifest (`published.days`) records what is published now; the history has a row for each change, and the
publisher's role can only add to it (append-only). Publishing is idempotent: what is published already is not
written again. Reading what is published is `publications`, comparing it with the ledger `verify`; whether
the ledger still has the plan that was published is `provenance`.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from psycopg import sql
from psycopg.types.json import Jsonb

from episodes_assets.checks.results import Rows
from episodes_assets.errors import DayIncomplete, ManifestDamaged, OutcomesChanged
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import held, plans, verify
from episodes_assets.postgres import locks
from episodes_assets.postgres.connect import Connection, one_snapshot
from episodes_assets.results import publications
from episodes_assets.results.provenance import Provenance
from episodes_assets.results.repairs import RepairDecision, record_repair

# The version of the code that makes published rows: another one may write the same outcomes differently.
CODE_VERSION = "1"
_TITLES_AT_ONCE = 50_000

_VALUES = sql.SQL(", ").join(map(sql.Placeholder, publications.NAMES))
_EXCLUDED = sql.SQL(", ").join(
    sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in publications.NAMES[1:]
)


def record_publication(
    results: Connection, publication: publications.Publication, *, rows_changed: bool
) -> None:
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
        ).format(columns=publications.COLUMNS, values=_VALUES, excluded=_EXCLUDED),
        values,
    )
    results.execute(
        sql.SQL("INSERT INTO published.history ({}) VALUES ({})").format(publications.COLUMNS, _VALUES),
        values,
    )


NO_ROWS = Rows(0, hashlib.sha256().hexdigest())
_PUBLISHED_LINES = verify.copy_lines(
    """
    SELECT day, epid, algorithm_id, window_start, window_end, covered_from, metrics
    FROM published.results WHERE day = ANY (%(which)s)
    """
)


def read_published(results: Connection, days: Sequence[dt.date]) -> dict[dt.date, Rows]:
    """The published rows of some days, counted, and their checksums; a day without any is left out."""
    return verify.read_lines(results, _PUBLISHED_LINES, days)


_RESULTS = f"COPY published.results ({verify.PUBLISHED_COLUMNS}) FROM STDIN"


def publish_day(
    queue: Connection,
    results: Connection,
    viewings: Viewings,
    day: dt.date,
    code_version: str,
    repair: RepairDecision | None = None,
) -> tuple[publications.PublishedDay, bool]:
    """Replace a day's results by the outcomes of its current plan, in one transaction.

    Jobs that a recorded decision left out have no row; the manifest says how many and why.

    A plan's outcomes are written once. So a day that was published from the same plan with the same jobs left
    out is not written again; if its rows are damaged, the check finds that. A repair compares the stored rows
    and manifest with the outcomes instead, and replaces what differs. What differs from the history as well
    was damaged, and is recorded; what is merely published anew is not.

    Args:
        queue: To `queue`, as the orchestrator.
        results: To `results`, as the publisher.
        viewings: The lake's, which has to have the version that the plan names.
        day: A planned day.
        code_version: Of the publishing code.
        repair: The decision to replace what is damaged; None for no repair.

    Returns:
        The day's manifest, and whether any row changed.

    Raises:
        DayNotPlanned: If the day has no plan.
        ManifestDamaged: If the manifest is not what was last published, and this is no repair.
        LedgerBehind: If the day was published from a later plan, which the ledger does not have, or from this
            one with fewer jobs left out.
        PlanDamaged: If the plan names another version of the viewings than when it was published, or one that
            the lake does not have.
        DayIncomplete: If a job of the plan has no outcome and is not left out. A blocking asset check
            would stop a publication only within its own run, so it is checked here.
        OutcomesChanged: If the plan has other outcomes than those that it was published with.
    """
    with results.transaction(), one_snapshot(queue):
        # Serialises the publications of a day.
        locks.lock_row(results, locks.RESULTS, f"publish {day}")
        # Read under the lock: it may have been replaced while another process published (TOCTOU).
        plan = plans.require_plan(queue, day)
        current = publications.find_day(results, day)
        # From the history, which this role cannot change; the manifest may have been changed since.
        before = publications.find_last_publication(results, day)
        if not repair:
            _require_undamaged(day, current, before)
        found = Provenance(plan, before)
        left_out, decision = held.read_left_out(queue, plan.plan_id)
        found.require_publishable(viewings, left_out)
        is_same = found.is_same_publication(left_out, decision, code_version)
        if is_same and not repair and before is not None:
            rows, checksum = before.rows, before.checksum
        elif before is None and not repair:
            # A first publication reads the outcomes only once, as it writes them.
            rows, checksum = 0, ""
        else:
            rows, checksum = verify.stream_outcomes(queue, plan, lambda _: None)
        if is_same and before and before.checksum != checksum:
            raise OutcomesChanged(
                f"the outcomes of {day} are not those that its plan was published with",
                f"run `episodes run {day} --repair --reason WHY`, which works its jobs again",
            )
        damage: list[str] = []
        if repair:
            stored = read_published(results, [day]).get(day, NO_ROWS)
            damage = _name_damage(stored, current, before)
            changed = stored != Rows(rows, checksum)
        else:
            changed = before is None or before.checksum != checksum
        # They change only with the outcomes, that is with the plan or the rows.
        versions = before.algorithm_versions if before and found.is_from_plan and not repair else {}
        if changed:
            rows, checksum, versions = _replace_rows(queue, results, plan)
        elif not versions:
            versions = verify.read_algorithm_versions(queue, plan.plan_id)
        _require_complete(plan, rows, left_out)
        publication = publications.Publication(
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
            algorithm_versions=versions,
        )
        if current is None or current.publication != publication:
            record_publication(results, publication, rows_changed=changed)
        if repair and damage:
            _record_damage(results, repair, damage, publication, before)
        manifest = publications.find_day(results, day)
    assert manifest is not None  # noqa: S101  just written
    return manifest, changed


def _replace_rows(
    queue: Connection, results: Connection, plan: plans.Plan
) -> tuple[int, str, verify.AlgorithmVersions]:
    """Replace a day's rows; returns their number, their checksum, and which versions computed them."""
    results.execute("DELETE FROM published.results WHERE day = %s", [plan.day])
    with results.cursor() as cursor, cursor.copy(_RESULTS) as copy:
        rows, checksum = verify.stream_outcomes(queue, plan, copy.write)
        # While the other server still writes the last rows.
        return rows, checksum, verify.read_algorithm_versions(queue, plan.plan_id)


def _require_complete(plan: plans.Plan, rows: int, left_out: int) -> None:
    if rows != plan.jobs - left_out:
        raise DayIncomplete(
            f"{plan.day} has outcomes for {rows:,} of its {plan.jobs:,} jobs"
            f"{f', and {left_out:,} are left out by decision' if left_out else ''}",
            f"see `episodes jobs status {plan.day}`, then materialise job_outcomes",
        )


def _is_damaged(current: publications.PublishedDay | None, before: publications.PublishedDay | None) -> bool:
    """Whether the manifest is not what was last published, by the history."""
    return (current and current.publication) != (before and before.publication)


def _name_damage(
    stored: Rows, current: publications.PublishedDay | None, before: publications.PublishedDay | None
) -> list[str]:
    """What of a published day differs from the history."""
    was = Rows(before.rows, before.checksum) if before else NO_ROWS
    found = {"published rows": stored != was, "manifest": _is_damaged(current, before)}
    return [what for what, is_found in found.items() if is_found]


def _record_damage(
    results: Connection,
    repair: RepairDecision,
    damage: Sequence[str],
    publication: publications.Publication,
    before: publications.PublishedDay | None,
) -> None:
    """Record what was repaired, and whether the rows now differ from those published before."""
    what = " and ".join(damage)
    if before is not None and before.checksum != publication.checksum:
        what += f"; not as published before: {publication.rows:,} rows instead of {before.rows:,}"
    record_repair(results, publication.day, what, repair)


def _require_undamaged(
    day: dt.date, current: publications.PublishedDay | None, before: publications.PublishedDay | None
) -> None:
    """Refuse a manifest that differs from the last publication in the history, to which it would be added."""
    if _is_damaged(current, before):
        raise ManifestDamaged(
            f"the manifest of {day} is not what was last published: something else writes to the schema"
            " `published`",
            f"stop it, then run `episodes run {day} --repair --reason WHY`",
        )


def record_titles(results: Connection, drops: Drops, days: Collection[dt.date]) -> None:
    """Keep what the drops of some published days call the episodes that were published.

    The published rows name episodes by number. For whoever looks at them, what the catalogue calls an episode
    is kept beside them, once, as the last published day's drop has it: of each day by itself it would be as
    much as all the results. It is only displayed, so it is written after a day is published and not as a part
    of that, and its absence makes nothing wrong. Writing it is idempotent, and comes to the same in whatever
    order days are published.

    Days are looked at from the last one back, each only for episodes that no later one of them has named. So
    the drop of the last day is mostly the only one that is read.

    Args:
        results: To `results`, as the publisher.
        drops: The lake's.
        days: Published days.

    Raises:
        LakeDamaged: If the file of a drop is gone, was cut or changed.
        SystemFailure: If the lake cannot be reached.
    """
    named: npt.NDArray[np.int64] = np.array([], dtype=np.int64)
    for day in sorted(days, reverse=True):
        unnamed = np.setdiff1d(_read_published_episodes(results, day), named, assume_unique=True)
        drop = drops.find(day) if unnamed.size else None
        if drop is not None:
            titles = drops.read_titles(drop, unnamed)
            _write_titles(results, day, titles)
            named = np.union1d(named, titles["epid"].to_numpy())


def _read_published_episodes(results: Connection, day: dt.date) -> npt.NDArray[np.int64]:
    """The ascending ids of the episodes that a day has results of."""
    rows = results.execute(
        "SELECT DISTINCT epid FROM published.results WHERE day = %s ORDER BY epid", [day]
    ).fetchall()
    return np.array([epid for (epid,) in rows], dtype=np.int64)


def _write_titles(results: Connection, day: dt.date, titles: pa.Table) -> None:
    """Write titles where none of a later day stands; ordered by epid, so that no two writers deadlock."""
    with results.transaction():
        for begin in range(0, titles.num_rows, _TITLES_AT_ONCE):
            results.execute(
                """
                INSERT INTO published.episodes AS known (epid, series, season, episode, title, day)
                SELECT epid, series, season, episode, title, %(day)s
                FROM json_to_recordset(%(titles)s::json)
                    AS titles (epid bigint, series text, season integer, episode integer, title text)
                ON CONFLICT (epid) DO UPDATE SET series = excluded.series, season = excluded.season,
                    episode = excluded.episode, title = excluded.title, day = excluded.day
                WHERE known.day <= excluded.day
                    AND (known.series, known.season, known.episode, known.title, known.day) IS DISTINCT FROM
                        (excluded.series, excluded.season, excluded.episode, excluded.title, excluded.day)
                """,
                # As arrays, the driver would take as long for them as for all the rest.
                {"day": day, "titles": json.dumps(titles.slice(begin, _TITLES_AT_ONCE).to_pylist())},
            )
