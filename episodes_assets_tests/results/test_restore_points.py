"""A restore point after each publication: its name, where it is made, and who may make one."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results.restore_points import (
    Made,
    find_newest_restore_point,
    make_restore_point,
    read_restore_points,
)
from episodes_assets_tests.support.system import System, day

MAKERS = {
    Database.DAGSTER: Purpose.DAGSTER,
    Database.QUEUE: Purpose.QUEUE,
    Database.RESULTS: Purpose.RESULTS,
}
HISTORY = (
    "INSERT INTO published.history (day, jobs, rows, left_out, decision, checksum, plan_id, plan_checksum,"
    " code_version, algorithm_versions) VALUES (%s, 1, 1, 0, '', 'c', 1, 'c', '1', '{}')"
)


@pytest.fixture
def servers(system: System) -> Iterator[Mapping[Database, Connection]]:
    """Connections as a step of the orchestrator has them."""
    environment = system.settings.environment
    with ExitStack() as stack:
        yield {
            database: stack.enter_context(
                connect_to_write(system.dsn(purpose), database, environment, autocommit=True)
            )
            for database, purpose in MAKERS.items()
        }


def publish(system: System, *numbers: int) -> None:
    for number in numbers:
        system.query("results", HISTORY, [day(number)])


def made(servers: Mapping[Database, Connection], *numbers: int) -> Made:
    found = make_restore_point(servers, [day(number) for number in numbers])
    assert found is not None
    return found


def test_a_point_is_made_once_after_each_publication_and_is_on_record(
    system: System, servers: Mapping[Database, Connection], server_home: Path
) -> None:
    results = servers[Database.RESULTS]
    assert make_restore_point(servers, [day(1)]) is None  # was never published
    assert find_newest_restore_point(results) is None
    publish(system, 1, 2)
    first = made(servers, 1, 2)
    assert first.name.startswith("episodes-2018-03-02-2-")
    assert len(first.name) < 64
    assert (first.refused, first.databases) == ({}, ["dagster", "results", "queue"])
    assert make_restore_point(servers, [day(1), day(2)]) is None
    publish(system, 1)
    second = made(servers, 1, 2)
    assert [each.name for each in read_restore_points(results, day(1))] == [first.name, second.name]
    (only,) = read_restore_points(results, day(2))
    assert (only.name, only.databases) == (first.name, ["dagster", "results", "queue"])
    newest = find_newest_restore_point(results)
    assert newest is not None
    assert (newest.name, newest.day) == (second.name, day(1))
    # The server has it in its log, as whoever restores looks for it.
    log = server_home / "logs" / "postgres.log"
    assert log.read_text().count(f'restore point "{first.name}" created at') == 3


def test_what_is_on_record_stays(system: System, servers: Mapping[Database, Connection]) -> None:
    publish(system, 1)
    made(servers, 1)
    changes: tuple[LiteralString, ...] = (
        "DELETE FROM published.restore_points",
        "UPDATE published.restore_points SET name = 'x'",
    )
    for statement in changes:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            servers[Database.RESULTS].execute(statement)


def test_others_make_none(system: System) -> None:
    for purpose in set(Purpose) - {*MAKERS.values()}:
        with (
            psycopg.connect(system.dsn(purpose)) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SELECT pg_create_restore_point('mine')")


def test_a_server_that_refuses_one_is_left_out(
    system: System, servers: Mapping[Database, Connection]
) -> None:
    revoke = "REVOKE EXECUTE ON FUNCTION pg_create_restore_point FROM"
    system.query("queue", f"{revoke} episodes_orchestrator")
    system.query("dagster", f"{revoke} episodes_dagster")
    publish(system, 1)
    partly = made(servers, 1)
    assert partly.databases == ["results"]
    assert partly.refused.keys() == {"queue", "dagster"}
    assert "permission denied for function pg_create_restore_point" in partly.refused[Database.QUEUE]
    system.query("results", f"{revoke} episodes_publisher")
    publish(system, 2)
    assert made(servers, 2).databases == []
    assert read_restore_points(servers[Database.RESULTS], day(2)) == []
