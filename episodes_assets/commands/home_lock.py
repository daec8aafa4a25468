"""One system in one home: the lock that `episodes up` holds, and what it tells others of its holder.

Commands that work beside a running system (`run`, `webserver`, `dagster dev`) do not take it.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fasteners import InterProcessLock

from episodes_assets.errors import AlreadyRunning

LOCK_FILE = "up.lock"


@contextmanager
def only_system(home: Path, address: str) -> Iterator[None]:
    """Hold the home while the block lasts; the kernel lets go of it however the process ends.

    Args:
        home: The folder.
        address: Where this system's web UI is found.

    Raises:
        AlreadyRunning: At once, if another process holds it.
    """
    path = home / LOCK_FILE
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = InterProcessLock(path)
    if not lock.acquire(blocking=False):
        raise AlreadyRunning(
            f"`episodes up` is running already with {_describe_holder(path)} in {home}",
            "stop that one, or set EPISODES_HOME to another folder",
        )
    try:
        _write(
            lock, {"pid": os.getpid(), "address": address, "since": f"{dt.datetime.now(dt.UTC):%F %H:%M} UTC"}
        )
        yield
    finally:
        _write(lock, None)
        lock.release()


def _write(lock: InterProcessLock, holder: dict[str, object] | None) -> None:
    """Through the lock's own file: closing another one of this process would let go of the lock."""
    os.fchmod(lock.lockfile.fileno(), 0o600)
    lock.lockfile.truncate(0)
    if holder is not None:
        lock.lockfile.write(json.dumps(holder))
    lock.lockfile.flush()


def _describe_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"pid {holder['pid']} on {holder['address']} since {holder['since']}"
    except (OSError, ValueError):  # it is just starting, or just ending
        return "another process"
