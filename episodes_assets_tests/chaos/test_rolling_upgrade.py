"""A day is worked while one process after the other is replaced by one of a newer release."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from episodes_assets.cli.supervisor import episodes_argv, program, worker_environment
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import assert_same, fingerprint, forget_day
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.support.dagster_processes import (
    Logged,
    code_argv,
    daemon_argv,
    is_healthy,
    start_logged,
    webserver_argv,
    write_workspace,
)
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.releases import Release, add_migrations, copy_release
from episodes_assets_tests.support.system import System, day

DAY = day(1)
# In any log: a process that refuses to go on, or has lost something, or meets what it does not know.
COMPLAINTS = ("upgrade this process", "this release needs", "Traceback", "lost the queue", "\nerror: ")


class Upgrade:
    """The processes of two releases of one system."""

    def __init__(self, system: System, logs: Path) -> None:
        self._system = system
        self._logs = logs
        self.code_port, self.web_port = free_port(), free_port()
        self.workspace = write_workspace(system, self.code_port)
        self.started: list[Logged] = []

    def start(self, what: str, release: Release, ready: str = "") -> Logged:
        """Start a process of a release; wait until it says that it is ready."""
        argv = {
            "code": code_argv(self.code_port),
            "daemon": daemon_argv(self.workspace),
            "web": webserver_argv(self.web_port, self.workspace),
            "worker": episodes_argv("worker"),
        }[what]
        environment = dict(release.environment)
        if what == "worker":
            environment |= worker_environment(self._system.settings, self._system.dsns)
        log = self._logs / f"{len(self.started)}-{what}-{release.version}.log"
        process = start_logged(what, log, argv, environment)
        self.started.append(process)
        if ready:
            process.wait_for(ready)
        return process

    def command(self, release: Release, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of a release, to its end."""
        return subprocess.run(
            episodes_argv(*arguments),
            env=dict(release.environment),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def launch(self, release: Release, job: str) -> None:
        """Launch a job as people do: it waits in the queue until the daemon has it begin."""
        argv = [*program("dagster"), "job", "launch", "--job", job, "--workspace", str(self.workspace)]
        done = subprocess.run(
            [*argv, "--location", "episodes_assets"],
            env=dict(release.environment),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        """End all that is left."""
        for each in reversed(self.started):
            if each.process.poll() is None:
                each.stop()


def statuses(system: System, job: str) -> list[str]:
    of_job = "SELECT status FROM dagster.runs WHERE pipeline_name = %s ORDER BY id"
    return [status for (status,) in system.query("dagster", of_job, [job])]


def finished(system: System) -> dict[int, int]:
    """Jobs that each worker has finished, by process id."""
    return dict(system.query("queue", "SELECT pid, finished FROM ledger.workers"))


def outcomes(system: System) -> int:
    return int(system.query("queue", "SELECT count(*) FROM ledger.outcomes")[0][0])


def published_bytes(system: System) -> bytes:
    """The published rows and checksums, without the columns that the newer release adds."""
    return system.published().to_csv().encode()


def goes_on(system: System) -> None:
    """Insist that jobs are being finished."""
    before = outcomes(system)
    eventually(lambda: outcomes(system) > before, 120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_day_is_worked_while_all_processes_are_replaced(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chaos: Chaos
) -> None:
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "4")
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["queue"])
    hurry = tmp_path / "hurry"
    old = copy_release(tmp_path / "old", "0.1.0", hurry=hurry, slow_seconds=4)
    new = copy_release(tmp_path / "new", "0.2.0", hurry=hurry, slow_seconds=4)
    versions = add_migrations(new)
    system.generate(DAY, DAY, episodes=1_000)
    with system.workers(2):
        assert system.materialize(DAY).success
    calm, calm_bytes = fingerprint(system), published_bytes(system)
    forget_day(system, DAY)
    system.query("queue", "DELETE FROM ledger.workers")
    logs = tmp_path / "logs"
    logs.mkdir()
    upgrade = Upgrade(system, logs)
    attack = "databases, workers, code location, daemon and web server replaced while a day is worked"
    try:
        with chaos.attack(Promise.UPGRADE, attack):
            _upgrade(system, upgrade, old, new, hurry)
            assert published_bytes(system) == calm_bytes
            assert_same(fingerprint(system), calm)
            assert_nothing_was_refused(system, upgrade)
            assert_finished(system, upgrade, old, new, versions)
    except BaseException as error:
        for each in upgrade.started:
            error.add_note(f"--- {each.log.name}\n{each.output[-3_000:]}")
        raise
    finally:
        upgrade.stop()


def _upgrade(system: System, upgrade: Upgrade, old: Release, new: Release, hurry: Path) -> None:
    code = upgrade.start("code", old, "Started Dagster code server")
    daemon = upgrade.start("daemon", old)
    web = upgrade.start("web", old, "Serving")
    workers = [upgrade.start("worker", old, "is ready") for _ in range(2)]
    eventually(lambda: is_healthy(upgrade.web_port), 120)
    system.plan(DAY)  # the sensor of the code location hands it out
    eventually(lambda: outcomes(system) > 0, 120)

    # The databases.
    done = upgrade.command(new, "db", "init")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "queue: migrated from" in done.stdout
    at_upgrade = finished(system)
    eventually(
        lambda: all(finished(system)[each.process.pid] > at_upgrade[each.process.pid] for each in workers),
        120,
    )
    assert is_healthy(upgrade.web_port)
    assert (
        "beside which this one may go on: dagster, queue, results"
        in upgrade.command(old, "db", "status").stderr
    )

    # The workers, one by one.
    for worker in workers:
        worker.stop()
        assert worker.process.returncode == 0, worker.output
        upgrade.start("worker", new, "is ready")
        goes_on(system)

    # The code location, whose runs end before; what is launched meanwhile waits.
    upgrade.launch(old, "prune_message_log")
    drained = upgrade.command(old, "drain", "--timeout", "240")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    assert "It is safe to replace episodes_assets" in drained.stdout
    launched = statuses(system, "prune_message_log")
    upgrade.launch(old, "prune_message_log")
    code.stop()
    upgrade.start("code", new, "Started Dagster code server")
    daemon.stop()
    upgrade.start("daemon", new)
    refused = upgrade.command(new, "db", "finish")
    assert refused.returncode == 1
    assert "`episodes webserver` of release 0.1.0 on" in refused.stderr
    assert is_healthy(upgrade.web_port)
    web.stop()
    upgrade.start("web", new, "Serving")
    eventually(lambda: is_healthy(upgrade.web_port), 120)
    assert statuses(system, "prune_message_log") == [*launched, "QUEUED"]
    resumed = upgrade.command(new, "drain", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    eventually(lambda: statuses(system, "prune_message_log") == ["SUCCESS"] * (len(launched) + 1), 120)
    goes_on(system)

    # All of it was during the day.
    assert system.query("results", "SELECT count(*) FROM published.days") == [(0,)]
    hurry.touch()
    eventually(lambda: system.query("results", "SELECT count(*) FROM published.days") == [(1,)], 480)
    eventually(lambda: statuses(system, "publish_day") == ["SUCCESS"], 60)


def assert_nothing_was_refused(system: System, upgrade: Upgrade) -> None:
    for each in upgrade.started:
        for complaint in COMPLAINTS:
            assert complaint not in each.output, each.log.name
    # A job that is alone in its batch is counted there as well, without an error.
    failed_jobs = "SELECT error FROM ledger.job_attempts WHERE is_held OR error IS NOT NULL"
    assert system.query("queue", failed_jobs) == []
    assert system.query("queue", "SELECT sum(held) FROM ledger.chunks") == [(0,)]
    failed = "SELECT selector_id, tick_body FROM dagster.job_ticks WHERE status = 'FAILURE'"
    assert system.query("dagster", failed) == []
    not_succeeded = "SELECT pipeline_name, status FROM dagster.runs WHERE status <> 'SUCCESS'"
    assert system.query("dagster", not_succeeded) == []
    releases = system.query(
        "queue", "SELECT release, count(*), min(finished) > 0 FROM ledger.workers GROUP BY 1 ORDER BY 1"
    )
    assert releases == [("0.1.0", 2, True), ("0.2.0", 2, True)]


def assert_finished(
    system: System, upgrade: Upgrade, old: Release, new: Release, versions: Mapping[Any, str]
) -> None:
    """Nothing of the older release lives: what it needed goes, and it is refused from then on."""

    # This process is of the older release as well, and has sessions with Dagster's database.
    vars(system).pop("dagster").dispose()

    def finish() -> bool:
        done = upgrade.command(new, "db", "finish")
        return done.returncode == 0

    eventually(finish, 120)
    for database, version in versions.items():
        found = system.query(
            database, "SELECT version_num, oldest_beside, finished FROM episodes_schema_version"
        )
        assert found == [(version, version, version)]
        assert system.query(database, "SELECT to_regclass('kept_for_older_releases')") == [(None,)]
    late = upgrade.start("worker", old)
    assert late.process.wait(120) == 1
    assert "upgrade this process" in late.output
    for refused in (["jobs", "status"], ["run", str(DAY)], ["db", "init"]):
        done = upgrade.command(old, *refused)
        assert done.returncode == 1
        assert "upgrade this process" in done.stderr
