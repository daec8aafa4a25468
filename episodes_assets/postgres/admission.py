"""Whether this process may write to a database: its environment and its schema version, in one statement.

The stamp on each database is the environment it belongs to. A copy of a database carries it along, so a
development process that is pointed at production by mistake, or at a restored copy of it, refuses to
write. A process that is older or newer than the schema it meets would misread it or write what the other
misreads, so each refuses the other; unless the schema itself says that the older one may go on beside it.
A release is named by the newest version that it knows: with its version a schema keeps the oldest release
that fits it, which its migrations declare, so that a process which knows nothing of those migrations can
read whether it is within that window. What version is needed follows from the names of the migration
files: workers look at it often and load no Alembic. Changing a stamp is `provision/targets.py`, migrating
`provision/schema.py`.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from episodes_assets.errors import BadSetting, NotProvisioned, SchemaTooNew, SchemaTooOld, WrongEnvironment
from episodes_assets.postgres.databases import Database


def read_stamp(connection: psycopg.Connection[Any]) -> str | None:
    """The environment a database belongs to; None when it was never stamped."""
    found = connection.execute("SELECT to_regclass('public.environment_stamp')").fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute("SELECT environment FROM public.environment_stamp").fetchone()
    return None if row is None else str(row[0])


def require_stamp(stamp: str | None, environment: str, described: str) -> None:
    """Refuse a database of another environment.

    Args:
        stamp: What the database is stamped with; None when it is not.
        environment: The process's own.
        described: How to name the database in the message.

    Raises:
        NotProvisioned: If it has no stamp.
        WrongEnvironment: If its stamp differs.
    """
    if stamp is None:
        raise NotProvisioned(f"{described} has no environment stamp", "run `episodes db init`")
    if stamp != environment:
        raise WrongEnvironment(
            f"{described} belongs to {stamp!r}, this process to {environment!r}",
            "use that environment's own DSNs, or set EPISODES_ENVIRONMENT if you mean this one",
        )


MIGRATIONS = Path(__file__).parent / "migrations"
# Of the whole row as JSON: an older release has made the table without that column.
READ_VERSION = (
    "SELECT version_num, to_jsonb(episodes_schema_version) ->> 'oldest_beside'"
    " FROM public.episodes_schema_version"
)


@cache
def known_versions(database: Database) -> tuple[str, ...]:
    """The versions that this release knows, the oldest first, such as `queue_0002`."""
    files = (MIGRATIONS / database.value).glob("[0-9]*_*.py")
    return tuple(sorted(f"{database.value}_{file.name.partition('_')[0]}" for file in files))


def needed_version(database: Database) -> str:
    """The version this release works with: the newest it knows."""
    return known_versions(database)[-1]


def may_go_on_beside(oldest_beside: str | None, database: Database) -> bool:
    """Whether this release may work with a newer schema.

    Args:
        oldest_beside: The oldest release that may, as the schema says; None when it says none.
        database: Whose schema it is.
    """
    return oldest_beside in known_versions(database)


def require_version(
    version: str | None, database: Database, described: str, oldest_beside: str | None = None
) -> None:
    """Refuse a schema of another release that this one does not fit.

    Args:
        version: What `READ_VERSION` returns; None when it returns no row.
        database: Which database it should be.
        described: How to name it in the message.
        oldest_beside: The oldest release that may go on beside it; None for those alone that know it.

    Raises:
        NotProvisioned: If it has no version.
        SchemaTooOld: If it is of an older release.
        SchemaTooNew: If it is of a newer release, beside which this one may not go on.
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
    if not may_go_on_beside(oldest_beside, database):
        raise SchemaTooNew(
            f"{described} is at {version}, this release knows it up to {needed}", "upgrade this process"
        )


def verify_version(connection: psycopg.Connection[Any], database: Database, described: str) -> None:
    """Refuse a database whose schema is of another release that this one does not fit.

    A role that may not see the version (the consumers') is not refused.

    Raises:
        NotProvisioned: If it has no version.
        SchemaTooOld: If it is of an older release.
        SchemaTooNew: If it is of a newer release.
        BadSetting: If it is another one of the four databases.
    """
    try:
        row = connection.execute(READ_VERSION).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.errors.InsufficientPrivilege:
        connection.rollback()
        return
    version, oldest_beside = row or (None, None)
    require_version(version, database, described, oldest_beside)


READ_ADMISSION = (
    "SELECT (SELECT environment FROM public.environment_stamp),"
    " (SELECT version_num FROM public.episodes_schema_version),"
    " (SELECT to_jsonb(episodes_schema_version) ->> 'oldest_beside' FROM public.episodes_schema_version)"
)


# The row of a database without stamp and schema.
NOTHING_FOUND = (None, None, None)


def require_admission(
    found: Sequence[str | None], database: Database, environment: str, described: str
) -> None:
    """Refuse to write to a database of another environment or release.

    Args:
        found: The row that `READ_ADMISSION` returns.
        database: Which database it should be.
        environment: The process's own.
        described: How to name the database in the message.

    Raises:
        NotProvisioned: If it has no stamp or no schema.
        WrongEnvironment: If it belongs to another environment.
        SchemaTooOld: If its schema is of an older release.
        SchemaTooNew: If its schema is of a newer release, beside which this one may not go on.
        BadSetting: If it is another one of the four databases.
    """
    stamp, version, oldest_beside = found
    require_stamp(stamp, environment, described)
    require_version(version, database, described, oldest_beside)


def verify_admission(
    connection: psycopg.Connection[Any], database: Database, environment: str, described: str
) -> None:
    """Read a database's stamp and version in one round trip, and check them by `require_admission`.

    Raises:
        NotProvisioned: If it has no stamp or no schema, or the role may not see them.
        WrongEnvironment: If it belongs to another environment.
        SchemaTooOld: If its schema is of an older release.
        SchemaTooNew: If its schema is of a newer release, beside which this one may not go on.
        BadSetting: If it is another one of the four databases.
    """
    try:
        row = connection.execute(READ_ADMISSION).fetchone()
    except psycopg.errors.UndefinedTable as error:
        raise _without_stamp(database, described) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotProvisioned(
            f"{described} does not show its environment stamp to this role", "run `episodes db init`"
        ) from error
    require_admission(row or NOTHING_FOUND, database, environment, described)


def _without_stamp(database: Database, described: str) -> NotProvisioned:
    """The error for a database without a stamp; an input without one may belong to other systems."""
    if database is Database.INPUT:
        return NotProvisioned(
            f"{described} has no environment stamp, so it may be other systems' and is only read",
            "if it is yours to write to, run `episodes db init` with EPISODES_INPUT_WRITER_DSN",
        )
    return NotProvisioned(f"{described} has no environment stamp", "run `episodes db init`")
