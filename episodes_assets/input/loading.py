"""Filling an input database, as the other teams' systems do in production.

Only `episodes input` and `episodes demo` use this, with a DSN that the pipeline itself never holds.
Understanding a user's file is `files`, generating a sample `sample`; the pipeline reads with `reading`.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from episodes_assets import failures
from episodes_assets.errors import InputUnwritable
from episodes_assets.input.columns import find_columns
from episodes_assets.postgres.arrow import connect_arrow
from episodes_assets.postgres.connect import describe

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
# The columns into which other types are loaded: those of the same binary format. A column of any other format
# could read the bytes as a different value.
_TAKEN_BY: Mapping[pa.DataType, frozenset[str]] = {
    pa.date32(): frozenset({"date"}),
    pa.string(): frozenset({"text", "varchar", "citext"}),
    pa.timestamp("us", tz="UTC"): frozenset({"timestamptz", "timestamp"}),
    pa.bool_(): frozenset({"bool"}),
}

# The expression by which a column is read back after loading, by its type, to be compared with the file.
_READ_BACK: Mapping[str, LiteralString] = {
    **dict.fromkeys(_INTEGERS, "{column}::bigint"),
    **dict.fromkeys(("text", "varchar", "citext"), "{column}::text"),
    "numeric": "trim_scale({column})::text",
}
_IS_OF_DAYS: Mapping[str, LiteralString] = {
    "episodes": "batch_date = day",
    "viewings": "viewed_at >= day::timestamp AT TIME ZONE 'UTC'"
    " AND viewed_at < (day + 1)::timestamp AT TIME ZONE 'UTC'",
}
_MICROSECOND_DIGITS = 6
_COPYING = re.compile(r"^COPY [^,]+, \w+ \d+, \w+ (\w+)")

Columns = Mapping[tuple[str, str], Mapping[str, Any]]


def replace_input(
    dsn: str,
    *,
    drops: pa.Table | None,
    drop_days: Sequence[dt.date],
    viewings: pa.Table | None,
    viewing_days: Sequence[dt.date],
) -> None:
    """Replace the drops and the viewings of some days, in one transaction.

    Args:
        dsn: The input database, through the role of the systems that fill it.
        drops: With `EPISODES_SCHEMA`.
        drop_days: The `batch_date`s to replace.
        viewings: With `VIEWINGS_SCHEMA`. Viewings without a time replace the table's viewings without a time.
        viewing_days: The UTC dates to replace.

    Raises:
        InputUnwritable: If a table cannot hold the values as they are, lacks a column, or refuses the rows.
            Nothing is changed then.
        InputUnreadable: If a table is missing.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    found = find_columns(dsn)
    given = (("episodes", drops, drop_days), ("viewings", viewings, viewing_days))
    loads = [
        (table, _as_declared(dsn, table, rows, found), days)
        for table, rows, days in given
        if rows is not None
    ]
    with connect_arrow(dsn) as connection, connection.cursor() as cursor:
        for table, rows, days in loads:
            with _refusals(dsn, table):
                _replace(cursor, table, rows, days, found)
                held = _read_back(cursor, table, rows, days, found)
            _require_same(dsn, table, rows, held, found)
        with _refusals(dsn, " or ".join(table for table, _, _ in loads)):  # deferred constraints
            connection.commit()


def _replace(
    cursor: adbc.Cursor, table: str, rows: pa.Table, days: Sequence[dt.date], found: Columns
) -> None:
    # Without the lock, of two loads at once neither would see, and so replace, the other's rows.
    cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
    cursor.execute(_of_days(f"DELETE FROM {table} USING", table, days))  # noqa: S608
    if _has_no_day(rows):
        cursor.execute("DELETE FROM viewings WHERE viewed_at IS NULL")
    # By default it would take the first schema of the search path.
    schema = next(each["schema"] for (name, _), each in found.items() if name == table)
    cursor.adbc_ingest(table, rows, mode="append", db_schema_name=schema)


def _read_back(
    cursor: adbc.Cursor, table: str, rows: pa.Table, days: Sequence[dt.date], found: Columns
) -> pa.Table:
    """The table's rows of those days, read in the transaction that loaded them; the lock excludes others."""
    columns = ", ".join(
        f"{_READ_BACK.get(found[table, name]['type'], '{column}').format(column=name)} AS {name}"
        for name in rows.column_names
    )
    query = _of_days(f"SELECT {columns} FROM {table},", table, days)  # noqa: S608
    if _has_no_day(rows):
        query += f" UNION ALL SELECT {columns} FROM viewings WHERE viewed_at IS NULL"  # noqa: S608
    cursor.execute(query)
    return cursor.fetch_arrow_table()


def _of_days(begin: str, table: str, days: Sequence[dt.date]) -> str:
    """A statement on a table's rows of some days, as literals: ADBC streams no statement with parameters."""
    listed = sql.Literal([day.isoformat() for day in days]).as_string(None)
    return f"{begin} unnest({listed}::date[]) AS day WHERE {_IS_OF_DAYS[table]}"


def _has_no_day(rows: pa.Table) -> bool:
    return "viewed_at" in rows.column_names and rows["viewed_at"].null_count > 0


def _require_same(dsn: str, table: str, rows: pa.Table, held: pa.Table, found: Columns) -> None:
    """Refuse a load if the table holds other values than the file: rounded, cut, changed by a trigger.

    The values are compared afterwards, as only PostgreSQL knows how types, domains and triggers convert them.
    """
    if held.num_rows != rows.num_rows:
        raise InputUnwritable(
            f"{table} in {describe(dsn)} has kept {held.num_rows:,} of the {rows.num_rows:,} rows",
            "see the triggers and rules of the table; nothing was loaded",
        )
    for name in rows.column_names:
        there = found[table, name]
        if _is_same(rows[name], held[name]):
            continue
        if there["modifier"] >= 0:
            raise _does_not_hold(dsn, table, name, there)
        raise InputUnwritable(
            f"{table}.{name} in {describe(dsn)} has kept other values than those that were loaded",
            "see the triggers and rules of the table; nothing was loaded",
        )


def _is_same(loaded: pa.ChunkedArray, held: pa.ChunkedArray) -> bool:
    """Whether two columns have the same values, in whatever order."""
    if pa.types.is_timestamp(loaded.type):
        held = held.cast(loaded.type)
    else:
        loaded = loaded.cast(held.type)
    return bool(loaded.equals(held) or _counted(loaded).equals(_counted(held)))


def _counted(values: pa.ChunkedArray) -> pa.Table:
    # In this thread: a thread of Arrow's may refer to memory of Python's when the process ends (SIGABRT).
    counted = pa.table({"value": values}).group_by("value", use_threads=False).aggregate([([], "count_all")])
    return counted.sort_by("value").combine_chunks()


@contextmanager
def _refusals(dsn: str, table: str) -> Iterator[None]:
    """Turn what the database refuses while a table is filled into one line with the table and the column."""
    try:
        yield
    except adbc_driver_manager.Error as error:
        if not (error.sqlstate or "").isalnum() or failures.explain(error) is not None:
            raise
        details: Any = error.details  # pairs of bytes, whatever the stubs say
        said = {name.decode(): text.decode(errors="replace") for name, text in details}
        copying = _COPYING.match(said.get("PG_DIAG_CONTEXT", ""))
        column = said.get("PG_DIAG_COLUMN_NAME") or (copying[1] if copying else "")
        reason = failures.reason_of(said.get("PG_DIAG_MESSAGE_PRIMARY", "")) or failures.reason(error)
        raise InputUnwritable(
            f"{table}{'.' if column else ''}{column} in {describe(dsn)} does not take the rows ({reason})",
            "correct the file, or have the table changed; nothing was loaded",
        ) from error


def _does_not_hold(
    dsn: str, table: str, column: str, there: Mapping[str, Any], why: str = ""
) -> InputUnwritable:
    return InputUnwritable(
        f"{table}.{column} in {describe(dsn)} is of the type {there['declared']}, which does not hold all"
        f" values as they are{why and f' ({why})'}",
        "have it changed to a wider type; nothing was loaded",
    )


def _as_declared(dsn: str, table: str, rows: pa.Table, found: Columns) -> pa.Table:
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
        # A time that is rounded may fall on the next day, which is not read back.
        if pa.types.is_timestamp(field.type) and _has_finer(rows[field.name], there["modifier"]):
            raise _does_not_hold(dsn, table, field.name, there)
        try:
            columns.append(rows[field.name].cast(_INTEGERS.get(kind, field.type)))
        except pa.ArrowInvalid as error:
            raise _does_not_hold(dsn, table, field.name, there, str(error)) from error
    return pa.table(columns, rows.column_names)


def _has_finer(times: pa.ChunkedArray, digits: int) -> bool:
    """Whether a time has more decimals of a second than a type keeps; negative `digits` mean all."""
    if not 0 <= digits < _MICROSECOND_DIGITS:
        return False
    step = pa.scalar(10 ** (_MICROSECOND_DIGITS - digits), pa.int64())
    ticks = times.cast(pa.int64())
    return bool(pc.any(pc.not_equal(pc.multiply(pc.divide(ticks, step), step), ticks)).as_py())
