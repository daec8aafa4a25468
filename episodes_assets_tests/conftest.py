"""Fixtures: an embedded server for the session, databases of its own for each test, connections to them."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from episodes_assets.cli.context import prepare_dagster_home
from episodes_assets.lake.drops import Drops
from episodes_assets.postgres import embedded, postmaster
from episodes_assets.postgres.cluster import find_cluster
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.postgres.provision.init import provision
from episodes_assets.settings import load_settings
from episodes_assets_tests.support.accounts import copied_accounts
from episodes_assets_tests.support.fresh_system import fresh_system
from episodes_assets_tests.support.system import System, home_in_memory, throwaway

__all__ = ["copied_accounts"]

# How long an example takes says more of what else the machine does than of our code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tests in `chaos/` and in a browser; pytest wants them where its first conftest is."""
    group = parser.getgroup("chaos")
    group.addoption("--chaos", choices=["short", "long"], default="short", help="how much of it")
    group.addoption("--chaos-seed", type=int, default=1, help="of every random choice in it")
    group.addoption("--chaos-record", help="a JSON file to keep what happened in")
    parser.addoption("--pictures", help="a folder to keep pictures of the dashboard in")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """A developer's environment must not reach the tests."""
    for name in [name for name in os.environ if name.startswith(("EPISODES_", "DAGSTER_"))]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _no_ignored_signals_from_outside() -> None:
    """The processes of tests would inherit what a shell in the background or `nohup` ignores."""
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, default)


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an embedded server whose four databases serve as templates."""
    home = home_in_memory() or throwaway(tmp_path_factory.mktemp("server"))
    settings = load_settings(home=home)
    dsns = resolve_dsns(settings)
    server = embedded.start(home)
    _make_quick(server)
    provision(settings, dsns, lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPISODES_HOME", str(home))
        patch.delenv("DAGSTER_HOME", raising=False)
        prepare_dagster_home(load_settings())
        with dg.DagsterInstance.get():  # makes Dagster's tables
            pass
        del os.environ["DAGSTER_HOME"]
    return home


def _make_quick(server: embedded.EmbeddedServer) -> None:
    """Settings that take from the tests of the product what is not the product's."""
    settings = {
        "fsync": "off",  # no test pulls the plug of the machine
        "max_wal_size": "256MB",
        "shared_buffers": "128MB",  # looked through whenever a database is made or dropped
        "scram_iterations": "1",  # for each of thousands of connections; the passwords are random
    }
    administrator = server.dsn(embedded.ADMINISTRATOR, "postgres")
    with psycopg.connect(administrator, autocommit=True) as admin:
        for name, value in settings.items():
            admin.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
    postmaster.stop(find_cluster(server.home).data)
    server.ensure_running()
    password = conninfo_to_dict(administrator)["password"]
    with psycopg.connect(administrator, autocommit=True) as admin:
        role = sql.Identifier(embedded.ADMINISTRATOR)
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, password))


@pytest.fixture
def system(server_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """Four fresh databases, a home, and the environment that names them."""
    with fresh_system(server_home, tmp_path / "home", monkeypatch) as made:
        yield made


@pytest.fixture
def queue(system: System) -> Iterator[Connection]:
    """The system's queue, as the orchestrator."""
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as opened:
        yield opened


@pytest.fixture
def results(system: System) -> Iterator[Connection]:
    """The system's results, as the publisher."""
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as opened:
        yield opened


@pytest.fixture
def drops(tmp_path: Path) -> Drops:
    """The drops of a lake in which there is nothing yet."""
    return Drops(str(tmp_path / "lake"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Keep the garbage collector from what stays until the end: a million objects of modules and of tests.

    It would look through all of them again and again, a third of a second each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its tier, and begin with the longest, so that no core waits at the end."""
    for item in items:
        item.add_marker(_tier(item))
    longest = ("test_a_working_day", "test_a_backfill_through_the_daemon", "test_days_at_once")
    items.sort(key=lambda item: not item.name.startswith(longest))


def _tier(item: pytest.Item) -> str:
    """What a test needs beyond Python: modules say `process` themselves, the rest is seen from outside."""
    for folder in ("chaos", "browser"):
        if folder in item.path.parts:
            return folder
    if item.get_closest_marker("process") is not None:
        return "process"
    return "database" if "server_home" in getattr(item, "fixturenames", ()) else "unit"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that starts a program without being marked so."""
    allowed = any(item.get_closest_marker(name) for name in ("process", "browser", "chaos"))
    started = None if allowed else _started
    if started is not None:
        started.clear()
    result = yield
    if started:
        pytest.fail(f"it started {started[0]}: let the module be marked with `pytest.mark.process`")
    return result


_started: list[str] = []


def _note_program(event: str, details: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        _started.append(str(details[1]))


sys.addaudithook(_note_program)
