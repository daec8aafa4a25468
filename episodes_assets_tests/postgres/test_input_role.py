"""The role that reads the input is refused in production when it could write, and warned of elsewhere."""

import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from episodes_assets.errors import InputWritable
from episodes_assets.postgres import embedded
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Database
from episodes_assets.postgres.provision.grants import check_input_role
from episodes_assets.worker import main
from episodes_assets.worker.main import run_worker
from episodes_assets_tests.support.invoke import refusal
from episodes_assets_tests.support.system import System, day, failure
from episodes_assets_tests.support.workers import worker_config

READER = "episodes_input_reader"
NOT_INHERITED = (
    "CREATE ROLE filler; GRANT INSERT ON episodes TO filler; GRANT filler TO {role} WITH INHERIT FALSE"
)
VIEW = (
    "ALTER TABLE viewings RENAME TO raw; CREATE VIEW viewings AS TABLE raw;"
    " GRANT DELETE ON viewings TO {role}"
)
PARTITIONED = (
    "DROP TABLE viewings; CREATE TABLE viewings (epid bigint, viewed_at timestamptz) PARTITION BY RANGE"
    " (viewed_at); CREATE TABLE viewings_march PARTITION OF viewings FOR VALUES FROM ('2018-03-01') TO"
    " ('2018-04-01'); "
)


@pytest.fixture
def admin(server_home: Path) -> Iterator[Connection]:
    """A transaction of an administrator that is rolled back, roles and all."""
    with psycopg.connect(embedded.start(server_home).dsn(embedded.ADMINISTRATOR, "input")) as connection:
        yield connection
        connection.rollback()


def complaints(connection: Connection) -> list[str]:
    connection.execute(f"SET LOCAL ROLE {READER}")
    said: list[str] = []
    check_input_role(connection, is_production=False, warn=said.append)
    if said:
        with pytest.raises(InputWritable) as refused:
            check_input_role(connection, is_production=True, warn=said.append)
        assert said == [str(refused.value)]
    else:
        check_input_role(connection, is_production=True, warn=said.append)
    return said


def test_a_role_that_can_only_read_is_let_through(admin: Connection) -> None:
    assert complaints(admin) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("GRANT INSERT ON episodes TO {role}", "may INSERT episodes"),
        ("GRANT UPDATE (completed) ON viewings TO {role}", "may UPDATE viewings"),
        ("GRANT DELETE ON viewings TO PUBLIC", "may DELETE viewings"),
        ("GRANT TRUNCATE ON episodes TO {role}", "may TRUNCATE episodes"),
        ("ALTER TABLE episodes OWNER TO {role}", "owns episodes"),
        ("GRANT CREATE ON SCHEMA public TO {role}", "may create in schema public"),
        ("GRANT pg_write_all_data TO {role}", "may DELETE episodes"),
        (
            NOT_INHERITED,
            "may INSERT episodes",
        ),
        (PARTITIONED + "GRANT SELECT ON viewings TO {role}; GRANT INSERT ON viewings_march TO {role}",
         "may INSERT viewings_march"),
        (
            VIEW,
            "may DELETE viewings",
        ),
        ("ALTER ROLE {role} SUPERUSER", "is superuser"),
    ],
)  # fmt: skip
def test_a_role_that_could_write_is_named_with_what_it_could(
    admin: Connection, change: str, says: str
) -> None:
    admin.execute(change.format(role=READER))
    (line,) = complaints(admin)
    assert f"the input role {READER} could write to the input: it {says}" in line
    assert "EPISODES_INPUT_DSN" in line


@pytest.mark.parametrize(
    "change",
    ["DROP TABLE episodes, viewings", PARTITIONED + "GRANT SELECT ON viewings TO " + READER],
)
def test_other_shapes_of_the_input_are_let_through(admin: Connection, change: str) -> None:
    admin.execute(change)
    assert complaints(admin) == []


@pytest.mark.slow
def test_every_start_looks(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    system.query("input", f"GRANT INSERT ON episodes TO {READER}")
    for database in Database:
        system.query(database, "UPDATE environment_stamp SET environment = 'production'")
    for table in (system.viewings, *system.drops.tables):
        table.change_stamp("development", "production")
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")
    monkeypatch.setattr(main, "_work", _no_work)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for command in (
            ["run", "2018-03-02"],
            ["backfill", "2018-03-02", "2018-03-03"],
            ["up", "--port", str(taken.getsockname()[1])],
        ):
            error = refusal(*command)
            assert isinstance(error, InputWritable)
            assert "may INSERT episodes" in str(error)
    run_worker(worker_config(system, "production"))  # which has nothing to do with the input
    step = system.materialize(day(2), select=["input_episodes"])
    assert "may INSERT episodes" in failure(step)
    # What is read from the lake needs no input, and so no role.
    assert system.materialize(day(1), select=["input_episodes"]).success


def test_elsewhere_the_step_warns(system: System) -> None:
    system.query("input", f"GRANT INSERT ON episodes TO {READER}")
    system.insert_drop(day(1), [(1, 0, "2018-02-01", "2018-02-01")])
    system.plan(day(1))
    logged = system.query("dagster", "SELECT count(*) FROM dagster.event_logs WHERE event LIKE %s",
                          ["%could write to the input%"])  # fmt: skip
    assert logged == [(1,)]


async def _no_work(_config: object) -> None:
    """A worker's start without its work."""
