"""What every session of ours pins right after connecting, so that its results depend on nothing from outside.

PostgreSQL takes a session's settings from `postgresql.conf`, from the database, from the role and from the
client's environment (`PGTZ`, `PGDATESTYLE`, `PGOPTIONS`). Those that change a result or how it is read are
set here, in one statement and so in one round trip. They are not sent when connecting (`options=`, startup
parameters), since poolers refuse what they do not know. What only limits a session is left as it comes:
time limits, memory, whether it may write. Such a setting can end a statement with an error, but cannot
change what it returns. How long our sessions wait for locks is in `locks`.

Planner settings are pinned as well: the work of a statement does not depend on PostgreSQL's statistics.
Those of a growing table know nothing of its newest day. The planner then expects one row where there are
50,000, and for one row all plans cost the same: a nested loop that compares 2,500 million pairs, or an
index of which only the first column fits. In the databases that are ours:

- Joins are hash or merge joins, which read each side once however wrong the estimate is, as long as the
  columns they join by are nearly distinct on one side: ours are keys. Where a loop over a few rows is
  meant, the statement spells it out: a `LATERAL` subquery with `OFFSET 0` is never turned into a join.
- A table is read by an index, so a day is read without the days beside it. A statement names the wanted
  rows on both sides of a join, and one index alone fits what it names. A condition that would let a partial
  index fit as well stands outside, with the rest in a subquery that is `MATERIALIZED` or has `OFFSET 0`.
- `max`, or an order with a limit, also stands outside, where another index begins with that column: a walk of
  that index would pass all other days.
- Each execution is planned anew: a generic plan could be kept from when a table was empty.

The tests in `query_plans/` execute every statement on growing tables under statistics of all kinds. Tables
and indexes of the input belong to other teams, so how they are read is left to the planner.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import psycopg

SETTINGS = {
    "enable_nestloop": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_custom_plan",
    # Compiling is decided by estimated cost, which says nothing once a kind of plan is switched off.
    "jit": "off",
}


PUBLIC = "public, pg_temp"
_NOTHING_MORE: Final[Mapping[str, str]] = MappingProxyType({})
# The server's own defaults, which are the same in all its releases; except those for messages.
_PINNED = {
    # How values are written and read as text.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    # Notices and warnings: ADBC's libpq would write them to stderr, unescaped.
    "client_min_messages": "error",
    # An expected error ends its statement, and not the session.
    "exit_on_error": "off",
    # Each statement sees what is committed before it; rows for whose lock it waits are read again.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}

# Of sessions that only read.
READ_ONLY: Final[Mapping[str, str]] = MappingProxyType({"default_transaction_read_only": "on"})


class SessionKind(Enum):
    """Whose tables a session works with."""

    OURS = "ours"
    PGQUEUER = "PgQueuer's"
    DAGSTER = "Dagster's"
    INPUT = "the input's"


# How quoted text in a statement is understood. Not for psycopg2, which Dagster's storage works with: it reads
# the setting once, while it connects, and quotes by that.
_QUOTING = {"standard_conforming_strings": "on"}
_BY_KIND: dict[SessionKind, dict[str, str]] = {
    SessionKind.OURS: {**_QUOTING, "search_path": PUBLIC, **SETTINGS},
    # Its statements are not written for our planner settings, but its plans must not be cached either.
    SessionKind.PGQUEUER: {**_QUOTING, "search_path": PUBLIC, "plan_cache_mode": "force_custom_plan"},
    SessionKind.DAGSTER: {"search_path": f"dagster, {PUBLIC}"},
    # `episodes` and `viewings` are found by the search path of the role that reads them.
    SessionKind.INPUT: _QUOTING,
}


def statement(kind: SessionKind, more: Mapping[str, str] = _NOTHING_MORE) -> str:
    """The statement that pins a session's settings, for drivers other than psycopg.

    It is executed outside of a transaction: a rollback would undo it.

    Args:
        kind: Whose tables the session works with.
        more: Further settings of this session, from code alone: nothing is quoted.
    """
    settings = {**_PINNED, **_BY_KIND[kind], **more}
    return "SELECT " + ", ".join(f"set_config('{name}', '{to}', false)" for name, to in settings.items())


def pin(
    connection: psycopg.Connection[Any], kind: SessionKind, more: Mapping[str, str] = _NOTHING_MORE
) -> None:
    """Pin the settings of a new connection, which is in autocommit mode.

    Args:
        connection: To change.
        kind: Whose tables it works with.
        more: Further settings, from code alone.

    Raises:
        psycopg.Error: If the connection is lost.
    """
    connection.execute(statement(kind, more).encode())


async def pin_async(
    connection: psycopg.AsyncConnection[Any], kind: SessionKind, more: Mapping[str, str] = _NOTHING_MORE
) -> None:
    """`pin` for an asynchronous connection.

    Raises:
        psycopg.Error: If the connection is lost.
    """
    await connection.execute(statement(kind, more).encode())
