"""`episodes up`: the whole system until Ctrl-C."""

import contextlib
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import yaml
from rich.text import Text

from episodes_assets.commands.console import out
from episodes_assets.commands.dagster_home import prepare_dagster_home
from episodes_assets.commands.databases import (
    announce_open_hosts,
    ready_databases,
    refuse_writable_input,
)
from episodes_assets.commands.processes import (
    Child,
    ProcessGroup,
    episodes_argv,
    worker_environment,
)
from episodes_assets.commands.python_programs import program
from episodes_assets.databases.dsns import ORCHESTRATOR, Dsns, Purpose
from episodes_assets.errors import ProcessFailed
from episodes_assets.settings import Settings, load_settings

LOOPBACK = "127.0.0.1"
RESTART_SECONDS = 2.0
READY_SECONDS = 120.0
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")


def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of the web UI.")] = 3000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 2,
) -> None:
    """Run the whole system until Ctrl-C: databases, code location, daemon, web UI and workers.

    Each line of output is prefixed with its process. The UI listens on this machine only. The daily
    schedule is off until you switch it on in the UI; the sensors are on. A worker that ends is
    started again; when any other process ends, all are stopped.
    """
    settings = load_settings()
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    refuse_writable_input(settings, dsns)
    folder = prepare_dagster_home(settings)
    _require_free(port)
    stopping = threading.Event()
    group = ProcessGroup(_prefixed_output(workers))
    with _stopped_by_signals(stopping):
        try:
            _start(group, stopping, settings, dsns, folder, port, workers)
            threading.Thread(target=_announce, args=(port, stopping), daemon=True).start()
            _watch(group, stopping, worker_environment(settings, dsns))
        finally:
            out.print("Stopping ...")
            group.stop()
    out.print("All processes have stopped.")


def _start(
    group: ProcessGroup,
    stopping: threading.Event,
    settings: Settings,
    dsns: Dsns,
    folder: Path,
    port: int,
    workers: int,
) -> None:
    code_port = _free_port()
    workspace = folder / "workspace.yaml"
    server = {"host": LOOPBACK, "port": code_port, "location_name": "episodes_assets"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
    home = {
        "DAGSTER_HOME": str(folder),
        "EPISODES_HOME": str(settings.home.resolve()),
        "EPISODES_ENVIRONMENT": settings.environment,
    }
    # No process holds a DSN that its work does not need.
    orchestrator = {**home, **dsns.environment(ORCHESTRATOR)}
    only_dagster = {**home, **dsns.environment([Purpose.DAGSTER])}
    group.start(
        "code",
        [*program("dagster"), "api", "grpc", "--module-name", "episodes_assets.definitions",
         "--host", LOOPBACK, "--port", str(code_port), "--location-name", "episodes_assets"],
        orchestrator,
    )  # fmt: skip
    _wait_for_code(group, code_port, stopping)
    group.start("daemon", [*program("dagster-daemon"), "run", "--workspace", str(workspace)], only_dagster)
    group.start(
        "ui",
        [*program("dagster-webserver"), "--workspace", str(workspace), "--host", LOOPBACK,
         "--port", str(port)],
        only_dagster,
    )  # fmt: skip
    for number in range(1, workers + 1):
        group.start(
            f"worker-{number}",
            episodes_argv("worker", "--stop-with-parent"),
            worker_environment(settings, dsns),
        )


def _wait_for_code(group: ProcessGroup, port: int, stopping: threading.Event) -> None:
    """Until the code location answers: daemon and UI complain at length about one that does not."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not stopping.wait(0.2):
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        for child in group.forget_ended():
            raise _explain_end(child)


def _watch(group: ProcessGroup, stopping: threading.Event, worker_env: dict[str, str]) -> None:
    """Until it is stopped: start ended workers again.

    Raises:
        ProcessFailed: When another process ends by itself.
    """
    while not stopping.wait(RESTART_SECONDS):
        for child in group.forget_ended():
            if not child.name.startswith("worker-"):
                raise _explain_end(child)
            out.print(f"{child.name} ended with {child.process.returncode}; starting it again")
            group.start(child.name, child.argv, worker_env)


def _explain_end(child: Child) -> ProcessFailed:
    return ProcessFailed(f"{child.name} ended with {child.process.returncode}", "read its lines above")


@contextlib.contextmanager
def _stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _prefixed_output:  # noqa: N801
    """Prints lines with the name of their process, in a colour of its own on a terminal."""

    def __init__(self, workers: int) -> None:
        names = ["code", "daemon", "ui", *(f"worker-{n}" for n in range(1, workers + 1))]
        self._styles = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        self._width = max(map(len, names))
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        prefix = Text(f"{name:<{self._width}} | ", style=self._styles[name])
        with self._lock:
            out.print(prefix + Text.from_ansi(line), soft_wrap=True)


def _announce(port: int, stopping: threading.Event) -> None:
    url = f"http://{LOOPBACK}:{port}"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not stopping.wait(0.5):
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=2):  # noqa: S310
                out.print(f"The UI is ready: {url}  (Ctrl-C stops everything)", style="bold")
                return
        except (urllib.error.URLError, OSError):
            continue


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ProcessFailed(
                f"port {port} is taken ({error.strerror})", "choose another with --port"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
