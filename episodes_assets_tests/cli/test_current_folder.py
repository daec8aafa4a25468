"""No process takes modules or variables from the folder where a command is typed: others may write to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx2
import psutil
import pytest
from psycopg.conninfo import conninfo_to_dict

from episodes_assets.cli.current_folder import own_current_folder
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.settings import Settings, load_settings
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import System, day

pytestmark = [pytest.mark.process, pytest.mark.long]

EPISODES = Path(sys.executable).with_name("episodes")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file by the name of each module that can be imported; whichever is executed says so in a log.

    By the file `.env`, whoever obeys it hands them to its children, and belongs to production.
    """
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
    variables = {
        "PYTHONPATH": folder,
        "EPISODES_ENVIRONMENT": "production",
        "EPISODES_ADMIN_DSN": "postgresql://me@/",
    }
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    (folder / ".env").write_text(lines, encoding="utf-8")
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
    works_in = {Path(child.cwd()) for child in psutil.Process(process.pid).children()}
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert works_in == {system.home / "dagster" / "current"}
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


@pytest.fixture
def relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name files of the current folder."""
    folder = tmp_path / "typed-here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {
        "EPISODES_HOME": "home",
        "EPISODES_LAKE_URL": "lake",
        "EPISODES_SNAPSHOTS_URL": "file:snapshots",
        "EPISODES_TLS_CERTIFICATE": "tls.crt",
        "EPISODES_QUEUE_DSN": "postgresql://ann@/queue?host=/sockets&sslrootcert=ca.crt&sslcert=/ann.crt",
        "EPISODES_RESULTS_DSN": "postgresql://ann@/results?host=/sockets&sslrootcert=system",
        "PGPASSFILE": "passwords",
        "PGSSLROOTCERT": "system",
        "PYTHONPATH": f"ours{os.pathsep}/theirs{os.pathsep}",
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_what_is_relative_is_found_where_the_command_is_typed(relative: Settings) -> None:
    typed_in, before = Path.cwd(), dict(os.environ)
    dsns = resolve_dsns(relative)
    with own_current_folder(relative):
        assert Path.cwd() == typed_in / "home" / "dagster" / "current"
        assert list(Path.cwd().iterdir()) == []
        assert Path.cwd().stat().st_mode & 0o777 == 0o700
        # As a child reads them.
        found = load_settings()
        assert os.environ["PGPASSFILE"] == str(typed_in / "passwords")
        assert os.environ["PGSSLROOTCERT"] == "system"
        assert os.environ["PYTHONPATH"] == f"{typed_in / 'ours'}{os.pathsep}/theirs{os.pathsep}"
    assert (Path.cwd(), dict(os.environ)) == (typed_in, before)
    assert (found.home, found.lake) == (typed_in / "home", str(typed_in / "lake"))
    assert (found.snapshots, found.tls_certificate) == (str(typed_in / "snapshots"), typed_in / "tls.crt")
    queue, results = (conninfo_to_dict(dsns.require(each)) for each in (Purpose.QUEUE, Purpose.RESULTS))
    assert (queue["sslrootcert"], queue["sslcert"]) == (str(typed_in / "ca.crt"), "/ann.crt")
    assert (queue["user"], queue["dbname"], queue["host"]) == ("ann", "queue", "/sockets")
    assert results["sslrootcert"] == "system"


@pytest.mark.parametrize("url", ["s3://bucket/lake", "/lake/", "file:///lake", "simplecache::sftp://host/x"])
def test_what_is_not_relative_stays_as_it_is(url: str) -> None:
    settings = load_settings(lake_url=url, snapshots_url=url)
    assert (settings.lake, settings.snapshots) == (url, url)


@pytest.mark.usefixtures("relative")
def test_a_folder_that_is_deleted_meanwhile_is_not_missed(tmp_path: Path) -> None:
    elsewhere = load_settings(home=tmp_path / "home")
    with own_current_folder(elsewhere):
        shutil.rmtree(tmp_path / "typed-here")
    assert Path.cwd() == elsewhere.dagster_home / "current"
