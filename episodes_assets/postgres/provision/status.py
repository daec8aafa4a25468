"""`episodes db status`: what is where, in which version, of which environment; and whether it is ready.

A database is ready when it has the mark that `episodes db init` leaves as its last statement. The version
tells which migrations are done, but not whether PgQueuer's tables, the roles' rights and the consumers'
views are those of this release. The mark stands for all of them. It is a comment on the version's table, so
it commits with what it stands for and goes along with a copy of the database. Every command looks at it, so
this loads nothing that only setting databases up (`init`) needs. Whether the databases agree with each other
is `checks/consistency.py`.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.errors import DatabaseUnreachable, EpisodesError
from episodes_assets.postgres import admission
from episodes_assets.postgres.admission import known_versions, needed_version
from episodes_assets.postgres.connect import Connection, connect, describe
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.postgres.provision import grants
from episodes_assets.settings import Settings


def expected_mark(database: Database) -> str:
    """The mark of a database that this release has set up."""
    made_of = {
        "version": admission.needed_version(database),
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


Report = Callable[[str], None]
# The role that may see the most in each database.
_SEEN_BY = {
    Database.DAGSTER: (Purpose.DAGSTER, Purpose.DASHBOARD),
    Database.INPUT: (Purpose.INPUT_WRITER, Purpose.INPUT),
    Database.QUEUE: (Purpose.QUEUE, Purpose.WORKER, Purpose.QUEUE_READER),
    Database.RESULTS: (Purpose.RESULTS, Purpose.RESULTS_READER, Purpose.CONSUMER),
}


@dataclass(frozen=True)
class DatabaseStatus:
    """One database as it is found.

    Attributes:
        database: Which of the four.
        where: Its DSN without the password.
        server_version: PostgreSQL's version.
        schema_version: The migration it is at; None when it was never migrated or may not be seen.
        latest_version: The migration it should be at.
        environment: Its stamp; None when it has none or may not be seen.
        oldest_beside: The oldest release that may go on beside that; None when the schema says none.
        finished: The migration up to which `episodes db finish` has nothing left to remove; None as above.
        is_whole: Whether this release's `episodes db init` has finished with it.
        size_bytes: Its size on disk.
        error: Why nothing of this is known; None when it is.
    """

    database: Database
    where: str
    server_version: str = ""
    schema_version: str | None = None
    latest_version: str = ""
    environment: str | None = None
    oldest_beside: str | None = None
    finished: str | None = None
    is_whole: bool = False
    size_bytes: int = 0
    error: str | None = None

    @property
    def is_current(self) -> bool:
        """Whether `episodes db init` has nothing to do."""
        return self.schema_version == self.latest_version and self.is_whole

    @property
    def is_newer(self) -> bool:
        """Whether a newer release has set it up."""
        return self.schema_version is not None and self.schema_version not in known_versions(self.database)

    @property
    def lets_this_go_on(self) -> bool:
        """Whether a newer release has set it up, beside which this one may go on."""
        return self.is_newer and admission.may_go_on_beside(self.oldest_beside, self.database)


def ready_databases(settings: Settings, report: Report) -> Dsns:
    """Find the databases; set the embedded ones up when they are not.

    Configured databases are set up by `episodes db init` alone, which needs an administrator.

    Args:
        settings: Say where the databases are.
        report: Called with each step of setting up, as one line; not at all when all is ready.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
    """
    dsns = resolve_dsns(settings)
    if dsns.is_embedded and not all(
        status.is_current or status.lets_this_go_on for status in read_status(dsns)
    ):
        from episodes_assets.postgres.provision.init import provision  # with Alembic and PgQueuer

        report(f"Setting up the embedded databases in {settings.home}")
        provision(settings, dsns, lambda step: report(f"  {step}"))
    return dsns


def read_status(dsns: Dsns) -> list[DatabaseStatus]:
    """The status of each database for which this process has a DSN."""
    return [
        _read_one(database, dsns.by_purpose[purpose])
        for database in Database
        for purpose in [next((p for p in _SEEN_BY[database] if p in dsns.by_purpose), None)]
        if purpose is not None
    ]


def _read_one(database: Database, dsn: str) -> DatabaseStatus:
    where = describe(dsn)
    try:
        with connect(dsn, read_only=True, is_ours=database is not Database.INPUT) as connection:
            server, size = connection.execute(
                "SELECT current_setting('server_version'), pg_database_size(current_database())"
            ).fetchone() or ("", 0)
            may_see = _may_see(connection)
            version, oldest_beside, finished = _schema(connection) if may_see else (None, None, None)
            return DatabaseStatus(
                database=database,
                where=where,
                server_version=str(server),
                schema_version=version,
                oldest_beside=oldest_beside,
                finished=finished,
                latest_version=needed_version(database),
                environment=admission.read_stamp(connection) if may_see else None,
                is_whole=read_mark(connection) == expected_mark(database),
                size_bytes=int(size),
            )
    except DatabaseUnreachable as error:
        return DatabaseStatus(database=database, where=where, error=error.what)
    except EpisodesError as error:
        return DatabaseStatus(database=database, where=where, error=str(error))


def _may_see(connection: Connection) -> bool:
    row = connection.execute(
        "SELECT has_table_privilege(to_regclass('public.environment_stamp'), 'SELECT')"
        " AND has_table_privilege(to_regclass('public.episodes_schema_version'), 'SELECT')"
    ).fetchone()
    return bool(row and row[0])


def _schema(connection: Connection) -> tuple[str | None, str | None, str | None]:
    """The version, the oldest release that may go on beside it, and up to where it is finished."""
    found = connection.execute(
        "SELECT version_num, to_jsonb(episodes_schema_version) ->> 'oldest_beside',"
        " to_jsonb(episodes_schema_version) ->> 'finished' FROM public.episodes_schema_version"
    ).fetchone()
    return found or (None, None, None)
