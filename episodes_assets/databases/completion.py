"""The mark that `episodes db init` leaves when it has finished with a database.

The version tells which migrations are done, but not whether PgQueuer's tables, the roles' rights and
the consumers' views are those of this release. The mark stands for all of them. It is a comment on
the version's table, so it commits with what it stands for and goes along with a copy of the database.
"""

import hashlib
import importlib.metadata
import json

from psycopg import sql

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.databases import grants, versions
from episodes_assets.databases.connections import Connection
from episodes_assets.databases.purposes import Database


def expected_mark(database: Database) -> str:
    """The mark of a database that this release has set up."""
    made_of = {
        "version": versions.needed_version(database),
        "rights": grants.rights(database),
        "pgqueuer": importlib.metadata.version("pgqueuer") if database is Database.QUEUE else None,
        "views": [
            (algorithm.name, algorithm.algorithm_id, {k: str(v) for k, v in algorithm.columns.items()})
            for algorithm in get_registry().by_id.values()
        ]
        if database is Database.RESULTS
        else None,
    }
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return f"set up by episodes db init, {digest[:16]}"


def write_mark(admin: Connection, database: Database) -> None:
    """Mark a database as set up; the last statement of the transaction that does so."""
    comment = sql.SQL("COMMENT ON TABLE public.episodes_schema_version IS {}")
    admin.execute(comment.format(sql.Literal(expected_mark(database))))


def read_mark(connection: Connection) -> str | None:
    """The mark of a database; None when it has none."""
    row = connection.execute(
        "SELECT obj_description(to_regclass('public.episodes_schema_version'))"
    ).fetchone()
    return None if row is None or row[0] is None else str(row[0])
