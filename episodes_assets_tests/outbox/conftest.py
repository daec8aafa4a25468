"""A database with an outbox for the tests of a module, and channels that do as they are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets_tests.support.fresh_system import fresh_system


@pytest.fixture(scope="module")
def queue_of_module(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A connection to `queue`, as the sensor and the web server have it."""
    with (
        pytest.MonkeyPatch.context() as patch,
        fresh_system(server_home, tmp_path_factory.mktemp("outbox") / "home", patch) as system,
        connect_to_write(
            system.dsn(Purpose.QUEUE), Database.QUEUE, system.settings.environment, autocommit=True
        ) as queue,
    ):
        yield queue


@pytest.fixture
def queue(queue_of_module: Connection) -> Connection:
    """The same without alerts."""
    queue_of_module.execute("DELETE FROM alerts.alerts")
    queue_of_module.execute("DELETE FROM alerts.evaluations")
    return queue_of_module
