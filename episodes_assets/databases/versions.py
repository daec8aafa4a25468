"""Which version of each database's schema this release works with.

A process that is older or newer than the schema it meets would misread it or write what the other
misreads, so each refuses the other. What is needed follows from the names of the migration files:
workers look at it often and load no Alembic for that.
"""

from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from episodes_assets.databases.purposes import Database
from episodes_assets.errors import BadSetting, NotProvisioned, SchemaTooNew, SchemaTooOld

MIGRATIONS = Path(__file__).parent / "migrations"

READ = "SELECT version_num FROM public.episodes_schema_version"


@cache
def known_versions(database: Database) -> tuple[str, ...]:
    """The versions this release can tell apart, the oldest first, such as `queue_0002`."""
    files = (MIGRATIONS / database.value).glob("[0-9]*_*.py")
    return tuple(sorted(f"{database.value}_{file.name.partition('_')[0]}" for file in files))


def needed_version(database: Database) -> str:
    """The version this release works with: the newest it knows."""
    return known_versions(database)[-1]


def judge(version: str | None, database: Database, described: str) -> None:
    """Refuse a schema of another release.

    Args:
        version: What `READ` gives; None when it gives no row.
        database: Which database it should be.
        described: How to name it in the message.

    Raises:
        NotProvisioned: If it has no version.
        SchemaTooOld: If it is of an older release.
        SchemaTooNew: If it is of a newer release.
        BadSetting: If it is another one of the four databases.
    """
    needed = needed_version(database)
    if version == needed:
        return
    if version is None:
        raise NotProvisioned(f"{described} has no schema", "run `episodes db init`")
    if version in known_versions(database):
        raise SchemaTooOld(
            f"{described} is at {version}, this release needs {needed}", "run `episodes db init`"
        )
    if not version.startswith(f"{database.value}_"):
        raise BadSetting(
            f"{described} is at {version}, so it is not the {database} database", "check the DSNs"
        )
    raise SchemaTooNew(
        f"{described} is at {version}, this release knows it up to {needed}", "upgrade this process"
    )


def verify(connection: psycopg.Connection[Any], database: Database, described: str) -> None:
    """Refuse a database whose schema is of another release.

    A role that may not see the version (the consumers') is let through.

    Raises:
        NotProvisioned: If it has no version.
        SchemaTooOld: If it is of an older release.
        SchemaTooNew: If it is of a newer release.
        BadSetting: If it is another one of the four databases.
    """
    try:
        row = connection.execute(READ).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        return
    judge(None if row is None else str(row[0]), database, described)
