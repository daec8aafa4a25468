"""One system in one home: the lock that `episodes up` holds, and what it tells others of its holder.

Commands that work beside a running system (`run`, `webserver`, `dagster dev`) do not take it.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from episodes_assets.errors import AlreadyRunning
from episodes_assets.private_files import make_folder, open_file, try_lock

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
    path = make_folder(home) / LOCK_FILE
    with open_file(path, "a+") as file:
        if not try_lock(file):
            raise AlreadyRunning(
                f"`episodes up` is running already with {_describe_holder(path)} in {home}",
                "stop that one, or set EPISODES_HOME to another folder",
            )
        file.truncate(0)
        since = f"{dt.datetime.now(dt.UTC):%F %H:%M} UTC"
        json.dump({"pid": os.getpid(), "address": address, "since": since}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _describe_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"pid {holder['pid']} on {holder['address']} since {holder['since']}"
    except (OSError, ValueError):  # it is just starting, or just ending
        return "another process"
