"""What a database server refuses, through each of the drivers, and what a command says of it."""

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import asyncpg
import psutil
import psycopg
import psycopg2
import pytest
import sqlalchemy

from episodes_assets import failures
from episodes_assets.defs.storage import to_sqlalchemy_url
from episodes_assets.errors import (
    AccessDenied,
    DatabaseUnreachable,
    OutOfMemory,
    ReadOnly,
    SystemFailure,
    TimedOut,
    TooManyConnections,
)
from episodes_assets.postgres.arrow import read_arrow
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.root_causes.conftest import MOST_CONNECTIONS
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.failed_steps import NEVER_SAID, assert_plain, step_failure, the_error
from episodes_assets_tests.support.own_server import HOST, OwnServer, free_port
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process


def ask_psycopg(dsn: str, query: str) -> None:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=2) as connection:
        connection.execute(query)


def ask_psycopg2(dsn: str, query: str) -> None:
    with psycopg2.connect(dsn, connect_timeout=2) as connection, connection.cursor() as cursor:
        cursor.execute(query)


def ask_sqlalchemy(dsn: str, query: str) -> None:
    engine = sqlalchemy.create_engine(
        to_sqlalchemy_url(dsn), connect_args={"connect_timeout": 2}, poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(query))


def ask_asyncpg(dsn: str, query: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(dsn, timeout=2)
        try:
            await connection.execute(query)
        finally:
            await connection.close()

    asyncio.run(ask())


DRIVERS = (ask_psycopg, ask_psycopg2, ask_sqlalchemy, ask_asyncpg)


def raised_by(dsn: str, query: str = "SELECT 1") -> Iterator[SystemFailure]:
    """What each driver's error is explained as; the plain connection's and the columns' as well."""
    for ask in DRIVERS:
        with pytest.raises(Exception) as raised:  # noqa: PT011  each driver has classes of its own
            ask(dsn, query)
        found = failures.explain(raised.value, "the place")
        assert isinstance(found, SystemFailure), (ask, raised.value)
        yield found
    with (
        pytest.raises((SystemFailure, psycopg.errors.LockNotAvailable)) as plain,
        connect(dsn, autocommit=True, lock_seconds=0.1) as connection,
    ):
        connection.execute(query)
    explained = failures.explain(plain.value)
    assert isinstance(explained, SystemFailure)
    yield explained


def assert_said(found: Iterator[SystemFailure], kind: type[SystemFailure], *parts: str) -> None:
    errors = list(found)
    assert {type(each) for each in errors} == {kind}, errors
    for each in errors:
        assert_plain(str(each))
        assert all(part in str(each) for part in parts), each


@contextmanager
def role(server: OwnServer, options: str) -> Iterator[str]:
    """The DSN of a role of its own."""
    with psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE someone LOGIN PASSWORD 'secret' {options}")
        try:
            yield f"postgresql://someone:secret@{server.address}/postgres"
        finally:
            admin.execute("DROP ROLE someone")


def take_all(held: ExitStack, server: OwnServer, dsn: str, beside: int) -> None:
    """Take connections until there are no more, once those of tests before this one have ended."""
    admin = held.enter_context(psycopg.connect(server.admin_dsn, autocommit=True))
    others = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    while admin.execute(others).rowcount > beside:
        admin.execute("SELECT pg_sleep(0.01)")
    with suppress(psycopg.OperationalError):
        for _ in range(MOST_CONNECTIONS + 1):
            held.enter_context(psycopg.connect(dsn))


def test_all_connections_are_taken(server: OwnServer) -> None:
    with role(server, "") as dsn, ExitStack() as held:
        take_all(held, server, dsn, beside=1)  # the last three are reserved
        reserved = "remaining connection slots are reserved"
        assert_said(raised_by(dsn), TooManyConnections, "no connection left", reserved, "max_connections")
    with ExitStack() as held:
        take_all(held, server, server.admin_dsn, beside=0)
        assert_said(raised_by(server.admin_dsn), TooManyConnections, "too many clients already")


def test_all_connections_of_a_role_are_taken(server: OwnServer) -> None:
    with role(server, "CONNECTION LIMIT 1") as dsn, psycopg.connect(dsn):
        said = "too many connections for role"
        assert_said(raised_by(dsn), TooManyConnections, said, "CONNECTION LIMIT")


def test_a_missing_right(server: OwnServer) -> None:
    with role(server, "") as dsn:
        said = "permission denied for table pg_authid"
        assert_said(raised_by(dsn, "SELECT * FROM pg_authid"), AccessDenied, "refuses this role", said)


def test_a_wrong_password_is_the_dsns_fault(server: OwnServer) -> None:
    with role(server, "") as dsn:
        for each in raised_by(dsn.replace("secret", "wrong")):
            assert isinstance(each, DatabaseUnreachable)
            assert "check the DSN's user and password" in str(each)
            assert "password authentication failed" in str(each)
            assert "wrong" not in str(each)


def test_a_database_that_does_not_exist(server: OwnServer) -> None:
    for each in raised_by(server.admin_dsn.replace("/postgres", "/nothing")):
        assert isinstance(each, DatabaseUnreachable)
        assert "check the database's name in the DSN" in str(each)


def test_time_limits_of_statement_and_lock(server: OwnServer) -> None:
    with role(server, "") as dsn, psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER ROLE someone SET statement_timeout = '100ms'")
        slow = "SELECT pg_sleep(20)"
        assert_said(raised_by(dsn, slow), TimedOut, "cancelled a statement", "due to statement timeout")
        admin.execute("ALTER ROLE someone SET statement_timeout = 0")
        admin.execute("ALTER ROLE someone SET lock_timeout = '100ms'")
        with psycopg.connect(server.admin_dsn) as locker:
            locker.execute("SELECT pg_advisory_xact_lock(1)")
            assert_said(raised_by(dsn, "SELECT pg_advisory_lock(1)"), TimedOut, "a lock was not acquired")


def test_an_idle_transaction_is_ended(server: OwnServer) -> None:
    with role(server, "") as dsn, psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER ROLE someone SET idle_in_transaction_session_timeout = '100ms'")

        def is_gone() -> bool:
            found = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'someone'"
            ).fetchone()
            return found == (0,)

        def dawdle() -> None:
            with connect(dsn) as connection:
                connection.execute("SELECT 1")
                eventually(is_gone, 30)
                connection.execute("SELECT 1")

        with pytest.raises(TimedOut, match="whose transaction was idle") as raised:
            dawdle()
        assert_plain(str(raised.value))


def test_a_server_that_takes_no_changes(server: OwnServer) -> None:
    with role(server, "") as dsn, psycopg.connect(server.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER ROLE someone SET default_transaction_read_only = on")
        query = "CREATE TEMPORARY SEQUENCE s; SELECT nextval('s')"
        admin.execute("ALTER ROLE someone SET default_transaction_read_only = on")
        assert_said(raised_by(dsn, f"CREATE TABLE x (); {query}"), ReadOnly, "takes no changes", "standby")


def test_a_server_without_memory(server: OwnServer) -> None:
    def ask() -> None:
        with connect(server.admin_dsn) as connection:
            pid = connection.info.backend_pid
            has = psutil.Process(pid).memory_info().vms
            limited = ["prlimit", f"--pid={pid}", f"--as={has + (64 << 20)}"]
            subprocess.run(limited, check=True, **server.programs.options)
            connection.execute("SELECT length(repeat('x', 500000000))")

    with pytest.raises(OutOfMemory, match="the database server is out of memory") as raised:
        ask()
    assert_plain(str(raised.value))
    assert "work_mem" in str(raised.value)


def test_a_server_that_stops(server: OwnServer) -> None:
    def ask() -> None:
        with connect(server.admin_dsn) as connection:
            connection.execute("SELECT 1")
            server.stop()
            connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnreachable) as raised:
        ask()
    assert_plain(str(raised.value))
    assert "terminating connection due to administrator command" in str(raised.value)
    assert "the server starts, stops or recovers" in str(raised.value)
    with pytest.raises(DatabaseUnreachable, match=r"Connection refused\): start the server, or check host"):
        connect(server.admin_dsn).__enter__()
    server.start()


def test_a_server_that_is_silent() -> None:
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen(1)
        dsn = f"postgresql://x@{HOST}:{silent.getsockname()[1]}/q?connect_timeout=2"
        with pytest.raises(DatabaseUnreachable, match="did not answer in time"), connect(dsn):
            pass


def test_a_host_that_nobody_knows() -> None:
    with (
        pytest.raises(DatabaseUnreachable, match="check the host of the DSN"),
        connect("postgresql://x@nobody.invalid/q"),
    ):
        pass


def test_columns_are_refused_like_rows(server: OwnServer) -> None:
    """A right that is missing is no outage: its cause is told where the step fails."""
    with role(server, "") as dsn:
        with pytest.raises(Exception, match="permission denied") as raised:
            read_arrow(dsn, "SELECT * FROM pg_authid")
        assert isinstance(failures.explain(raised.value), AccessDenied)


@pytest.mark.long
def test_a_run_whose_role_lost_a_right(system: System) -> None:
    system.generate(day(1), day(1))
    system.query("results", f"REVOKE ALL ON state.tracked_days FROM {Purpose.RESULTS.embedded_role}")
    said = the_error(system.cli("run", "2018-03-01", "--workers", "0"))
    assert "the database refuses this role" in said
    assert "permission denied for table tracked_days" in said
    assert said == f"error: {step_failure(system, 1)}"


def test_viewings_that_the_step_may_not_read(system: System) -> None:
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.query("input", f"REVOKE SELECT ON viewings FROM {Purpose.INPUT.embedded_role}")
    try:
        said = the_error(system.cli("run", "2018-03-01", "--workers", "0"))
    finally:
        system.query("input", f"GRANT SELECT ON viewings TO {Purpose.INPUT.embedded_role}")
    assert "the database refuses this role (" in said
    assert "permission denied for table viewings" in said


def test_connections_run_out_during_a_command(system: System) -> None:
    user = Purpose.QUEUE.embedded_role
    admin = system.admin["queue"]
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {user} CONNECTION LIMIT 0")
        try:
            for command in (("jobs", "status"), ("run", "2018-03-01")):
                said = the_error(system.cli(*command))
                assert f'too many connections for role "{user}"' in said
                assert "run fewer workers" in said
        finally:
            connection.execute(f"ALTER ROLE {user} CONNECTION LIMIT -1")


def test_a_refused_port_names_what_may_be_wrong(system: System) -> None:
    port = free_port()
    dsn = {Purpose.QUEUE.setting: f"postgresql://x@{HOST}:{port}/q", "EPISODES_ALLOWED_HOSTS": HOST}
    result = system.cli("jobs", "status", env=dsn)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"cannot reach x@{HOST}:{port}/q (connection to server at" in line
    assert line.endswith("Connection refused): start the server, or check host and port of the DSN")
    assert NEVER_SAID[0] not in line
