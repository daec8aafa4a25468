"""The web server tells of a silent daemon by itself, and pings the dead man's switch while all is watched."""

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster._daemon.types import DaemonHeartbeat

from episodes_assets.dashboard import watch
from episodes_assets.dashboard.dagster_ui import DagsterUi, open_dagster_ui
from episodes_assets.dashboard.watch import DaemonWatch, WatchSettings
from episodes_assets.defs.draining import Drain
from episodes_assets.errors import EpisodesError
from episodes_assets.outbox import records
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.system import System


@pytest.fixture(scope="module")
def system(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("watch") / "home", patch) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def ui(system: System) -> Iterator[DagsterUi]:
    empty = system.home / "no-code.yaml"
    empty.write_text("load_from: []\n", encoding="utf-8")
    with open_dagster_ui(empty) as opened:
        yield opened


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(watch, "ping", lambda url, _timeout: found.append(url))
    return found


@pytest.fixture
def watching(system: System, ui: DagsterUi) -> DaemonWatch:
    system.query("queue", "TRUNCATE alerts.alerts, alerts.messages, alerts.evaluations")
    sensor_looked(system, dt.timedelta())
    settings = WatchSettings.of(system.settings, system.dsn(Purpose.QUEUE))
    made = DaemonWatch(ui.workspace, replace(settings, dead_man_url="http://127.0.0.1/alive"))
    made._began -= 10_000
    return made


def heartbeats(ui: DagsterUi, **ages: float) -> None:
    ui.workspace.instance.wipe_daemon_heartbeats()
    for name, age in ages.items():
        ui.workspace.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, name, "a daemon"))


def sensor_looked(system: System, ago: dt.timedelta) -> None:
    system.query(
        "queue",
        "INSERT INTO alerts.evaluations VALUES (%s, now() - %s)"
        " ON CONFLICT (evaluator) DO UPDATE SET evaluated_at = excluded.evaluated_at",
        [records.Evaluator.SENSOR, ago],
    )


def open_alerts(system: System) -> list[Any]:
    return system.query(
        "queue", "SELECT key, detail FROM alerts.alerts WHERE resolved_at IS NULL AND opened_at IS NOT NULL"
    )


def test_a_daemon_that_falls_silent_and_comes_back(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    heartbeats(ui)
    watching.look()  # none has ever reported to this database
    assert (open_alerts(system), len(pings)) == ([], 1)
    heartbeats(ui, SENSOR=100, SCHEDULER=20)  # a slow tick keeps one of its threads
    watching.look()
    assert open_alerts(system) == []
    heartbeats(ui, SENSOR=100, SCHEDULER=80)
    watching._pinged = None
    watching.look()
    watching.look()
    ((key, detail),) = open_alerts(system)
    assert key == "daemon_silent"
    assert detail.startswith("it has sent no heartbeat for 8")
    assert len(pings) == 1
    heartbeats(ui, SENSOR=400, SCHEDULER=20)
    watching.look()
    ((_, detail),) = open_alerts(system)
    assert detail == "its threads SENSOR have sent no heartbeat for 300 s"
    heartbeats(ui, SENSOR=2, SCHEDULER=20)
    watching.look()
    assert (open_alerts(system), len(pings)) == ([], 2)
    watching.look()
    assert len(pings) == 2  # once a minute


def test_a_daemon_that_was_silent_before_the_web_server_began_has_time_to_start(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    heartbeats(ui, SENSOR=10_000)
    watching._began = time.time() - 30
    watching.look()
    assert (open_alerts(system), pings) == ([], [])
    watching._began = time.time() - 80
    watching.look()
    assert [key for key, _ in open_alerts(system)] == ["daemon_silent"]
    # A web server that begins now cannot tell, so it does not say that all is well.
    watching._began = time.time()
    watching.look()
    heartbeats(ui, SENSOR=400, SCHEDULER=2)
    watching.look()
    assert [key for key, _ in open_alerts(system)] == ["daemon_silent"]
    heartbeats(ui, SENSOR=2, SCHEDULER=2)
    watching.look()
    assert (open_alerts(system), len(pings)) == ([], 1)


def test_a_thread_that_is_not_asked_for_any_more_hangs_nowhere(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    heartbeats(ui, SENSOR=2, EVENT_LOG_CONSUMER=10_000)
    watching.look()
    assert (open_alerts(system), len(pings)) == ([], 1)


def test_of_two_web_servers_one_watches(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    other = DaemonWatch(ui.workspace, replace(watching._settings, daemon_silent_seconds=10_000))
    other._began -= 100_000
    heartbeats(ui, SENSOR=100)
    watching.look()
    other.look()  # it would say that all is well
    assert ([key for key, _ in open_alerts(system)], pings) == (["daemon_silent"], [])
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        assert set(records.read_evaluations(queue)) == {
            records.Evaluator.SENSOR,
            records.Evaluator.WEB_SERVER,
        }
    # The first hangs: the second takes over when its lease has ended.
    system.query(
        "queue", "UPDATE alerts.evaluations SET evaluated_at = evaluated_at - %s", [watch.WATCH_LEASE]
    )
    other.look()
    assert (open_alerts(system), len(pings)) == ([], 1)
    # One that is stopped in order lets another one watch at once.
    other._give_up()
    watching.look()
    assert [key for key, _ in open_alerts(system)] == ["daemon_silent"]


def test_a_web_server_that_is_killed_is_succeeded_at_once(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    """Its sessions end with it, whatever has ended it."""
    other = DaemonWatch(ui.workspace, watching._settings)
    heartbeats(ui)
    watching.look()
    other.look()
    assert len(pings) == 1
    end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = %s"
    assert system.query("queue", end, [f"watched by {watching._holder}"]) == [(True,)]
    other.look()
    assert len(pings) == 2
    # It was the network alone: it has a session again, and waits.
    watching._pinged = None
    watching.look()
    assert len(pings) == 2
    other._give_up()
    watching.look()
    assert len(pings) == 3


def test_a_drain_is_named_where_the_sensor_rests_for_it(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeats(ui, SENSOR=2)
    sensor_looked(system, dt.timedelta(minutes=11))
    drain = Drain("episodes_assets", "t", "ada", "2018-03-01T12:00", {})
    monkeypatch.setattr(watch, "read_drains", lambda _: {"episodes_assets": drain})
    watching.look()
    rows = system.query("queue", "SELECT key, summary, hint FROM alerts.alerts")
    assert rows == [
        (
            "alerts_not_evaluated",
            "alerts are not looked for: the code location episodes_assets is drained since 2018-03-01T12:00",
            "end the drain by `episodes drain --resume` when the code location is replaced",
        )
    ]
    assert len(pings) == 1


def test_a_sensor_that_looks_no_more(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    heartbeats(ui, SENSOR=2)
    sensor_looked(system, dt.timedelta(minutes=11))
    watching.look()
    assert [key for key, _ in open_alerts(system)] == ["alerts_not_evaluated"]
    assert pings == []
    # Which of the two is at fault is known: the daemon's silence is told of alone.
    heartbeats(ui, SENSOR=200)
    watching.look()
    assert sorted(key for key, _ in open_alerts(system)) == ["alerts_not_evaluated", "daemon_silent"]
    system.query("queue", "UPDATE alerts.evaluations SET evaluated_at = now()")
    heartbeats(ui, SENSOR=2)
    watching.look()
    assert open_alerts(system) == []


def test_a_sensor_that_has_never_looked(
    system: System, ui: DagsterUi, watching: DaemonWatch, pings: list[str]
) -> None:
    """Its code location never loads, or its settings are refused at each tick."""
    system.query("queue", "TRUNCATE alerts.evaluations")
    heartbeats(ui)
    watching.look()  # where no daemon has ever reported, none is expected
    assert (open_alerts(system), len(pings)) == ([], 1)
    heartbeats(ui, SENSOR=2)
    watching._pinged = None
    watching._began = time.time() - 30
    watching.look()  # it may look any moment
    assert (open_alerts(system), len(pings)) == ([], 1)
    watching._began -= watch.NOT_EVALUATED_SECONDS
    watching.look()
    ((key, detail),) = open_alerts(system)
    assert (key, len(pings)) == ("alerts_not_evaluated", 1)
    assert detail.startswith("not once, and this web server began 6")
    sensor_looked(system, dt.timedelta())
    watching.look()
    assert (open_alerts(system), len(pings)) == ([], 2)


def test_a_database_of_dagsters_that_is_away(
    system: System, watching: DaemonWatch, pings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(watch, "heartbeat_ages", fail)
    watching.look()
    assert open_alerts(system) == []  # it may be restarted
    system.query("queue", "UPDATE alerts.alerts SET first_seen_at = first_seen_at - interval '2 minutes'")
    watching.look()
    assert open_alerts(system) == [("dagster_away", "OSError: no answer")]
    assert pings == []


def test_where_alerts_cannot_be_recorded_the_dead_mans_url_is_not_asked(
    ui: DagsterUi, watching: DaemonWatch, pings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(
        watching._settings, queue_dsn="postgresql://u:a-password@127.0.0.1:9/x", look_seconds=0.01
    )
    away = DaemonWatch(ui.workspace, settings)
    with pytest.raises(EpisodesError):
        away.look()
    with away.running():
        deadline = time.monotonic() + 20
        while "the daemon cannot be watched" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert pings == []
    assert "a-password" not in caplog.text
