"""What a role can do to itself and to others: connections, settings of its own, disk."""

from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.postgres.provision import grants, status
from episodes_assets.postgres.provision.init import provision
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.own_server import OwnServer

pytestmark = pytest.mark.process

DENIED = psycopg.errors.InsufficientPrivilege
# What a session may set for itself, so a role may do so for all of its sessions.
PLANTED = {
    "search_path": "pg_temp, public",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "1ms",
    "lock_timeout": "0",
    "default_transaction_read_only": "off",
}


@pytest.fixture
def provisioned(tcp_environment: Dsns) -> Callable[[], Dsns]:
    """`db init`, once more each time."""

    def init() -> Dsns:
        provision(load_settings(), tcp_environment, lambda _: None)
        return tcp_environment

    return init


@pytest.mark.long
def test_a_consumer_leaves_connections_for_the_others(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns]
) -> None:
    dsns = provisioned()
    with ExitStack() as stack:
        for _ in range(10):  # of 100
            stack.enter_context(psycopg.connect(dsns.require(Purpose.CONSUMER)))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            psycopg.connect(dsns.require(Purpose.CONSUMER))
        for purpose in (Purpose.QUEUE, Purpose.RESULTS, Purpose.DASHBOARD, Purpose.DAGSTER):
            with connect_to_write(dsns.require(purpose), purpose.database, "development"):
                pass
        provisioned()


def test_every_role_has_a_limit_and_none_may_have_all(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns]
) -> None:
    provisioned()
    with psycopg.connect(tcp_server.admin_dsn) as admin:
        limits: dict[str, int] = dict(
            admin.execute("SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname ~ '^prod_'").fetchall()
        )
    assert limits == {f"prod_{p}": grants.connection_limit([p], 100) for p in Purpose}
    assert all(0 < limit < 90 for limit in limits.values())
    # Those that other teams use.
    assert limits["prod_consumer"] + limits["prod_input_writer"] <= 40


def test_one_role_for_everything_has_what_all_its_purposes_need(
    tcp_server: OwnServer, tcp_environment: Dsns
) -> None:
    one = {
        purpose: f"postgresql://all_in_one:a@{tcp_server.address}/one_{purpose.database}"
        for purpose in Purpose
    }
    provision(load_settings(), Dsns(one, is_embedded=False), lambda _: None)
    with psycopg.connect(tcp_server.admin_dsn) as admin:
        limit = admin.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'all_in_one'").fetchone()
    assert limit == (100,)
    with psycopg.connect(one[Purpose.DAGSTER]) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("dagster, public",)


@pytest.mark.slow
@pytest.mark.parametrize("purpose", list(Purpose))
def test_what_a_role_has_set_for_itself_is_reset(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns], purpose: Purpose
) -> None:
    dsn = provisioned().require(purpose)
    planted = {
        name: value
        for name, value in PLANTED.items()
        if name != "search_path" or purpose.database is not Database.INPUT
    }

    def settings() -> dict[str, str]:
        with psycopg.connect(dsn) as connection:
            found = [connection.execute(f"SHOW {name}").fetchone() for name in planted]
            return {name: row[0] for name, row in zip(planted, found, strict=True) if row}

    before = settings()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for name, value in planted.items():
            connection.execute(
                f"ALTER ROLE CURRENT_USER SET {name} = {value if ',' in value else repr(value)}"
            )
            connection.execute(
                f"ALTER ROLE CURRENT_USER IN DATABASE prod_{purpose.database} SET {name} = "
                f"{value if ',' in value else repr(value)}"
            )
        connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'another'")
    provisioned()
    assert settings() == before


PATH = 'scratch, "Odd, Name", public'


@pytest.mark.slow
@pytest.mark.parametrize("purpose", [Purpose.INPUT, Purpose.INPUT_WRITER])
@pytest.mark.parametrize("place", ["", " IN DATABASE prod_input"])
def test_where_the_inputs_tables_are_is_said_by_its_roles(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns], purpose: Purpose, place: str
) -> None:
    dsn = provisioned().require(purpose)
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        alter = f"ALTER ROLE prod_{purpose}{place}"
        admin.execute(f"{alter} SET search_path = {PATH}")
        admin.execute(f"{alter} SET work_mem = '3MB'")
        try:
            provisioned()
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SHOW search_path").fetchone() == (PATH,)
                assert connection.execute("SHOW work_mem").fetchone() != ("3MB",)
        finally:
            admin.execute(f"{alter} RESET search_path")


@pytest.mark.long
def test_what_roles_of_other_systems_have_set_is_theirs(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns], monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = provisioned().require(Purpose.INPUT)
    monkeypatch.delenv(Purpose.INPUT_WRITER.setting)
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER ROLE prod_input SET work_mem = '3MB'")
        admin.execute("ALTER ROLE prod_input SET default_transaction_read_only = off")
        try:
            provision(load_settings(), resolve_dsns(load_settings()), lambda _: None)
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SHOW work_mem").fetchone() == ("3MB",)
                assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)
        finally:
            admin.execute("ALTER ROLE prod_input RESET ALL")


@pytest.mark.long
def test_tables_are_made_in_public_whatever_the_administrators_path(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns], monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned()
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE prod_input WITH (FORCE)")
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setenv("PGOPTIONS", "-c search_path=scratch")
            dsn = provisioned().require(Purpose.INPUT)
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT FROM public.episodes, public.viewings")


def test_what_consumers_sessions_begin_with(provisioned: Callable[[], Dsns]) -> None:
    with psycopg.connect(provisioned().require(Purpose.CONSUMER), autocommit=True) as consumer:
        for name, value in {
            "idle_in_transaction_session_timeout": "10min",
            "statement_timeout": "1h",
            "transaction_read_only": "on",
            "temp_file_limit": "8GB",
        }.items():
            assert consumer.execute(f"SHOW {name}").fetchone() == (value,)
        with pytest.raises(DENIED):
            consumer.execute("SET temp_file_limit = -1")


@pytest.mark.long
@pytest.mark.parametrize("purpose", [Purpose.CONSUMER, Purpose.WORKER, Purpose.SCALER, Purpose.DASHBOARD])
def test_a_role_fills_no_disk_and_comes_into_no_other_database(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns], purpose: Purpose
) -> None:
    dsn = provisioned().require(purpose)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for statement in (
            "SELECT lo_create(0)",
            "SELECT lo_creat(-1)",
            "SELECT lo_from_bytea(0, 'x')",
            "CREATE TEMP TABLE mine ()",
            "CREATE TABLE public.mine ()",
            "CREATE SCHEMA mine",
            "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1",
        ):
            with pytest.raises(DENIED):
                connection.execute(statement)
    for database in set(Database) - {purpose.database}:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(make_conninfo(dsn, dbname=f"prod_{database}"))


def test_rights_on_the_database_that_a_role_was_given_are_taken_back(
    tcp_server: OwnServer, provisioned: Callable[[], Dsns]
) -> None:
    dsn = provisioned().require(Purpose.CONSUMER)
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        admin.execute("GRANT ALL ON DATABASE prod_results TO prod_consumer")
        admin.execute(
            "ALTER ROLE prod_consumer CREATEDB CREATEROLE REPLICATION BYPASSRLS CONNECTION LIMIT -1"
        )
    provisioned()
    with psycopg.connect(dsn, autocommit=True) as consumer:
        row = consumer.execute(
            "SELECT has_database_privilege(current_database(), 'CREATE'),"
            " has_database_privilege(current_database(), 'TEMP'), rolcreatedb, rolcreaterole, rolreplication,"
            " rolbypassrls, rolconnlimit < 0 FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == (False,) * 7


def test_the_mark_stands_for_settings_and_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    before = status.expected_mark(Database.RESULTS)
    monkeypatch.setitem(grants._CONNECTIONS, Purpose.CONSUMER, 9)
    assert status.expected_mark(Database.RESULTS) != before
    monkeypatch.undo()
    monkeypatch.setitem(grants._SETTINGS, Purpose.CONSUMER, ())
    assert status.expected_mark(Database.RESULTS) != before
