"""Folders and files for their owner alone, whatever the umask, and locks between processes.

Everything below the home is written with these. A lock names its holder: who waits for it says so, and gives
up after a minute. A file that a user names (`results --csv`) is the user's: it follows the umask and is not
made here. Locks in a database are `postgres/locks.py`.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from episodes_assets.errors import LockTimeout

log = logging.getLogger(__name__)

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
