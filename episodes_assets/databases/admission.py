"""Whether this process may write to a database: its environment and its schema, in one look."""

from collections.abc import Sequence
from typing import Any

import psycopg

from episodes_assets.databases import stamps, versions
from episodes_assets.databases.purposes import Database
from episodes_assets.errors import NotProvisioned

READ = (
    "SELECT (SELECT environment FROM public.environment_stamp),"
    " (SELECT version_num FROM public.episodes_schema_version)"
)


def judge(found: Sequence[str | None], database: Database, environment: str, described: str) -> None:
    """Refuse to write to a database of another environment or release.

    Args:
        found: The row that `READ` gives.
        database: Which database it should be.
        environment: The process's own.
        described: How to name the database in the message.

    Raises:
        NotProvisioned: If it has no stamp or no schema.
        WrongEnvironment: If it belongs to another environment.
        SchemaTooOld: If its schema is of an older release.
        SchemaTooNew: If its schema is of a newer release.
        BadSetting: If it is another one of the four databases.
    """
    stamp, version = found
    stamps.judge(stamp, environment, described)
    versions.judge(version, database, described)


def verify(connection: psycopg.Connection[Any], database: Database, environment: str, described: str) -> None:
    """Look at a database and `judge` it, in one round trip.

    Raises:
        NotProvisioned: If it has no stamp or no schema, or the role may not see them.
        WrongEnvironment: If it belongs to another environment.
        SchemaTooOld: If its schema is of an older release.
        SchemaTooNew: If its schema is of a newer release.
        BadSetting: If it is another one of the four databases.
    """
    try:
        row = connection.execute(READ).fetchone()
    except psycopg.errors.UndefinedTable as error:
        raise _without_stamp(database, described) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotProvisioned(
            f"{described} does not show its environment stamp to this role", "run `episodes db init`"
        ) from error
    judge(row or (None, None), database, environment, described)


def _without_stamp(database: Database, described: str) -> NotProvisioned:
    """What to say of a database that nobody has set up; the input may well be other systems'."""
    if database is Database.INPUT:
        return NotProvisioned(
            f"{described} has no environment stamp, so it may be other systems' and is only read",
            "if it is yours to write to, run `episodes db init` with EPISODES_INPUT_WRITER_DSN",
        )
    return NotProvisioned(f"{described} has no environment stamp", "run `episodes db init`")
