"""The accounts' database of a test: copied once, emptied for each test, aged instead of waiting."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from argon2 import PasswordHasher
from psycopg import sql
from psycopg.conninfo import make_conninfo

from episodes_assets.accounts import users
from episodes_assets.errors import EpisodesError
from episodes_assets.postgres import embedded
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets_tests.support.eventually import eventually

TABLES = ("users", "sessions", "service_tokens", "login_attempts", "audit_log", "signing_key")
_INSTANTS = {
    "sessions": ("started_at", "seen_at"),
    "service_tokens": ("created_at", "expires_at", "last_used_at", "revoked_at"),
    "login_attempts": ("failed_at", "succeeded_at"),
    "audit_log": ("at",),
}


@dataclass(frozen=True)
class AccountsDatabase:
    """A database `dagster` with its accounts.

    Attributes:
        dsn: Of the dashboard's role.
        admin_dsn: Of the administrator.
    """

    dsn: str
    admin_dsn: str

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Run a statement as the administrator."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        self.query(f"TRUNCATE {', '.join(f'dashboard.{table}' for table in TABLES)}")

    def age(self, table: str, seconds: float) -> None:
        """Let all that happened in a table have happened so much earlier."""
        moved = ", ".join(
            f"{column} = {column} - make_interval(secs => {seconds})" for column in _INSTANTS[table]
        )
        self.query(f"UPDATE dashboard.{table} SET {moved}")

    def dump(self) -> str:
        """Everything in it, as text."""
        rows = [self.query(f"SELECT to_jsonb(t)::text FROM dashboard.{table} AS t") for table in TABLES]
        return "\n".join(text for found in rows for (text,) in found)

    def waits_for_a_lock(self) -> bool:
        """Whether some statement of the dashboard's role waits for another one."""
        return bool(
            self.query(
                "SELECT pid FROM pg_stat_activity WHERE usename = 'episodes_dashboard'"
                " AND datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with connect_to_write(self.dsn, Database.DAGSTER, "development", autocommit=True) as connection:
            yield connection

    def overlapping(self, first: Callable[[Connection], Any], second: Callable[[Connection], Any]) -> Any:
        """What `second` gives when it runs while `first` has run and not committed."""
        given: list[Any] = []

        def run_second() -> None:
            try:
                with self.connect() as connection:
                    given.append(second(connection))
            except EpisodesError as error:
                given.append(error)

        thread = threading.Thread(target=run_second)
        with self.connect() as connection, connection.transaction():
            first(connection)
            thread.start()
            eventually(lambda: self.waits_for_a_lock() or bool(given))
        thread.join()
        return given[0]


@pytest.fixture(scope="session")
def copied_accounts(server_home: Path) -> Iterator[AccountsDatabase]:
    """A copy of `dagster` alone, for all tests of this process."""
    server = embedded.start(server_home)
    admin = server.dsn(embedded.ADMINISTRATOR, "postgres")
    name = f"accounts_{os.getpid()}"
    with psycopg.connect(admin, autocommit=True) as connection:
        copy = "CREATE DATABASE {} TEMPLATE dagster STRATEGY FILE_COPY"
        connection.execute(sql.SQL(copy).format(sql.Identifier(name)))
    yield AccountsDatabase(
        dsn=server.dsn(Purpose.DASHBOARD.embedded_role, name),
        admin_dsn=make_conninfo(admin, dbname=name),
    )
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def accounts(copied_accounts: AccountsDatabase, monkeypatch: pytest.MonkeyPatch) -> AccountsDatabase:
    """Empty accounts, whose passwords cost nothing to hash."""
    copied_accounts.empty()
    monkeypatch.setattr(users, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return copied_accounts


@pytest.fixture
def connection(accounts: AccountsDatabase) -> Iterator[Connection]:
    """A connection of the dashboard's role."""
    with accounts.connect() as opened:
        yield opened
