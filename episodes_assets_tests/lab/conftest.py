"""A source with published days, made once for all tests of labs; none of them may change it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

from episodes_assets.lab import bundle
from episodes_assets.lab.pseudonyms import KEY_BYTES
from episodes_assets.lab.source import Source
from episodes_assets.lake.opening import open_lake
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.browser import browser, person, pictures
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.system import System, day, failure

__all__ = ["browser", "person", "pictures"]

FIRST, LAST = day(1), day(3)
# Makes of small numbers others of which no byte is like those of anything else in a bundle.
FACTOR, MODULUS = 6_364_136_223_846_793_005, 9_223_372_036_854_775_783


@dataclass(frozen=True)
class Published:
    """A system with published days, and the environment that names it."""

    system: System
    environment: Mapping[str, str]


def let_nobody_make_temporary_tables(system: System) -> None:
    """As `db init` does; a database that is copied from a template has forgotten it."""
    for database in ("queue", "results"):
        (name,) = system.query(database, "SELECT current_database()")[0]
        statement = sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
        system.query(database, statement.as_string(None))


@pytest.fixture(scope="session")
def published_once(server_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    patch = pytest.MonkeyPatch()
    try:
        with fresh_system(server_home, tmp_path_factory.mktemp("source") / "home", patch) as system:
            patch.setenv("EPISODES_CHUNK_JOBS", "40")
            system.generate(FIRST, LAST)
            scattered = f"(viewer_id::numeric * {FACTOR} % {MODULUS})::bigint"
            system.query("input", f"UPDATE viewings SET viewer_id = {scattered}")
            system.query("input", "UPDATE viewings SET viewer_id = NULL WHERE viewer_id % 17 = 0")
            with system.workers(2):
                result = system.materialize(FIRST, LAST)
            assert result.success, failure(result)
            let_nobody_make_temporary_tables(system)
            names = [name for name in os.environ if name.startswith(("EPISODES_", "DAGSTER_"))]
            environment = {name: os.environ[name] for name in names}
            patch.undo()
            yield Published(system, environment)
    finally:
        patch.undo()


@pytest.fixture
def published(published_once: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> System:
    """The source; labs of the test are in a home of its own, and the source's lake is named."""
    for name, value in published_once.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EPISODES_LAKE_URL", str(published_once.system.home / "lake"))
    return published_once.system


@pytest.fixture(autouse=True)
def _the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so few series, a share by a random key may have none."""
    monkeypatch.setattr(bundle, "new_key", lambda: bytes(range(KEY_BYTES)))


@pytest.fixture
def source(published: System) -> Source:
    settings = published.settings
    return Source(
        environment=settings.environment,
        queue_dsn=published.dsn(Purpose.QUEUE_READER),
        results_dsn=published.dsn(Purpose.RESULTS_READER),
        lake=open_lake(settings),
    )


def silent(_what: str, _done: int, _total: int) -> None:
    """A report that nobody reads."""
