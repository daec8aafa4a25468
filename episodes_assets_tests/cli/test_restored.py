"""One database is restored to an earlier moment, or a drop is lost: it is seen, and put right."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from deltalake import DeltaTable
from psycopg import sql
from typer.testing import CliRunner

from episodes_assets.cli.app import app
from episodes_assets.errors import DatabasesDisagree, LedgerBehind, SchemaTooOld
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.ledger.held import waive_held_jobs
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import publications, publish
from episodes_assets.results.verify import read_records
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System, day, failure

AGREE = "The databases and the lake agree"


def work(system: System, first: int, last: int, *, rework: bool = False, repair: str = "") -> None:
    """Plan, work and publish some days; or repair them, for a reason."""
    days = (day(first), day(last))
    planned = system.materialize(*days, select=PLANNING, rework=rework, repair=repair)
    assert planned.success, failure(planned)
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        for number in range(first, last + 1):
            fan_out_day(queue, day(number))
    system.finish_jobs()
    result = system.materialize(*days, select=["published_results"])
    assert result.success, failure(result)


@contextmanager
def restored(system: System, database: str) -> Iterator[None]:
    """After the block the database is what it was before, as after a restore to that moment."""
    name, admin = _name(system, database), system.admin["input"]
    copy = sql.Identifier(f"{name}_earlier")
    with psycopg.connect(admin, autocommit=True) as server:
        # This process keeps connections for its next readings.
        end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        server.execute(end, [name])
        template = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        server.execute(template.format(copy, sql.Identifier(name)))
        yield
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(copy, sql.Identifier(name)))
        server.execute(sql.SQL("GRANT ALL ON DATABASE {} TO PUBLIC").format(sql.Identifier(name)))


def _name(system: System, database: str) -> str:
    return str(system.query(database, "SELECT current_database()")[0][0])


def disagreement() -> str:
    """What `db status` prints when it fails."""
    result = CliRunner().invoke(app, ["db", "status"])
    assert isinstance(result.exception, DatabasesDisagree), (result.exception, result.output)
    return result.stdout


@pytest.fixture
def worked(system: System) -> System:
    """Two days, published."""
    system.generate(day(1), day(4))
    work(system, 1, 2)
    assert AGREE in output("db", "status")[0]
    return system


@pytest.mark.slow
def test_a_ledger_of_an_earlier_moment_is_seen_and_gives_no_number_twice(worked: System) -> None:
    with restored(worked, "queue"):
        work(worked, 3, 4)
        work(worked, 2, 2, rework=True)
    told = disagreement()
    assert "plans that 3 days (2018-03-02, 2018-03-03, 2018-03-04) were published from" in told
    assert "`episodes backfill 2018-03-02 2018-03-04 --repair --reason WHY`" in told
    with (
        connect(worked.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(worked.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        before = publications.find_day(results, day(2))
        # The older plan of the ledger does not replace what was published since.
        with pytest.raises(
            LedgerBehind, match="published from plan 5, and the ledger only knows it up to plan 2"
        ):
            publish.publish_day(queue, results, worked.viewings, day(2), "1")
        assert publications.find_day(results, day(2)) == before
    # As every night: the days go on, under numbers of their own.
    work(worked, 3, 4)
    plans = worked.query("results", "SELECT day, plan_id FROM published.history ORDER BY publication_id")
    assert len({plan_id for _, plan_id in plans}) == len(plans)
    assert disagreement().count("2018-03-02") == 2  # in the finding and in the command
    work(worked, 2, 2, repair="a restore")
    assert AGREE in output("db", "status")[0]


@pytest.mark.slow
def test_a_ledger_of_a_moment_when_more_was_left_out_is_seen_and_repaired(worked: System) -> None:
    published = worked.published().to_csv()
    plan = "(SELECT plan_id FROM ledger.plans WHERE day = '2018-03-02')"
    worked.query("queue", f"DELETE FROM ledger.outcomes WHERE plan_id = {plan} AND position = 0")
    worked.query(
        "queue", f"UPDATE ledger.chunks SET succeeded = succeeded - 1 WHERE plan_id = {plan} AND chunk = 0"
    )
    worked.hold_jobs(f"plan_id = {plan} AND position = 0")
    with connect(worked.dsn(Purpose.QUEUE), autocommit=True) as queue:
        waive_held_jobs(queue, day(2), reason="r", decided_by="b")
    told = disagreement()
    assert "`queue` does not have all the outcomes that 2018-03-02 was published from" in told
    assert "`episodes run 2018-03-02 --repair --reason WHY`" in told
    refused = failure(worked.materialize(day(2), select=["published_results"]))
    assert "now 1 are left out: `queue` was restored to an earlier moment" in refused
    work(worked, 2, 2, repair="a restore")
    assert worked.published().to_csv() == published
    assert AGREE in output("db", "status")[0]


@pytest.mark.slow
def test_results_of_an_earlier_moment_are_seen_and_rebuilt(worked: System) -> None:
    with restored(worked, "results"):
        work(worked, 3, 4)
    told = disagreement()
    assert "`results` does not have 2018-03-03, 2018-03-04, which Dagster has recorded" in told
    assert "`results` is older than `dagster`: `episodes backfill 2018-03-03 2018-03-04`" in told
    assert "tracked episodes that 2018-03-04 was planned from" in told
    work(worked, 3, 4)
    assert AGREE in output("db", "status")[0]


@pytest.mark.slow
def test_results_of_a_moment_before_a_day_was_worked_again_are_seen(worked: System) -> None:
    with restored(worked, "results"):
        work(worked, 2, 2, rework=True)
    told, _ = output("db", "check")
    assert "`queue` has worked a later plan than the one that 2018-03-02 was published from" in told
    work(worked, 2, 2)
    assert AGREE in output("db", "check")[0]


@pytest.mark.slow
def test_dagster_of_an_earlier_moment_is_seen_and_told_of_the_days(worked: System) -> None:
    with restored(worked, "dagster"):
        work(worked, 3, 4)
        published = worked.published().to_csv()
    worked.dagster.dispose()
    vars(worked).pop("dagster")
    told, _ = output("db", "check")
    assert "  days: 2018-03-03 to 2018-03-04\n" in told
    assert "`episodes backfill 2018-03-03 2018-03-04` records them" in told
    work(worked, 3, 4)
    assert AGREE in output("db", "check")[0]
    assert worked.published().to_csv() == published


@pytest.mark.slow
def test_a_newer_drop_is_told_and_a_lost_one_is_a_contradiction(worked: System) -> None:
    drop = worked.query("input", "SELECT min(epid) FROM episodes WHERE batch_date = %s", [day(1)])
    worked.query("input", "DELETE FROM episodes WHERE batch_date = %s AND epid = %s", [day(1), drop[0][0]])
    config = {"refresh": True, "reason": "r"}
    refreshed = worked.materialize(day(1), select=["input_episodes"], config=config)
    assert refreshed.success, failure(refreshed)
    told, _ = output("db", "status")
    assert "there are newer drops than those that 2018-03-01 was made from" in told
    assert AGREE not in told
    kept = worked.drops.require(day(2))
    told = f"the drops that {day(2)} was made from: restore the lake from a backup ({kept.snapshot_id} of"
    (Path(worked.settings.lake) / "quarantine" / kept.quarantine.path).unlink()
    assert told in disagreement()
    DeltaTable(f"{worked.settings.lake}/episodes").delete(f"day = '{day(2)}'")
    assert told in disagreement()


def test_years_of_days_are_compared_quickly(system: System) -> None:
    days = 878
    system.query(
        "queue",
        "INSERT INTO ledger.plans (day, jobs, checksum, snapshot_id, code_version)"
        f" SELECT date '2018-03-01' + n, 0, 'p', 's', '1' FROM generate_series(0, {days - 1}) AS n",
    )
    system.query(
        "results",
        "INSERT INTO state.tracked_days (day, origin, newly_tracked, total, checksum, previous_checksum,"
        " snapshot_id, code_version)"
        " SELECT date '2018-03-01' + n, CASE n WHEN 0 THEN 'beginning' ELSE 'day' END, 0, 0, 't',"
        f" CASE WHEN n > 0 THEN 't' END, 's', '1' FROM generate_series(0, {days - 1}) AS n",
    )
    system.query(
        "results",
        "INSERT INTO published.days (day, jobs, rows, checksum, plan_id, plan_checksum, code_version)"
        f" SELECT date '2018-03-01' + n, 0, 0, '', n + 1, 'p', '1' FROM generate_series(0, {days - 1}) AS n",
    )
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
        connect(system.dsn(Purpose.DAGSTER), autocommit=True) as dagster,
    ):
        began = time.monotonic()
        records = read_records(queue, results, system.drops, system.viewings, dagster)
    assert time.monotonic() - began < 10
    assert (len(records.plans), len(records.publications), len(records.drops)) == (days,) * 3
    assert replace(records, drops={}).named_drops == records.named_drops


def test_a_database_of_before_an_upgrade_is_not_compared(system: System) -> None:
    for database in ("queue", "dagster"):
        ((version,),) = system.query(database, "SELECT version_num FROM episodes_schema_version")
        system.query(database, "UPDATE episodes_schema_version SET version_num = %s", [f"{database}_0001"])
        refused = refusal("db", "check")
        assert isinstance(refused, SchemaTooOld)
        assert f"is at {database}_0001" in str(refused)
        assert "run `episodes db init`" in str(refused)
        system.query(database, "UPDATE episodes_schema_version SET version_num = %s", [version])


def test_without_dagsters_records_nothing_is_said_to_agree(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(Purpose.DAGSTER.setting)
    assert f"{Purpose.DAGSTER.setting} is not set" in str(refusal("db", "check"))


def test_without_a_dsn_nothing_is_compared(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    assert AGREE in output("db", "status")[0]
    monkeypatch.delenv(Purpose.RESULTS.setting)
    assert AGREE not in output("db", "status")[0]
