"""Filling the input: each value as it is, each day once."""

import datetime as dt
import threading
import time

import psycopg
import pyarrow as pa
import pytest

from episodes_assets.databases.purposes import Purpose
from episodes_assets.errors import InputUnwritable
from episodes_assets.stores.input_writing import VIEWINGS_SCHEMA, replace_input
from episodes_assets_tests.system import System, day

AT = dt.datetime(2018, 3, 1, 20, 15, tzinfo=dt.UTC)
LARGE = 2**53 + 1


def load_viewing(system: System, epid: int = LARGE) -> None:
    rows = [{"epid": epid, "viewer_id": 2, "viewed_at": AT, "seconds_watched": 36, "completed": True}]
    replace_input(
        system.dsn(Purpose.INPUT_WRITER),
        drops=None,
        drop_days=[],
        viewings=pa.Table.from_pylist(rows, VIEWINGS_SCHEMA),
        viewing_days=[day(1)],
    )


def retype(system: System, column: str, declared: str) -> None:
    system.query("input", "TRUNCATE viewings")
    system.query("input", f"ALTER TABLE viewings DROP COLUMN {column}, ADD COLUMN {column} {declared}")


@pytest.mark.parametrize(
    ("column", "declared"),
    [
        ("epid", "double precision"),
        ("epid", "text"),
        ("viewer_id", "timestamp with time zone"),
        ("viewed_at", "bigint"),
        ("seconds_watched", "real"),
        ("completed", "text"),
        ("completed", "smallint"),
    ],
)
def test_a_column_that_takes_no_such_value_is_one_line(system: System, column: str, declared: str) -> None:
    retype(system, column, declared)
    with pytest.raises(InputUnwritable, match=rf"viewings\.{column} in .* is of the type {declared}, "):
        load_viewing(system)
    assert system.query("input", "SELECT count(*) FROM viewings") == [(0,)]


@pytest.mark.parametrize(
    ("column", "declared", "text"),
    [
        ("epid", "numeric", str(LARGE)),
        ("seconds_watched", "bigint", "36"),
        ("seconds_watched", "smallint", "36"),
        ("viewed_at", "timestamp", "2018-03-01 20:15:00"),
    ],
)
def test_a_column_of_another_type_holds_the_value(
    system: System, column: str, declared: str, text: str
) -> None:
    retype(system, column, declared)
    load_viewing(system)
    load_viewing(system)
    assert system.query("input", f"SELECT {column}::text FROM viewings") == [(text,)]


def test_what_does_not_fit_and_what_is_missing(system: System) -> None:
    retype(system, "epid", "integer")
    with pytest.raises(InputUnwritable, match=r"viewings\.epid .* integer, .*9007199254740993"):
        load_viewing(system)
    system.query("input", "ALTER TABLE viewings RENAME completed TO finished")
    with pytest.raises(InputUnwritable, match=r"has no column viewings\.completed"):
        load_viewing(system, epid=1)


def test_two_loads_of_a_day_at_once_leave_it_once(system: System) -> None:
    load_viewing(system)
    loads = [threading.Thread(target=load_viewing, args=[system]) for _ in range(2)]
    with psycopg.connect(system.admin["input"]) as other:
        other.execute("SELECT FROM viewings FOR UPDATE")
        for each in loads:
            each.start()
        deadline = time.monotonic() + 20
        while len(_waiting(system)) < len(loads):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for each in loads:
        each.join(20)
    assert system.query("input", "SELECT count(*) FROM viewings") == [(1,)]


def _waiting(system: System) -> list[object]:
    return system.query(
        "input",
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
