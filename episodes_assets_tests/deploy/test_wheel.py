"""The wheel, installed by pip into an empty environment outside any checkout, runs everything by itself."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from episodes_assets.settings import PROJECT_FOLDER
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import throwaway
from episodes_assets_tests.support.wheel import build_wheel, make_environment

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel and what it depends on, and no checkout."""
    folder = tmp_path_factory.mktemp("installed")
    return make_environment(folder / "venv", build_wheel(folder))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a user who has set nothing."""
    home = tmp_path_factory.mktemp("user")
    throwaway(home / ".episodes")
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"}


@contextmanager
def running(argv: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block lasts; then Ctrl-C ends it, and all that it has started."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=environment, cwd="/", stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, log.read_text()[-5_000:]
        assert psutil.wait_procs(children, timeout=10)[1] == []
    finally:
        process.kill()


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=10).text == "ok":
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-5_000:])


def test_everything_runs_from_the_wheel(installed: Path, user: dict[str, str], tmp_path: Path) -> None:
    episodes = str(installed / "bin" / "episodes")
    home = Path(user["HOME"]) / ".episodes"
    before = _files(installed)
    (package,) = installed.glob("lib/python3*/site-packages/episodes_assets")
    top = {Path("dagster.yaml"), Path("workspace.yaml")}
    assert all((package / name).read_bytes() == (PROJECT_FOLDER / name).read_bytes() for name in top)
    assert _names(package) - top == _names(PROJECT_FOLDER / "episodes_assets")

    demo = subprocess.run(
        [episodes, "demo", "--days", "2", "--episodes", "60", "--workers", "1"],
        env=user, cwd="/", capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    assert "2018-03-02" in demo.stdout
    assert (home / "lake").is_dir()

    port, other = free_port(), free_port()
    log = tmp_path / "up.log"
    with running([episodes, "up", "--port", str(port), "--workers", "1"], user, log) as up:
        wait_until_healthy(port, up, log)
        code = _child(up, "grpc")
        assert Path(code.cmdline()[0]).parent == installed / "bin"
        worker_log = tmp_path / "worker.log"
        with running([episodes, "worker"], user, worker_log) as worker:
            _wait_for("is ready", worker_log, worker)
        web_log = tmp_path / "webserver.log"
        with running([episodes, "webserver", "--port", str(other)], user, web_log) as web:
            wait_until_healthy(other, web, web_log)
    assert (home / "dagster" / "dagster.yaml").resolve().is_relative_to(installed)
    # Neither a home nor a file of anybody's beside the package, which an upgrade replaces.
    assert _files(installed) == before


def _names(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in _files(folder) if path.is_file()}


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def _child(up: subprocess.Popen[bytes], word: str) -> psutil.Process:
    return next(each for each in psutil.Process(up.pid).children() if word in each.cmdline())


def _wait_for(line: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while line not in log.read_text():
        assert process.poll() is None, log.read_text()[-5_000:]
        assert time.monotonic() < deadline, log.read_text()[-5_000:]
        time.sleep(0.2)
