"""What is repaired is put on record once for each run, and nobody of ours can change that."""

import psycopg
import pytest

from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.repairs import RepairDecision, read_repairs, read_repairs_of_run, record_repair
from episodes_assets_tests.support.system import System, day


def test_a_run_has_each_repair_once(system: System) -> None:
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as results:
        for run in ("a run", "a run", "another run"):
            for number in (2, 1):
                record_repair(results, day(number), "outcomes", RepairDecision("why", "who", run))
        record_repair(results, day(1), "manifest", RepairDecision("why", "who", "a run"))
        assert [each.what for each in read_repairs(results, day(1))] == ["outcomes", "outcomes", "manifest"]
        found = [(each.day, each.what) for each in read_repairs_of_run(results, "a run")]
        assert found == [(day(1), "outcomes"), (day(1), "manifest"), (day(2), "outcomes")]
        assert read_repairs_of_run(results, "a third run") == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            results.execute("DELETE FROM published.repairs")


def test_repairs_of_a_release_that_recorded_no_run_stay(system: System) -> None:
    insert = (
        "INSERT INTO published.repairs (day, what, reason, repaired_by)"
        " VALUES ('2018-03-01', 'jobs', 'why', 'who')"
    )
    system.query("results", insert)
    system.query("results", insert)
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as results:
        assert len(read_repairs(results, day(1))) == 2
