"""A restore point in all databases after days are published: its name, making it, what is on record of it.

A restore point is a name in a server's write-ahead log, at which a recovery from a base backup and archived
log can stop. One is made after each publication, in every database of ours, once Dagster has recorded the
publication as well: so databases on several servers that are restored to the points of one name agree with
each other, but for what happens in the milliseconds between the points, which `episodes db check` tells. How
to restore is docs/backup.md.

The points are made in an order such that no day is published from a plan that another server lacks: first
where publications are recorded, last what they are made from.
"""

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Database

# The input is other teams', and only read.
ORDER = (Database.DAGSTER, Database.RESULTS, Database.QUEUE)
_REFUSALS = (
    psycopg.errors.InsufficientPrivilege,  # where no superuser has given the right to make them
    psycopg.errors.ObjectNotInPrerequisiteState,  # where the server writes too little of a log for that
    psycopg.errors.FeatureNotSupported,  # where it only speaks PostgreSQL's protocol
    psycopg.errors.UndefinedFunction,
)


@dataclass(frozen=True)
class RestorePoint:
    """A restore point as it is on record.

    Attributes:
        name: What a recovery is told, as `recovery_target_name`.
        day: A day that was published before it.
        databases: In which databases it was made.
        made_at: When.
    """

    name: str
    day: dt.date
    databases: Sequence[str]
    made_at: dt.datetime


@dataclass(frozen=True)
class Made:
    """What came of making a restore point.

    Attributes:
        name: Its name.
        databases: Where it was made.
        refused: By database, why it was not made there.
    """

    name: str
    databases: Sequence[Database]
    refused: Mapping[Database, str]


def make_restore_point(servers: Mapping[Database, Connection], days: Sequence[dt.date]) -> Made | None:
    """Make a restore point after the last publications of some days, and put it on record.

    A database whose server refuses it is left out. Of publications that have one already none is made.

    Args:
        servers: Connections in autocommit mode to `dagster`, `queue` and `results`, as the orchestrator.
        days: Published days.

    Returns:
        What was made; None if all of them have one.
    """
    results = servers[Database.RESULTS]
    newest = _newest_without(results, days)
    if not newest:
        return None
    # Random as well: a database that was restored gives the number of a publication again.
    name = f"episodes-{max(newest)}-{max(newest.values())}-{secrets.token_hex(4)}"
    refused = {}
    for database in ORDER:
        try:
            servers[database].execute("SELECT pg_catalog.pg_create_restore_point(%s)", [name])
        except _REFUSALS as error:
            refused[database] = str(error.diag.message_primary)
    made = [database for database in ORDER if database not in refused]
    if made:
        results.execute(
            """
            INSERT INTO published.restore_points (publication_id, name, day, databases)
            SELECT number, %s, day, %s FROM unnest(%s::bigint[], %s::date[]) AS made (number, day)
            """,
            [name, [database.value for database in made], list(newest.values()), list(newest)],
        )
    return Made(name, made, refused)


def _newest_without(results: Connection, days: Sequence[dt.date]) -> dict[dt.date, int]:
    """The number of the last publication of each day that has no restore point."""
    found = results.execute(
        """
        SELECT day, max(publication_id) FROM published.history WHERE day = ANY (%(days)s) GROUP BY day
        EXCEPT
        SELECT day, publication_id FROM published.restore_points WHERE day = ANY (%(days)s)
        """,
        {"days": list(days)},
    )
    return dict(found.fetchall())


def read_restore_points(results: Connection, day: dt.date) -> list[RestorePoint]:
    """The restore points that were made after a day was published, the oldest first."""
    with results.cursor(row_factory=class_row(RestorePoint)) as cursor:
        cursor.execute(
            """
            SELECT name, day, databases, made_at FROM published.restore_points
            WHERE day = %s ORDER BY publication_id, made_at
            """,
            [day],
        )
        return cursor.fetchall()


def find_newest_restore_point(results: Connection) -> RestorePoint | None:
    """The one that was made last; None when none was."""
    with results.cursor(row_factory=class_row(RestorePoint)) as cursor:
        cursor.execute(
            """
            SELECT name, day, databases, made_at FROM published.restore_points
            ORDER BY publication_id DESC LIMIT 1
            """
        )
        return cursor.fetchone()
