"""`db init` on the embedded server and on one with TCP and passwords; who may do what."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from episodes_assets.algorithms.declaration import REACH, RESERVED_NAMES, Metric
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.errors import (
    BadSetting,
    DatabaseUnreachable,
    NotProvisioned,
    ViewInUse,
    WrongEnvironment,
)
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres import embedded
from episodes_assets.postgres.admission import needed_version
from episodes_assets.postgres.arrow import read_arrow
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.postgres.provision.init import create_views, provision
from episodes_assets.postgres.provision.schema import begin_migrations, downgrade, upgrade_within
from episodes_assets.postgres.provision.status import read_status
from episodes_assets.results import publications
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.accounts import TABLES
from episodes_assets_tests.support.own_server import OwnServer
from episodes_assets_tests.support.published import put_day
from episodes_assets_tests.support.system import System, day, throwaway

pytestmark = pytest.mark.process

DENIED = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)


@pytest.mark.long
def test_init_works_over_tcp_with_passwords_and_again(tcp_server: OwnServer, tcp_environment: Dsns) -> None:
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        for database in Database:
            name = sql.Identifier(f"prod_{database}")
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
    settings = load_settings()
    steps: list[str] = []
    provision(settings, tcp_environment, steps.append)
    assert "queue: creating database prod_queue" in steps
    steps.clear()
    provision(settings, tcp_environment, steps.append)
    assert [step.split(":")[1].split()[0] for step in steps] == ["ready"] * 4
    for status in read_status(tcp_environment):
        assert status.error is None
        assert status.is_current
        assert status.environment == "development"
    for purpose in Purpose:
        with psycopg.connect(tcp_environment.require(purpose)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (f"prod_{purpose}",)
    wrong = tcp_environment.require(Purpose.QUEUE).replace("p-queue", "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_two_inits_at_once_end_as_one(
    tcp_server: OwnServer, tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(dsn: str) -> str:
        return dsn.replace("/prod_", "/both_").replace("//prod_", "//both_")

    dsns = Dsns({p: fresh(dsn) for p, dsn in tcp_environment.by_purpose.items()}, is_embedded=False)
    settings = load_settings()
    both_begin = threading.Barrier(2)

    def init() -> None:
        both_begin.wait()
        provision(settings, dsns, lambda _: None)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(init), pool.submit(init)]:
            done.result()
    assert all(status.is_current for status in read_status(dsns))


@pytest.mark.long
def test_an_administrator_who_is_no_superuser_can_init_again(
    tcp_server: OwnServer, tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE lesser LOGIN CREATEDB CREATEROLE PASSWORD 'p'")
    monkeypatch.setenv("EPISODES_ADMIN_DSN", f"postgresql://lesser:p@{tcp_server.address}/postgres")
    dsns = Dsns(
        {p: d.replace("/prod_", "/lesser_") for p, d in tcp_environment.by_purpose.items()}, is_embedded=False
    )
    for purpose, dsn in dsns.by_purpose.items():
        monkeypatch.setenv(purpose.setting, dsn)
    for _ in range(2):
        provision(load_settings(), dsns, lambda _: None)
    assert all(status.is_current for status in read_status(dsns))
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as admin:
        admin.execute("ALTER ROLE lesser_worker CREATEDB")
        provision(load_settings(), dsns, lambda _: None)
        found = admin.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'lesser_worker'").fetchone()
    assert found == (False,)


def test_init_refuses_another_environment(tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch) -> None:
    provision(load_settings(), tcp_environment, lambda _: None)
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")
    with pytest.raises(WrongEnvironment, match="belongs to 'development'"):
        provision(load_settings(), tcp_environment, lambda _: None)


def test_the_input_tables_of_others_are_not_made(
    tcp_server: OwnServer, tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsns: dict[Purpose, str] = {
        p: d for p, d in tcp_environment.by_purpose.items() if p is not Purpose.INPUT_WRITER
    }
    theirs = dsns[Purpose.INPUT].replace("prod_input", "theirs", 1).replace("/prod_input", "/theirs")
    asked = Dsns({**dsns, Purpose.INPUT: theirs}, is_embedded=False)
    with pytest.raises(NotProvisioned, match="/theirs does not exist"):
        provision(load_settings(), asked, lambda _: None)
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as server:
        assert server.execute("SELECT FROM pg_database WHERE datname = 'theirs'").fetchone() is None
        server.execute("CREATE DATABASE theirs")
    with pytest.raises(NotProvisioned, match="belongs to other systems"):
        provision(load_settings(), asked, lambda _: None)


def test_an_input_of_others_lets_in_whom_it_let_in(
    tcp_server: OwnServer, tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = make_conninfo(tcp_server.admin_dsn, dbname="shared")
    with psycopg.connect(tcp_server.admin_dsn, autocommit=True) as server:
        server.execute("CREATE DATABASE shared")
        server.execute("CREATE ROLE neighbour LOGIN PASSWORD 'n'")
    with psycopg.connect(admin, autocommit=True) as theirs:
        theirs.execute("CREATE TABLE episodes (epid bigint); CREATE TABLE viewings (epid bigint)")
        theirs.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    dsns: dict[Purpose, str] = {
        p: d for p, d in tcp_environment.by_purpose.items() if p is not Purpose.INPUT_WRITER
    }
    shared = f"postgresql://reader:r@{tcp_server.address}/shared"
    provision(load_settings(), Dsns({**dsns, Purpose.INPUT: shared}, is_embedded=False), lambda _: None)
    with psycopg.connect(shared) as reader:
        assert reader.execute("SELECT * FROM episodes, viewings").fetchall() == []
    with psycopg.connect(f"postgresql://neighbour:n@{tcp_server.address}/shared") as neighbour:
        neighbour.execute("CREATE TABLE of_a_neighbour ()")


@pytest.mark.long
def test_the_dashboard_is_set_up_without_a_role_for_it(tcp_environment: Dsns) -> None:
    """Who runs everything but the dashboard has no DSN for it; its role is made when there is one."""
    settings = load_settings()
    without = Dsns(
        {
            p: d.replace("/prod_", "/bare_").replace("//prod_", "//bare_")
            for p, d in tcp_environment.by_purpose.items()
            if p is not Purpose.DASHBOARD
        },
        is_embedded=False,
    )
    steps: list[str] = []
    provision(settings, without, steps.append)
    assert any(
        "the dashboard has no role yet; to make it one, set EPISODES_DASHBOARD_DSN" in s for s in steps
    )
    assert all(status.is_current for status in read_status(without))
    dsn = without.require(Purpose.DAGSTER).replace("bare_dagster:p-dagster", "bare_dashboard:p")
    steps.clear()
    provision(settings, Dsns({**without.by_purpose, Purpose.DASHBOARD: dsn}, is_embedded=False), steps.append)
    assert not any("no role" in step for step in steps)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT FROM dashboard.users")


def test_a_missing_administrator_or_dsn_is_named(
    tcp_environment: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EPISODES_ADMIN_DSN")
    with pytest.raises(BadSetting, match="EPISODES_ADMIN_DSN is not set"):
        provision(load_settings(), tcp_environment, lambda _: None)
    monkeypatch.delenv("EPISODES_QUEUE_DSN")
    with pytest.raises(BadSetting, match="EPISODES_QUEUE_DSN is not set"):
        resolve_dsns(load_settings()).require(Purpose.QUEUE)


def test_a_wrong_dsn_is_one_plain_error(tcp_environment: Dsns) -> None:
    down = Dsns({Purpose.QUEUE: "postgresql://x:secret@127.0.0.1:1/queue"}, is_embedded=False)
    status = read_status(down)[0]
    assert status.error is not None
    assert "x@127.0.0.1:1/queue" in status.error
    assert "secret" not in status.error


def test_migrations_upgrade_an_older_schema(system: System, server_home: Path) -> None:
    """Each database comes to the latest version from its first, with what was in it."""
    settings = load_settings(home=server_home, **{f"{p}_dsn": None for p in Purpose})
    embedded_dsns = Dsns(system.dsns.by_purpose, is_embedded=True)
    for database in Database:
        downgrade(database, system.admin[database], f"{database}_0001")
    assert not any(status.is_current for status in read_status(system.dsns))
    provision(settings, embedded_dsns, lambda _: None)
    for status in read_status(system.dsns):
        assert status.schema_version == needed_version(status.database)


@pytest.mark.long
def test_jobs_in_flight_survive_an_upgrade(system: System) -> None:
    """Of the ledger as it was when each job had its own claim."""
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(1, 8)])
    system.plan(day(1))
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(1))
    system.finish_jobs("epid < 4", views=5)
    system.hold_jobs("epid = 4")

    def seen() -> list[list[Any]]:
        return [
            system.query(
                "queue", "SELECT epid, window_start, state, error FROM ledger.job_states ORDER BY 1"
            ),
            system.query(
                "queue", "SELECT chunk, first_position, jobs, succeeded, held, message_id FROM ledger.chunks"
            ),
            system.query(
                "queue", "SELECT plan_id, position, metrics, finished_at FROM ledger.outcomes ORDER BY 2"
            ),
            system.query("queue", "SELECT jobs FROM ledger.backlog"),
        ]

    before = seen()
    assert sorted(state for _, _, state, _ in before[0]) == ["held", *["succeeded"] * 3, *["waiting"] * 3]
    downgrade(Database.QUEUE, system.admin["queue"], "queue_0002")
    states = "SELECT state, count(*)::int FROM ledger.jobs GROUP BY 1 ORDER BY 1"
    assert system.query("queue", states) == [("held", 1), ("succeeded", 3), ("waiting", 3)]
    with (
        psycopg.connect(system.admin["queue"]) as admin,
        begin_migrations(admin, Database.QUEUE) as migrations,
    ):
        upgraded = upgrade_within(migrations, Database.QUEUE)
    assert upgraded == ("queue_0002", needed_version(Database.QUEUE))
    assert seen() == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO episodes (epid) VALUES (1)",
        "UPDATE viewings SET completed = true",
        "DELETE FROM episodes",
        "TRUNCATE viewings",
        "CREATE TABLE mine ()",
    ],
)
def test_the_input_role_cannot_write(system: System, statement: str) -> None:
    with psycopg.connect(system.dsn(Purpose.INPUT)) as connection:
        connection.execute("SELECT FROM episodes, viewings")
        connection.rollback()
        # Even a session that gives up its read-only default has no right to.
        connection.execute("SET default_transaction_read_only = off")
        connection.commit()
        with pytest.raises(DENIED):
            connection.execute(statement)


def test_the_input_role_is_read_only_by_default(server_home: Path) -> None:
    dsns = resolve_dsns(load_settings(home=server_home))
    with psycopg.connect(dsns.require(Purpose.INPUT)) as connection:
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


@pytest.mark.parametrize(
    "purpose", [Purpose.WORKER, Purpose.INPUT, Purpose.CONSUMER, Purpose.QUEUE, Purpose.DASHBOARD]
)
@pytest.mark.parametrize("database", list(Database))
def test_a_role_reaches_no_other_database(purpose: Purpose, database: Database, server_home: Path) -> None:
    dsn = embedded.start(server_home).dsn(purpose.embedded_role, database.value)
    if database is purpose.database:
        psycopg.connect(dsn).close()
    else:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(dsn)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger.jobs",
        "INSERT INTO ledger.plans (day, jobs) VALUES ('2018-03-01', 0)",
        "DELETE FROM ledger.outcomes",
        "INSERT INTO ledger.waivers (plan_id, jobs, reason, decided_by) VALUES (1, 1, 'x', 'x')",
        "UPDATE ledger.job_attempts SET waiver_id = 1",
        "INSERT INTO ledger.job_attempts (plan_id, position, waiver_id) VALUES (1, 1, 1)",
        "UPDATE environment_stamp SET environment = 'mine'",
        "CREATE TABLE mine ()",
    ],
)
def test_a_worker_can_only_work(system: System, statement: str) -> None:
    with psycopg.connect(system.dsn(Purpose.WORKER)) as connection, pytest.raises(DENIED):
        connection.execute(statement)


@pytest.mark.parametrize(
    ("purpose", "statement"),
    [
        (Purpose.RESULTS, "UPDATE published.history SET rows = 0"),
        (Purpose.RESULTS, "DELETE FROM published.history"),
        (Purpose.QUEUE, "UPDATE ledger.waivers SET reason = 'x'"),
        (Purpose.QUEUE, "DELETE FROM ledger.waivers"),
        (Purpose.QUEUE, "DELETE FROM ledger.plans"),
    ],
)
def test_what_is_kept_for_ever_is_only_added_to(system: System, purpose: Purpose, statement: str) -> None:
    with psycopg.connect(system.dsn(purpose)) as connection, pytest.raises(DENIED):
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dashboard.audit_log SET who = 'nobody'",
        "DELETE FROM dashboard.audit_log",
        "TRUNCATE dashboard.audit_log",
        "INSERT INTO dashboard.audit_log (at) VALUES ('2018-03-01')",
        "UPDATE dashboard.service_tokens SET role = 'operator'",
        "DELETE FROM dashboard.service_tokens",
        "UPDATE dashboard.signing_key SET key = repeat('x', 43)",
        "DELETE FROM dashboard.signing_key",
        "UPDATE environment_stamp SET environment = 'mine'",
        "CREATE TABLE dashboard.mine ()",
        "CREATE TABLE mine ()",
        "SELECT FROM dagster.runs",
    ],
)
def test_the_dashboard_changes_no_record(system: System, statement: str) -> None:
    with psycopg.connect(system.dsn(Purpose.DASHBOARD)) as connection, pytest.raises(DENIED):
        connection.execute(statement)


def test_dagster_has_no_part_in_the_accounts(system: System) -> None:
    tables = [
        name
        for (name,) in system.query("dagster", "SELECT relname FROM pg_class JOIN pg_namespace"
        " ON relnamespace = pg_namespace.oid WHERE nspname = 'dashboard' AND relkind = 'r'")
    ]  # fmt: skip
    assert set(tables) == {*TABLES, "locks"}
    with psycopg.connect(system.dsn(Purpose.DAGSTER), autocommit=True) as connection:
        connection.execute("SELECT FROM runs")
        for table in tables:
            with pytest.raises(DENIED):
                connection.execute(f"SELECT FROM dashboard.{table}")
        with pytest.raises(DENIED):
            connection.execute("CREATE TABLE dashboard.mine ()")


def test_a_consumer_reads_what_is_published_and_nothing_else(system: System) -> None:
    with psycopg.connect(system.dsn(Purpose.CONSUMER), autocommit=True) as connection:
        for table in (*RESERVED_NAMES, "reach", "momentum", "retention"):
            connection.execute(f"SELECT * FROM published.{table}")
        for statement in (
            "SELECT * FROM state.tracked_episodes",
            "SELECT * FROM environment_stamp",
            "DELETE FROM published.results",
            "CREATE TABLE mine ()",
        ):
            with pytest.raises(DENIED):
                connection.execute(statement)


def test_no_algorithm_is_called_like_a_published_table(system: System) -> None:
    """Its view could not be made beside it."""
    found = system.query(
        "results",
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'published' AND table_type = 'BASE TABLE'",
    )
    assert {name for (name,) in found} == RESERVED_NAMES


def test_views_have_the_declared_types(system: System) -> None:
    columns = dict(
        system.query(
            "results",
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'published' AND table_name = 'momentum'",
        )
    )
    assert columns["views_last_7_days"] == "bigint"
    assert columns["daily_slope"] == "double precision"


def test_a_metric_that_was_of_the_other_type_breaks_no_view_and_no_file(
    system: System, results: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days of older versions stay as they were published; so do those of two algorithms with one name."""
    registry = get_registry()
    reach, momentum = (replace(registry.by_id[number], may_be_missing=()) for number in (REACH, 1))
    whole = {
        REACH: replace(reach, columns={"x": Metric.INTEGER}),
        1: replace(momentum, columns={"y": Metric.REAL}),
    }
    both = {**whole, 1: replace(momentum, columns={"x": Metric.REAL})}
    values = [3.0, 3.5, 2**63 - 1, 1e300, None]
    put_day(system, day(1), dict(enumerate({"x": value} for value in values)))
    put_day(system, day(2), {0: {"x": 3.0}, 1: {"x": -4}})
    put_day(system, day(3), {0: {"x": 3}})
    with psycopg.connect(system.admin["results"], autocommit=True) as admin:
        create_views(admin, whole.values())
        query = "SELECT x FROM published.reach WHERE day = %s ORDER BY epid"
        found = admin.execute(query, [day(1)]).fetchall()
        assert found == [(3,), (None,), (2**63 - 1,), (None,), (None,)]
    for algorithms, number, kind, expected in (
        (whole, 1, "Float64", [3.0, 3.5, float(2**63), 1e300, None]),
        (whole, 2, "Int64", [3, -4]),
        (both, 2, "Float64", [3.0, -4.0]),
        (both, 3, "Float64", [3.0]),
    ):
        monkeypatch.setattr(publications, "get_registry", lambda: replace(registry, by_id=algorithms))  # noqa: B023
        rows = publications.read_rows(results, day(number))
        assert list(rows.columns).count("x") == 1
        assert rows["x"].dtype.name == kind
        assert rows["x"].astype("object").where(rows["x"].notna(), None).tolist() == expected


def test_what_others_have_made_of_a_view_survives_another_init(system: System, server_home: Path) -> None:
    """Unless it has to get other columns: then what depends on it is named."""
    reader = Purpose.WORKER.embedded_role  # which has no business here
    system.query(
        "results",
        "CREATE SCHEMA reports; CREATE VIEW reports.most AS SELECT epid, views FROM published.reach;"
        f"GRANT SELECT ON published.reach TO {reader}",
    )

    def rights() -> list[Any]:
        may = "has_table_privilege(%s, 'published.reach', 'SELECT')"
        return system.query("results", f"SELECT {may}, to_regclass('reports.most')::text", [reader])

    settings = load_settings(home=server_home, **{f"{p}_dsn": None for p in Purpose})
    provision(settings, Dsns(system.dsns.by_purpose, is_embedded=True), lambda _: None)
    assert rights() == [(True, "reports.most")]
    reach = get_registry().by_id[REACH]
    with psycopg.connect(system.admin["results"], autocommit=True) as admin:
        create_views(admin, [replace(reach, columns={**reach.columns, "more": Metric.REAL})])
        admin.execute("SELECT more FROM published.reach")
        other = replace(reach, columns={**reach.columns, "views": Metric.REAL})
        with pytest.raises(ViewInUse, match=r"in use: view reports\.most depends on view published\.reach: "):
            create_views(admin, [other])
        admin.execute("SELECT more FROM published.reach")  # nothing has changed
        admin.execute("DROP VIEW reports.most")
        create_views(admin, [other])
        with pytest.raises(psycopg.errors.UndefinedColumn):
            admin.execute("SELECT more FROM published.reach")
    assert rights() == [(True, None)]


@pytest.mark.slow
def test_dagster_sets_up_the_embedded_databases(tmp_path: Path) -> None:
    """Dagster's own commands are used in a fresh checkout too, before any of ours."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EPISODES_", "DAGSTER_"))}
    home = throwaway(tmp_path / "home")
    subprocess.run(
        [Path(sys.executable).parent / "dagster", "definitions", "validate"],
        env={**environment, "EPISODES_HOME": str(home)},
        check=True,
    )
    found = read_status(resolve_dsns(load_settings(home=home)))
    assert [status.environment for status in found] == ["development"] * 4


def test_a_server_that_goes_away_is_one_plain_error(system: System) -> None:
    dsn = system.dsn(Purpose.RESULTS)
    suicide = "SELECT pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(DatabaseUnreachable, match="terminating connection"):
        read_arrow(dsn, suicide)
    with pytest.raises(DatabaseUnreachable, match="terminating connection"), connect(dsn) as connection:
        connection.execute(suicide)


@pytest.mark.long
def test_an_embedded_home_that_cannot_be_used_is_one_plain_error(tmp_path: Path) -> None:
    (tmp_path / "postgres").write_text("a file in the way")
    with pytest.raises(DatabaseUnreachable, match="did not start"):
        resolve_dsns(load_settings(home=tmp_path))
