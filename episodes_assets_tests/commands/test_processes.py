"""The processes of a command: started again when they end, gone when it is."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from episodes_assets.commands import processes, up
from episodes_assets.commands.processes import ProcessGroup, Restarts, temporary_workers
from episodes_assets.databases.dsns import Dsns, Purpose
from episodes_assets.errors import ProcessFailed
from episodes_assets.settings import load_settings

NO_DSNS = Dsns({purpose: "postgresql://nobody@/nowhere" for purpose in Purpose}, is_embedded=False)


def test_a_process_that_ends_as_soon_as_it_begins_is_started_ever_later() -> None:
    group = ProcessGroup(lambda *_: None)
    restarts = Restarts(group, {})
    try:
        child = group.start("worker-1", [sys.executable, "-c", ""], {})
        child.process.wait(30)
        (ended,) = group.forget_ended()
        assert [restarts.plan(ended) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
        restarts.start_due()
        assert group.children == []
        ended.started -= processes.LIVED_SECONDS
        assert restarts.plan(ended) == 1
    finally:
        group.stop()


def test_workers_of_a_command_that_end_at_once_are_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As they do while the input is away."""
    program = "import sys, time, pathlib; p = pathlib.Path(sys.argv[1]); p.exists() or (p.touch(), sys.exit(3))"
    argv = [sys.executable, "-c", f"{program}; p.with_suffix('.again').touch(); time.sleep(60)"]
    monkeypatch.setattr(processes, "episodes_argv", lambda *_: [*argv, str(tmp_path / "first")])
    monkeypatch.setattr(processes, "FIRST_PAUSE_SECONDS", 0.1)
    started_again = tmp_path / "first.again"
    with temporary_workers(load_settings(home=tmp_path), NO_DSNS, 1):
        deadline = time.monotonic() + 30
        while not started_again.exists():
            assert time.monotonic() < deadline, "it was not started again"
            time.sleep(0.05)
    assert "worker-1 ended with 3; starting it again in 0.1 s. What it said:" in capfd.readouterr().err


def test_a_code_location_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "READY_SECONDS", 0.1)
    with socket.socket() as silent:
        silent.bind((up.LOOPBACK, 0))  # and does not listen
        with pytest.raises(ProcessFailed, match="the code location did not answer within"):
            up._wait_for_code(ProcessGroup(lambda *_: None), silent.getsockname()[1], threading.Event())
