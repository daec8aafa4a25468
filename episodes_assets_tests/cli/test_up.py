"""`episodes up`: the whole system, a backfill through the daemon, and nothing left after Ctrl-C."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg
import httpx2
import psutil
import pytest
import yaml

from episodes_assets.cli import supervisor
from episodes_assets.cli.context import only_system
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.cli.up import private_socket_path
from episodes_assets.errors import ProcessFailed
from episodes_assets.settings import WITHHELD
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.invoke import refusal
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""
GRAPH = [
    "input_episodes",
    "input_viewings",
    "tracked_episodes",
    "episode_jobs",
    "job_outcomes",
    "published_results",
]


def sign_in(port: int, log: str) -> httpx2.Client:
    """As a browser does, with the password that `up` shows once."""
    (password,) = re.findall(r"Sign in as operator with the password (\S+)", log)
    address = f"http://127.0.0.1:{port}"
    browser = httpx2.Client(base_url=address, headers={"Origin": address}, timeout=30)
    assert browser.get("/runs").status_code == 401
    signed_in = browser.post("/login", data={"name": "operator", "password": password, "next": "/"})
    assert signed_in.status_code == 303
    return browser


def ask(browser: httpx2.Client, query: str, variables: dict[str, Any]) -> Any:
    return browser.post("/graphql", json={"query": query, "variables": variables}).json()["data"]


def listens(connection: Any) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_backfill_through_the_daemon_publishes_what_a_range_does(system: System) -> None:
    """Of a month; `dashboard/browser/test_working_day.py` does the same with three days."""
    days = 30
    system.generate(day(1), day(days + 1), episodes=60)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = system.home / "up.log"
    with log.open("w") as output:
        up = subprocess.Popen(
            episodes_argv("up", "--port", str(port), "--workers", "2"),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ.copy(),
        )
    try:
        eventually(lambda: "The UI is ready" in log.read_text(), 90)
        browser = sign_in(port, log.read_text())
        keys = [str(day(number)) for number in range(1, days + 1)]
        params = {
            "assetSelection": [{"path": [name]} for name in GRAPH],
            "partitionNames": keys,
            "fromFailure": False,
            "allPartitions": False,
        }
        launched = ask(browser, LAUNCH, {"params": params})["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def status() -> str:
            answer = ask(browser, STATUS, {"id": launched["backfillId"]})
            return str(answer["partitionBackfillOrError"]["status"])

        eventually(lambda: status() not in ("REQUESTED", "COMPLETING"), 250)
        assert status() == "COMPLETED_SUCCESS", log.read_text()[-5000:]
        with dg.DagsterInstance.get() as instance:
            assert all(instance.get_materialized_partitions(dg.AssetKey(k)) == set(keys) for k in GRAPH)
        rows = system.published()
        assert rows["day"].nunique() == days
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) >= 5
        (ui,) = [child for child in children if "webserver" in child.cmdline()]
        given = {name for name, value in ui.environ().items() if name.endswith("_DSN") and value != WITHHELD}
        assert given == {
            "EPISODES_DAGSTER_DSN", "EPISODES_DASHBOARD_DSN", "EPISODES_QUEUE_DSN",
            "EPISODES_RESULTS_READER_DSN", "EPISODES_CONSUMER_DSN",
        }  # fmt: skip
        # Nothing but the login is open to other users of this machine: no port, no folder.
        assert {at.laddr.port for each in children for at in each.net_connections() if listens(at)} == {port}
        folder = system.home / "dagster"
        workspace = ui.cmdline()[ui.cmdline().index("--workspace") + 1]
        (server,) = yaml.safe_load(Path(workspace).read_text())["load_from"]
        code_socket = Path(server["grpc_server"]["socket"])
        assert code_socket.is_socket()
        for private in (folder, code_socket.parent):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
    assert up.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    text = log.read_text()
    assert "All processes have stopped." in text
    assert not code_socket.parent.exists()
    # What the processes print is in their logs, and not on the screen.
    assert len(text.splitlines()) < 25
    for name in ("code", "daemon", "ui", "worker-1", "worker-2"):
        assert f"{name} is running" in text
        written = system.home / "logs" / f"{name}.log"
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
        assert written.stat().st_size > 0
    assert "fan_out skipped" in (system.home / "logs" / "daemon.log").read_text()

    # A rerun changes nothing, and worked again from nothing the days have the same rows.
    with system.workers(2):
        before = system.fingerprint()
        again = system.materialize(day(1), day(days))
        assert again.success, failure(again)
        assert system.fingerprint() == before
        system.forget_everything()
        anew = system.materialize(day(1), day(days))
        assert anew.success, failure(anew)
    assert system.published().equals(rows)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_system_in_a_home_whose_processes_come_back(system: System) -> None:
    """Under a parent that ignores the signals by which it is stopped, as background jobs do."""
    port = free_port()
    log = system.home / "up.log"
    ignoring = ["sh", "-c", 'trap "" INT TERM; exec "$@"', "sh"]
    with log.open("w") as output:
        up = subprocess.Popen(
            [*ignoring, *episodes_argv("up", "--port", str(port), "--workers", "1")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "The UI is ready" in log.read_text(), 90)
        second = system.cli("up", "--port", str(free_port()), timeout=20)
        assert second.returncode == 1
        assert f"is running already with pid {up.pid} on http://127.0.0.1:{port} since" in second.stderr
        for name, argument in (("ui", "webserver"), ("daemon", "--workspace"), ("code", "grpc")):
            children = psutil.Process(up.pid).children()
            process = next(child for child in children if argument in child.cmdline()[2:6])
            process.kill()
            again = f"{name} ended with -9; starting it again in 1 s"
            eventually(lambda again=again: again in log.read_text(), 10)  # type: ignore[misc]
            eventually(lambda: is_well(port), 60)
        since = time.time()
        # The daemon has found the code location again, and its sensors are evaluated as before.
        eventually(lambda: newest_tick(system) > since, 90)
        children = psutil.Process(up.pid).children(recursive=True)
        began = time.monotonic()
    finally:
        up.terminate()
        up.wait(60)
    assert time.monotonic() - began < supervisor.STOP_SECONDS
    assert up.returncode == 0, log.read_text()[-5000:]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    # The next one finds the home free.
    with only_system(system.home, "http://127.0.0.1:1"):
        pass


def is_well(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200
    except httpx2.HTTPError:
        return False


def newest_tick(system: System) -> float:
    (row,) = system.query("dagster", "SELECT extract(epoch FROM max(timestamp)) FROM dagster.job_ticks")
    return float(row[0] or 0)


HOLDS = """
import sys, time
from pathlib import Path
from episodes_assets.cli.context import only_system
with only_system(Path(sys.argv[1]), "http://127.0.0.1:3000"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_system_in_a_home_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("EPISODES_HOME", str(home))
    argv = [sys.executable, "-c", HOLDS, str(home)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = str(refusal("up"))
        assert f"is running already with pid {holder.pid} on http://127.0.0.1:3000 since" in refused
        assert "set EPISODES_HOME to another folder" in refused
        assert [path.name for path in home.iterdir()] == ["up.lock"]
        assert stat.S_IMODE((home / "up.lock").stat().st_mode) == 0o600
        holder.kill()
    # Whoever holds it is gone, even by SIGKILL, and so is the lock.
    with only_system(home, "http://127.0.0.1:1"):
        pass
    assert (home / "up.lock").stat().st_size == 0


def test_a_taken_port_is_one_plain_line(system: System) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = system.cli("up", "--port", str(port))
    assert result.returncode == 1
    assert f"port {port} is taken" in result.stderr


def test_a_long_folder_for_the_socket_is_one_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(ProcessFailed, match="too long for a socket"), private_socket_path():
        pass
    assert list(long.iterdir()) == []
