"""A system of which the metrics and alerts have something to tell, without a daemon or workers that run."""

import datetime as dt

import pytest
from dagster import DagsterRunStatus
from dagster._core.remote_origin import RemoteJobOrigin
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from episodes_assets.alerts.conditions import Alert, Assessment, Kind, Severity
from episodes_assets.alerts.lifecycle import ChannelName
from episodes_assets.outbox import records
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System, day
from episodes_assets_tests.support.ticks import REPOSITORY, add_ticks, switch_on


def fill(system: System, now: float) -> None:
    """A planned day, a published one, twenty workers, runs, a sensor that fails, an alert nobody was told of.

    Args:
        system: Where.
        now: The time, in Unix time.
    """
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    system.query(
        "queue",
        "INSERT INTO ledger.workers (worker, host, pid, release, started_at)"
        " SELECT 'w' || n, 'h', n, CASE WHEN n < 3 THEN '1.0' ELSE 'r' || n END, now()"
        " FROM generate_series(1, 20) AS n",
    )
    system.query(
        "results",
        "INSERT INTO published.days (day, jobs, rows, left_out, decision, checksum, plan_id, plan_checksum,"
        " code_version, algorithm_versions) VALUES ('2018-03-01', 1, 1, 0, '', 'c', 1, 'c', '1', '{}')",
    )
    instance = system.dagster
    instance.add_daemon_heartbeat(DaemonHeartbeat(now - 40, "SENSOR", "a daemon"))
    for status in (DagsterRunStatus.QUEUED, DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS):
        create_run_for_test(
            instance, job_name="a", status=status, remote_job_origin=RemoteJobOrigin(REPOSITORY, "a")
        )
    sensor = switch_on(instance, "fan_out")
    add_ticks(instance, sensor, [TickStatus.FAILURE], now - 7_200)
    add_ticks(instance, sensor, [TickStatus.SKIPPED, TickStatus.FAILURE, TickStatus.FAILURE], now)
    alert = Alert(Kind.JOBS_HELD, "", Severity.ERROR, "s", "", "h")
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        records.evaluate(
            queue,
            Assessment({alert.key: alert}, {Kind.JOBS_HELD}),
            [ChannelName.SLACK],
            records.read_clock(queue) - dt.timedelta(seconds=100),
            dt.timedelta(days=1),
            records.Evaluator.SENSOR,
        )


def configure_slack(patch: pytest.MonkeyPatch) -> None:
    """Configure the channel of the alert that `fill` opens: messages to others are not counted."""
    patch.setenv("EPISODES_ALLOWED_HOSTS", "127.0.0.1:443")
    patch.setenv("EPISODES_ALERT_SLACK_URL", "https://127.0.0.1/hook")


def finish_batch(system: System, position: int, ago: dt.timedelta = dt.timedelta(0)) -> None:
    """As a worker that has computed jobs of the planned day, one of an algorithm that is gone by now."""
    system.query(
        "queue",
        "INSERT INTO ledger.batches (plan_id, first_position, chunk, jobs, seconds, algorithm_ids,"
        " algorithm_jobs, algorithm_seconds, worker, finished_at)"
        " SELECT plan_id, %s, 0, 1, 0.3, '{0,77}', '{1,1}', '{0.2,0.1}', 'w', now() - %s FROM ledger.plans",
        [position, ago],
    )
