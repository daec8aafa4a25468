"""Fixtures of the tests that need accounts; each `conftest.py` imports its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from argon2 import PasswordHasher
from psycopg import sql
from psycopg.conninfo import make_conninfo

from episodes_assets.accounts import users
from episodes_assets.postgres import embedded
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.accounts.database import AccountsDatabase


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
