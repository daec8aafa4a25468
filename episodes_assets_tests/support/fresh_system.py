"""A fresh system: four databases copied from those of the session's server, and a home."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from episodes_assets.cli.context import prepare_dagster_home
from episodes_assets.postgres import embedded
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.system import System

_COUNTER = itertools.count(1)


@contextmanager
def fresh_system(server_home: Path, home: Path, patch: pytest.MonkeyPatch) -> Iterator[System]:
    """A system for as long as the block lasts; the patch sets its environment."""
    server = embedded.start(server_home)
    admin = server.dsn(embedded.ADMINISTRATOR, "postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        names = {database: _copy_database(connection, database) for database in Database}
    dsns = Dsns({p: server.dsn(p.embedded_role, names[p.database]) for p in Purpose}, is_embedded=False)
    for purpose in Purpose:
        patch.setenv(purpose.setting, dsns.require(purpose))
    patch.setenv("EPISODES_HOME", str(home))
    patch.setenv("EPISODES_RETRY_SECONDS", "0.1")
    patch.setenv("EPISODES_STALL_MINUTES", "1")
    patch.delenv("DAGSTER_HOME", raising=False)
    patch.setenv("DAGSTER_HOME", str(prepare_dagster_home(load_settings())))
    system = System(
        home=home,
        dsns=dsns,
        admin={d.value: make_conninfo(admin, dbname=name) for d, name in names.items()},
    )
    yield system
    if "dagster" in vars(system):  # it was used
        system.dagster.dispose()
    with psycopg.connect(admin, autocommit=True) as connection:
        for database, name in names.items():
            _give_back(connection, database, name)


# Copies to which no test has ever connected, for the next tests: few need all four databases.
_untouched: dict[Database, list[str]] = {database: [] for database in Database}


def _copy_database(admin: psycopg.Connection, database: Database) -> str:
    if _untouched[database]:
        return _untouched[database].pop()
    name = f"{database}_{os.getpid()}_{next(_COUNTER)}"
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
            sql.Identifier(name), sql.Identifier(database.value)
        )
    )
    if database is Database.DAGSTER:
        # A copy lacks what is set for a role in a database.
        admin.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = dagster, public").format(
                sql.Identifier(Purpose.DAGSTER.embedded_role), sql.Identifier(name)
            )
        )
    return name


def _give_back(admin: psycopg.Connection, database: Database, name: str) -> None:
    # A session is counted at its end at the latest, so those that are left end first.
    admin.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name])
    counted = admin.execute("SELECT sessions FROM pg_stat_database WHERE datname = %s", [name]).fetchone()
    if counted == (0,):
        _untouched[database].append(name)
    else:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
