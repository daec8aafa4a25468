"""Filling an input database, as the other teams' systems do in production.

Only `episodes input` uses this, with a DSN that the pipeline itself never holds.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

import pyarrow as pa

from episodes_assets.databases.arrow import connect_arrow
from episodes_assets.databases.connections import describe
from episodes_assets.errors import InputUnwritable
from episodes_assets.stores.input_columns import find_columns

EPISODES_SCHEMA = pa.schema(
    [
        pa.field("batch_date", pa.date32(), nullable=False),
        ("epid", pa.int64()),
        ("algorithm_id", pa.int16()),
        ("series", pa.string()),
        ("season", pa.int32()),
        ("episode", pa.int32()),
        ("title", pa.string()),
        ("premier_date", pa.date32()),
        ("start_date", pa.date32()),
    ]
)
VIEWINGS_SCHEMA = pa.schema(
    {
        "epid": pa.int64(),
        "viewer_id": pa.int64(),
        "viewed_at": pa.timestamp("us", tz="UTC"),
        "seconds_watched": pa.int32(),
        "completed": pa.bool_(),
    }
)

_INTEGERS = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}
# Which other columns take a type as it is sent. Bytes sent to any other may be taken for another value.
_TAKEN_BY: Mapping[pa.DataType, frozenset[str]] = {
    pa.date32(): frozenset({"date"}),
    pa.string(): frozenset({"text", "varchar", "citext"}),
    pa.timestamp("us", tz="UTC"): frozenset({"timestamptz", "timestamp"}),
    pa.bool_(): frozenset({"bool"}),
}


def replace_input(
    dsn: str,
    *,
    drops: pa.Table | None,
    drop_days: Sequence[dt.date],
    viewings: pa.Table | None,
    viewing_days: Sequence[dt.date],
) -> None:
    """Put drops and viewings in place of what there is of the same days, in one transaction.

    Args:
        dsn: The input database, through the role of the systems that fill it.
        drops: With `EPISODES_SCHEMA`.
        drop_days: The `batch_date`s to replace.
        viewings: With `VIEWINGS_SCHEMA`. Those without a time replace what there is without a time.
        viewing_days: The UTC dates to replace.

    Raises:
        InputUnwritable: If a table has a column of a type that does not take the values as they are, or none
            of that name.
        InputUnreadable: If a table is missing.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    found = find_columns(dsn)
    drops = None if drops is None else _as_declared(dsn, "episodes", drops, found)
    viewings = None if viewings is None else _as_declared(dsn, "viewings", viewings, found)
    with connect_arrow(dsn) as connection, connection.cursor() as cursor:
        if drops is not None:
            # Of two at once, neither would see the other's rows to replace them.
            cursor.execute("LOCK TABLE episodes IN SHARE ROW EXCLUSIVE MODE")
            days = [day.isoformat() for day in drop_days]
            cursor.execute("DELETE FROM episodes WHERE batch_date = ANY ($1::text[]::date[])", (days,))
            cursor.adbc_ingest("episodes", drops, mode="append")
        if viewings is not None:
            cursor.execute("LOCK TABLE viewings IN SHARE ROW EXCLUSIVE MODE")
            days = [day.isoformat() for day in viewing_days]
            cursor.execute(
                """
                DELETE FROM viewings USING unnest($1::text[]) AS day
                WHERE viewed_at >= day::date::timestamp AT TIME ZONE 'UTC'
                    AND viewed_at < (day::date + 1)::timestamp AT TIME ZONE 'UTC'
                """,
                (days,),
            )
            if viewings["viewed_at"].null_count:
                cursor.execute("DELETE FROM viewings WHERE viewed_at IS NULL")
            cursor.adbc_ingest("viewings", viewings, mode="append")
        connection.commit()


def _as_declared(
    dsn: str, table: str, rows: pa.Table, found: Mapping[tuple[str, str], Mapping[str, str]]
) -> pa.Table:
    """Rows with the types of a table's columns."""
    columns = []
    for field in rows.schema:
        there = found.get((table, field.name))
        if there is None:
            raise InputUnwritable(f"{describe(dsn)} has no column {table}.{field.name}", "have it added")
        kind, is_integer = there["type"], pa.types.is_integer(field.type)
        if not ((is_integer and kind in {*_INTEGERS, "numeric"}) or kind in _TAKEN_BY.get(field.type, ())):
            raise InputUnwritable(
                f"{table}.{field.name} in {describe(dsn)} is of the type {there['declared']}, into which"
                f" {field.type} is not loaded",
                "have it changed to a type that holds such values as they are",
            )
        try:
            columns.append(rows[field.name].cast(_INTEGERS.get(kind, field.type)))
        except pa.ArrowInvalid as error:
            raise InputUnwritable(
                f"{table}.{field.name} in {describe(dsn)} is of the type {there['declared']}, which does not"
                f" hold all values ({error})",
                "have it changed to a wider type",
            ) from error
    return pa.table(columns, rows.column_names)
