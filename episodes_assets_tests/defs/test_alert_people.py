"""What the sensor `alert_people` observes on a real instance and real databases, and when that ends."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from episodes_assets.alerts.conditions import FailedTicks, Observed, assess
from episodes_assets.definitions import defs
from episodes_assets.defs import observed
from episodes_assets.defs.sensors import alert_people
from episodes_assets.errors import BadSetting
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.ticks import add_ticks, switch_on

LONG_AGO = "2018-03-01 12:00+00"


@pytest.fixture(scope="module")
def shared(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("alert_people") / "home", patch) as made,
    ):
        yield made


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def tick(system: System) -> str:
    with dg.build_sensor_context(
        system.dagster, resources=defs.resources, repository_def=defs.get_repository_def()
    ) as context:
        result = alert_people(context)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def open_keys(system: System) -> list[str]:
    rows = system.query("queue", "SELECT key FROM alerts.alerts WHERE resolved_at IS NULL ORDER BY key")
    return [key for (key,) in rows]


@pytest.mark.long
def test_failed_runs_and_stalled_and_held_jobs_and_a_database_that_is_away(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run that fails is open with its root cause, until its day is run with success.
    assert tick(system) == "no alert is open; 0 messages sent"
    result = system.materialize(day(1), select=["input_episodes"])
    assert not result.success
    ((failed,), are_all) = observed.failed_runs(system.dagster, now())
    assert are_all
    assert failed.days == [day(1)]
    assert failed.cause == "DropNotArrived"
    assert "2018-03-01" in failed.message
    assert "1 run of 2018-03-01 failed" in tick(system)
    assert open_keys(system) == ["runs_failed:DropNotArrived"]
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    assert tick(system) == "no alert is open; 0 messages sent"
    assert open_keys(system) == []

    # Its jobs make no progress, then they are held.
    system.query("queue", f"UPDATE ledger.plans SET fanned_out_at = '{LONG_AGO}', planned_at = '{LONG_AGO}'")
    system.query("queue", f"UPDATE ledger.chunks SET moved_at = '{LONG_AGO}'")
    assert "no job is finished of 2018-03-01" in tick(system)
    assert open_keys(system) == ["days_stalled"]
    system.hold_jobs("true")
    assert "1 job is held, so that 2018-03-01 cannot be published" in tick(system)
    assert open_keys(system) == ["jobs_held"]
    # Where the results cannot be read, nothing is said of freshness; for a moment that is no alert.
    monkeypatch.setenv("EPISODES_RESULTS_DSN", "postgresql://u@127.0.0.1:9/x")
    monkeypatch.setenv("EPISODES_ALLOWED_HOSTS", "127.0.0.1")
    assert "results" not in tick(system)
    assert open_keys(system) == ["jobs_held", "results_away"]
    system.query("queue", "UPDATE alerts.alerts SET first_seen_at = first_seen_at - interval '3 minutes'")
    assert "the database results cannot be read" in tick(system)


@dg.op(ins={"start": dg.In(dg.Nothing)}, config_schema={"fails": dg.Field(bool, default_value=False)})
def work(context: dg.OpExecutionContext) -> None:
    if context.op_config["fails"]:
        raise ValueError("ERROR: the word \0\ud800 of today: 4711")


@dg.op(out=dg.Out(dg.Nothing))
def prepare() -> None:
    pass


@dg.op
def decide() -> None:
    pass


@dg.job
def working() -> None:
    work(prepare())


@dg.job
def finishing() -> None:
    work()


@dg.job
def deciding() -> None:
    decide()


def run_job(instance: dg.DagsterInstance, job: dg.JobDefinition, **tags: str) -> None:
    assert job.execute_in_process(instance=instance, tags=_tags(tags)).success


def fail_job(instance: dg.DagsterInstance, **tags: str) -> None:
    fails = {"ops": {"work": {"config": {"fails": True}}}}
    working.execute_in_process(instance=instance, raise_on_error=False, run_config=fails, tags=_tags(tags))


def _tags(tags: dict[str, str]) -> dict[str, str]:
    return {f"dagster/{name}": value for name, value in tags.items()}


def days_of_failed_runs(instance: dg.DagsterInstance) -> list[list[dt.date]]:
    found, are_all = observed.failed_runs(instance, now())
    assert are_all
    return [list(run.days) for run in found]


def test_a_failed_runs_cause_is_a_class_and_its_work_is_done_by_a_later_run_of_it(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = shared.dagster
    monkeypatch.setattr(observed, "FAILED_LOOKED_AT", 3)
    for partition in ("2018-03-01", "2018-03-05", "2018-03-20"):
        fail_job(instance, partition=partition)
    found, are_all = observed.failed_runs(instance, now())
    assert are_all
    assert {run.cause for run in found} == {"ValueError"}
    # Later runs of its own day, and of a range in which the day is; others are of no matter.
    run_job(instance, working, partition="2018-03-01")
    start_and_end = {"asset_partition_range_start": "2018-03-03", "asset_partition_range_end": "2018-03-09"}
    run_job(instance, working, **start_and_end)
    run_job(instance, working, partition="2018-03-21")
    assert days_of_failed_runs(instance) == [[dt.date(2018, 3, 20)]]
    # Without days the work is the job. That more failed than are looked at is said.
    fail_job(instance)
    found, are_all = observed.failed_runs(instance, now())
    assert (len(found), are_all) == (2, False)
    assert "2018-03-20 failed: the word" in tick(shared)
    assert open_keys(shared) == ["runs_failed:ValueError"]
    assert "2018-03-20 failed: the word" in tick(shared)  # what is on record is found again
    instance.wipe()


def test_a_failed_runs_work_is_the_steps_that_it_has_not_done(shared: System) -> None:
    instance = shared.dagster
    for partition in ("2018-03-01", "2018-03-02"):
        fail_job(instance, partition=partition)
    # As `retry_held_jobs` does nothing of what `correct_day` is for.
    run_job(instance, deciding, partition="2018-03-01")
    assert days_of_failed_runs(instance) == [[dt.date(2018, 3, 2)], [dt.date(2018, 3, 1)]]
    # As a publication finishes what a run of the whole day has begun.
    run_job(instance, finishing, partition="2018-03-02")
    assert days_of_failed_runs(instance) == [[dt.date(2018, 3, 1)]]
    instance.wipe()


def test_failed_checks_by_their_newest_evaluation(shared: System) -> None:
    instance = shared.dagster
    key = dg.AssetCheckKey(dg.AssetKey("input_episodes"), "drop_size_is_usual")
    other = dg.AssetCheckKey(dg.AssetKey("published_results"), "yesterday_is_published")

    def evaluate(check: dg.AssetCheckKey, *, passed: bool) -> None:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=check.asset_key,
                check_name=check.name,
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN,
                description="half of what is usual",
            )
        )

    def found() -> Any:
        return observed.failed_checks(instance, [key, other])

    assert found() == []
    evaluate(other, passed=False)  # which the results say themselves
    evaluate(key, passed=False)
    (check,) = found()
    assert (check.asset, check.check, check.is_error) == ("input_episodes", "drop_size_is_usual", False)
    assert check.message == "half of what is usual"
    evaluate(key, passed=True)
    assert found() == []


def test_sensors_whose_ticks_fail(shared: System) -> None:
    instance = shared.dagster
    sensor = switch_on(instance, "fan_out")
    at = now().timestamp()
    add_ticks(instance, sensor, [TickStatus.SKIPPED, TickStatus.FAILURE, TickStatus.FAILURE], at)
    assert observed.failed_ticks(instance, now()) == [FailedTicks("fan_out", False, 2, "ValueError: no")]  # noqa: FBT003
    assert assess(Observed(failed_ticks=observed.failed_ticks(instance, now()))).alerts == {}
    add_ticks(instance, sensor, [TickStatus.FAILURE], at + 1)
    assert "fan_out fails at each tick" in tick(shared)
    add_ticks(instance, sensor, [TickStatus.STARTED], at + 2)  # one that is being evaluated says nothing
    assert "fan_out fails at each tick" in tick(shared)
    add_ticks(instance, sensor, [TickStatus.SKIPPED], at + 3)
    assert observed.failed_ticks(instance, now()) == []


def test_channels_that_are_not_whole_fail_the_tick_and_alerts_are_on_record(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = shared.dagster
    sensor, at = switch_on(instance, "report_progress"), now().timestamp()
    add_ticks(instance, sensor, [TickStatus.FAILURE] * 3, at)
    shared.query("queue", "TRUNCATE alerts.evaluations")
    with monkeypatch.context() as patch:
        patch.setenv("EPISODES_ALERT_EMAIL_TO", "ada@example.com")
        with pytest.raises(BadSetting, match="alerts by e-mail need EPISODES_ALERT_SMTP_URL"):
            tick(shared)
    assert open_keys(shared) == ["automation_fails:report_progress"]
    # Nobody was told, so the web server tells that nobody has looked.
    assert shared.query("queue", "SELECT FROM alerts.evaluations") == []
    assert "report_progress fails at each tick" in tick(shared)
    assert shared.query("queue", "SELECT evaluator FROM alerts.evaluations") == [("alert_people",)]
    add_ticks(instance, sensor, [TickStatus.SKIPPED], at + 1)
    tick(shared)
    assert open_keys(shared) == []


def test_only_the_orchestrators_role_sees_alerts(shared: System) -> None:
    for purpose in (Purpose.WORKER, Purpose.QUEUE_READER):
        with connect(shared.dsn(purpose), autocommit=True) as connection:
            (may,) = connection.execute("SELECT has_schema_privilege('alerts', 'USAGE')").fetchone() or (
                None,
            )
            assert may is False
