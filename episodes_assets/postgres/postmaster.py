"""The process of an embedded server: its `postmaster.pid`, its socket's folder and its log; launch and stop.

Also the other programs of PostgreSQL that are run for it, whose output goes to the same log. Where the data
lie and which programs run is `cluster`; who holds the server, and what is asked of it, is `embedded`.
"""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from episodes_assets.errors import DatabaseUnreachable, EpisodesError, FileMissing, HostUnreachable, TimedOut
from episodes_assets.failures import explain_server_log
from episodes_assets.postgres.cluster import Cluster
from episodes_assets.private_files import make_folder, open_file, rotate_log

PORT = 5432
LONGEST_SOCKET_PATH = 107
STOP_SECONDS = 60.0
START_SECONDS = 120.0
POLL_SECONDS = 0.05
_PID_FILE = "postmaster.pid"
# In a DSN, drivers read a comma as a list and differ in what they make of other characters.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)

# How long the processes of a killed server may take to notice that it is gone.
_ORPHANS_SECONDS = 30.0
_REMAINS = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')

_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Postmaster:
    """A live server as its `postmaster.pid` describes it."""

    pid: int
    socket_folder: Path
    is_ready: bool


def suits_a_socket(folder: Path) -> bool:
    """Whether a socket's path in the folder is short and plain enough for every driver."""
    path = _socket_in(folder)
    return len(path) <= LONGEST_SOCKET_PATH and _PLAIN.fullmatch(path) is not None


def _socket_in(folder: Path) -> str:
    return str(folder / f".s.PGSQL.{PORT}")


def find_running(data: Path) -> Postmaster | None:
    """The process that serves a data folder, if one does."""
    try:
        lines = (data / _PID_FILE).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        pid = int(lines[0])
        command = psutil.Process(pid).cmdline()  # empty for a zombie
    except (FileNotFoundError, ValueError, IndexError, psutil.Error):
        return None
    if str(data) not in command:
        return None
    folder = Path(lines[4]) if len(lines) > 4 else data
    return Postmaster(pid, folder, is_ready=len(lines) > 7 and lines[7].strip() == "ready")


def socket_folder_of_killed(data: Path) -> Path | None:
    """Where the socket of a server lay that was killed; DSNs that were handed out still name that folder."""
    try:
        folder = Path((data / _PID_FILE).read_text(encoding="utf-8").splitlines()[4])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    return folder if suits_a_socket(folder) else None


def remove_stale_pid_file(data: Path, socket_folder: Path) -> None:
    """Remove a killed server's pid file and socket lock, if the id is a zombie's or another program's.

    PostgreSQL takes any process of its user with that id for a running server: after a restart of a
    container, in which ids begin again, or as long as the killed process is a zombie.
    """
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
        file = data / _PID_FILE
        process = psutil.Process(int(file.read_text(encoding="utf-8", errors="replace").splitlines()[0]))
        if process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name():
            file.unlink()
            Path(f"{_socket_in(socket_folder)}.lock").unlink()


def accepts_connections(socket_folder: Path) -> bool:
    """Whether a server accepts connections there; it may not be ready yet."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(_socket_in(socket_folder))
        except (TimeoutError, BlockingIOError):
            return True  # busy
        except OSError:
            return False
    return True


def reap() -> None:
    """Ask for the exit codes of servers that this process started, so that ended ones are no zombies."""
    for process in _started:
        process.poll()


def stop(data: Path) -> None:
    """End the server's sessions and the server; at once, without a checkpoint, when it takes too long."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        running = find_running(data)
        if running is None:
            return
        os.kill(running.pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while find_running(data) is not None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if running.socket_folder != data:
            with contextlib.suppress(OSError):
                running.socket_folder.rmdir()


def choose_socket_folder(cluster: Cluster) -> Path:
    """The data folder if its path suits a socket, else a new folder of ours in the temporary folder.

    Raises:
        DatabaseUnreachable: If neither does.
    """
    if suits_a_socket(cluster.data):
        return cluster.data
    folder = Path(tempfile.mkdtemp(prefix="episodes-")).resolve()
    cluster.own(folder)
    if not suits_a_socket(folder):
        folder.rmdir()
        raise DatabaseUnreachable(
            f"neither {cluster.data} nor {folder} can hold a socket: a path has at most {LONGEST_SOCKET_PATH}"
            " bytes with the socket's name, and only letters, digits and . / + - _",
            "set TMPDIR to a folder with such a path",
        )
    return folder


def ensure_socket_folder(cluster: Cluster, folder: Path) -> None:
    """Make the socket's folder again if it was removed from the temporary folder, and require it private."""
    if folder != cluster.data and not os.path.lexists(folder):
        folder.mkdir(mode=0o700)
        cluster.own(folder)
    require_private(cluster, folder)


def require_private(cluster: Cluster, folder: Path) -> None:
    """Refuse a folder in which others can write: a socket made there could receive what we send."""
    if is_open(cluster, folder):
        raise DatabaseUnreachable(
            f"{folder}, the folder of the embedded PostgreSQL's socket, is not private",
            f"see who has changed it; it must belong to user {_owner(cluster)} and have mode 0700",
        )


def is_open(cluster: Cluster, folder: Path) -> bool:
    """Whether others can write in a folder, or have put something of theirs in its place."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == _owner(cluster)
    return not is_ours or bool(found.st_mode & 0o027)


def _owner(cluster: Cluster) -> int:
    """The id of the user as whom the server runs."""
    account = cluster.programs.account
    return os.geteuid() if account is None else account.uid


def launch(cluster: Cluster, socket_folder: Path) -> Postmaster:
    """Start the server and wait until it is ready; processes of a killed one may need a moment to end."""
    settings = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(socket_folder),
        "unix_socket_permissions": "0700",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    deadline = time.monotonic() + _ORPHANS_SECONDS
    while True:
        remove_stale_pid_file(cluster.data, socket_folder)
        with _appended_log(cluster.home) as log:
            before = log.tell()
            process = subprocess.Popen(
                cluster.programs.argv("postgres", "-D", str(cluster.data), *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **cluster.programs.options,
            )
        _started.append(process)
        ready = wait_until_ready(cluster, process)
        if ready is not None:
            return ready
        reason, cause = _last_output(cluster.home, before)
        if not any(each in reason for each in _REMAINS) or time.monotonic() > deadline:
            raise did_not_start(cluster.home, reason, cause)
        time.sleep(POLL_SECONDS)


def wait_until_ready(cluster: Cluster, process: subprocess.Popen[bytes] | None = None) -> Postmaster | None:
    """The server once it accepts connections; None if it, or the process that was started, has ended."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = find_running(cluster.data)
        if found is not None and found.is_ready and (process is None or process.pid == found.pid):
            return found
        if (found is None) if process is None else (process.poll() is not None):
            return None
        time.sleep(POLL_SECONDS)
    raise did_not_start(cluster.home, f"it is still starting after {START_SECONDS:g} s; try again")


def run_program(cluster: Cluster, argv: Sequence[str], statement: str = "") -> None:
    """Run one of PostgreSQL's programs, on its standard input a statement.

    Raises:
        EpisodesError: If it fails: the cause that is known, else `DatabaseUnreachable`.
    """
    with _appended_log(cluster.home) as log:
        before = log.tell()
        done = subprocess.run(
            argv,
            input=statement.encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=START_SECONDS,
            check=False,
            **cluster.programs.options,
        )
    if done.returncode != 0:
        raise did_not_start(cluster.home, *_last_output(cluster.home, before))


def name_of(home: Path) -> str:
    """What errors call the server."""
    return f"the embedded PostgreSQL in {home}"


def did_not_start(home: Path, reason: str, cause: EpisodesError | None = None) -> EpisodesError:
    """The error for a server that did not start: its cause if one is known that says more, as a full disk."""
    if cause is not None and not isinstance(cause, HostUnreachable | FileMissing | TimedOut):
        return cause
    log = log_of(home)
    read = f"read {log}, or " if log.exists() else ""
    return DatabaseUnreachable(
        f"{name_of(home)} did not start ({reason})",
        f"{read}point EPISODES_HOME at another folder",
    )


def log_of(home: Path) -> Path:
    """The server's log."""
    return home / "logs" / "postgres.log"


def _appended_log(home: Path) -> IO[str]:
    log = log_of(home)
    make_folder(log.parent)
    rotate_log(log, is_held_open=True)
    return open_file(log, "a")


def _last_output(home: Path, since: int) -> tuple[str, EpisodesError | None]:
    """The last output of a program that failed, and the line of it that is the cause."""
    output = log_of(home).read_bytes()[since:].decode(errors="replace")
    last = [line.strip() for line in output.splitlines() if line.strip()][-3:]
    return "; ".join(last) or "it printed nothing", explain_server_log(output, name_of(home))
