"""`episodes db init`: roles, databases, migrations, rights, views and stamps; idempotent.

Each database changes in one transaction, with a mark that it is finished (`status`) as its last
statement, so that ending `db init` at any moment leaves no database that looks ready and is not.
Migrating is `schema`; consumers get a typed view for each algorithm, made from the columns it declares.
Behind somebody who works in a database it gives up and says who that is. What each role may do is
`grants`.

Two at once take turns at each database. Their lock is that of the database's comment, which only its
owner may change; an advisory lock could be held by anybody who may connect. Before there is a database,
and for roles that several databases share, there is no such lock: who meets the other there tries again.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from pgqueuer.queries import Queries
from psycopg import sql
from psycopg.rows import dict_row

from episodes_assets.algorithms.declaration import VIEW_COLUMNS, Declaration, Metric
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.errors import NotProvisioned, SchemaTooOld, ViewInUse
from episodes_assets.postgres import admission
from episodes_assets.postgres.connect import Connection, connect, describe
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.locks import SCHEMA_LOCK_SECONDS, LockWatch, lock_settings
from episodes_assets.postgres.provision import status
from episodes_assets.postgres.provision.grants import connection_limit, grant
from episodes_assets.postgres.provision.schema import begin_migrations, upgrade_within
from episodes_assets.postgres.provision.status import Report
from episodes_assets.postgres.provision.targets import Target, find_targets
from episodes_assets.postgres.session import SessionKind, pin_async
from episodes_assets.settings import Settings


def write_first_stamp(connection: psycopg.Connection[Any], environment: str) -> None:
    """Stamp a database that has no stamp; one that has keeps it."""
    connection.execute(
        "INSERT INTO public.environment_stamp (environment) VALUES (%s) ON CONFLICT DO NOTHING", [environment]
    )


# An older version of an algorithm may have declared a metric of the other type. What is no whole number of 64
# bits is missing in a column of whole numbers; a cast of it would end the reader's statement.
_VALUES: Mapping[Metric, LiteralString] = {
    Metric.INTEGER: (
        "CASE WHEN (metrics ->> {key})::numeric % 1 = 0 AND (metrics ->> {key})::numeric BETWEEN"
        " -9223372036854775808 AND 9223372036854775807 THEN (metrics ->> {key})::numeric::bigint END"
    ),
    Metric.REAL: "(metrics ->> {key})::double precision",
}


def create_views(admin: Connection, algorithms: Iterable[Declaration]) -> None:
    """Make `published.<algorithm>` for each algorithm: the key, the window, a column per metric.

    A view that is there is replaced in place, so that what others have made of it and were granted on it
    stays. Only one whose columns get other names or types is dropped and made anew; what was granted on it is
    granted again. An algorithm with an invalid declaration is not among them, and keeps the view that it has.

    Raises:
        ViewInUse: If something else depends on a view that would have to be dropped.
    """
    with admin.transaction():
        for algorithm in algorithms:
            name = sql.Identifier("published", algorithm.name)
            metrics = [
                sql.SQL("{value} AS {column}").format(
                    value=sql.SQL(_VALUES[metric]).format(key=sql.Literal(column)),
                    column=sql.Identifier(column),
                )
                for column, metric in algorithm.columns.items()
            ]
            create = sql.SQL(
                "CREATE OR REPLACE VIEW {view} AS SELECT {columns}, {metrics}"
                " FROM published.results WHERE algorithm_id = {id}"
            ).format(
                view=name,
                columns=sql.SQL(", ").join(map(sql.Identifier, VIEW_COLUMNS)),
                metrics=sql.SQL(", ").join(metrics),
                id=sql.Literal(algorithm.algorithm_id),
            )
            try:
                with admin.transaction():
                    admin.execute(create)
            except psycopg.errors.InvalidTableDefinition:  # columns may only be added behind the others
                granted = _granted_on(admin, algorithm.name)
                _drop_view(admin, algorithm.name)
                for statement in (create, *granted):
                    admin.execute(statement)


def _drop_view(admin: Connection, view: str) -> None:
    try:
        admin.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier("published", view)))
    except psycopg.errors.DependentObjectsStillExist as error:
        dependent = "; ".join((error.diag.message_detail or "something depends on it").splitlines())
        raise ViewInUse(
            f"the view published.{view} has to get other columns, and is in use: {dependent}",
            "have that dropped, run `episodes db init` again, and have it made anew for the new columns",
        ) from error


def _granted_on(admin: Connection, view: str) -> list[sql.Composed]:
    """The statements that grant again what somebody else than its owner may do with a view."""
    found = admin.execute(
        """
        SELECT privilege_type, is_grantable, rolname
        FROM pg_catalog.pg_class
        CROSS JOIN LATERAL pg_catalog.aclexplode(relacl)
        LEFT JOIN pg_catalog.pg_roles ON pg_roles.oid = grantee
        WHERE pg_class.oid = to_regclass(format('published.%%I', %s::text)) AND grantee <> relowner
        """,
        [view],
    ).fetchall()
    return [
        sql.SQL("GRANT {privilege} ON {view} TO {role}{option}").format(
            privilege=sql.SQL(privilege),
            view=sql.Identifier("published", view),
            role=sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
            option=sql.SQL(" WITH GRANT OPTION" if is_grantable else ""),
        )
        for privilege, is_grantable, role in found
    ]


# An upgrade of large tables takes its time, and another `db init` waits for it.
_LOCK_SECONDS = 600.0
_TRIES = 5
_THEIRS = "the input belongs to other systems; to have it made all the same, set EPISODES_INPUT_WRITER_DSN"


def provision(settings: Settings, dsns: Dsns, report: Report) -> None:
    """Create or upgrade everything in the four databases.

    Concurrent calls are serialised for each database.

    Args:
        settings: Names the environment to stamp and the administrators' DSNs.
        dsns: The roles' DSNs; role names, passwords and database names are taken from them.
        report: Called with each step, as one line.

    Raises:
        BadSetting: If a DSN that is needed is missing.
        WrongEnvironment: If a database is already stamped with another environment.
        SchemaTooNew: If a database has been set up by a newer release.
        NotProvisioned: If an input database of other systems is not there or lacks the tables.
        ViewInUse: If something of others depends on a consumers' view that has to get other columns.
        LockHeld: If another session holds a lock on something that has to be changed.
    """
    targets = list(find_targets(settings, dsns))
    limits = _connection_limits(targets)
    for target in targets:
        _refuse_others(target, settings.environment)
    for target in targets:
        _create_database(target, report)
        with locked(target):
            _refuse_others(target, settings.environment)
            _fill_with_retries(target, settings.environment, limits, report)
        if target.database is Database.DAGSTER and Purpose.DASHBOARD not in target.roles:
            report("dagster: the dashboard has no role yet; to make it one, set EPISODES_DASHBOARD_DSN")
        report(f"{target.database}: ready ({', '.join(sorted(target.roles.values()))})")


def _refuse_others(target: Target, environment: str) -> None:
    """Refuse, before anything is changed, another environment's or a newer release's database.

    A missing input of other systems is refused as well.
    """
    if not target.exists():
        if not target.is_ours:
            raise NotProvisioned(f"{describe(target.admin_dsn)} does not exist", _THEIRS)
        return
    with target.connect(read_only=True) as admin:
        stamp = admission.read_stamp(admin)
        version = admin.execute("SELECT to_regclass('public.episodes_schema_version')").fetchone()
        if stamp is not None:
            admission.require_stamp(stamp, environment, describe(target.admin_dsn))
        if version is not None and version[0] is not None:
            found = admin.execute("SELECT version_num FROM public.episodes_schema_version").fetchone()
            with suppress(SchemaTooOld, NotProvisioned):
                # Also one beside which this release may go on: it would put rights and views back.
                admission.require_version(found and found[0], target.database, describe(target.admin_dsn))


@contextmanager
def locked(target: Target) -> Iterator[None]:
    """Hold a lock that excludes any other `db init` from the database."""
    if not target.is_ours:  # there rights are granted and nothing else
        yield
        return
    comment = sql.SQL("COMMENT ON DATABASE {} IS 'episodes db init is at work here'")
    with (
        target.connect(lock_seconds=_LOCK_SECONDS) as lock,
        lock.transaction(force_rollback=True),
    ):
        lock.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        lock.execute(comment.format(sql.Identifier(target.name)))
        yield


def _fill_with_retries(target: Target, environment: str, limits: Mapping[str, int], report: Report) -> None:
    """Fill a database; try again when another `db init` has changed the same role at the same time."""
    for tries_left in reversed(range(_TRIES)):
        try:
            _fill(target, environment, limits, report)
        except (
            psycopg.errors.DuplicateObject,
            psycopg.errors.UniqueViolation,
            psycopg.errors.InternalError_,  # PostgreSQL's class for "tuple concurrently updated"
        ):
            if not tries_left:
                raise
        else:
            return


def _fill(target: Target, environment: str, limits: Mapping[str, int], report: Report) -> None:
    if target.database is Database.QUEUE:
        # Outside of the transaction, in which not all statements of PgQueuer's can be; it is idempotent.
        asyncio.run(_install_pgqueuer(target.admin_dsn))
    # All the rest in one transaction: no version without its rights, no mark without either.
    with (
        target.connect(lock_seconds=SCHEMA_LOCK_SECONDS) as admin,
        begin_migrations(admin, target.database) as migrations,
    ):
        if target.is_ours:
            before, after = upgrade_within(migrations, target.database)
            if before != after:
                report(f"{target.database}: migrated from {before or 'nothing'} to {after}")
            write_first_stamp(admin, environment)
        if target.database is Database.RESULTS:
            create_views(admin, get_registry().by_id.values())
        _set_roles(admin, target, limits, report)
        _grant(admin, target)
        if target.is_ours:
            status.write_mark(admin, target.database)


def _create_database(target: Target, report: Report) -> None:
    if target.exists():
        return
    report(f"{target.database}: creating database {target.name}")
    # Not from template1: whoever is connected to that keeps it from being copied.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(target.name))
    with (
        connect(target.server, autocommit=True, lock_seconds=_LOCK_SECONDS) as server,
        suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation),
    ):
        server.execute(create)


def _connection_limits(targets: Sequence[Target]) -> Mapping[str, int]:
    """How many connections each role may have: what all its purposes together need."""
    limits = {}
    for target in targets:
        with connect(target.server, read_only=True) as server:
            found = server.execute("SELECT current_setting('max_connections')::integer").fetchone()
        for role in target.roles.values():
            purposes = [p for each in targets for p, name in each.roles.items() if name == role]
            limits[role] = connection_limit(purposes, found[0] if found else 0)
    return limits


def _set_roles(admin: Connection, target: Target, limits: Mapping[str, int], report: Report) -> None:
    for purpose, role in target.roles.items():
        attributes = _attributes_of(admin, role)
        if attributes is None:
            report(f"{target.database}: creating role {role}")
        password = target.passwords[purpose]
        admin.execute(
            sql.SQL("{verb} ROLE {role} LOGIN {without} CONNECTION LIMIT {limit}{secret}").format(
                verb=sql.SQL("CREATE" if attributes is None else "ALTER"),
                role=sql.Identifier(role),
                without=sql.SQL(" ").join(sql.SQL(f"NO{name}") for name in attributes or ()),
                limit=sql.Literal(limits[role]),
                secret=sql.SQL("" if password is None else " PASSWORD {}").format(password),
            )
        )


def _attributes_of(admin: Connection, role: str) -> list[LiteralString] | None:
    """The privileged attributes that a role has and is to lose; None if there is no such role.

    Only these are named in ALTER ROLE: administrators who are no superusers may not name others.
    """
    columns: Mapping[str, LiteralString] = {
        "rolsuper": "SUPERUSER",
        "rolcreatedb": "CREATEDB",
        "rolcreaterole": "CREATEROLE",
        "rolreplication": "REPLICATION",
        "rolbypassrls": "BYPASSRLS",
    }
    with admin.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute("SELECT * FROM pg_catalog.pg_roles WHERE rolname = %s", [role]).fetchone()
    return None if found is None else [name for column, name in columns.items() if found[column]]


async def _install_pgqueuer(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await pin_async(connection, SessionKind.PGQUEUER, lock_settings(SCHEMA_LOCK_SECONDS))
        queries = Queries.from_psycopg_connection(connection)
        with LockWatch(dsn, connection) as watch:
            try:
                await (queries.upgrade() if await queries.schema_is_installed() else queries.install())
            except psycopg.errors.LockNotAvailable as error:
                raise watch.explain(describe(dsn)) or error from error


def _grant(admin: Connection, target: Target) -> None:
    try:
        with admin.transaction():
            grant(
                admin,
                target.database,
                target.name,
                target.roles,
                input_roles=target.input_roles,
                is_ours=target.is_ours,
            )
    except psycopg.errors.UndefinedTable as error:
        raise NotProvisioned(
            f"{describe(target.admin_dsn)} has no table `episodes` or `viewings` where the administrator's"
            " search_path leads",
            _THEIRS,
        ) from error
