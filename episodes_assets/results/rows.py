"""A day's published rows as people look at them: in any order, searched, compared with the day before.

Also one episode over its days, and a day's rows in parts, for whoever takes all of them. A statement reads
the rows of one day (two where it compares, one row of each day for an episode) by the key of
`published.results`, and never a longer history. So no metric needs an index, which publishing would have to
keep. A page begins after the last row of the one before (keyset pagination), so a row is on one page alone
whatever is published meanwhile. What episodes are called is looked up in `published.episodes` for the rows
that are shown; a search looks it up for each row of its day.

What is searched for, and the metric, are parameters, never text of a statement. The manifest of a day is
read in `publications`.
"""

import datetime as dt
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from episodes_assets.postgres.connect import Connection

EPID = "epid"
_BIGINT = 2**63
_ROWS_AT_ONCE = 10_000


def as_number(value: object) -> int | float | None:
    """A stored metric; None for what is no number, or greater than any that an algorithm returns."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= sys.float_info.max else None


@dataclass(frozen=True)
class Selection:
    """Published rows of one algorithm.

    Attributes:
        day: Of this day.
        algorithm_id: Of this algorithm.
        search: Only of episodes whose id it is, or whose series or title contain it, in upper or lower case;
            empty for all.
    """

    day: dt.date
    algorithm_id: int
    search: str = ""

    @property
    def parameters(self) -> dict[str, object]:
        """Of a statement on these rows."""
        digits = self.search
        is_id = digits.isascii() and digits.isdigit() and int(digits) < _BIGINT
        return {
            "day": self.day,
            "algorithm_id": self.algorithm_id,
            "text": self.search,
            "number": int(digits) if is_id else None,
        }


@dataclass(frozen=True)
class Order:
    """In which order rows are shown; equals by id, and missing values last.

    Attributes:
        column: A metric of the algorithm, or `EPID`.
        is_descending: Whether the greatest comes first.
    """

    column: str = EPID
    is_descending: bool = False


@dataclass(frozen=True)
class Position:
    """Where a page ended.

    Attributes:
        value: Its last row's value in the column of the order, exactly; None where that is missing.
        epid: Its last row's id.
    """

    value: Decimal | None
    epid: int


@dataclass(frozen=True)
class Title:
    """What the catalogue calls an episode.

    Attributes:
        epid: The episode.
        series: Of which series.
        season: Number of the season.
        episode: Number in the season.
        title: Its own title.
        titled_on: The last published day that called it so; None where no day is known to.
    """

    epid: int
    series: str | None
    season: int | None
    episode: int | None
    title: str | None
    titled_on: dt.date | None


@dataclass(frozen=True)
class Row(Title):
    """A published row with what its episode is called.

    Attributes:
        window_start: First day of the window.
        window_end: Last day of the window.
        covered_from: From which day on viewings are complete; None where none is.
        metrics: The algorithm's values by name.
        value: The one that orders the rows.
    """

    window_start: dt.date
    window_end: dt.date
    covered_from: dt.date | None
    metrics: Mapping[str, int | float | None]
    value: Decimal | None


@dataclass(frozen=True)
class _CountedRow(Row):
    matching: int


@dataclass(frozen=True)
class Page:
    """Some of the rows of a selection.

    Attributes:
        rows: In the order that was asked for.
        matching: How many rows the selection has; 0 on a page without rows.
        next_after: Where the next page begins; None when this is the last one.
    """

    rows: Sequence[Row]
    matching: int
    next_after: Position | None


@dataclass(frozen=True)
class Mover(Title):
    """An episode whose value differs from that of the day before.

    Attributes:
        value: On the day.
        before: On the day before.
        change: How much more it is now.
    """

    value: Decimal
    before: Decimal
    change: Decimal


@dataclass(frozen=True)
class EpisodeDay:
    """A published day of an episode.

    Attributes:
        day: The day.
        metrics: The algorithm's values by name; None where the day has no row of the episode.
    """

    day: dt.date
    metrics: Mapping[str, int | float | None] | None


# Exact for whole and real numbers; whatever is no number is missing.
_METRIC = sql.SQL(
    "CASE WHEN jsonb_typeof(metrics -> %(column)s::text) = 'number'"
    " THEN (metrics -> %(column)s::text)::numeric END"
)
_ID = sql.SQL("epid::numeric")
_VALUES = """
    SELECT epid, {value} AS value FROM published.results
    WHERE day = {day} AND algorithm_id = %(algorithm_id)s
"""
_DAY, _DAY_BEFORE = sql.Placeholder("day"), sql.Placeholder("day_before")
_TITLE = """
    SELECT series, season, episode, title, day AS titled_on FROM published.episodes
    WHERE epid = {epid} OFFSET 0
"""
# No pattern: every character of what is searched for stands for itself.
_FOUND = sql.SQL(
    "(rows.epid = %(number)s::bigint OR strpos(lower(series), lower(%(text)s::text)) > 0"
    " OR strpos(lower(title), lower(%(text)s::text)) > 0)"
)
_SEARCHED = """
    SELECT rows.epid, value FROM ({values} OFFSET 0) AS rows
    LEFT JOIN LATERAL ({title}) AS titles ON true WHERE {found}
"""
_PAGE = """
    WITH matching AS MATERIALIZED ({matching}), page AS MATERIALIZED (
        SELECT epid, value FROM matching WHERE {after}
        ORDER BY value {direction} NULLS LAST, epid LIMIT %(limit)s
    )
    SELECT page.epid, value, series, season, episode, title, titled_on, window_start, window_end,
        covered_from, metrics, (SELECT count(*) FROM matching) AS matching
    FROM page CROSS JOIN LATERAL (
        SELECT window_start, window_end, covered_from, metrics FROM published.results
        WHERE day = %(day)s AND epid = page.epid AND algorithm_id = %(algorithm_id)s OFFSET 0
    ) AS rows LEFT JOIN LATERAL ({title}) AS titles ON true
    ORDER BY value {direction} NULLS LAST, page.epid
"""
_AFTER_VALUE = sql.SQL(
    "(value {beyond} %(after_value)s::numeric OR value IS NULL"
    " OR (value = %(after_value)s::numeric AND epid > %(after_epid)s))"
)
_AFTER_MISSING = sql.SQL("(value IS NULL AND epid > %(after_epid)s)")
_ANY = sql.SQL("true")


def read_page(
    connection: Connection, wanted: Selection, order: Order, limit: int, after: Position | None = None
) -> Page:
    """Some rows of a selection, those after a position.

    Args:
        connection: To `results`, as any role that reads what is published.
        wanted: The selection.
        order: Their order.
        limit: How many at most.
        after: Where the page before ended; None for the first page.
    """
    direction, beyond = ("DESC", "<") if order.is_descending else ("ASC", ">")
    values = _values(order.column, _DAY)
    after_page = _ANY
    if after is not None:
        after_page = _AFTER_MISSING if after.value is None else _AFTER_VALUE
    statement = sql.SQL(_PAGE).format(
        matching=_searched(values) if wanted.search else values,
        after=after_page.format(beyond=sql.SQL(beyond)),
        direction=sql.SQL(direction),
        title=_title("page.epid"),
    )
    parameters = {
        **wanted.parameters,
        "column": order.column,
        "limit": limit + 1,
        "after_value": after and after.value,
        "after_epid": after and after.epid,
    }
    with connection.cursor(row_factory=class_row(_CountedRow)) as cursor:
        found = cursor.execute(statement, parameters).fetchall()
    rows = found[:limit]
    return Page(
        rows=rows,
        matching=rows[0].matching if rows else 0,
        next_after=Position(rows[-1].value, rows[-1].epid) if len(found) > limit else None,
    )


_MOVED = """
    WITH of_day AS MATERIALIZED ({of_day}), before AS MATERIALIZED ({of_day_before}), moved AS MATERIALIZED (
        SELECT epid, of_day.value AS value, before.value AS before, of_day.value - before.value AS change
        FROM of_day JOIN before USING (epid)
    ), most AS MATERIALIZED (
        (SELECT * FROM moved WHERE change > 0 ORDER BY change DESC, epid LIMIT %(limit)s)
        UNION ALL
        (SELECT * FROM moved WHERE change < 0 ORDER BY change, epid LIMIT %(limit)s)
    )
    SELECT most.epid, value, before, change, series, season, episode, title, titled_on
    FROM most LEFT JOIN LATERAL ({title}) AS titles ON true ORDER BY abs(change) DESC, most.epid
"""


def read_movers(
    connection: Connection, wanted: Selection, metric: str, day_before: dt.date, limit: int
) -> list[Mover]:
    """The episodes whose value has risen or fallen most, the greatest change first.

    An episode that either day has no value of is none of them.

    Args:
        connection: To `results`, as any role that reads what is published.
        wanted: The day and the algorithm; whatever is searched for is left aside.
        metric: Of the algorithm.
        day_before: The day that is compared with.
        limit: How many risen ones at most, and how many fallen ones.
    """
    statement = sql.SQL(_MOVED).format(
        of_day=_values(metric, _DAY),
        of_day_before=_values(metric, _DAY_BEFORE),
        title=_title("most.epid"),
    )
    parameters = {**wanted.parameters, "day_before": day_before, "column": metric, "limit": limit}
    with connection.cursor(row_factory=class_row(Mover)) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def find_title(connection: Connection, epid: int) -> Title:
    """What an episode is called, as far as it is known."""
    with connection.cursor(row_factory=class_row(Title)) as cursor:
        cursor.execute(
            """
            SELECT epid, series, season, episode, title, day AS titled_on FROM published.episodes
            WHERE epid = %s
            """,
            [epid],
        )
        return cursor.fetchone() or Title(epid, None, None, None, None, None)


def read_episode_days(
    connection: Connection, epid: int, algorithm_id: int, upto: dt.date, limit: int
) -> list[EpisodeDay]:
    """An episode's rows on the last published days up to a day, by day.

    Args:
        connection: To `results`, as any role that reads what is published.
        epid: The episode.
        algorithm_id: The algorithm.
        upto: The last day that matters.
        limit: How many days at most.
    """
    with connection.cursor(row_factory=class_row(EpisodeDay)) as cursor:
        return cursor.execute(
            """
            SELECT days.day, metrics
            FROM (SELECT day FROM published.days WHERE day <= %(upto)s ORDER BY day DESC LIMIT %(limit)s)
                AS days
            LEFT JOIN LATERAL (
                SELECT metrics FROM published.results
                WHERE day = days.day AND epid = %(epid)s AND algorithm_id = %(algorithm_id)s OFFSET 0
            ) AS rows ON true ORDER BY days.day
            """,
            {"epid": epid, "algorithm_id": algorithm_id, "upto": upto, "limit": limit},
        ).fetchall()


_PART = """
    SELECT rows.epid, series, season, episode, title, titled_on, window_start, window_end, covered_from,
        metrics, NULL::numeric AS value
    FROM published.results AS rows LEFT JOIN LATERAL ({title}) AS titles ON true
    WHERE rows.day = %(day)s AND rows.algorithm_id = %(algorithm_id)s AND rows.epid > %(after)s AND {found}
    ORDER BY rows.epid LIMIT %(limit)s
"""


def stream_rows(connection: Connection, wanted: Selection) -> Iterator[list[Row]]:
    """All rows of a selection in parts, by id; of one moment, if the connection's transaction sees one.

    Args:
        connection: To `results`, as any role that reads what is published.
        wanted: The selection.
    """
    statement = sql.SQL(_PART).format(title=_title("rows.epid"), found=_FOUND if wanted.search else _ANY)
    after = -_BIGINT
    while True:
        with connection.cursor(row_factory=class_row(Row)) as cursor:
            parameters = {**wanted.parameters, "after": after, "limit": _ROWS_AT_ONCE}
            rows = cursor.execute(statement, parameters).fetchall()
        if rows:
            yield rows
            after = rows[-1].epid
        if len(rows) < _ROWS_AT_ONCE:
            return


def _values(column: str, day: sql.Placeholder) -> sql.Composed:
    return sql.SQL(_VALUES).format(value=_ID if column == EPID else _METRIC, day=day)


def _searched(values: sql.Composed) -> sql.Composed:
    return sql.SQL(_SEARCHED).format(values=values, title=_title("rows.epid"), found=_FOUND)


def _title(epid: LiteralString) -> sql.Composed:
    return sql.SQL(_TITLE).format(epid=sql.SQL(epid))
