"""What every session of ours pins right after connecting, so that its results depend on nothing from outside.

PostgreSQL takes a session's settings from `postgresql.conf`, from the database, from the role and from the
client's environment (`PGTZ`, `PGDATESTYLE`, `PGOPTIONS`). Those that change a result or how it is read are
set here, in one statement and so in one round trip. They are not sent when connecting (`options=`, startup
parameters), since poolers refuse what they do not know.

What only limits a session is left as it comes: time limits, memory, whether it may write. Such a setting can
end a statement with an error, but cannot change what it returns. `lock_waits.py` says how long our sessions
wait for locks, `planner.py` how tables of ours are read.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import psycopg

from episodes_assets.databases import planner

PUBLIC = "public, pg_temp"

_NOTHING_MORE: Final[Mapping[str, str]] = MappingProxyType({})

# The server's own defaults but for messages; of these one release differs from another in none.
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
    # What else the server has to say: ADBC's libpq would write it on stderr, as it comes.
    "client_min_messages": "error",
    # An error that is expected ends its statement alone.
    "exit_on_error": "off",
    # What a statement sees of what others commit. Row locks are waited for, and then rows are read anew.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}


# Of sessions that only read; the others may write where they are let.
READ_ONLY: Final[Mapping[str, str]] = MappingProxyType({"default_transaction_read_only": "on"})


class SessionKind(Enum):
    """Whose tables a session works with."""

    OURS = "ours"
    PGQUEUER = "PgQueuer's"
    DAGSTER = "Dagster's"
    INPUT = "the input's"


# How quoted text in a statement is understood. psycopg2, which Dagster's storage works with, looks at that
# once, while it connects, and would then quote for what is no longer in force.
_QUOTING = {"standard_conforming_strings": "on"}

_BY_KIND: dict[SessionKind, dict[str, str]] = {
    SessionKind.OURS: {**_QUOTING, "search_path": PUBLIC, **planner.SETTINGS},
    # Its statements are its own, but a plan for an empty queue is not to be kept either.
    SessionKind.PGQUEUER: {**_QUOTING, "search_path": PUBLIC, "plan_cache_mode": "force_custom_plan"},
    SessionKind.DAGSTER: {"search_path": f"dagster, {PUBLIC}"},
    # In which schema `episodes` and `viewings` are found is said by the role that reads them.
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
    """The same for an asynchronous connection.

    Raises:
        psycopg.Error: If the connection is lost.
    """
    await connection.execute(statement(kind, more).encode())
