"""What the page of `job_outcomes` shows of a day while the fleet works on it, and of one that ends badly."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pytest

from episodes_assets.definitions import defs
from episodes_assets.defs import progress
from episodes_assets.defs.sensors import read_cursor, report_progress, write_cursor
from episodes_assets.ledger.dispatch import fan_out_day
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.plans import finish, record
from episodes_assets_tests.support.system import System, day, failure


def observed() -> list[dg.AssetObservation]:
    """The observations of `job_outcomes`, the latest first."""
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_observations(dg.AssetKey("job_outcomes"), limit=100).records
    found = [record.asset_observation for record in records]
    return [each for each in found if each is not None]


def numbers(event: dg.AssetObservation) -> dict[str, object]:
    return {name: value.value for name, value in event.metadata.items() if name != "failed jobs"}


def plan(system: System, jobs: int) -> None:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        record(queue, *range(1, jobs + 1), chunk_jobs=jobs)
        fan_out_day(queue, day(1))


def test_a_step_that_waits_reports_its_days(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0)
    monkeypatch.setenv("EPISODES_STALL_MINUTES", "0.02")
    plan(system, 10)
    finish(system, 4, ago=0, seconds=2)
    assert "see that workers run" in failure(system.materialize(day(1), select=["job_outcomes"]))
    (event,) = observed()  # nothing has moved since
    assert (event.partition, event.description) == (str(day(1)), "4 of 10 jobs finished")
    shown = numbers(event)
    rate = shown.pop("jobs per second")
    assert isinstance(rate, float)
    assert 0 < rate <= 2.5  # the time until the report counts as well
    assert isinstance(event.metadata["estimated end"], dg.TimestampMetadataValue)
    del shown["estimated end"]
    assert shown == {
        "jobs": 10,
        "waiting": 6,
        "running": 0,
        "succeeded": 4,
        "held": 0,
        "left out": 0,
        "workers alive": 0,
    }


def test_a_step_that_fails_leaves_the_failed_jobs_on_the_page(system: System) -> None:
    plan(system, 3)
    system.finish_jobs("epid < 3")
    system.hold_jobs("epid = 3")
    assert "1 jobs are held" in failure(system.materialize(day(1), select=["job_outcomes"]))
    (event,) = observed()
    table = event.metadata["failed jobs"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [(row.data["epid"], row.data["error"], row.data["left out"]) for row in table.records] == [
        (3, "x", "no")
    ]


def test_the_sensor_reports_days_that_no_run_waits_for(system: System) -> None:
    plan(system, 10)
    cursor: str | None = None

    def tick() -> list[str]:
        nonlocal cursor
        with (
            dg.DagsterInstance.get() as instance,
            dg.build_sensor_context(instance, cursor=cursor, resources=defs.resources) as context,
        ):
            result = report_progress(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        events = [each for each in result.asset_events if isinstance(each, dg.AssetObservation)]
        return [str(each.description) for each in events]

    assert tick() == ["0 of 10 jobs finished"]
    assert tick() == []
    finish(system, 5, ago=0, seconds=1)
    assert tick() == []  # too soon
    minute = dt.timedelta(minutes=1)
    cursor = write_cursor(
        {
            of: replace(each, first=each.first - minute, last=each.last - minute)
            for of, each in read_cursor(cursor).items()
        }
    )
    assert tick() == ["5 of 10 jobs finished"]
    finish(system, 5, ago=0, seconds=1)
    assert tick() == []  # done: its materialisation tells
    assert cursor == "{}"
    system.query("queue", "UPDATE ledger.plans SET fanned_out_at = NULL")
    assert tick() == []
