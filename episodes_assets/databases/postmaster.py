"""The main process of an embedded PostgreSQL, as its `postmaster.pid` describes it."""

import contextlib
import os
import re
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

PORT = 5432
LONGEST_SOCKET_PATH = 107
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05

_PID_FILE = "postmaster.pid"
# In a DSN, drivers read a comma as a list and differ in what they make of other characters.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


@dataclass(frozen=True)
class Postmaster:
    """A live server as its `postmaster.pid` describes it."""

    pid: int
    socket_folder: Path
    is_ready: bool


def suits_a_socket(folder: Path) -> bool:
    """Whether a socket can lie there, and every driver finds it by its path."""
    path = _socket_in(folder)
    return len(path) <= LONGEST_SOCKET_PATH and _PLAIN.fullmatch(path) is not None


def _socket_in(folder: Path) -> str:
    return str(folder / f".s.PGSQL.{PORT}")


def find_running(data: Path) -> Postmaster | None:
    """The process that serves a data folder, if one does."""
    try:
        lines = (data / _PID_FILE).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        pid = int(lines[0])
        command = psutil.Process(pid).cmdline()  # none of a process that has ended and is not waited for
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


def forget_dead(data: Path, socket_folder: Path) -> None:
    """Remove what a killed server has left if something else, or nothing but its remains, has its process id.

    PostgreSQL takes any process of its user with that id for a server that still runs: after a restart of a
    container, which begins to count anew, or while nobody has waited for the killed one.
    """
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
        file = data / _PID_FILE
        process = psutil.Process(int(file.read_text(encoding="utf-8", errors="replace").splitlines()[0]))
        if process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name():
            file.unlink()
            Path(f"{_socket_in(socket_folder)}.lock").unlink()


def accepts(socket_folder: Path) -> bool:
    """Whether a server takes connections there; it may still have to get ready."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(_socket_in(socket_folder))
        except (TimeoutError, BlockingIOError):
            return True  # busy
        except OSError:
            return False
    return True


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
