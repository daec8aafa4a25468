"""A day that makes no progress raises an alert that says what is stuck and what to do."""

import datetime as dt
from typing import Any

import dagster as dg
import pytest

from episodes_assets.automation.alerts import alert_of_stalls
from episodes_assets.databases.connections import connect
from episodes_assets.databases.dsns import Purpose
from episodes_assets.definitions import build_defs
from episodes_assets.fleet.fan_out import fan_out_day
from episodes_assets.resources.databases import QueueDatabase
from episodes_assets.stores.stalls import OpenDay, open_days
from episodes_assets_tests.system import System, day

LONG_AGO = "2018-03-01 12:00+00"


def planned(system: System, *epids: int) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in epids])
    system.plan(day(1))
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        fan_out_day(queue, day(1))


def found(system: System) -> OpenDay:
    with connect(system.dsn(Purpose.QUEUE), read_only=True) as queue:
        (only,) = open_days(queue, dt.timedelta(seconds=30))
    return only


def test_an_alert_is_raised_once_and_taken_back(system: System) -> None:
    planned(system, 1, 2)
    with dg.DagsterInstance.get() as instance:
        cursor: str | None = None

        def tick() -> Any:
            nonlocal cursor
            with dg.build_sensor_context(
                instance=instance,
                cursor=cursor,
                resources={"queue_database": QueueDatabase()},
                repository_def=build_defs().get_repository_def(),
            ) as context:
                result = alert_of_stalls(context)
            if isinstance(result, dg.SensorResult):
                cursor = result.cursor
                (event,) = result.asset_events
                return event
            return result

        assert isinstance(tick(), dg.SkipReason)
        system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}'")
        alert = tick()
        assert isinstance(alert, dg.AssetCheckEvaluation)
        assert not alert.passed
        assert "2 jobs wait in 1 messages, and no worker takes them" in str(alert.description)
        assert "see that workers run (`episodes worker`)" in str(alert.description)
        table = alert.metadata["stalled days"]
        assert isinstance(table, dg.TableMetadataValue)
        assert [record.data["day"] for record in table.records] == ["2018-03-01"]
        assert isinstance(tick(), dg.SkipReason)
        system.finish_jobs()
        taken_back = tick()
        assert isinstance(taken_back, dg.AssetCheckEvaluation)
        assert taken_back.passed


@pytest.mark.parametrize(
    ("fault", "stuck"),
    [
        ("DELETE FROM pgqueuer", "1 of their messages are missing"),
        (
            "UPDATE ledger.chunks SET claim = gen_random_uuid(), claimed_by = 'w-1', claimed_at = now()",
            "2 jobs are running and none has ended; w-1 has had its own since",
        ),
        (
            (
                "UPDATE ledger.chunks SET claim = gen_random_uuid(), claimed_by = 'w-1', claimed_at = now();"
                "UPDATE pgqueuer SET status = 'picked', heartbeat = now() - interval '1 hour'"
            ),
            "have fallen silent, among them w-1",
        ),
    ],
)
def test_what_is_stuck_is_named(system: System, fault: str, stuck: str) -> None:
    planned(system, 1, 2)
    system.query("queue", fault)
    assert stuck in found(system).what_is_stuck
    assert found(system).what_to_do


def test_progress_is_when_a_job_was_finished_last(system: System) -> None:
    planned(system, 1, 2)
    handed_out = found(system).moved_at
    system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}'")
    assert found(system).moved_at < handed_out
    system.query("queue", "UPDATE ledger.chunks SET moved_at = now()")
    assert found(system).moved_at > handed_out
