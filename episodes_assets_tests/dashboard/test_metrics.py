"""Metrics tell of the whole system, are read seldom, and say which source is away."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from episodes_assets.dashboard import metrics
from episodes_assets.dashboard.metrics import Sources, SystemCollector
from episodes_assets.dashboard.site import Metrics
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import Settings
from episodes_assets_tests.dashboard.served import Dashboard, metrics_of, serve_dashboard
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.monitored import configure_slack, fill, finish_batch

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
NOW = time.time()


@pytest.fixture(scope="module")
def dashboard(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A system in which a day is planned, two workers live, a sensor fails, and an alert is open."""
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("metrics") / "home", patch) as system,
        serve_dashboard(system) as served,
    ):
        fill(system, NOW)
        configure_slack(patch)
        yield served


def values_of(text: str) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(dashboard: Dashboard) -> Values:
    return values_of(Metrics(metrics_of(dashboard.system, dashboard.ui)).text().decode())


def value(values: Values, name: str, /, **labels: str) -> float:
    return values[name, frozenset(labels.items())]


def test_they_tell_of_the_whole_system(dashboard: Dashboard) -> None:
    values = scrape(dashboard)
    for source in ("queue", "dagster", "results", "lake", "late_viewings"):
        assert value(values, "episodes_source_up", source=source) == 1
    for state, jobs in {"waiting": 1, "running": 0, "succeeded": 0, "held": 0, "waived": 0}.items():
        assert value(values, "episodes_jobs", state=state) == jobs
    assert value(values, "episodes_open_days") == 1
    assert value(values, "episodes_stalled_days") == 0
    assert value(values, "episodes_backlog_jobs") == 0  # not handed to the fleet
    assert value(values, "episodes_workers_alive") == 20
    assert value(values, "episodes_messages", state="waiting") == 0
    assert value(values, "episodes_oldest_message_seconds") == 0
    ended = dt.datetime(2018, 3, 2, tzinfo=dt.UTC).timestamp()
    assert value(values, "episodes_last_published_day_timestamp_seconds") == ended
    assert value(values, "episodes_last_published_day_age_seconds") == pytest.approx(NOW - ended, abs=600)
    assert value(values, "episodes_runs_in_progress", status="QUEUED") == 1
    assert value(values, "episodes_runs_in_progress", status="STARTED") == 0
    assert value(values, "episodes_runs_ended", status="FAILURE") == 1
    assert 0 < value(values, "episodes_oldest_queued_run_seconds") < 600
    assert value(values, "episodes_failed_ticks", name="fan_out") == 2
    assert value(values, "episodes_daemon_heartbeat_age_seconds", daemon="SENSOR") == pytest.approx(
        time.time() - NOW + 40, abs=5
    )
    assert value(values, "episodes_lake_days", table="viewings") == 1
    assert value(values, "episodes_lake_bytes", table="viewings") > 0
    assert value(values, "episodes_late_viewings_days") == 0
    assert value(values, "episodes_alerts_open", kind="jobs_held", severity="error") == 1
    assert value(values, "episodes_alerts_open", kind="daemon_silent", severity="error") == 0
    assert value(values, "episodes_alerts_undelivered", channel="slack") == 1
    assert 100 <= value(values, "episodes_alerts_undelivered_seconds") < 700
    assert 100 <= value(values, "episodes_alerts_evaluated_seconds", by="alert_people") < 700


def test_of_many_releases_some_are_named(dashboard: Dashboard) -> None:
    values = scrape(dashboard)
    named = {dict(labels)["release"]: count for (name, labels), count in values.items()
             if name == "episodes_workers"}  # fmt: skip
    assert len(named) == 11
    assert named["1.0"] == 2
    assert named["other"] == 20 - 2 - 9


def test_a_batch_is_counted_once_from_when_the_process_began(dashboard: Dashboard) -> None:
    system = dashboard.system
    collector = metrics_of(dashboard.system, dashboard.ui)
    finish_batch(system, 0, dt.timedelta(minutes=1))
    metrics_read = Metrics(collector)
    counts = []
    for position in (1, 2):
        finish_batch(system, position)
        make_stale(collector)
        values = values_of(metrics_read.text().decode())
        counts.append(value(values, "episodes_batch_seconds_count", algorithm="reach"))
    make_stale(collector)
    values = values_of(metrics_read.text().decode())
    counts.append(value(values, "episodes_batch_seconds_count", algorithm="reach"))
    assert counts == [1, 2, 2]
    assert value(values, "episodes_batch_seconds_sum", algorithm="reach") == pytest.approx(0.4)
    assert value(values, "episodes_batch_seconds_count", algorithm="other") == 2
    assert value(values, "episodes_batch_seconds_bucket", algorithm="reach", le="0.25") == 2
    assert value(values, "episodes_batch_seconds_bucket", algorithm="reach", le="0.1") == 0
    # Rows are workers' to write; one that nobody can have measured keeps nothing else from being shown.
    for bad in (
        "algorithm_seconds = '{0.2}'",
        "algorithm_seconds = '{NULL,0.1}'",
        "algorithm_seconds = '{NaN,0.1}'",
        "algorithm_seconds = '{-1,0.1}', algorithm_ids = '{NULL,77}'",
        "algorithm_seconds = '{{0.2,0.1}}', algorithm_ids = '{{0,77}}'",
        "algorithm_seconds = '{0.2,0.1}', algorithm_ids = '{0,77}', finished_at = now() + interval '1 year'",
    ):
        system.query("queue", f"UPDATE ledger.batches SET {bad} WHERE first_position = 2")
        make_stale(collector)
        values = values_of(metrics_read.text().decode())
        assert value(values, "episodes_source_up", source="queue") == 1, bad
        assert value(values, "episodes_batch_seconds_sum", algorithm="reach") == pytest.approx(0.4), bad


def test_what_they_are_read_with_is_said_to_be_the_web_servers(dashboard: Dashboard) -> None:
    """Somebody who sets it for the other processes alone would see other figures here."""
    read: set[str] = set()

    class Noting(Settings):
        def __getattribute__(self, name: str) -> object:
            if name in Settings.model_fields:
                read.add(name)
            return super().__getattribute__(name)

    settings = Noting.model_construct(**dict(dashboard.system.settings))
    read.clear()
    sources = Sources(
        queue_dsn=dashboard.system.dsn(Purpose.QUEUE),
        results_dsn=dashboard.system.dsn(Purpose.RESULTS_READER),
        lake=None,
        instance=dashboard.ui.workspace.instance,
        settings=settings,
    )
    values = values_of(Metrics(SystemCollector(sources)).text().decode())
    assert value(values, "episodes_stalled_days") == 0
    assert {"heartbeat_seconds", "stall_minutes"} <= read
    for name in read:
        said = Settings.model_fields[name].json_schema_extra
        assert isinstance(said, dict)
        used_by = str(said["used_by"])
        assert "web server" in used_by or used_by == "all", (name, used_by)


def make_stale(collector: SystemCollector) -> None:
    """As after some seconds."""
    for source in collector._sources:
        source._began -= 1_000


def test_many_scrapes_ask_the_sources_once(dashboard: Dashboard) -> None:
    reads = []

    def read() -> list[Metric]:
        reads.append(1)
        return []

    collector = metrics_of(dashboard.system, dashboard.ui)
    for source in collector._sources:
        source._read = read
    for _ in range(20):
        list(collector.collect())
    assert len(reads) == len(collector._sources)
    make_stale(collector)
    list(collector.collect())
    assert len(reads) == 2 * len(collector._sources)


def test_a_source_that_is_away_has_no_values_and_the_others_have(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = metrics_of(dashboard.system, dashboard.ui)
    asked = Metrics(collector)
    asked.text()
    broken = "postgresql://u:a-password@127.0.0.1:9/x"
    queue, dagster, *_ = collector._sources
    monkeypatch.setattr(queue._read.__self__, "_dsn", broken)  # type: ignore[attr-defined]
    make_stale(collector)
    values = values_of(asked.text().decode())
    assert value(values, "episodes_source_up", source="queue") == 0
    assert value(values, "episodes_source_up", source="dagster") == 1
    assert not any(name == "episodes_jobs" for name, _ in values)
    assert value(values, "episodes_runs_ended", status="SUCCESS") == 2
    assert "a-password" not in caplog.text
    # One that hangs keeps a scrape waiting for a bounded time, and is not asked again meanwhile.
    monkeypatch.setattr(metrics, "LONGEST_WAIT_SECONDS", 0.2)
    began = []

    def hang() -> list[Metric]:
        began.append(1)
        time.sleep(5)
        return []

    dagster._read = hang
    for _ in range(3):
        make_stale(collector)
        at = time.monotonic()
        values = values_of(asked.text().decode())
        assert time.monotonic() - at < 4
        assert value(values, "episodes_source_up", source="dagster") == 0
    assert began == [1]
