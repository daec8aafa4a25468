"""`episodes db init`: roles, databases, migrations, rights and stamps; as often as you like.

Each database changes in one transaction, with a mark that it is finished as its last statement, so
that ending `db init` at any moment leaves no database that looks ready and is not.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import psycopg
from pgqueuer.queries import Queries
from psycopg import sql

from episodes_assets.algorithms.registry import ALGORITHMS
from episodes_assets.databases import completion, migrate, stamps, versions
from episodes_assets.databases.connections import Connection, connect, describe
from episodes_assets.databases.consumer_views import create_views
from episodes_assets.databases.dsns import Dsns, resolve_dsns
from episodes_assets.databases.grants import grant
from episodes_assets.databases.purposes import Database, Purpose
from episodes_assets.databases.status import read_status
from episodes_assets.databases.targets import Target, find_targets
from episodes_assets.errors import NotProvisioned, SchemaTooOld
from episodes_assets.settings import Settings

Report = Callable[[str], None]

_THEIRS = "the input belongs to other systems; to have it made all the same, set EPISODES_INPUT_WRITER_DSN"


def ready_databases(settings: Settings, report: Report) -> Dsns:
    """Find the databases; set the embedded ones up when they are not.

    Configured databases are set up by `episodes db init` alone, which needs an administrator.

    Args:
        settings: Say where the databases are.
        report: Is told each step of setting up, as one line; of nothing when all is ready.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
    """
    dsns = resolve_dsns(settings)
    if dsns.is_embedded and not all(status.is_current for status in read_status(dsns)):
        report(f"Setting up the embedded databases in {settings.home}")
        provision(settings, dsns, lambda step: report(f"  {step}"))
    return dsns


def provision(settings: Settings, dsns: Dsns, report: Report) -> None:
    """Create or upgrade everything in the four databases.

    Two at once do it one after the other.

    Args:
        settings: Says the environment to stamp and the administrators' DSNs.
        dsns: The roles' DSNs; role names, passwords and database names are taken from them.
        report: Is told each step, as one line.

    Raises:
        BadSetting: If a DSN that is needed is missing.
        WrongEnvironment: If a database is already stamped with another environment.
        SchemaTooNew: If a database has been set up by a newer release.
        NotProvisioned: If an input database of other systems is not there or lacks the tables.
    """
    targets = list(find_targets(settings, dsns))
    for target in targets:
        _refuse_others(target, settings.environment)
    for target in targets:
        with connect(target.server, autocommit=True) as server:
            # Held until the connection closes; on the server's own database, since roles are the server's.
            server.execute("SELECT pg_advisory_lock(hashtext('episodes db init'))")
            _refuse_others(target, settings.environment)
            _create_roles_and_database(server, target, report)
            _fill(target, settings.environment, report)
        if target.database is Database.DAGSTER and Purpose.DASHBOARD not in target.roles:
            report("dagster: the dashboard has no role yet; to make it one, set EPISODES_DASHBOARD_DSN")
        report(f"{target.database}: ready ({', '.join(sorted(target.roles.values()))})")


def _refuse_others(target: Target, environment: str) -> None:
    """Before anything is changed: is it another environment's, a newer release's, or not ours to make?"""
    if not target.exists():
        if not target.is_ours:
            raise NotProvisioned(f"{describe(target.admin_dsn)} does not exist", _THEIRS)
        return
    with connect(target.admin_dsn, read_only=True) as admin:
        stamp = stamps.read(admin)
        version = admin.execute("SELECT to_regclass('episodes_schema_version')").fetchone()
        if stamp is not None:
            stamps.judge(stamp, environment, describe(target.admin_dsn))
        if version is not None and version[0] is not None:
            with suppress(SchemaTooOld, NotProvisioned):
                versions.verify(admin, target.database, describe(target.admin_dsn))


def _fill(target: Target, environment: str, report: Report) -> None:
    if target.database is Database.QUEUE:
        # By itself: PgQueuer's statements cannot all share a transaction. It can be repeated.
        asyncio.run(_install_pgqueuer(target.admin_dsn))
    # All the rest or nothing: no version without its rights, no mark without either.
    with connect(target.admin_dsn) as admin, migrate.begin(admin, target.database) as migrations:
        if target.is_ours:
            before, after = migrate.upgrade_within(migrations, target.database)
            if before != after:
                report(f"{target.database}: migrated from {before or 'nothing'} to {after}")
            stamps.write_first(admin, environment)
        if target.database is Database.RESULTS:
            create_views(admin, ALGORITHMS)
        _grant(admin, target)
        if target.is_ours:
            completion.write_mark(admin, target.database)


def _create_roles_and_database(server: Connection, target: Target, report: Report) -> None:
    for purpose, role in target.roles.items():
        exists = server.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
        verb = "ALTER" if exists else "CREATE"
        if not exists:
            report(f"{target.database}: creating role {role}")
        _set_role(server, verb, role, target.passwords[purpose])
    if not target.exists():
        report(f"{target.database}: creating database {target.name}")
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(target.name)))


def _set_role(server: Connection, verb: str, role: str, password: str | None) -> None:
    attributes = sql.SQL(" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
    secret = sql.SQL("") if password is None else sql.SQL(" PASSWORD {}").format(password)
    head = sql.SQL("CREATE ROLE {}") if verb == "CREATE" else sql.SQL("ALTER ROLE {}")
    server.execute(head.format(sql.Identifier(role)) + attributes + secret)


async def _install_pgqueuer(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        queries = Queries.from_psycopg_connection(connection)
        if await queries.schema_is_installed():
            await queries.upgrade()
        else:
            await queries.install()


def _grant(admin: Connection, target: Target) -> None:
    try:
        with admin.transaction():
            grant(admin, target.database, target.name, target.roles, is_ours=target.is_ours)
    except psycopg.errors.UndefinedTable as error:
        raise NotProvisioned(
            f"{describe(target.admin_dsn)} has no table `episodes` or `viewings`",
            _THEIRS,
        ) from error
