"""The pool: only the right database's connections, and new ones when the server was away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from episodes_assets.accounts import pool as pools
from episodes_assets.accounts.pool import AccountsPool
from episodes_assets.errors import DatabaseUnreachable, SchemaTooNew, WrongEnvironment
from episodes_assets_tests.support.accounts import AccountsDatabase
from episodes_assets_tests.support.eventually import eventually

END_ALL = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextmanager
def away(accounts: AccountsDatabase) -> Iterator[None]:
    """The database lets nobody in, and those who are in out."""
    name = conninfo_to_dict(accounts.admin_dsn)["dbname"]
    with psycopg.connect(make_conninfo(accounts.admin_dsn, dbname="postgres"), autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@pytest.fixture
def pool(accounts: AccountsDatabase) -> Iterator[AccountsPool]:
    with AccountsPool(accounts.dsn, "development") as opened:
        yield opened


def test_statements_commit_by_themselves(pool: AccountsPool, accounts: AccountsDatabase) -> None:
    with pool.connection() as connection:
        assert connection.autocommit
        assert connection.execute("SELECT count(*) FROM dashboard.users").fetchone() == (0,)


def test_more_ask_at_once_than_there_are_connections(pool: AccountsPool) -> None:
    served = []

    def ask() -> None:
        with pool.connection() as connection:
            served.append(connection.execute("SELECT 1 FROM pg_sleep(0.01)").fetchone())

    threads = [threading.Thread(target=ask) for _ in range(4 * pools.SIZE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served == [(1,)] * len(threads)
    assert pool._pool.get_stats()["pool_size"] <= pools.SIZE


def test_whoever_asks_after_a_restart_notices_nothing(pool: AccountsPool, accounts: AccountsDatabase) -> None:
    with pool.connection():
        pass
    accounts.query(END_ALL)
    with pool.connection() as connection:
        connection.execute("SELECT FROM dashboard.users")


def test_only_what_is_under_way_fails(pool: AccountsPool, accounts: AccountsDatabase) -> None:
    def be_cut_off() -> None:
        with pool.connection() as connection:
            accounts.query(END_ALL)
            connection.execute("SELECT FROM dashboard.users")

    with pytest.raises(DatabaseUnreachable, match="cannot reach episodes_dashboard@"):
        be_cut_off()
    with pool.connection() as connection:
        connection.execute("SELECT FROM dashboard.users")


def test_a_request_waits_for_a_database_that_comes_back(
    pool: AccountsPool, accounts: AccountsDatabase
) -> None:
    served = threading.Event()

    def ask() -> None:
        with pool.connection() as connection:
            connection.execute("SELECT FROM dashboard.users")
            served.set()

    thread = threading.Thread(target=ask)
    with away(accounts):
        thread.start()
        eventually(lambda: pool._pool.get_stats().get("connections_errors", 0) > 0)
        assert not served.is_set()
    thread.join()
    assert served.is_set()


def test_a_database_that_stays_away_is_one_plain_error(
    accounts: AccountsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "WAIT_SECONDS", 0.5)
    with AccountsPool(accounts.dsn, "development") as pool:
        # Why, depends on the moment at which the pool notices it.
        with away(accounts), pytest.raises(DatabaseUnreachable, match="cannot reach"):
            pool.connection().__enter__()
        eventually(lambda: serves(pool))
    with away(accounts), pytest.raises(DatabaseUnreachable, match="not currently accepting connections"):
        AccountsPool(accounts.dsn, "development")


def serves(pool: AccountsPool) -> bool:
    try:
        with pool.connection():
            return True
    except DatabaseUnreachable:
        return False


def test_another_environments_database_is_refused(
    accounts: AccountsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WrongEnvironment, match="belongs to 'development', this process to 'staging'"):
        AccountsPool(accounts.dsn, "staging")
    monkeypatch.setattr(pools, "WAIT_SECONDS", 0.5)
    stamp = "UPDATE environment_stamp SET environment = %s"
    with AccountsPool(accounts.dsn, "development") as pool:
        # Restored from another environment's backup while the dashboard runs.
        accounts.query(stamp, ["production"])
        try:
            accounts.query(END_ALL)
            with pytest.raises(WrongEnvironment, match="belongs to 'production'"):
                pool.connection().__enter__()
        finally:
            accounts.query(stamp, ["development"])


def test_a_newer_releases_database_is_refused(accounts: AccountsDatabase) -> None:
    version = "UPDATE episodes_schema_version SET version_num = %s, oldest_beside = %s"
    (now,) = accounts.query("SELECT version_num, oldest_beside FROM episodes_schema_version")
    accounts.query(version, ["dagster_9999", "dagster_9998"])
    try:
        with pytest.raises(SchemaTooNew):
            AccountsPool(accounts.dsn, "development")
    finally:
        accounts.query(version, now)
