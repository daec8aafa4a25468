"""Dagster's schema of its own: what its role can do to others, and what Dagster finds there."""

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.accounts.sessions import Lifetimes, find_session, start_session
from episodes_assets.postgres.connect import connect, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.postgres.provision.schema import downgrade
from episodes_assets.settings import Settings
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process

LIFETIMES = Lifetimes(dt.timedelta(hours=1), dt.timedelta(minutes=30))
# PostgreSQL prefers an operator of exactly the operands' types: sessions are looked up with the first,
# Alembic's and SQLAlchemy's look at the catalog is with the others.
OPERANDS = [("/", "interval", "integer"), ("=", "name", "varchar"), ("=", "oid", "regtype")]
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"


def plant(connection: psycopg.Connection, schema: str) -> None:
    for number, (operator, left, right) in enumerate(OPERANDS):
        connection.execute(
            f"CREATE FUNCTION {schema}.planted{number}({left}, {right}) RETURNS boolean LANGUAGE plpgsql"
            f" AS $$ BEGIN RAISE 'executed by %', current_user; END $$"
        )
        connection.execute(
            f"CREATE OPERATOR {schema}.{operator}"
            f" (FUNCTION = {schema}.planted{number}, LEFTARG = {left}, RIGHTARG = {right})"
        )


def back_to_when_dagster_could_write_in_public(system: System) -> None:
    downgrade(Database.DAGSTER, system.admin["dagster"], "dagster_0002")
    system.query("dagster", "GRANT CREATE, USAGE ON SCHEMA public TO episodes_dagster")


def dashboard_works(system: System) -> bool:
    dsn = system.dsn(Purpose.DASHBOARD)
    ada = Identity("ada", Role.VIEWER, AuthMethod.OIDC)
    with connect_to_write(dsn, Database.DAGSTER, "development", autocommit=True) as connection:
        token = start_session(connection, ada, LIFETIMES)
        return find_session(connection, token, LIFETIMES) == ada


def test_dagster_can_put_nothing_where_others_look(system: System) -> None:
    with psycopg.connect(system.dsn(Purpose.DAGSTER)) as connection:
        for statement in (
            "CREATE FUNCTION public.planted(interval, integer) RETURNS interval LANGUAGE sql AS 'SELECT $1'",
            "CREATE OPERATOR public./ (FUNCTION = interval_div, LEFTARG = interval, RIGHTARG = float8)",
            "CREATE TABLE public.mine ()",
            "CREATE SCHEMA episodes_dashboard",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)
        plant(connection, "dagster")
    assert dashboard_works(system)


def test_what_was_planted_before_is_not_executed_by_an_upgrade(
    system: System, embedded_settings: Settings, embedded_dsns: Dsns
) -> None:
    back_to_when_dagster_could_write_in_public(system)
    with psycopg.connect(system.dsn(Purpose.DAGSTER)) as connection:
        plant(connection, "public")
    for _ in range(2):
        provision(embedded_settings, embedded_dsns, lambda _: None)
    assert dashboard_works(system)
    planted = "SELECT DISTINCT pronamespace::regnamespace::text FROM pg_proc WHERE proname ~ '^planted'"
    assert system.query("dagster", planted) == [("dagster",)]
    assert system.query("dagster", TABLES, ["public"]) == [
        ("environment_stamp",),
        ("episodes_schema_version",),
        ("processes",),
    ]


@pytest.mark.slow
def test_an_upgrade_keeps_dagsters_runs(
    system: System, embedded_settings: Settings, embedded_dsns: Dsns
) -> None:
    with dg.DagsterInstance.get() as instance:
        run_id = dg.materialize([one], instance=instance).run_id
        before = len(instance.all_logs(run_id))
    back_to_when_dagster_could_write_in_public(system)
    assert ("runs",) in system.query("dagster", TABLES, ["public"])
    provision(embedded_settings, embedded_dsns, lambda _: None)
    migrated = subprocess.run(
        [Path(sys.executable).parent / "dagster", "instance", "migrate"],
        env=os.environ,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "does not exist" not in migrated.stdout + migrated.stderr
    with dg.DagsterInstance.get() as instance:
        assert [run.run_id for run in instance.get_runs()] == [run_id]
        assert len(instance.all_logs(run_id)) == before
        assert dg.materialize([one], instance=instance).success
        assert instance.get_latest_materialization_event(dg.AssetKey("one")) is not None
    assert len(system.query("dagster", TABLES, ["public"])) == 3


def test_dagster_begins_from_nothing(system: System) -> None:
    tables = system.query("dagster", TABLES, ["dagster"])
    system.query("dagster", "DROP OWNED BY episodes_dagster")
    system.query("dagster", "GRANT CREATE, USAGE ON SCHEMA dagster TO episodes_dagster")
    system.query("dagster", "GRANT SELECT ON environment_stamp, episodes_schema_version TO episodes_dagster")
    system.query("dagster", "GRANT SELECT, INSERT, UPDATE, DELETE ON processes TO episodes_dagster")
    assert system.query("dagster", TABLES, ["dagster"]) == []
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
        assert dg.materialize([one], instance=instance).success
    assert system.query("dagster", TABLES, ["dagster"]) == tables
    assert ("alembic_version",) in tables


def test_dagster_finds_its_schema_in_a_copy_that_lacks_the_settings_of_roles(system: System) -> None:
    with connect(system.admin["dagster"]) as admin:
        (name,) = admin.execute("SELECT current_database()").fetchone() or ("",)
        admin.execute(f"ALTER ROLE episodes_dagster IN DATABASE {name} RESET search_path")
    with dg.DagsterInstance.get() as instance:
        run_id = dg.materialize([one], instance=instance).run_id
    assert system.query("dagster", "SELECT count(*) FROM dagster.runs WHERE run_id = %s", [run_id]) == [(1,)]
    assert system.query("dagster", TABLES, ["public"]) == [
        ("environment_stamp",),
        ("episodes_schema_version",),
        ("processes",),
    ]


@dg.asset
def one() -> int:
    """For a run's sake."""
    return 1
