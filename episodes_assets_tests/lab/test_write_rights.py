"""A role that could write anything at the source is refused by name, whichever way it could."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from episodes_assets.errors import RoleCanWrite
from episodes_assets.lab.source import Source
from episodes_assets.lake.opening import open_lake
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.write_rights import find_rights
from episodes_assets_tests.lab.conftest import let_nobody_make_temporary_tables
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import System

NAMES = ("episodes_queue_reader", "episodes_results_reader")


@dataclass(frozen=True)
class Reader:
    """A role that can only read `queue`, made for a test."""

    name: str
    dsn: str
    system: System

    def refusal(self) -> str:
        """Why it is refused; empty when it is not."""
        source = Source(
            "development", self.dsn, self.system.dsn(Purpose.RESULTS_READER), open_lake(self.system.settings)
        )
        try:
            with source.connect():
                return ""
        except RoleCanWrite as error:
            return str(error)


@pytest.fixture
def reader(system: System) -> Iterator[Reader]:
    let_nobody_make_temporary_tables(system)
    name, password = f"lab_reader_{os.getpid()}", secrets.token_hex(8)
    admin = system.admin["queue"]
    with psycopg.connect(admin, autocommit=True) as connection:
        (database,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        connection.execute(f"CREATE ROLE {name}_group")
        connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {name}")
        connection.execute(f"GRANT USAGE ON SCHEMA ledger TO {name}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA ledger, public TO {name}")
        dsn = make_conninfo(system.dsn(Purpose.QUEUE_READER), user=name, password=password)
        try:
            yield Reader(name, dsn, system)
        finally:
            connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
            for each in (name, f"{name}_group"):
                connection.execute(f"REASSIGN OWNED BY {each} TO CURRENT_USER")
                connection.execute(f"DROP OWNED BY {each}")
                connection.execute(f"DROP ROLE {each}")


def test_a_role_that_can_only_read_is_let_through(reader: Reader) -> None:
    assert reader.refusal() == ""


def test_the_roles_that_db_init_makes_are_let_through(system: System) -> None:
    let_nobody_make_temporary_tables(system)
    source = Source(
        "development",
        system.dsn(Purpose.QUEUE_READER),
        system.dsn(Purpose.RESULTS_READER),
        open_lake(system.settings),
    )
    with source.connect() as (queue, results):
        for database in (queue, results):
            assert database.read("SELECT current_setting('transaction_read_only') AS it")[
                "it"
            ].to_pylist() == ["on"]


def execute(reader: Reader, statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            reader.system.query("queue", statement)


IN_A_GROUP = "GRANT INSERT ON ledger.jobs TO {role}_group;"
IN_A_GROUP_SYSTEM = "GRANT ALTER SYSTEM ON PARAMETER log_min_messages TO {role}_group;"
SERVER = "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER elsewhere FOREIGN DATA WRAPPER away;"
FUNCTION = "CREATE FUNCTION ledger.harm() RETURNS void LANGUAGE sql {secdef} AS 'DELETE FROM ledger.jobs';"


@pytest.mark.parametrize(
    ("grant", "says"),
    [
        ("GRANT INSERT ON ledger.jobs TO {role}", "it may INSERT ledger.jobs"),
        ("GRANT UPDATE ON ledger.plans TO PUBLIC", "it may UPDATE ledger.plans"),
        ("GRANT DELETE ON public.pgqueuer TO {role}", "it may DELETE public.pgqueuer"),
        ("GRANT TRUNCATE ON ledger.outcomes TO {role}", "it may TRUNCATE ledger.outcomes"),
        ("GRANT TRIGGER ON ledger.outcomes TO {role}", "it may TRIGGER ledger.outcomes"),
        ("GRANT REFERENCES ON ledger.jobs TO {role}", "it may REFERENCES ledger.jobs"),
        ("GRANT UPDATE (error) ON ledger.job_attempts TO {role}", "it may UPDATE ledger.job_attempts"),
        ("GRANT INSERT (plan_id) ON ledger.chunks TO {role}", "it may INSERT ledger.chunks"),
        ("GRANT UPDATE ON ledger.backlog TO {role}", "it may UPDATE ledger.backlog"),
        ("CREATE TABLE ledger.new (); GRANT INSERT ON ledger.new TO {role}", "it may INSERT ledger.new"),
        ("GRANT CREATE ON SCHEMA ledger TO {role}", "it may create in schema ledger"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "it may create in schema public"),
        ("GRANT CREATE ON DATABASE {database} TO {role}", "it may create schemas in database {database}"),
        ("GRANT TEMPORARY ON DATABASE {database} TO {role}", "it may create temporary tables"),
        ("GRANT TEMPORARY ON DATABASE {database} TO PUBLIC", "it may create temporary tables"),
        ("GRANT USAGE ON SEQUENCE ledger.plans_plan_id_seq TO {role}",
         "it may draw from sequence ledger.plans_plan_id_seq"),
        ("GRANT UPDATE ON SEQUENCE ledger.plans_plan_id_seq TO {role}",
         "it may set sequence ledger.plans_plan_id_seq"),
        (IN_A_GROUP + "GRANT {role}_group TO {role}", "it may INSERT ledger.jobs"),
        (IN_A_GROUP + "GRANT {role}_group TO {role} WITH INHERIT FALSE", "it may INSERT ledger.jobs"),
        ("ALTER TABLE ledger.batches OWNER TO {role}", "it owns table ledger.batches"),
        ("ALTER TABLE ledger.batches OWNER TO {role}_group; GRANT {role}_group TO {role}",
         "it owns table ledger.batches"),
        (FUNCTION.format(secdef="") + "ALTER FUNCTION ledger.harm() OWNER TO {role}",
         "it owns function ledger.harm()"),
        (FUNCTION.format(secdef="SECURITY DEFINER"),
         "it may execute ledger.harm(), which runs with its owner's rights"),
        ("ALTER ROLE {role} SUPERUSER", "it is superuser"),
        ("ALTER ROLE {role} CREATEDB", "it may create databases"),
        ("ALTER ROLE {role} CREATEROLE", "it may create roles"),
        ("ALTER ROLE {role} REPLICATION", "it may replicate"),
        ("ALTER ROLE {role} BYPASSRLS", "it bypasses row security"),
        ("ALTER ROLE {role}_group CREATEDB; GRANT {role}_group TO {role} WITH INHERIT FALSE",
         "it may create databases"),
        ("GRANT pg_write_all_data TO {role}", "it is a member of pg_write_all_data"),
        ("GRANT pg_signal_backend TO {role}", "it is a member of pg_signal_backend"),
        ("GRANT pg_execute_server_program TO {role}", "it is a member of pg_execute_server_program"),
        ("GRANT EXECUTE ON FUNCTION lo_create(oid) TO {role}", "it may execute lo_create(oid)"),
        ("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {role}", "it may execute pg_reload_conf()"),
        ("GRANT EXECUTE ON FUNCTION pg_replication_origin_create(text) TO {role}",
         "it may execute pg_replication_origin_create(text)"),
        ("GRANT EXECUTE ON FUNCTION pg_stat_reset_shared(text) TO {role}_group; GRANT {role}_group TO {role}",
         "it may execute pg_stat_reset_shared(text)"),
        ("GRANT EXECUTE ON FUNCTION lo_export(oid, text) TO PUBLIC", "it may execute lo_export(oid,text)"),
        ("GRANT ALTER SYSTEM ON PARAMETER work_mem TO {role}", "it may ALTER SYSTEM SET work_mem"),
        (IN_A_GROUP_SYSTEM + "GRANT {role}_group TO {role} WITH INHERIT FALSE",
         "it may ALTER SYSTEM SET log_min_messages"),
        ("SELECT lo_create(4711); GRANT UPDATE ON LARGE OBJECT 4711 TO {role}",
         "it may write large object 4711"),
        ("CREATE FOREIGN DATA WRAPPER away; GRANT USAGE ON FOREIGN DATA WRAPPER away TO {role}",
         "it may use foreign data wrapper away"),
        (SERVER + "GRANT USAGE ON FOREIGN SERVER elsewhere TO {role}", "it may use foreign server elsewhere"),
    ],
)  # fmt: skip
def test_a_role_that_could_write_is_refused(reader: Reader, grant: str, says: str) -> None:
    (database,) = reader.system.query("queue", "SELECT current_database()")[0]
    names = {"role": reader.name, "database": database}
    execute(reader, grant.format(**names))
    refused = reader.refusal()
    assert f"the role {reader.name} could change" in refused
    assert says.format(**names) in refused
    assert "EPISODES_QUEUE_READER_DSN" in refused


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO {role}",
        "GRANT pg_read_all_data, pg_monitor TO {role}",
        "GRANT SELECT ON SEQUENCE ledger.plans_plan_id_seq TO {role}",
        "GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO {role}",
        # It lasts as long as a session.
        "GRANT SET ON PARAMETER log_min_messages TO {role}",
        "GRANT ALTER SYSTEM ON PARAMETER work_mem TO {role}_group",
        FUNCTION.format(secdef="SECURITY INVOKER"),
        FUNCTION.format(secdef="SECURITY DEFINER") + "REVOKE EXECUTE ON FUNCTION ledger.harm() FROM PUBLIC",
        # PostgreSQL lets nobody but a superuser use it.
        "GRANT UPDATE ON pg_catalog.pg_class TO {role}",
        "GRANT INSERT ON ledger.jobs TO {role}_group",
        "GRANT {role} TO {role}_group; GRANT INSERT ON ledger.jobs TO {role}_group",
    ],
)
def test_rights_to_read_and_those_of_others_are_no_reason(reader: Reader, grant: str) -> None:
    execute(reader, grant.format(role=reader.name))
    assert reader.refusal() == ""


def test_a_server_of_an_older_release_is_asked_for_what_it_has(reader: Reader) -> None:
    before = find_rights(140_022)
    assert "parameter" not in before
    with psycopg.connect(reader.dsn) as connection:
        assert connection.execute(before).fetchone() == (reader.name, None)


def test_functions_for_monitoring_only_read(reader: Reader) -> None:
    """Of the functions that are withheld from PUBLIC, those that do not count are these."""
    granted = reader.system.query(
        "queue",
        "SELECT DISTINCT proname::text FROM pg_init_privs JOIN pg_proc ON pg_proc.oid = objoid,"
        " aclexplode(initprivs) AS granted JOIN pg_roles ON pg_roles.oid = grantee"
        " WHERE classoid = 'pg_proc'::regclass AND rolname IN"
        " ('pg_monitor', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables')",
    )
    reading = ("pg_ls_", "pg_stat_get_", "pg_get_", "pg_current_logfile", "pg_show_")
    assert [name for (name,) in granted if not name.startswith(reading)] == []
    assert ("pg_ls_waldir",) in granted


def test_the_results_are_asked_as_well(system: System) -> None:
    let_nobody_make_temporary_tables(system)
    system.query("results", "GRANT DELETE ON published.results TO PUBLIC")
    lake = open_lake(system.settings)
    source = Source("development", system.dsn(Purpose.QUEUE_READER), system.dsn(Purpose.RESULTS_READER), lake)
    with (
        pytest.raises(RoleCanWrite, match=r"episodes_results_reader could .* may DELETE published.results"),
        source.connect(),
    ):
        pass


def test_the_publishers_own_role_is_refused(system: System) -> None:
    let_nobody_make_temporary_tables(system)
    lake = open_lake(system.settings)
    source = Source("development", system.dsn(Purpose.QUEUE), system.dsn(Purpose.RESULTS_READER), lake)
    with pytest.raises(RoleCanWrite, match=r"and .* more"), source.connect():
        pass


@pytest.mark.parametrize(
    ("purpose", "statement"),
    [
        (Purpose.QUEUE_READER, "SELECT error FROM ledger.job_attempts"),
        (Purpose.QUEUE_READER, "SELECT traceback FROM ledger.job_attempts"),
        (Purpose.QUEUE_READER, "SELECT worker FROM ledger.outcomes"),
        (Purpose.QUEUE_READER, "SELECT * FROM ledger.waivers"),
        (Purpose.QUEUE_READER, "SELECT * FROM ledger.workers"),
        (Purpose.QUEUE_READER, "SELECT * FROM pgqueuer"),
        (Purpose.QUEUE_READER, "DELETE FROM ledger.jobs"),
        (Purpose.RESULTS_READER, "INSERT INTO state.tracked_days (day) VALUES ('2018-03-01')"),
    ],
)
def test_a_reader_sees_what_is_taken_and_nothing_else(
    system: System, purpose: Purpose, statement: str
) -> None:
    with psycopg.connect(system.dsn(purpose), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_a_session_at_the_source_is_bounded(system: System) -> None:
    let_nobody_make_temporary_tables(system)
    lake = open_lake(system.settings)
    source = Source("development", system.dsn(Purpose.QUEUE_READER), system.dsn(Purpose.RESULTS_READER), lake)
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
             "max_parallel_workers_per_gather", "transaction_isolation", "transaction_read_only")  # fmt: skip
    with source.connect() as databases:
        for database in databases:
            shown = {
                name: database.read("SELECT current_setting({name}) AS it", name=name)["it"][0].as_py()
                for name in names
            }
            assert shown == {
                "statement_timeout": "10min",
                "lock_timeout": "10s",
                "idle_in_transaction_session_timeout": "10min",
                "max_parallel_workers_per_gather": "0",
                "transaction_isolation": "repeatable read",
                "transaction_read_only": "on",
            }
        sessions = system.query(
            "queue", "SELECT usename::text FROM pg_stat_activity WHERE application_name = 'episodes lab'"
        )
        assert sorted(name for (name,) in sessions) == sorted(NAMES)
    eventually(
        lambda: (
            not system.query("queue", "SELECT FROM pg_stat_activity WHERE application_name = 'episodes lab'")
        )
    )
