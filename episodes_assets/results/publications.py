"""What is published in `results`: the manifest of each day, its history, and its rows; read, never written.

It loads neither pandas nor Arrow, which take longer than showing what is published.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql
from psycopg.rows import class_row

from episodes_assets.algorithms.declaration import KEY_COLUMNS, Metric
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.postgres.connect import Connection

if TYPE_CHECKING:
    import pandas as pd

    from episodes_assets.lake.versions import PinnedVersion


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
        plan_uid: The plan's unique id; None where it was not recorded.
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
    algorithm_versions: Mapping[str, Sequence[str]]
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


# The columns of the manifest, which the history has as well.
NAMES = [field.name for field in fields(Publication)]
COLUMNS = sql.SQL(", ").join(map(sql.Identifier, NAMES))


def find_day(connection: Connection, day: dt.date) -> PublishedDay | None:
    """A published day's manifest, or None."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL("SELECT {}, published_at FROM published.days WHERE day = %s").format(COLUMNS), [day]
        )
        return cursor.fetchone()


def read_days(connection: Connection, first: dt.date, last: dt.date) -> list[PublishedDay]:
    """The manifests of the days from `first` to `last` that are published, by day."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {}, published_at FROM published.days WHERE day BETWEEN %s AND %s ORDER BY day"
            ).format(COLUMNS),
            [first, last],
        )
        return cursor.fetchall()


@dataclass(frozen=True)
class Neighbours:
    """The published days around a day.

    Attributes:
        earlier: The last one before it; None when there is none.
        later: The first one after it; None when there is none.
        latest: The last one of all; None when nothing is published.
    """

    earlier: dt.date | None
    later: dt.date | None
    latest: dt.date | None


def find_neighbours(connection: Connection, day: dt.date) -> Neighbours:
    """The published days around a day, which itself need not be published."""
    with connection.cursor(row_factory=class_row(Neighbours)) as cursor:
        cursor.execute(
            """
            SELECT (SELECT max(day) FROM published.days WHERE day < %(day)s) AS earlier,
                (SELECT min(day) FROM published.days WHERE day > %(day)s) AS later,
                (SELECT max(day) FROM published.days) AS latest
            """,
            {"day": day},
        )
        found = cursor.fetchone()
    assert found is not None  # noqa: S101  a statement without FROM has one row
    return found


def read_history(connection: Connection, day: dt.date) -> list[PublishedDay]:
    """A day's publications, in the order in which they were made."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {}, published_at FROM published.history WHERE day = %s ORDER BY publication_id"
            ).format(COLUMNS),
            [day],
        )
        return cursor.fetchall()


def find_last_publication(connection: Connection, day: dt.date) -> PublishedDay | None:
    """A day's latest publication from the history, which only an administrator can change."""
    with connection.cursor(row_factory=class_row(PublishedDay)) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {}, published_at FROM published.history WHERE day = %s"
                " ORDER BY publication_id DESC LIMIT 1"
            ).format(COLUMNS),
            [day],
        )
        return cursor.fetchone()


def published_plans(connection: Connection) -> dict[dt.date, PublishedFrom]:
    """What each published day was published from."""
    rows = connection.execute(
        "SELECT day, plan_id, snapshot_id, left_out, decision, plan_uid FROM published.days"
    )
    return {day: PublishedFrom(*rest) for day, *rest in rows.fetchall()}


def newest_day(connection: Connection) -> dt.date | None:
    """The newest published day; None if none is."""
    row = connection.execute("SELECT max(day) FROM published.days").fetchone()
    return row[0] if row else None


def newest_plan(connection: Connection) -> int:
    """The greatest number of a plan that was ever published; 0 when none was."""
    row = connection.execute("SELECT max(plan_id) FROM published.history").fetchone()
    return int(row[0]) if row and row[0] else 0


def read_other_than(
    connection: Connection, newest: "PinnedVersion", upto: dt.date, limit: int
) -> dict[dt.date, "PinnedVersion"]:
    """The last published days up to one that are computed from another version of the lake's viewings.

    Args:
        connection: To `results`.
        newest: The version.
        upto: The last day that matters.
        limit: At most so many days.

    Returns:
        The version of each, by day in order.
    """
    from episodes_assets.lake.versions import PinnedVersion  # loads Arrow

    found = connection.execute(
        """
        SELECT day, viewings_version, viewings_digest FROM published.days
        WHERE day <= %s AND (viewings_version <> %s OR viewings_digest <> %s) ORDER BY day DESC LIMIT %s
        """,
        [upto, *newest, limit],
    ).fetchall()
    return {day: PinnedVersion(*pinned) for day, *pinned in reversed(found)}


def read_viewings_versions(connection: Connection) -> set["PinnedVersion"]:
    """The versions of the lake's viewings that anything that was ever published was computed from."""
    from episodes_assets.lake.versions import PinnedVersion  # loads Arrow

    found = connection.execute(
        "SELECT DISTINCT viewings_version, viewings_digest FROM published.history"
        " WHERE viewings_version IS NOT NULL"
    ).fetchall()
    return {PinnedVersion(*each) for each in found}


def read_named_drops(connection: Connection) -> set[tuple[dt.date, str]]:
    """The drops that anything ever published was made from, as far as it was recorded: days and ids."""
    found = connection.execute(
        "SELECT DISTINCT day, snapshot_id FROM published.history WHERE snapshot_id IS NOT NULL"
    ).fetchall()
    return {(day, snapshot_id) for day, snapshot_id in found}


class FirstRows(NamedTuple):
    """The first rows of a day that an algorithm has.

    Attributes:
        algorithm_id: The algorithm.
        rows: How many rows the day has of it.
        first: `epid, window_start, covered_from` and the metrics by name, by epid.
    """

    algorithm_id: int
    rows: int
    first: "list[tuple[int, dt.date, dt.date, Mapping[str, int | float | None]]]"


def read_first_rows(connection: Connection, day: dt.date, each: int) -> list[FirstRows]:
    """The first published rows of a day for each of its algorithms, by algorithm.

    Args:
        connection: To `results`.
        day: The day.
        each: How many of each algorithm.
    """
    found = connection.execute(
        """
        SELECT algorithm_id, rows, epid, window_start, covered_from, metrics FROM (
            SELECT *, count(*) OVER (PARTITION BY algorithm_id) AS rows,
                row_number() OVER (PARTITION BY algorithm_id ORDER BY epid) AS number
            FROM published.results WHERE day = %s
        ) AS numbered
        WHERE number <= greatest(%s, 1) ORDER BY algorithm_id, epid
        """,
        [day, each],
    ).fetchall()
    return [
        FirstRows(algorithm_id, rows, [tuple(row[2:]) for row in own][:each])
        for (algorithm_id, rows), own in groupby(found, key=lambda row: (row[0], row[1]))
    ]


def read_rows(connection: Connection, day: dt.date) -> "pd.DataFrame":
    """A day's published rows, as `episodes results` shows and exports them.

    Returns:
        `day, epid, algorithm_id, window_start, window_end, covered_from`, then the metric columns of
        all algorithms, missing where an algorithm does not return them; by epid and algorithm_id. A column
        is of whole numbers if all algorithms with a metric of that name declare it so, and all of the day's
        values are whole.
    """
    import pandas as pd  # half a second

    keys = list(KEY_COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT day, epid, algorithm_id, window_start, window_end, covered_from, metrics
            FROM published.results WHERE day = %s ORDER BY epid, algorithm_id
            """,
            [day],
        )
        rows = pd.DataFrame(cursor.fetchall(), columns=[*keys, "metrics"])
    metrics = pd.DataFrame(rows["metrics"].tolist(), index=rows.index, dtype="object")
    algorithms = get_registry().by_id.values()
    real: dict[str, bool] = {}
    for name, metric in (item for algorithm in algorithms for item in algorithm.columns.items()):
        real[name] = real.get(name, False) or metric is Metric.REAL
    metrics = metrics.reindex(columns=list(real))
    typed = [
        metrics[name].astype("Float64") if is_real else _as_whole(metrics[name])
        for name, is_real in real.items()
    ]
    return pd.concat([rows[keys], *typed], axis="columns")


def _as_whole(values: "pd.Series") -> "pd.Series":
    """Values as whole numbers; as real ones if some are not, as of an older version that declared so."""
    try:
        return values.astype("Int64")
    except (TypeError, OverflowError):  # pandas changes no value
        return values.astype("Float64")
