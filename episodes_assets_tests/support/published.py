"""Published days that nobody has worked: rows, manifests and titles as a test needs them."""

import datetime as dt
from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from episodes_assets_tests.support.system import System

Metrics = Mapping[str, object]


def put_day(system: System, day: dt.date, rows: Mapping[int, Metrics], algorithm_id: int = 0) -> None:
    """Let a day have these rows of an algorithm, by epid, and a manifest."""
    system.query(
        "results",
        "INSERT INTO published.results (day, epid, algorithm_id, window_start, window_end, metrics)"
        " SELECT %s, epid, %s, %s, %s, metrics"
        " FROM unnest(%s::bigint[], %s::jsonb[]) AS rows (epid, metrics)",
        [day, algorithm_id, day, day, list(rows), [Jsonb(dict(each)) for each in rows.values()]],
    )
    system.query(
        "results",
        "INSERT INTO published.days (day, jobs, rows, checksum, plan_id, plan_checksum, code_version)"
        " VALUES (%s, %s, %s, 'c', 1, 'c', '1')"
        " ON CONFLICT (day) DO UPDATE SET rows = days.rows + excluded.rows",
        [day, len(rows), len(rows)],
    )


def put_title(system: System, epid: int, series: str | None, title: str | None, day: dt.date) -> None:
    """Let the catalogue call an episode so."""
    system.query(
        "results",
        "INSERT INTO published.episodes VALUES (%s, %s, 1, 2, %s, %s)",
        [epid, series, title, day],
    )


def forget_published(system: System) -> None:
    """Empty what consumers read, but for the history."""
    for table in ("results", "days", "episodes"):
        system.query("results", f"TRUNCATE published.{table}")


def reach(*views: int) -> Sequence[Metrics]:
    """Rows of `reach` with so many views."""
    return [{"views": each, "viewers": 1, "seconds_watched": 2, "completed_views": 0} for each in views]
