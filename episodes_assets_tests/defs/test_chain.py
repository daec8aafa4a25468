"""The schedule and the sensors carry a day from its drop to its publication, untouched by hand."""

import datetime as dt
import time

import dagster as dg
import pytest

from episodes_assets.definitions import defs
from episodes_assets.defs.runs import days_in_flight
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.runs import QUIET, execute, tick
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process


def test_the_whole_chain(system: System) -> None:
    system.generate(day(1), day(1))
    with dg.DagsterInstance.get() as instance, system.workers():
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=dt.datetime(2018, 3, 2, 1, tzinfo=dt.UTC),
            repository_def=defs.get_repository_def(),
            resources=dict(defs.resources or {}),
        ) as schedule:
            (planned,) = defs.resolve_schedule_def("daily_plan").evaluate_tick(schedule).run_requests or []
        assert planned.partition_key == "2018-03-01"
        execute(instance, "plan_day", planned)
        assert tick("publish_finished_days", instance) == []
        assert tick("fan_out", instance) == []
        requests: list[dg.RunRequest] = []
        deadline = time.monotonic() + 60
        while not requests and time.monotonic() < deadline:
            requests = tick("publish_finished_days", instance)
        assert [request.partition_key for request in requests] == ["2018-03-01"]
        execute(instance, "publish_day", requests[0])
        assert len(system.published()) == len(system.jobs(day(1))) > 0
        assert tick("publish_finished_days", instance) == []


def test_days_of_running_runs_are_left_alone(system: System) -> None:
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        for tags in (
            {"dagster/partition": "2018-03-09"},
            {
                "dagster/asset_partition_range_start": "2018-03-01",
                "dagster/asset_partition_range_end": "2018-03-02",
            },
        ):
            instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
        assert set(days_in_flight(instance, dt.datetime.now(dt.UTC))) == {day(1), day(2), day(9)}


def test_a_run_that_was_killed_keeps_its_days_for_minutes_only(system: System) -> None:
    """Nobody takes the status of a run whose process is gone; what it told last is in the event log."""
    status = dg.DagsterRunStatus
    in_an_hour = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        running, queued, told = (
            instance.create_run_for_job(job, status=status, tags={"dagster/partition": str(day(number))})
            for number, status in enumerate((status.STARTED, status.NOT_STARTED, status.STARTED), 1)
        )
        instance.report_engine_event("at work", running)
        assert days_in_flight(instance, in_an_hour) == {day(2): queued.run_id}
        system.query(
            "dagster", "UPDATE dagster.runs SET update_timestamp = update_timestamp - interval '1 hour'"
        )
        instance.report_engine_event("at work", told)
        system.query(
            "dagster",
            "UPDATE dagster.event_logs SET timestamp = timestamp - interval '1 hour',"
            " event = jsonb_set(event::jsonb, '{timestamp}',"
            " to_jsonb(extract(epoch FROM now()) - 3600))::text"
            " WHERE run_id = %s",
            [running.run_id],
        )
        assert days_in_flight(instance, dt.datetime.now(dt.UTC)) == {
            day(2): queued.run_id,
            day(3): told.run_id,
        }


def test_the_log_of_messages_and_old_profiles_are_pruned(system: System) -> None:
    insert = (
        "INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint, aggregated)"
        " VALUES (now() - make_interval(days => %s), 1, 'successful', 0, 'x', %s)"
    )
    for days, aggregated in ((8, True), (8, False), (1, True)):
        system.query("queue", insert, [days, aggregated])
    for days in (31, 29):
        system.query(
            "queue",
            "INSERT INTO ledger.profiles (kind, reason, requested_by, requested_at, expires_at, rate,"
            " most_seconds) VALUES ('batch', '', %s, now() - make_interval(days => %s), now(), 1, 1)",
            [str(days), days],
        )
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("prune_message_log")
        assert job.execute_in_process(instance=instance, run_config=QUIET).success
    assert system.query("queue", "SELECT count(*) FROM pgqueuer_log") == [(2,)]
    assert system.query("queue", "SELECT requested_by FROM ledger.profiles") == [("29",)]


def test_an_unreachable_database_is_a_skip_and_not_an_error(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", "127.0.0.1")
    monkeypatch.setenv(Purpose.QUEUE.setting, "postgresql://x@127.0.0.1:1/queue")
    with dg.build_sensor_context(resources=defs.resources) as context:
        skipped = defs.resolve_sensor_def("fan_out").evaluate_tick(context)
    assert "cannot reach x@127.0.0.1:1/queue" in (skipped.skip_message or "")
