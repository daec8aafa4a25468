"""`episodes up`: the whole system, a backfill through the daemon, and nothing left after Ctrl-C."""

import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml

from episodes_assets.commands.processes import episodes_argv
from episodes_assets.commands.up import private_socket_path
from episodes_assets.errors import ProcessFailed
from episodes_assets.settings import WITHHELD
from episodes_assets_tests.system import System, day, failure

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
GRAPH = ["input_episodes", "tracked_episodes", "episode_jobs", "job_outcomes", "published_results"]


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


def eventually(check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_backfill_through_the_daemon_publishes_what_a_range_does(system: System) -> None:
    """Of a month; `dashboard/browser/test_working_day.py` does the same with three days."""
    days = 30
    system.generate(day(1), day(days), episodes=60)
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
        rows = system.published()
        assert rows["day"].nunique() == days
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) >= 5
        (ui,) = [child for child in children if "webserver" in child.cmdline()]
        given = {name for name, value in ui.environ().items() if name.endswith("_DSN") and value != WITHHELD}
        assert given == {"EPISODES_DAGSTER_DSN", "EPISODES_DASHBOARD_DSN", "EPISODES_QUEUE_DSN"}
        # Nothing but the login is open to other users of this machine: no port, no folder.
        assert {at.laddr.port for each in children for at in each.net_connections() if listens(at)} == {port}
        folder = system.home / "dagster"
        (server,) = yaml.safe_load((folder / "workspace.yaml").read_text())["load_from"]
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
    for name in ("code", "daemon", "ui", "worker-1", "worker-2"):
        assert f"{name:<8} | " in text

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
