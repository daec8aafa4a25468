"""A code location is drained: its runs wait in the queue, and what was on is on again afterwards."""

import datetime as dt
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.utils import make_new_run_id
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.tags import TagConcurrencyLimitsCounter
from typer.testing import CliRunner

from episodes_assets import signals
from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.cli.app import app
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.dashboard.dagster_ui import open_dagster_ui
from episodes_assets.dashboard.health import DaemonSilent, SensorTicks
from episodes_assets.defs import draining
from episodes_assets.defs.draining import DrainableRunCoordinator
from episodes_assets.errors import CannotDrain, DrainEnded, DrainTimedOut, UnknownCodeLocation
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process
OURS, OTHERS = "episodes_assets", "somebody_else's"


def repository(location: str) -> RemoteRepositoryOrigin:
    return RemoteRepositoryOrigin(
        GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name=location), "__repository__"
    )


def add_run(instance: dg.DagsterInstance, location: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    run = dg.DagsterRun(
        job_name="publish_day",
        run_id=make_new_run_id(),
        status=status,
        tags={"dagster/partition": "2018-03-01"},
        remote_job_origin=RemoteJobOrigin(repository(location), "publish_day"),
    )
    return instance.run_storage.add_run(run)


def add_sensor(
    instance: dg.DagsterInstance, location: str, name: str, status: InstigatorStatus
) -> InstigatorState:
    origin = RemoteInstigatorOrigin(repository(location), name)
    state = InstigatorState(origin, InstigatorType.SENSOR, status, SensorInstigatorData())
    return instance.add_instigator_state(state)


def status_of(instance: dg.DagsterInstance) -> dict[str, InstigatorStatus]:
    return {each.instigator_name: each.status for each in instance.all_instigator_state()}


def end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name)
    instance.report_dagster_event(event, run.run_id)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def is_held_back(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the daemon would leave a queued run in the queue, as it decides it."""
    config = instance.get_concurrency_config().run_queue_config
    assert config is not None
    return TagConcurrencyLimitsCounter(list(config.tag_concurrency_limits or ()), []).is_blocked(run)


def test_runs_of_a_drained_code_location_wait_and_no_others(system: System) -> None:
    instance = system.dagster
    assert isinstance(instance.run_coordinator, DrainableRunCoordinator)
    config = instance.get_concurrency_config().run_queue_config
    assert config is not None
    assert config.max_concurrent_runs == 4
    ours = add_run(instance, OURS, dg.DagsterRunStatus.QUEUED)
    others = add_run(instance, OTHERS, dg.DagsterRunStatus.QUEUED)
    assert ours.tags[REPOSITORY_LABEL_TAG] == f"__repository__@{OURS}"
    assert not is_held_back(instance, ours)
    drain = draining.begin(instance, OURS, now())
    assert is_held_back(instance, ours)
    assert not is_held_back(instance, others)
    assert draining.queued(instance, OURS) == 1
    # Twice is once.
    assert draining.begin(instance, OURS, now()) == drain
    assert draining.read_drains(instance) == {OURS: drain}
    assert (drain.location, drain.by) == (OURS, operating_system_user())
    assert draining.resume(instance, OURS) == drain
    assert not is_held_back(instance, ours)
    assert draining.resume(instance, OURS) is None


def test_the_daemon_says_that_it_holds_the_queue(system: System) -> None:
    """Which others who read the configuration, such as the web server, do not."""
    instance = system.dagster
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, QueuedRunCoordinator)
    with dg.DagsterInstance.get() as other:  # that of the command, which is a process of its own
        drain = draining.begin(other, OURS, now())
    assert not draining.is_held(instance, drain)
    instance.get_concurrency_config()
    assert not draining.is_held(instance, drain)
    assert not coordinator.dequeue_use_threads  # as the daemon does before it launches what it has chosen
    assert draining.is_held(instance, drain)
    # A round that had chosen before another drain began says nothing of that one.
    draining.resume(instance, OURS)
    with dg.DagsterInstance.get() as other:
        again = draining.begin(other, OURS, now())
    assert not coordinator.dequeue_use_threads
    assert not draining.is_held(instance, again)


def test_schedules_and_sensors_are_as_they_were(system: System) -> None:
    instance = system.dagster
    before = {
        "declared": InstigatorStatus.DECLARED_IN_CODE,
        "on": InstigatorStatus.RUNNING,
        "off": InstigatorStatus.STOPPED,
    }
    for name, status in before.items():
        add_sensor(instance, OURS, name, status)
    add_sensor(instance, OTHERS, "other", InstigatorStatus.RUNNING)
    drain = draining.begin(instance, OURS, now())
    draining.switch_off_automation(instance, drain)
    draining.switch_off_automation(instance, drain)  # a second time changes nothing
    off = dict.fromkeys(before, InstigatorStatus.STOPPED)
    assert status_of(instance) == {**off, "other": InstigatorStatus.RUNNING}
    draining.resume(instance, OURS)
    assert status_of(instance) == {**before, "other": InstigatorStatus.RUNNING}


def test_a_sensor_begins_anew_when_it_is_switched_on_again(system: System) -> None:
    """It was not evaluated meanwhile, which is no reason to say that nobody evaluates it."""
    instance = system.dagster
    long_ago = SensorInstigatorData(cursor="kept", last_sensor_start_timestamp=time.time() - 3600)
    instance.update_instigator_state(
        add_sensor(instance, OURS, "on", InstigatorStatus.RUNNING).with_data(long_ago)
    )
    draining.switch_off_automation(instance, draining.begin(instance, OURS, now()))
    resumed_at = time.time()
    draining.resume(instance, OURS)
    (state,) = instance.all_instigator_state()
    assert isinstance(state.instigator_data, SensorInstigatorData)
    assert state.instigator_data.cursor == "kept"
    assert (state.instigator_data.last_sensor_start_timestamp or 0) >= resumed_at


@pytest.mark.slow
def test_the_daemon_is_not_called_silent_after_a_drain(system: System) -> None:
    with open_dagster_ui(None) as ui:
        instance = ui.workspace.instance
        ticks = SensorTicks(ui.workspace)
        ticks._since -= 1_000
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "a daemon", []))
        began = SensorInstigatorData(last_sensor_start_timestamp=time.time() - 1_000)
        for _, state in [*ticks._running()]:
            instance.add_instigator_state(state.with_data(began))
        with pytest.raises(DaemonSilent):
            ticks.require_recent()
        (location,) = {each.repository_selector.location_name for each in instance.all_instigator_state()}
        draining.switch_off_automation(instance, draining.begin(instance, location, now()))
        ticks.require_recent()  # all are switched off
        draining.resume(instance, location)
        ticks.require_recent()


def test_a_drain_that_fails_leaves_that_of_somebody_else(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = system.dagster
    add_sensor(instance, OURS, "on", InstigatorStatus.RUNNING)
    output("drain")
    before = draining.read_drains(instance)
    assert before[OURS].switched_off
    add_run(instance, OURS, dg.DagsterRunStatus.STARTED)
    refusal("drain", "--timeout", "0")
    limit_elsewhere(tmp_path, monkeypatch)
    assert isinstance(refusal("drain"), CannotDrain)
    assert draining.read_drains(instance) == before
    assert status_of(instance) == {"on": InstigatorStatus.STOPPED}


def test_a_drain_that_somebody_else_ends_is_not_called_safe(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever moment: while it waits, or before the last word."""
    instance = system.dagster
    real = draining.queued

    def resumed_meanwhile(*_: object) -> list[str]:
        draining.resume(instance, OURS)
        return []

    def resumed_at_last(*arguments: Any) -> int:
        draining.resume(instance, OURS)
        draining.begin(instance, OURS, now())
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(draining, "running", resumed_meanwhile)
        assert "was ended by somebody else" in str(refusal("drain"))
    assert draining.read_drains(instance) == {}
    with monkeypatch.context() as patch:
        patch.setattr(draining, "queued", resumed_at_last)
        assert isinstance(refusal("drain"), DrainEnded)
    assert {*draining.read_drains(instance)} == {OURS}  # that one is not undone


@pytest.mark.long
def test_a_code_location_that_nobody_knows_is_not_called_safe(system: System) -> None:
    for options in ((), ("--resume",)):
        refused = refusal("drain", "--location", "episode_assets", *options)
        assert isinstance(refused, UnknownCodeLocation)
        assert refused.hint.endswith(f"--location: {OURS}")
    add_run(system.dagster, OTHERS, dg.DagsterRunStatus.SUCCESS)
    assert refusal("drain").hint.endswith(f"--location: {OTHERS}")
    add_sensor(system.dagster, OURS, "on", InstigatorStatus.RUNNING)
    assert refusal("drain", "--location", "x").hint.endswith(f"{OURS}, {OTHERS}")
    output("drain")
    output("drain", "--location", OTHERS)
    assert {*draining.read_drains(system.dagster)} == {OURS, OTHERS}


@pytest.mark.long
def test_a_drain_waits_for_runs_and_gives_up_in_time(system: System) -> None:
    instance = system.dagster
    add_sensor(instance, OURS, "on", InstigatorStatus.RUNNING)
    add_run(instance, OTHERS, dg.DagsterRunStatus.STARTED)
    run = add_run(instance, OURS, dg.DagsterRunStatus.STARTED)
    refused = refusal("drain", "--timeout", "0")
    assert isinstance(refused, DrainTimedOut)
    assert f"run {run.run_id[:8]} publish_day of 2018-03-01: between two steps" in refused.what
    # All is as before.
    assert draining.read_drains(instance) == {}
    assert status_of(instance) == {"on": InstigatorStatus.RUNNING}
    end(instance, run)
    assert "It is safe to replace episodes_assets: none of its runs" in output("drain")[0]
    assert status_of(instance) == {"on": InstigatorStatus.STOPPED}
    assert "1 schedules and sensors are on as before" in output("drain", "--resume")[0]
    assert status_of(instance) == {"on": InstigatorStatus.RUNNING}
    assert "was not drained" in output("drain", "--resume")[0]


def test_a_silent_run_is_waited_for(system: System) -> None:
    """It may wait for a lock; whether its process was killed, nobody can tell from here."""
    instance = system.dagster
    add_run(instance, OURS, dg.DagsterRunStatus.STARTED)
    (found,) = draining.running(instance, OURS, now())
    assert found.silent_since is None
    (found,) = draining.running(instance, OURS, now() + dt.timedelta(minutes=20))
    assert found.silent_since is not None
    assert now() - found.silent_since < dt.timedelta(minutes=1)
    assert f"(has said nothing since {found.silent_since:%Y-%m-%d %H:%M} UTC; end it in the UI" in str(found)


@pytest.mark.long
def test_a_daemon_that_does_not_hold_the_queue_is_not_taken_for_one_that_does(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = system.dagster
    heartbeat = DaemonHeartbeat(time.time(), "QUEUED_RUN_COORDINATOR", "a", [])
    instance.add_daemon_heartbeat(heartbeat)
    assert isinstance(refusal("drain", "--timeout", "0"), DrainTimedOut)
    monkeypatch.setattr("episodes_assets.cli.drain.HOLD_SECONDS", 0.0)
    assert isinstance(refusal("drain"), CannotDrain)
    # One that has ended launches nothing.
    instance.add_daemon_heartbeat(heartbeat._replace(timestamp=time.time() - 100))
    output("drain")
    output("drain", "--resume")


def test_a_queue_of_an_older_configuration_is_not_drained(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(os.environ["DAGSTER_HOME"], "dagster.yaml").read_text()
    kept, _, rest = text.partition("run_coordinator:")
    (tmp_path / "dagster.yaml").write_text(kept + rest[rest.index("\n\n") :])
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    refused = refusal("drain")
    assert isinstance(refused, CannotDrain)
    assert "dagster.yaml to DAGSTER_HOME" in str(refused)


def limit_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set limits that are taken instead of the coordinator's own, so that the queue cannot be held."""
    text = Path(os.environ["DAGSTER_HOME"], "dagster.yaml").read_text()
    limited = text.replace("  runs:\n", "  runs:\n    tag_concurrency_limits: [{key: a, limit: 1}]\n")
    (tmp_path / "dagster.yaml").write_text(limited)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


def test_a_queue_whose_limits_are_set_elsewhere_is_not_drained(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_elsewhere(tmp_path, monkeypatch)
    assert "run_coordinator.config.tag_concurrency_limits instead" in str(refusal("drain"))
    assert draining.read_drains(system.dagster) == {}


def interrupted(system: System, arguments: Sequence[str], number: signal.Signals) -> tuple[int, str]:
    """The exit code of a command that is interrupted while it waits, and what it said last."""
    with subprocess.Popen(
        episodes_argv(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: draining.read_drains(system.dagster) != {})
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        return process.returncode, said


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),  # answered as the next one
        (signal.SIGHUP, 129),
    ],
)
def test_an_interrupted_drain_is_undone(system: System, number: signal.Signals, code: int) -> None:
    add_run(system.dagster, OURS, dg.DagsterRunStatus.STARTED)
    ended, said = interrupted(system, ["drain"], number)
    assert ended == code
    assert "Runs of episodes_assets are launched as before." in said
    assert "Traceback" not in said
    assert draining.read_drains(system.dagster) == {}


def test_a_drain_that_is_interrupted_again_while_it_is_undone_is_undone_all_the_same(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = system.dagster
    add_sensor(instance, OURS, "on", InstigatorStatus.RUNNING)
    switched_on = draining._switched_on
    monkeypatch.setattr(signals, "HELD_BACK_SECONDS", 1000.0)

    def wait(*_: object) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return ["a sensor"]

    def interrupted_again(*arguments: Any) -> InstigatorState:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        return switched_on(*arguments)

    monkeypatch.setattr(draining, "ticks_in_progress", wait)
    monkeypatch.setattr(draining, "_switched_on", interrupted_again)
    result = CliRunner().invoke(app, ["drain"])
    assert result.exit_code == 130
    assert draining.read_drains(instance) == {}
    assert status_of(instance) == {"on": InstigatorStatus.RUNNING}


def test_drains_of_two_code_locations_at_once_do_not_undo_each_other(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins and ends between the first one's reading and its writing."""
    instance = system.dagster
    add_sensor(instance, OTHERS, "on", InstigatorStatus.RUNNING)
    write = draining._write_drains

    with ThreadPoolExecutor(1) as pool:
        others: list[Future[draining.Drain]] = []

        def write_late(given: dg.DagsterInstance, drains: dict[str, draining.Drain]) -> None:
            if threading.current_thread() is threading.main_thread():
                others.append(pool.submit(draining.begin, instance, OTHERS, now()))
                # It has either begun, or waits for this one.
                eventually(lambda: others[0].done() or is_waiting(system))
            write(given, drains)

        monkeypatch.setattr(draining, "_write_drains", write_late)
        draining.begin(instance, OURS, now())
        others[0].result()
    assert {*draining.read_drains(instance)} == {OURS, OTHERS}


def is_waiting(system: System) -> bool:
    """Whether a session of Dagster's database waits for a lock."""
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(system.query("dagster", waiting))


def test_what_a_drain_switches_off_is_on_again_if_it_is_ended_meanwhile(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = system.dagster
    add_sensor(instance, OURS, "on", InstigatorStatus.RUNNING)
    drain = draining.begin(instance, OURS, now())
    write = draining._write_drains

    with ThreadPoolExecutor(1) as pool:
        resumed: list[Future[draining.Drain | None]] = []

        def write_early(given: dg.DagsterInstance, drains: dict[str, draining.Drain]) -> None:
            write(given, drains)
            if threading.current_thread() is threading.main_thread():
                resumed.append(pool.submit(draining.resume, instance, OURS))
                eventually(lambda: resumed[0].done() or is_waiting(system))

        monkeypatch.setattr(draining, "_write_drains", write_early)
        draining.switch_off_automation(instance, drain)
        assert resumed[0].result() is not None
    assert status_of(instance) == {"on": InstigatorStatus.RUNNING}
    assert draining.read_drains(instance) == {}


def test_who_keeps_drains_from_being_changed_is_told(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "_LOCK_SECONDS", 1)
    output("drain", "--resume")
    with psycopg.connect(system.dsn(Purpose.DAGSTER)) as other:
        other.execute("SELECT FROM kvs FOR UPDATE")
        refused = refusal("drain", "--resume")
    assert isinstance(refused, CannotDrain)
    assert "another `episodes drain`" in refused.what
