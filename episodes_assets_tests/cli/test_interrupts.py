"""Ctrl-C and SIGTERM at any moment of a command are one word and an exit code, never a traceback."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dagster._utils.interrupts import capture_interrupts

from episodes_assets import signals
from episodes_assets.cli import execution
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

EPISODES = Path(sys.executable).with_name("episodes")
# Sends the process a signal when the module of that name begins to be imported: at a moment that is the same
# on every machine. It stands first in the path of modules, so Python's start imports it.
SENDS = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("SIGNAL_AT"):
            os.environ.pop("SIGNAL_AT")
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Finder())
"""


def interrupt(
    folder: Path, at: str, *arguments: str, number: int = signal.SIGINT
) -> "subprocess.CompletedProcess[str]":
    (folder / "sitecustomize.py").write_text(SENDS, encoding="utf-8")
    return subprocess.run(
        [EPISODES, *arguments],
        env={**os.environ, "PYTHONPATH": str(folder), "SIGNAL_AT": at, "SIGNAL": str(int(number))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "at", ["episodes_assets.cli.app", "typer", "pydantic", "numpy", "psycopg", "episodes_assets.errors"]
)
def test_while_the_command_itself_is_imported(at: str, tmp_path: Path) -> None:
    result = interrupt(tmp_path, at, "state", "--help")
    assert (result.stdout, result.stderr, result.returncode) == ("", "interrupted\n", 130)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("run", str(day(1))), ("webserver", "--port", "1024")])
@pytest.mark.parametrize("at", ["dagster", "dagster._core.instance", "dagster_postgres", "sqlalchemy"])
def test_while_dagster_is_imported(
    at: str, arguments: tuple[str, ...], system: System, tmp_path: Path
) -> None:
    result = interrupt(tmp_path, at, *arguments)
    assert result.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in result.stderr
    assert result.returncode == 130


def test_a_request_to_terminate(tmp_path: Path) -> None:
    result = interrupt(tmp_path, "typer", "--help", number=signal.SIGTERM)
    assert (result.stdout, result.stderr, result.returncode) == ("", "interrupted\n", 143)


def test_a_request_to_terminate_counts_where_the_parent_ignores_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        result = interrupt(tmp_path, "typer", "--help", number=signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.returncode == 143


def test_a_background_job_is_not_interrupted(tmp_path: Path) -> None:
    """A shell that is not interactive has it ignore Ctrl-C, which is meant for what runs before it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = interrupt(tmp_path, "typer", "--help")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.returncode == 0


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_ends_in_order_but_not_under_nohup(before: signal.Handlers) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    try:
        with contextlib.suppress(SystemExit), signals.holding_signals_back() as held:
            signal.raise_signal(signal.SIGHUP)
            held.raise_any()
            assert before is signal.SIG_IGN  # which was not reached otherwise
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, kept)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_undoes_its_work_is_not_interrupted_again_but_can_be_ended(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with signals.holding_signals_back() as held:
        held.raise_any()
        signal.raise_signal(number)
        signal.raise_signal(number)  # it is being undone
        assert (ended, "in 10 seconds" in capfd.readouterr().err) == ([], True)
        with pytest.raises(BaseException) as raised:  # noqa: PT011  one of two, which have no common class
            held.raise_any()
        assert (raised.type is KeyboardInterrupt) is (number == signal.SIGINT)
        monkeypatch.setattr(signals, "HELD_BACK_SECONDS", -1.0)
        signal.raise_signal(number)
    assert ended == [128 + number]


def test_a_request_to_terminate_counts_after_a_run_of_a_background_job() -> None:
    """Dagster gives SIGTERM the handler of SIGINT, which there is none."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        with execution._interruptible(), capture_interrupts():
            pass
        after = signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert after == before[1]


@pytest.mark.parametrize("problem", [BlockingIOError, BrokenPipeError])
def test_a_signal_ends_a_command_that_cannot_say_so(
    monkeypatch: pytest.MonkeyPatch, problem: type[OSError]
) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise problem

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit, match="143"):
        signals._leave(signal.SIGTERM, None)
