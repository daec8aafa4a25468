"""The processes of a command: started again when they end, gone when it is."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import psutil
import pytest

from episodes_assets.cli import die_with_parent, supervisor, up
from episodes_assets.cli.console import PlainConsole
from episodes_assets.cli.overview import Overview
from episodes_assets.cli.supervisor import ProcessGroup, Restarts, temporary_workers
from episodes_assets.dashboard.configuration import read_configuration
from episodes_assets.errors import ProcessFailed
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.embedded import EmbeddedServer
from episodes_assets.settings import load_settings
from episodes_assets.worker import main
from episodes_assets_tests.support.eventually import eventually

pytestmark = pytest.mark.process

NO_DSNS = Dsns(dict.fromkeys(Purpose, "postgresql://nobody@/nowhere"), is_embedded=False)


def test_a_process_that_ends_as_soon_as_it_begins_is_started_ever_later() -> None:
    group = ProcessGroup(lambda *_: None)
    restarts = Restarts(group)
    try:
        child = group.start("worker-1", [sys.executable, "-c", ""], {})
        child.process.wait(30)
        (ended,) = group.forget_ended()
        assert [restarts.plan(ended) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
        restarts.start_due()
        assert group.children == []
        ended.started -= supervisor.LIVED_SECONDS
        assert restarts.plan(ended) == 1
    finally:
        group.stop()


class DyingServer:
    """An embedded server that ends as soon as it has been started."""

    def __init__(self) -> None:
        self.lives = False
        self.starts = 0

    def is_running(self) -> bool:
        return self.lives

    def ensure_running(self) -> bool:
        self.starts += not self.lives
        return not self.lives


def test_an_embedded_server_that_ends_as_soon_as_it_begins_is_started_ever_later() -> None:
    server, said = DyingServer(), list[str]()
    restarts = up.DatabaseRestarts(cast("EmbeddedServer", server), said.append)
    started_at, starts = [], 0
    for second in range(250):
        restarts.look(float(second))
        if server.starts > starts:
            started_at.append(second)
            starts = server.starts
    # After 1 s, 2 s and so on; that it has ended is seen a second later each time.
    assert started_at == [1, 4, 9, 18, 35, 68, 129, 190]
    assert said[:2] == [
        "The embedded PostgreSQL has ended; starting it again in 1 s",
        "The embedded PostgreSQL had ended; it has been started again",
    ]
    # One that has lived for a while is started soon again.
    server.lives = True
    for second in range(250, 330):
        restarts.look(float(second))
    server.lives = False
    restarts.look(331.0)
    restarts.look(332.0)
    assert server.starts == starts + 1


def test_workers_of_a_command_that_end_at_once_are_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As they do while the input is away."""
    program = (
        "import sys, time, pathlib; p = pathlib.Path(sys.argv[1]); p.exists() or (p.touch(), sys.exit(3))"
    )
    argv = [sys.executable, "-c", f"{program}; p.with_suffix('.again').touch(); time.sleep(60)"]
    monkeypatch.setattr(supervisor, "episodes_argv", lambda *_: [*argv, str(tmp_path / "first")])
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.1)
    started_again = tmp_path / "first.again"
    with temporary_workers(load_settings(home=tmp_path), NO_DSNS, 1):
        deadline = time.monotonic() + 30
        while not started_again.exists():
            assert time.monotonic() < deadline, "it was not started again"
            time.sleep(0.05)
    assert "worker-1 ended with 3; starting it again in 0.1 s. What it said:" in capfd.readouterr().err


def overview(logs: Path, *names: str) -> Overview:
    return Overview("http://here", names, logs, lambda *_: None, is_verbose=False)


def test_a_code_location_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "READY_SECONDS", 0.1)
    with up.private_socket_path() as code_socket, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(code_socket))  # and does not listen
        group, shown = ProcessGroup(lambda *_: None), overview(tmp_path, "code")
        with pytest.raises(ProcessFailed, match=f"did not answer within 0.1 s: read {tmp_path}/code.log"):
            up._wait_for_code(group, code_socket, threading.Event(), shown)


def test_a_system_that_is_ready_late_is_announced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_well = threading.Event()

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if is_well.is_set() else 503)
            self.end_headers()

    monkeypatch.setattr(up, "READY_SECONDS", 0.1)
    monkeypatch.setattr(up, "HEALTH_SECONDS", 0.1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    configuration = read_configuration(
        load_settings(home=tmp_path), host="127.0.0.1", port=server.server_port
    )
    ready = threading.Event()
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stopping, shown, said = threading.Event(), overview(tmp_path, "ui"), io.StringIO()
        # What pytest captures is lost where it is written while it is read.
        monkeypatch.setattr(shown, "_console", PlainConsole(file=said))
        watching = threading.Thread(target=up._watch_health, args=(configuration, stopping, ready, shown))
        watching.start()
        eventually(lambda: "Not ready after 0.1 s" in said.getvalue())
        assert not ready.is_set()
        is_well.set()
        assert ready.wait(30)
        eventually(lambda: "ui is running" in said.getvalue())
        assert "The UI is ready" in said.getvalue()
        # From then on as well.
        is_well.clear()
        eventually(lambda: f"ui is not well; the reason is in {tmp_path}/ui.log" in said.getvalue())
        stopping.set()
        watching.join(30)
        server.shutdown()


STARTS_ONE = """
import sys, time
from episodes_assets.cli.supervisor import ProcessGroup
group = ProcessGroup(lambda _, line: print(line, flush=True), die_with_us=True)
argv = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
group.start("sleeper", argv, {})
time.sleep(600)
"""


# What a child process inherits: ignored as in a background job of a shell that is not interactive (where
# Dagster's runs then leave SIGTERM ignored as well), and blocked as by a parent that waits for signals.
INHERITED = {
    "default": "",
    "ignored": "for number in STOPS: signal.signal(number, signal.SIG_IGN)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)",
}
PREPARE = "import signal; STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the signal")
@pytest.mark.parametrize("inherited", INHERITED.values(), ids=INHERITED.keys())
def test_a_command_that_is_killed_leaves_no_process_behind(inherited: str) -> None:
    program = PREPARE + inherited + STARTS_ONE
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        sleeper = psutil.Process(int(command.stdout.readline()))
        assert sleeper.ppid() == command.pid
        command.kill()
        _, alive = psutil.wait_procs([sleeper], timeout=10)
        for process in alive:
            process.kill()
    assert alive == []


@pytest.mark.parametrize("die_with_us", [False, True])
def test_a_child_takes_signals_whatever_its_parent_ignores(
    die_with_us: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 10.0)
    lines: list[str] = []
    group = ProcessGroup(lambda _, line: lines.append(line), die_with_us=die_with_us)
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stops}
    try:
        child = group.start("sleeper", [sys.executable, "-c", "import time; print(1); time.sleep(600)"], {})
        deadline = time.monotonic() + 30
        while not lines:
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.05)
    finally:
        group.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert child.process.returncode == -signal.SIGTERM


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    """What another process adopted must not take that one for its parent."""
    ours = [sys.executable, "-c", "print('it runs')"]
    for parent, said in ((os.getpid(), "it runs\n"), (os.getppid(), "")):
        result = subprocess.run(
            [*die_with_parent.argv(parent), *ours], capture_output=True, text=True, check=False
        )
        assert result.stdout == said
        assert (result.returncode == 0) is bool(said)

    async def watch() -> None:
        stopping = asyncio.Event()
        await asyncio.wait_for(main._watch_parent(os.getpid(), stopping), 10)
        assert stopping.is_set()

    asyncio.run(watch())
