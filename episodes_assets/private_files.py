"""Folders and files for their owner alone, whatever the umask, bounded logs, and locks between processes.

Everything below the home is written with these. A lock names its holder: who waits for it says so, and gives
up after a minute. A file that a user names (`results --csv`) is the user's: it follows the umask and is not
made here. Locks in a database are `postgres/locks.py`.
"""

import fcntl
import io
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from episodes_assets.errors import LockTimeout

log = logging.getLogger(__name__)

# A log and its older parts take 50 MB at most.
LOG_BYTES = 10_000_000
OLDER_LOGS = 4
TELL_SECONDS = 2.0
LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.05


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, with mode 0700.

    A folder that is there keeps its mode: its owner may have chosen it.

    Raises:
        OSError: If it cannot be made, or is something else.
    """
    for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
        with suppress(FileExistsError):  # another process has made it meanwhile
            missing.mkdir(mode=0o700)
            missing.chmod(0o700)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")
    return path


def open_file(path: Path, mode: Literal["w", "x", "a", "a+"]) -> IO[str]:
    """Open a text file with mode 0600 for writing, also one that an earlier release made readable to others.

    Raises:
        OSError: If it cannot be opened.
    """
    return open(path, mode, encoding="utf-8", opener=private_opener)


def private_opener(path: str, flags: int) -> int:
    """What `open` takes as `opener` for a file with mode 0600."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def write_file(path: Path, text: str) -> None:
    """Write a whole file by rename, so that nobody reads a part of it.

    Raises:
        OSError: If it cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open_file(part, "w") as file:
        file.write(text)
    part.replace(path)


def older_log(path: Path, number: int) -> Path:
    """Where an older part of a log is; number 1 is the newest of them."""
    return path.with_name(f"{path.name}.{number}")


def rotate_log(path: Path, *, is_held_open: bool = False) -> bool:
    """Begin a log anew once it has `LOG_BYTES`; keep `OLDER_LOGS` older parts, `name.1` being the newest.

    Of several processes that do so at once, one does it. Nothing happens while another one is at it.

    Args:
        path: The log.
        is_held_open: Whether another program appends to it and does not open it again. Then it is copied and
            emptied; what that program writes in between may be lost.

    Returns:
        Whether it was done.

    Raises:
        OSError: If it cannot be done, as on a full disk; then the log stays as it is.
    """
    if not _is_full(path):
        return False
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_full(path):  # another process was faster
            return False
        for number in range(OLDER_LOGS - 1, 0, -1):
            with suppress(FileNotFoundError):
                older_log(path, number).replace(older_log(path, number + 1))
        if is_held_open:
            with path.open("rb") as log, open(older_log(path, 1), "wb", opener=private_opener) as part:
                shutil.copyfileobj(log, part)
            os.truncate(path, 0)
        else:
            path.replace(older_log(path, 1))
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_full(log: Path) -> bool:
    """Whether it is to be rotated; for a moment there is none, while another process does that."""
    try:
        return log.stat().st_size >= LOG_BYTES
    except FileNotFoundError:
        return False


class LogFile:
    """A log with mode 0600 and of bounded size, to which several threads and processes may append lines.

    It has no buffer: what a full disk refuses is lost, and does not fail again when it is closed.

    Raises:
        OSError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = self._open()

    def write(self, line: str) -> None:
        """Append a line; nothing happens after `close`, nor while the disk is full.

        Whoever writes the lines of a process must go on reading them, or the process would block.
        """
        with self._lock, suppress(ValueError, OSError):
            # One that another process has rotated is full as well.
            if os.fstat(self._file.fileno()).st_size >= LOG_BYTES:
                rotate_log(self.path)
                # First the new one: if it cannot be opened now, it is tried again with the next line.
                before, self._file = self._file, self._open()
                before.close()
            self._file.write(f"{line}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _open(self) -> io.FileIO:
        return open(self.path, "ab", buffering=0, opener=private_opener)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock that processes take in turn; the kernel frees it when its holder dies.

    Its file has mode 0600, since whoever can open a file can hold a lock on it. Waiting is logged
    after `TELL_SECONDS`.

    Raises:
        LockTimeout: If another process holds it for `LOCK_SECONDS`.
        OSError: If the file cannot be opened.
    """
    with open_file(path, "a+") as file:
        began = time.monotonic()
        told = False
        while not try_lock(file):
            waited = time.monotonic() - began
            if waited > LOCK_SECONDS:
                raise LockTimeout(
                    f"{_holder(file)} still holds {path} after {LOCK_SECONDS:g} s",
                    "let it finish, or end it; the lock is free as soon as it is gone",
                )
            if waited > TELL_SECONDS and not told:
                log.warning("Waiting for %s, which holds %s", _holder(file), path)
                told = True
            time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def try_lock(file: IO[str]) -> bool:
    """Take a file's lock if nobody has it; the kernel lets go of it when the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return f"process {file.read().strip() or 'of an unknown id'}"
