"""A small disk, and a server of one's own whose limits are low."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from episodes_assets_tests.root_causes.disk import Disk, small_disk
from episodes_assets_tests.support.own_server import OwnServer, own_server

MOST_CONNECTIONS = 12


@pytest.fixture
def disk() -> Iterator[Callable[[int], Disk]]:
    """Mounts a disk of so many MB; skips where that is not allowed."""
    with ExitStack() as stack:
        # Not in pytest's folder, which is closed to the account of a server.
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="disk-")))
        path.chmod(0o755)
        yield lambda megabytes: stack.enter_context(small_disk(path / "disk", megabytes))


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """A server that takes few connections."""
    with own_server() as own:
        with psycopg.connect(own.admin_dsn, autocommit=True) as admin:
            admin.execute(f"ALTER SYSTEM SET max_connections = {MOST_CONNECTIONS}")
            admin.execute("ALTER SYSTEM SET max_wal_senders = 2")
        own.stop()
        own.start()
        yield own
