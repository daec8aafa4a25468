"""`episodes up`: the whole system until Ctrl-C.

It starts and stops the processes. The socket and the workspace file by which they find the code location lie
in a folder for this user alone. What each process does is in `serve`, `defs/` and `worker/`.
"""

import contextlib
import os
import signal
import socket
import ssl
import tempfile
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

from episodes_assets.accounts.users import add_first_operator
from episodes_assets.cli.console import child_line, out
from episodes_assets.cli.context import (
    announce_open_hosts,
    only_system,
    prepare_dagster_home,
    ready_databases,
    refuse_writable_input,
)
from episodes_assets.cli.supervisor import (
    Child,
    ProcessGroup,
    Restarts,
    episodes_argv,
    program,
    worker_argv,
    worker_environment,
)
from episodes_assets.dashboard.configuration import Configuration, read_configuration
from episodes_assets.errors import ProcessFailed
from episodes_assets.postgres import embedded
from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import ORCHESTRATOR, WEBSERVER, Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.private_files import write_file
from episodes_assets.settings import PROJECT_FOLDER, Settings, load_settings
from episodes_assets.user_files import require_standard_output

LOOPBACK = "127.0.0.1"
WATCH_SECONDS = 1.0
READY_SECONDS = 120.0
LONGEST_SOCKET_PATH = 107
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")


def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of the web UI.")] = 3000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 2,
) -> None:
    """Run the whole system until Ctrl-C: databases, code location, daemon, web UI and workers.

    Each line of output is prefixed with its process. The UI listens on this machine only and asks for a
    login; the first start makes an operator and prints the password, once. The daily
    schedule is off until you switch it on in the UI; the sensors are on. A process that ends is
    started again, the embedded PostgreSQL included, ever later if it ends as soon as it begins; but if the
    code location, the daemon or the UI ends before all were ready, all are stopped with the reason. One `up`
    runs in a home.
    """
    require_standard_output()  # the first operator's password is shown there, once
    settings = load_settings()
    configuration = read_configuration(settings, host=LOOPBACK, port=port)
    with only_system(settings.home, configuration.address):
        dsns = ready_databases(settings)
        announce_open_hosts(settings)
        refuse_writable_input(settings, dsns)
        folder = prepare_dagster_home(settings)
        _require_free(port)
        if settings.password_login:
            _announce_first_operator(settings, dsns)
        _run(settings, dsns, folder, configuration, workers)
    out.print("All processes have stopped.")


def _run(settings: Settings, dsns: Dsns, folder: Path, configuration: Configuration, workers: int) -> None:
    stopping, ready = threading.Event(), threading.Event()
    group = ProcessGroup(_PrefixedOutput(workers), die_with_us=True)
    with _stopped_by_signals(stopping), private_socket_path() as code_socket:
        try:
            _start(group, stopping, settings, dsns, folder, code_socket, configuration.port, workers)
            threading.Thread(target=_announce, args=(configuration, stopping, ready), daemon=True).start()
            database = embedded.start(settings.home) if dsns.is_embedded else None
            _watch(group, stopping, ready, database)
        finally:
            out.print("Stopping ...")
            group.stop()


@contextlib.contextmanager
def private_socket_path() -> Iterator[Path]:
    """The path of the code location's socket: whoever reaches it may start runs, so only this user can.

    Raises:
        ProcessFailed: If its path would be longer than a socket's may be.
    """
    with tempfile.TemporaryDirectory(prefix="episodes-") as folder:  # with mode 0700
        path = Path(folder).resolve() / "code.sock"
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ProcessFailed(
                f"{path} is too long for a socket ({LONGEST_SOCKET_PATH} bytes at most)",
                "set TMPDIR to a folder with a shorter path",
            )
        yield path


def _announce_first_operator(settings: Settings, dsns: Dsns) -> None:
    """Add the first operator where there is no user, and print the password, this once."""
    with connect_to_write(
        dsns.require(Purpose.DASHBOARD), Database.DAGSTER, settings.environment, autocommit=True
    ) as connection:
        add_first_operator(connection, _show_first_operator)


def _show_first_operator(name: str, password: str) -> None:
    out.print(
        Text.assemble(
            "Sign in as ", (name, "bold"), " with the password ", (password, "bold"),
            " (shown this once; `episodes users` makes others)",
        ),
        soft_wrap=True,
    )  # fmt: skip


def _start(
    group: ProcessGroup,
    stopping: threading.Event,
    settings: Settings,
    dsns: Dsns,
    folder: Path,
    code_socket: Path,
    port: int,
    workers: int,
) -> None:
    # Not in the home: Dagster's daemon reads the file again each minute, and would follow another system's.
    workspace = code_socket.with_name("workspace.yaml")
    server = {"socket": str(code_socket), "location_name": "episodes_assets"}
    write_file(workspace, yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
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
         # Without it, modules of the current folder would come first.
         "--working-directory", str(PROJECT_FOLDER),
         "--socket", str(code_socket), "--location-name", "episodes_assets"],
        orchestrator,
    )  # fmt: skip
    _wait_for_code(group, code_socket, stopping)
    group.start("daemon", [*program("dagster-daemon"), "run", "--workspace", str(workspace)], only_dagster)
    group.start(
        "ui",
        episodes_argv("webserver", "--workspace", str(workspace), "--host", LOOPBACK, "--port", str(port)),
        {**home, **dsns.environment(WEBSERVER)},
    )
    for number in range(1, workers + 1):
        group.start(
            f"worker-{number}",
            worker_argv(),
            worker_environment(settings, dsns),
        )


def _wait_for_code(group: ProcessGroup, code_socket: Path, stopping: threading.Event) -> None:
    """Wait until the code location answers: without it, daemon and UI would log long errors.

    Raises:
        ProcessFailed: If it ends, or does not answer in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not stopping.wait(0.2):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(code_socket))
            return
        for child in group.forget_ended():
            raise _explain_end(child)
        if time.monotonic() > deadline:
            raise ProcessFailed(
                f"the code location did not answer within {READY_SECONDS:g} s", "read its lines above"
            )


def _watch(
    group: ProcessGroup,
    stopping: threading.Event,
    ready: threading.Event,
    database: embedded.EmbeddedServer | None,
) -> None:
    """Restart processes that end, and an embedded PostgreSQL, until the system is stopped.

    The code location is started on the same socket, to which daemon and web UI reconnect by themselves.

    Raises:
        ProcessFailed: If a process other than a worker ends before the system was ready.
        DatabaseUnreachable: If the PostgreSQL does not start again.
    """
    restarts = Restarts(group)
    while not stopping.wait(WATCH_SECONDS):
        if database is not None and database.ensure_running():
            out.print("The embedded PostgreSQL had ended; it has been started again")
        for child in group.forget_ended():
            if not (ready.is_set() or child.name.startswith("worker-")):
                raise _explain_end(child)
            pause = restarts.plan(child)
            out.print(f"{child.name} ended with {child.process.returncode}; starting it again in {pause:g} s")
        restarts.start_due()


def _explain_end(child: Child) -> ProcessFailed:
    return ProcessFailed(f"{child.name} ended with {child.process.returncode}", "read its lines above")


@contextlib.contextmanager
def _stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    stops = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        stops.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in stops}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _PrefixedOutput:
    """Prints lines with the name of their process, in a colour of its own on a terminal."""

    def __init__(self, workers: int) -> None:
        names = ["code", "daemon", "ui", *(f"worker-{n}" for n in range(1, workers + 1))]
        self._styles = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        self._width = max(map(len, names))
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        prefix = Text(f"{name:<{self._width}} | ", style=self._styles[name])
        with self._lock:
            out.print(prefix + child_line(line), soft_wrap=True)


def _announce(configuration: Configuration, stopping: threading.Event, ready: threading.Event) -> None:
    began = time.monotonic()
    has_warned = False
    while not stopping.wait(0.5):
        if _is_healthy(configuration):
            ready.set()
            out.print(f"The UI is ready: {configuration.address}  (Ctrl-C stops everything)", style="bold")
            return
        if not has_warned and time.monotonic() - began > READY_SECONDS:
            has_warned = True
            health = f"{configuration.address}/healthz"
            out.print(f"Not ready after {READY_SECONDS:g} s: read the lines above, and {health}")


def _is_healthy(configuration: Configuration) -> bool:
    """Whether the dashboard's /healthz answers that it can serve."""
    context = None
    if configuration.certificate:
        # Its own certificate and no other, whatever name is in it and whoever signed it.
        context = ssl.create_default_context(cafile=configuration.certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with urllib.request.urlopen(  # noqa: S310
            f"{configuration.address}/healthz", timeout=10, context=context
        ):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ProcessFailed(
                f"port {port} is taken ({error.strerror})", "choose another with --port"
            ) from error
