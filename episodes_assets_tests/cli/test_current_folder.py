"""No process of ours takes modules from the folder where a command is typed: it may be other people's."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx2
import pytest

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import System, day

pytestmark = [pytest.mark.process, pytest.mark.long]

EPISODES = Path(sys.executable).with_name("episodes")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file by the name of each module that can be imported; whichever is executed says so in a log."""
    folder = tmp_path / "shared"
    folder.mkdir()
    log = tmp_path / "executed"
    program = (
        f"import os, sys\nwith open({str(log)!r}, 'a') as log: print(__name__, *sys.orig_argv, file=log)\n"
    )
    for name in {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize"} - {"os", "sys"}:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(program, encoding="utf-8")
    (folder / "workspace.yaml").write_text("load_from: [{python_file: csv.py}]\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text("[tool.dagster]\nmodule_name = 'csv'\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    return log


def executed(log: Path) -> str:
    return log.read_text(encoding="utf-8") if log.exists() else ""


def wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.2)
    process.kill()
    raise AssertionError(process.communicate()[0])


@pytest.mark.slow
def test_a_run_and_its_workers(system: System, hostile: Path) -> None:
    system.generate(day(1), day(1), episodes=60)
    result = subprocess.run(
        [EPISODES, "run", str(day(1)), "--workers", "1"], capture_output=True, text=True, timeout=120
    )
    assert executed(hostile) == ""
    assert result.returncode == 0, result.stderr
    assert len(system.published()) > 0


def test_a_worker_and_what_it_computes_with(system: System, hostile: Path) -> None:
    worker = subprocess.Popen([EPISODES, "worker"], stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    said = []
    for line in worker.stderr:
        said.append(line)
        if "is ready" in line:
            worker.terminate()
    assert executed(hostile) == ""
    assert worker.wait(60) == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("command", ["webserver", pytest.param("up", marks=pytest.mark.slow)])
def test_a_command_that_serves(command: str, system: System, hostile: Path) -> None:
    """With Dagster's daemon, the code location, and the run by which the daemon publishes a planned day."""
    system.generate(day(1), day(1), episodes=60)
    system.plan(day(1))
    port = free_port()
    process = subprocess.Popen(
        [EPISODES, command, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(port, process)
    deadline = time.monotonic() + 90
    while command == "up" and system.published().empty:
        assert time.monotonic() < deadline, "the day was not published"
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert executed(hostile) == "", said
    assert process.returncode == 0, said


@pytest.mark.slow
def test_by_the_name_of_the_package(system: System, hostile: Path) -> None:
    """What is typed as `python -m` looks there before anything of ours runs, unless it is `python -P -m`."""
    for arguments in (["db", "status"], ["run", "--help"]):
        subprocess.run(episodes_argv(*arguments), check=True, capture_output=True)
    assert executed(hostile) == ""
    only = Path("typer.py").read_text(encoding="utf-8")
    for file in Path().glob("*.py"):
        file.unlink()
    Path("typer.py").write_text(only, encoding="utf-8")
    argv = [argument for argument in episodes_argv("run", "--help") if argument != "-P"]
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "PYTHONSAFEPATH": ""})
    assert executed(hostile) == ""
