"""Which types the input's columns have, and how each is read exactly.

Other teams make the tables, so their types differ: a number may be kept as `numeric` or as text, a time
without a time zone. The columns are looked at in PostgreSQL's catalog before anything is read, where a
statement finds the tables as well: through the role's search path, be they tables, views, partitioned or
foreign. From that follow the expressions of the statements in `input/reading.py`:

- What a type holds and ours does not (a fraction in an id, text that is no date) is distinguished from what
  is missing, and handed on as it was found, so that the row can be quarantined with it.
- A type of which not every value can be read exactly is refused, by the names of column and type.
- Columns that are only displayed are read as far as they can be, and are missing otherwise.

The expressions are literals of this module, chosen by type; nothing from the catalog gets into a statement.
How a drop's rows are checked is the business of `planning/drop.py`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.rows import dict_row

from episodes_assets.errors import InputUnreadable
from episodes_assets.postgres.connect import connect_to_input, describe

# How long the types are cached: they may change while the process runs. Reading them takes milliseconds.
CACHE_SECONDS = 60.0

_FIND: LiteralString = """
    WITH RECURSIVE named (name, relation) AS (
        SELECT name, to_regclass(name)::oid FROM unnest(ARRAY['episodes', 'viewings']) AS name
    ), found (name, relation, attname, collated, declared, typmod, type, modifier) AS (
        SELECT name, relation, attname, attcollation, atttypid, atttypmod, atttypid, atttypmod
        FROM named LEFT JOIN pg_catalog.pg_attribute
            ON attrelid = relation AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT name, relation, attname, collated, declared, typmod, typbasetype,
            CASE WHEN typtypmod < 0 THEN modifier ELSE typtypmod END
        FROM found JOIN pg_catalog.pg_type ON pg_type.oid = type WHERE typtype = 'd'
    )
    SELECT name AS "table", attname::text AS "column", format_type(declared, typmod) AS declared,
        CASE WHEN typtype = 'e' THEN 'enum' ELSE typname::text END AS type, modifier,
        nspname::text AS schema, CASE WHEN NOT collisdeterministic THEN collname::text END AS equating
    FROM found LEFT JOIN pg_catalog.pg_type ON pg_type.oid = type
        LEFT JOIN pg_catalog.pg_collation ON pg_collation.oid = collated
        LEFT JOIN pg_catalog.pg_class ON pg_class.oid = relation
        LEFT JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relation IS NOT NULL AND typtype IS DISTINCT FROM 'd'
"""

# Types that are read alike have one kind; any other is a kind of its own. A domain counts as its base type.
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("int2", "int4", "int8"), "integer"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name"), "text"),
    **dict.fromkeys(("float4", "float8"), "float"),
}


@dataclass(frozen=True)
class _Reading:
    """The SQL expression that reads the columns of a type.

    Attributes:
        value: The expression, with `COLUMN` in place of the column; NULL for values that cannot be read.
        is_whole: Whether every value of the type can be read.
    """

    value: LiteralString
    is_whole: bool = True


# Of a number in text only one spelling is read, so that ids which differ as text differ as numbers. Braces
# are doubled because `sql.SQL.format` fills in the parameters.
_ID = {
    "integer": _Reading("COLUMN::bigint"),
    "numeric": _Reading(
        "CASE WHEN COLUMN = trunc(COLUMN) AND COLUMN BETWEEN -9223372036854775808 AND 9223372036854775807"
        " THEN COLUMN::bigint END",
        is_whole=False,
    ),
    "text": _Reading(
        "CASE WHEN COLUMN::text ~ '^(0|-?[1-9][0-9]{{0,18}})$'"
        " THEN CASE WHEN COLUMN::text::numeric BETWEEN -9223372036854775808 AND 9223372036854775807"
        " THEN COLUMN::text::bigint END END",
        is_whole=False,
    ),
}
# PostgreSQL's infinite dates have no calendar date; they are read as missing.
_DATE = {
    "date": _Reading("CASE WHEN isfinite(COLUMN) THEN COLUMN END"),
    "timestamp": _Reading("CASE WHEN isfinite(COLUMN) THEN COLUMN::date END"),
    "timestamptz": _Reading("CASE WHEN isfinite(COLUMN) THEN (COLUMN AT TIME ZONE 'UTC')::date END"),
    # 2018-02-30 is shaped like a date, and PostgreSQL before 16 cannot be asked whether it is one.
    "text": _Reading(
        "CASE WHEN COLUMN::text ~ '^[0-9]{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$'"
        " AND left(COLUMN::text, 4) <> '0000' THEN"
        " CASE WHEN right(COLUMN::text, 2)::integer <= extract(day FROM"
        " (left(COLUMN::text, 7) || '-01')::date + interval '1 month - 1 day')"
        " THEN COLUMN::text::date END END",
        is_whole=False,
    ),
}
_MOMENT = {
    "timestamptz": _Reading("COLUMN"),
    "timestamp": _Reading("(COLUMN AT TIME ZONE 'UTC')"),
    "date": _Reading("(COLUMN::timestamp AT TIME ZONE 'UTC')"),
}
# More than a day counts as a day, a fraction is truncated. To PostgreSQL, NaN is greater than all numbers.
_CLAMPED = _Reading("CASE WHEN COLUMN <> 'NaN' THEN trunc(least(greatest(COLUMN, 0), 86400))::integer END")
_SECONDS = {"integer": _Reading("COLUMN"), "numeric": _CLAMPED, "float": _CLAMPED}
_ZERO_OR_ONE = _Reading("CASE COLUMN::text WHEN '1' THEN true WHEN '0' THEN false END", is_whole=False)
_TRUTH = _Reading(
    "CASE WHEN lower(btrim(COLUMN::text)) IN ('true', 't', 'yes', 'y', 'on', '1') THEN true"
    " WHEN lower(btrim(COLUMN::text)) IN ('false', 'f', 'no', 'n', 'off', '0') THEN false END",
    is_whole=False,
)
_COMPLETED = {
    "bool": _Reading("COLUMN"),
    "integer": _ZERO_OR_ONE,
    "numeric": _Reading("CASE COLUMN WHEN 1 THEN true WHEN 0 THEN false END", is_whole=False),
    "bit": _ZERO_OR_ONE,
    "text": _TRUTH,
    "enum": _TRUTH,
}
# Viewer ids are only compared for equality: values that are equal in PostgreSQL are read as the same text.
# `citext` compares the result of `lower` in the database's own collation, whatever the column's.
_VIEWER = {
    "integer": _Reading("COLUMN::bigint"),
    "numeric": _Reading("trim_scale(COLUMN)::text"),
    "text": _Reading("COLUMN::text"),
    "citext": _Reading('lower(COLUMN::text COLLATE "default")'),
    "enum": _Reading("COLUMN::text"),
    "uuid": _Reading("COLUMN::text"),
    "bytea": _Reading("encode(COLUMN, 'hex')"),
}
_READINGS: Mapping[tuple[str, str], Mapping[str, _Reading]] = {
    ("episodes", "batch_date"): _MOMENT,
    ("episodes", "epid"): _ID,
    ("episodes", "algorithm_id"): _ID,
    ("episodes", "premier_date"): _DATE,
    ("episodes", "start_date"): _DATE,
    ("viewings", "epid"): _ID,
    ("viewings", "viewer_id"): _VIEWER,
    ("viewings", "viewed_at"): _MOMENT,
    ("viewings", "seconds_watched"): _SECONDS,
    ("viewings", "completed"): _COMPLETED,
}

_SMALL: LiteralString = "CASE WHEN COLUMN BETWEEN -2147483648 AND 2147483647 THEN COLUMN::integer END"
_NUMBER_SHOWN: Mapping[str, LiteralString] = {
    "integer": _SMALL,
    "numeric": f"CASE WHEN COLUMN = trunc(COLUMN) THEN {_SMALL} END",
    "float": f"CASE WHEN COLUMN = trunc(COLUMN) THEN {_SMALL} END",
    # Nondeterministic collations support no patterns.
    "text": "CASE WHEN COLUMN::text COLLATE \"default\" ~ '^(0|-?[1-9][0-9]{{0,8}})$'"
    " THEN COLUMN::text::integer END",
}
# The UTC date of a moment, and the first moment of a UTC date, in the column's type, so that an index on the
# column can be used. A time without a time zone is one in UTC.
_DATE_OF: Mapping[str, LiteralString] = {
    "timestamptz": "(MOMENT AT TIME ZONE 'UTC')::date",
    "timestamp": "(MOMENT)::date",
    "date": "(MOMENT)",
}
_BEGIN_OF: Mapping[str, LiteralString] = {
    "timestamptz": "((DATE)::timestamp AT TIME ZONE 'UTC')",
    "timestamp": "(DATE)::timestamp",
    "date": "(DATE)::date",
}


@dataclass(frozen=True)
class InputColumns:
    """How the columns of an input are read, as expressions for statements.

    Attributes:
        kinds: The kind of each column's type, by table and column. Columns that are only displayed may be
            missing; all others are there, with a type that can be read.
    """

    kinds: Mapping[tuple[str, str], str]

    def value(self, table: LiteralString, column: LiteralString) -> LiteralString:
        """A column's value in the type that the pipeline uses; NULL where it is missing or cannot be read."""
        return self._reading(table, column).value.replace("COLUMN", f"{table}.{column}")

    def as_found(self, table: LiteralString, column: LiteralString) -> LiteralString:
        """The text of a value that cannot be read; NULL where it can be read or is missing."""
        if self._reading(table, column).is_whole:
            return "NULL::text"
        is_text = self.kinds[table, column] == "text"
        is_there: LiteralString = "COLUMN::text ~ '[^[:space:]]'" if is_text else "COLUMN IS NOT NULL"
        found: LiteralString = f"CASE WHEN {is_there} AND (VALUE) IS NULL THEN COLUMN::text END"
        found = found.replace("VALUE", self._reading(table, column).value)
        return found.replace("COLUMN", f"{table}.{column}")

    def number_shown(self, column: LiteralString) -> LiteralString:
        """A number of `episodes` that is only displayed; NULL where it is no integer of 32 bits."""
        kind = self.kinds.get(("episodes", column), "")
        return _NUMBER_SHOWN.get(kind, "NULL::integer").replace("COLUMN", f"episodes.{column}")

    def text_shown(self, column: LiteralString) -> LiteralString:
        """A column of `episodes` that is only displayed, cast to text from whatever type it has."""
        return f"episodes.{column}::text" if ("episodes", column) in self.kinds else "NULL::text"

    def is_within(
        self, table: LiteralString, column: LiteralString, first: LiteralString, last: LiteralString
    ) -> LiteralString:
        """A condition: the column's time lies on one of the UTC dates from the first to the last."""
        moment = f"{table}.{column}"
        if first == last and self.kinds[table, column] == "date":
            return f"{moment} = {first}"
        begin, end = (self.begin_of(table, column, date) for date in (first, f"{last} + 1"))
        return f"{moment} >= {begin} AND {moment} < {end}"

    def date_of(self, table: LiteralString, column: LiteralString, moment: LiteralString) -> LiteralString:
        """The UTC date of a moment that has the column's type."""
        return _DATE_OF[self.kinds[table, column]].replace("MOMENT", moment)

    def begin_of(self, table: LiteralString, column: LiteralString, date: LiteralString) -> LiteralString:
        """The first moment of a UTC date, in the column's type."""
        return _BEGIN_OF[self.kinds[table, column]].replace("DATE", date)

    def _reading(self, table: str, column: str) -> _Reading:
        return _READINGS[table, column][self.kinds[table, column]]


_cache: dict[str, tuple[float, InputColumns]] = {}


def find_columns(dsn: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The columns of `episodes` and `viewings` as they are now, by table and name.

    Returns:
        Of each, `declared`, its type as SQL spells it; `type`, the name of that type, or of a domain's base
        type; its `modifier`, such as the 3 of `timestamptz(3)`, or -1; `schema`, where the table was found;
        and `equating`, the column's collation if it is nondeterministic: one in which different texts are
        equal.

    Raises:
        InputUnreadable: If a table is missing.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    with connect_to_input(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_FIND).fetchall()
    for table in ("episodes", "viewings"):
        if not any(row["table"] == table for row in rows):
            raise InputUnreadable(
                f"{describe(dsn)} has no table {table} that its role finds",
                "have it made or let the role's search_path lead to it, with USAGE of its schema",
            )
    return {(row["table"], row["column"]): row for row in rows}


def look_at_columns(dsn: str) -> InputColumns:
    """Read the columns from PostgreSQL's catalog, and cache them for `input_columns`.

    Raises:
        InputUnreadable: If a table or a column is missing, or of a type that cannot be read exactly.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    types = find_columns(dsn)
    for (table, column), readings in _READINGS.items():
        row = types.get((table, column))
        if row is None:
            raise InputUnreadable(
                f"{describe(dsn)} has no column {table}.{column}",
                "have it added, or put a view with all columns in the table's place",
            )
        if row["equating"] is not None:
            raise InputUnreadable(
                f"{table}.{column} in {describe(dsn)} has the collation {row['equating']}, which takes"
                " texts that differ for equal",
                "put a view of that name in the table's place which gives equal ones one spelling, in the"
                ' collation "C"',
            )
        if _kind(table, column, row) not in readings:
            raise InputUnreadable(
                f"{table}.{column} in {describe(dsn)} is of the type {row['declared']}, which cannot be read"
                " exactly",
                "docs/bad-input.md has the types that can; put a view of that name in the table's place"
                f" which converts {column}",
            )
    columns = InputColumns(
        {(table, column): _kind(table, column, row) for (table, column), row in types.items()}
    )
    _cache[dsn] = time.monotonic(), columns
    return columns


def input_columns(dsn: str) -> InputColumns:
    """The columns, from the cache if they were read less than `CACHE_SECONDS` ago.

    Raises:
        InputUnreadable: As `look_at_columns`.
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    read_at, columns = _cache.get(dsn, (0.0, None))
    if columns is None or time.monotonic() - read_at > CACHE_SECONDS:
        return look_at_columns(dsn)
    return columns


def forget_columns(dsn: str) -> None:
    """Remove the columns from the cache; to be called when a read failed, as a type may have changed."""
    _cache.pop(dsn, None)


def _kind(table: str, column: str, row: Mapping[str, Any]) -> str:
    kind = _KINDS.get(row["type"], row["type"])
    # Except in viewer ids, citext is read as text: of ids only one spelling is read, the rest is displayed.
    return "text" if kind == "citext" and "citext" not in _READINGS.get((table, column), {}) else kind
