"""`episodes up`: the whole system until Ctrl-C; a process that ends is started again.

It starts the processes in their order, waits until the UI answers, and starts again what ends later, the
embedded PostgreSQL included, after a pause that grows (backoff). Whoever reaches the code location's socket
can start runs, so the socket and the workspace file lie in a folder for this user alone. Child processes are
`supervisor`, what is shown of them is `overview`; what each does is in `serve`, `defs/`, `worker/` and
Dagster.
"""

import contextlib
import http.client
import math
import os
import signal
import socket
import ssl
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import yaml
from rich.text import Text

from episodes_assets.accounts.users import add_first_operator
from episodes_assets.cli import context, supervisor
from episodes_assets.cli.console import block, out
from episodes_assets.cli.current_folder import own_current_folder
from episodes_assets.cli.overview import ENDED, Overview, read_attention
from episodes_assets.dashboard.configuration import Configuration, read_configuration
from episodes_assets.errors import ProcessFailed
from episodes_assets.postgres import connect, embedded
from episodes_assets.postgres.databases import ORCHESTRATOR, WEBSERVER, Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.private_files import make_folder, write_file
from episodes_assets.settings import PROJECT_FOLDER, Settings, load_settings
from episodes_assets.user_files import require_standard_output

LOOPBACK = "127.0.0.1"
WATCH_SECONDS = 1.0
READY_SECONDS = 120.0
LONGEST_SOCKET_PATH = 107
HEALTH_SECONDS = 5.0
ATTENTION_SECONDS = 15.0
RUNNING, GOOD = "is running", "green"


def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of the web UI.")] = 3000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 2,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print all that the processes print.")
    ] = False,
) -> None:
    """Run the whole system until Ctrl-C: databases, code location, daemon, web UI and workers.

    The screen shows each process, the address and what needs attention; where the output is no terminal, a
    line is printed for each change of these. All that the processes print is in a log for each in the home's
    folder `logs`, which rotates; --verbose prints it as well, each line prefixed with its process.

    The UI listens on this machine only and asks for a
    login; the first start makes an operator and prints the password, once. The daily
    schedule is off until you switch it on in the UI; the sensors are on. A process that ends is
    started again, the embedded PostgreSQL included, ever later if it ends as soon as it begins; but if the
    code location, the daemon or the UI ends before all were ready, all are stopped with the reason. One `up`
    runs in a home.
    """
    require_standard_output()  # the first operator's password is shown there, once
    settings = load_settings()
    configuration = read_configuration(settings, host=LOOPBACK, port=port)
    with context.only_system(settings.home, configuration.address):
        dsns = context.ready_databases(settings)
        context.announce_open_hosts(settings)
        context.refuse_writable_input(settings, dsns)
        folder = context.prepare_dagster_home(settings)
        _require_free(port)
        if settings.password_login:
            _announce_operator(settings, dsns)
        with own_current_folder(settings):
            _run(settings, dsns, folder, configuration, workers, is_verbose=verbose)
    out.print("All processes have stopped.")


def _run(
    settings: Settings,
    dsns: Dsns,
    folder: Path,
    configuration: Configuration,
    workers: int,
    *,
    is_verbose: bool,
) -> None:
    stopping, ready = threading.Event(), threading.Event()
    names = ["code", "daemon", "ui", *(f"worker-{number}" for number in range(1, workers + 1))]
    logs = make_folder(settings.home.resolve() / "logs")
    with (
        _stopped_by_signals(stopping),
        private_socket_path() as code_socket,
        supervisor.log_files(logs, names) as write,
        Overview(configuration.address, names, logs, write, is_verbose=is_verbose) as overview,
    ):
        group = supervisor.ProcessGroup(overview.take_line, die_with_us=True)
        try:
            _start(
                group, stopping, settings, dsns, folder, code_socket, configuration.port, workers, overview
            )
            for look in (
                partial(_watch_health, configuration, stopping, ready, overview),
                partial(watch_alerts, dsns, stopping, overview),
            ):
                threading.Thread(target=look, daemon=True).start()
            database = embedded.start(settings.home) if dsns.is_embedded else None
            _watch(group, stopping, ready, database, overview)
        finally:
            stopping.set()
            overview.stop()
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


def _announce_operator(settings: Settings, dsns: Dsns) -> None:
    """Add the first operator where there is no user, and print the password, this once."""
    with connect.connect_to_write(
        dsns.require(Purpose.DASHBOARD), Database.DAGSTER, settings.environment, autocommit=True
    ) as connection:
        if not add_first_operator(connection, _show_first_operator):
            out.print(
                "`episodes users list` shows who may sign in, `episodes users password NAME` sets a password."
            )


def _show_first_operator(name: str, password: str) -> None:
    out.print(
        Text.assemble(
            "Sign in as ", (name, "bold"), " with the password ", (password, "bold"),
            " (shown this once; `episodes users password ", name, "` sets another)",
        ),
        soft_wrap=True,
    )  # fmt: skip


def _start(
    group: supervisor.ProcessGroup,
    stopping: threading.Event,
    settings: Settings,
    dsns: Dsns,
    folder: Path,
    code_socket: Path,
    port: int,
    workers: int,
    overview: Overview,
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
    logging = ["--log-format", "json"] if settings.log_format == "json" else []
    overview.change("code", "is starting")
    group.start(
        "code",
        [*supervisor.program("dagster"), "api", "grpc", "--module-name", "episodes_assets.definitions",
         # Without it, modules of the current folder would come first.
         "--working-directory", str(PROJECT_FOLDER),
         "--socket", str(code_socket), "--location-name", "episodes_assets", *logging],
        orchestrator,
    )  # fmt: skip
    _wait_for_code(group, code_socket, stopping, overview)
    overview.change("code", RUNNING, GOOD)
    group.start(
        "daemon",
        [*supervisor.program("dagster-daemon"), "run", "--workspace", str(workspace), *logging],
        only_dagster,
    )
    overview.change("daemon", RUNNING, GOOD)
    group.start(
        "ui",
        supervisor.episodes_argv(
            "webserver", "--workspace", str(workspace), "--host", LOOPBACK, "--port", str(port)
        ),
        {**home, **dsns.environment(WEBSERVER)},
    )
    overview.change("ui", "is starting")
    for number in range(1, workers + 1):
        group.start(
            f"worker-{number}",
            supervisor.worker_argv(),
            supervisor.worker_environment(settings, dsns),
        )
        overview.change(f"worker-{number}", RUNNING, GOOD)


def _wait_for_code(
    group: supervisor.ProcessGroup, code_socket: Path, stopping: threading.Event, overview: Overview
) -> None:
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
            raise _explain_end(child, overview)
        if time.monotonic() > deadline:
            raise ProcessFailed(
                f"the code location did not answer within {READY_SECONDS:g} s",
                f"read {overview.log_of('code')}",
            )


def _watch(
    group: supervisor.ProcessGroup,
    stopping: threading.Event,
    ready: threading.Event,
    database: embedded.EmbeddedServer | None,
    overview: Overview,
) -> None:
    """Restart processes that end, and an embedded PostgreSQL, until the system is stopped.

    The code location is started on the same socket, to which daemon and web UI reconnect by themselves.

    Raises:
        ProcessFailed: If a process other than a worker ends before the system was ready.
        DatabaseUnreachable: If the PostgreSQL does not start again.
    """
    restarts = supervisor.Restarts(group)
    databases = None if database is None else DatabaseRestarts(database, overview.say)
    while not stopping.wait(WATCH_SECONDS):
        if databases is not None:
            databases.look(time.monotonic())
        for child in group.forget_ended():
            if not (ready.is_set() or child.name.startswith("worker-")):
                raise _explain_end(child, overview)
            pause = restarts.plan(child)
            overview.change(
                child.name,
                f"{ENDED} {child.process.returncode}; starting it again in {pause:g} s",
                "bold red",
            )
        for name in restarts.start_due():
            overview.change(name, RUNNING, GOOD)


class DatabaseRestarts:
    """Restarts the embedded PostgreSQL, with exponential backoff while it ends soon again.

    Args:
        database: It.
        say: Takes what is to be shown.
    """

    def __init__(self, database: embedded.EmbeddedServer, say: Callable[[str], None]) -> None:
        self._database = database
        self._say = say
        self._backoff = supervisor.Backoff()
        self._started = -math.inf
        self._due: float | None = None

    def look(self, now: float) -> None:
        """Start it if it has ended and its pause is over.

        Args:
            now: The time, in seconds.

        Raises:
            DatabaseUnreachable: If it does not start.
        """
        if self._due is None and not self._database.is_running():
            pause = self._backoff.pause(now - self._started)
            self._due = now + pause
            self._say(f"The embedded PostgreSQL has ended; starting it again in {pause:g} s")
        if self._due is not None and now < self._due:
            return
        self._due = None
        if self._database.ensure_running():  # which also rotates its log
            self._started = now
            self._say("The embedded PostgreSQL had ended; it has been started again")


def _explain_end(child: supervisor.Child, overview: Overview) -> ProcessFailed:
    """The error for a process without which nothing goes on; the last that it has said is printed."""
    out.print(block(overview.last_lines(child.name)), soft_wrap=True)
    return ProcessFailed(
        f"{child.name} ended with {child.process.returncode}", f"read {overview.log_of(child.name)}"
    )


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


def _watch_health(
    configuration: Configuration, stopping: threading.Event, ready: threading.Event, overview: Overview
) -> None:
    """Say when the system is ready, and from then on, while it does not answer, that it does not."""
    began = time.monotonic()
    has_warned = False
    while not stopping.wait(HEALTH_SECONDS if ready.is_set() else 0.5):
        if _is_healthy(configuration):
            if not ready.is_set():
                ready.set()
                overview.say(
                    f"The UI is ready: {configuration.address}  (Ctrl-C stops everything)", style="bold"
                )
            overview.change("ui", RUNNING, GOOD)
        elif ready.is_set():
            # Not while a process of it is being started again, which shows by itself.
            overview.change("ui", f"is not well; the reason is in {overview.log_of('ui')}", "bold red")
        elif not has_warned and time.monotonic() - began > READY_SECONDS:
            has_warned = True
            health = f"{configuration.address}/healthz"
            overview.say(f"Not ready after {READY_SECONDS:g} s: read {overview.log_of('ui')}, and {health}")


def watch_alerts(dsns: Dsns, stopping: threading.Event, overview: Overview) -> None:
    """Show which alerts are open and which databases are away, until the system is stopped."""
    while not stopping.wait(ATTENTION_SECONDS):
        try:
            found = read_attention(dsns)
        except Exception as error:  # noqa: BLE001  whatever it is, the next look may show more
            said = " ".join(f"{type(error).__name__}: {error}".split())
            found = {"databases": f"alerts cannot be read ({said})"}
        overview.attend(found)


def _is_healthy(configuration: Configuration) -> bool:
    """Whether the dashboard's /healthz answers that it can serve."""
    tls = None
    if configuration.certificate:
        # Its own certificate and no other, whatever name is in it and whoever signed it.
        tls = ssl.create_default_context(cafile=configuration.certificate)
        tls.check_hostname = False
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with urllib.request.urlopen(  # noqa: S310
            f"{configuration.address}/healthz", timeout=10, context=tls
        ):
            return True
    except (http.client.HTTPException, OSError):
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
