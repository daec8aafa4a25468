"""From when on viewings are there, whatever junk lies among them."""

import datetime as dt
import json

import numpy as np
import pytest

from episodes_assets.input.reading import viewings_begin
from episodes_assets.postgres.databases import Purpose
from episodes_assets.worker.compute import JobWindows
from episodes_assets_tests.support.system import System, day

BEGIN = dt.date(2018, 2, 20)
THE_DAY = day(1)
FAR_BACK = dt.date(2017, 1, 1)


def fill(system: System, first: dt.date, last: dt.date, a_day: int) -> None:
    """Viewings on each day, spread over it."""
    system.query(
        "input",
        "INSERT INTO viewings SELECT n, n, (at + n * interval '1 day' / %s) AT TIME ZONE 'UTC', 60, true"
        " FROM generate_series(%s::timestamp, %s::timestamp, '1 day') AS at, generate_series(0, %s) AS n",
        [a_day, first, last, a_day - 1],
    )


def put(system: System, at: str, rows: int) -> None:
    """Viewings of no episode, all by one clock that is wrong."""
    junk = f"SELECT NULL, n, {at}, 60, true FROM generate_series(0, {rows - 1}) AS n"
    system.query("input", f"INSERT INTO viewings {junk}")


def begin(system: System, of: dt.date = THE_DAY) -> dt.date | None:
    return viewings_begin(system.dsn(Purpose.INPUT), of, FAR_BACK)


JUNK = [
    ("'1970-01-01'", 1),
    ("'1970-01-01'", 5000),
    ("'-infinity'", 3),
    ("'infinity'", 3),
    ("'0001-01-01'", 1),
    ("'4713-01-01 BC'", 1),
    ("'2099-12-31'", 500),
    ("'2017-06-15'", 5000),
    ("'2018-01-31 12:00'", 5000),
    ("'2018-02-10'", 5000),
    ("'2018-02-19 23:59'", 3),
    ("'2018-02-17'", 9),
    ("'2018-02-01'::timestamptz + n * interval '1 day'", 19),
    ("'2010-01-01'::timestamptz + n * interval '1 day'", 2960),
]


@pytest.mark.parametrize(("at", "rows"), JUNK)
def test_junk_does_not_speak_for_the_dates_between(system: System, at: str, rows: int) -> None:
    fill(system, BEGIN, day(3), 200)
    put(system, at, rows)
    assert begin(system) == BEGIN


@pytest.mark.parametrize(("at", "rows"), JUNK[:8])
def test_nor_does_it_among_few_viewings(system: System, at: str, rows: int) -> None:
    fill(system, BEGIN, day(3), 2)
    # Few viewings, and not on each date.
    system.query(
        "input", "DELETE FROM viewings WHERE viewed_at >= '2018-02-21Z' AND viewed_at < '2018-02-27Z'"
    )
    put(system, at, rows)
    assert begin(system) == BEGIN


def test_an_input_of_junk_alone_covers_nothing(system: System) -> None:
    system.query(
        "input", "INSERT INTO viewings VALUES (1, 1, '1970-01-01Z', 1, true), (1, 1, 'infinity', 1, true)"
    )
    assert begin(system) is None
    system.query("input", "DELETE FROM viewings")
    assert begin(system) is None


def test_a_day_whose_viewings_are_gone_is_not_covered_by_one_that_is_left(system: System) -> None:
    fill(system, day(5), day(20), 200)
    system.query("input", "INSERT INTO viewings VALUES (1, 1, '2018-03-01Z', 1, true)")
    assert begin(system, day(1)) is None
    assert begin(system, day(4)) is None
    assert begin(system, day(5)) == day(5)
    assert begin(system, day(9)) == day(5)


def test_dates_of_an_outage_are_gone_through(system: System) -> None:
    fill(system, BEGIN, day(10), 200)
    system.query(
        "input", "DELETE FROM viewings WHERE viewed_at >= '2018-03-02Z' AND viewed_at < '2018-03-05Z'"
    )
    assert begin(system, day(10)) == BEGIN
    system.query(
        "input", "DELETE FROM viewings WHERE viewed_at >= '2018-03-05Z' AND viewed_at < '2018-03-06Z'"
    )
    assert begin(system, day(10)) == day(6)


@pytest.mark.parametrize("declared", ["timestamp", "date"])
def test_the_column_may_be_of_another_type(system: System, declared: str) -> None:
    system.query("input", f"ALTER TABLE viewings ALTER COLUMN viewed_at TYPE {declared}")
    dates = f"generate_series('{BEGIN}'::timestamp, '2018-03-01', '1 day') AS at"
    system.query("input", f"INSERT INTO viewings SELECT 1, 1, at, 1, true FROM {dates}")
    system.query("input", "INSERT INTO viewings VALUES (1, 1, '1970-01-01', 1, true)")
    assert begin(system) == BEGIN


def test_a_result_claims_what_is_covered_in_whatever_company_it_is_computed(system: System) -> None:
    fill(system, BEGIN, day(3), 200)
    system.query("input", "INSERT INTO viewings VALUES (NULL, 1, '1970-01-01Z', 1, true)")
    starts = ["1969-01-01", "2018-02-01", "2018-02-25", "2018-03-01"]
    together = covered(system, starts)
    assert together == [BEGIN, BEGIN, dt.date(2018, 2, 25), day(1)]
    assert [covered(system, [start])[0] for start in starts] == together


def covered(system: System, starts: list[str]) -> list[dt.date | None]:
    windows = JobWindows(
        epid=np.arange(len(starts)),
        algorithm_id=np.zeros(len(starts), dtype=np.int16),
        window_start=np.array(starts, dtype="datetime64[D]"),
    )
    batch = system.compute(day(1), windows, since=BEGIN - dt.timedelta(days=1))
    assert all(json.loads(text)["views"] for text in batch.outcomes["metrics"][:1])
    return batch.outcomes["covered_from"]


@pytest.mark.parametrize("rows", [200, 2000])
def test_the_work_does_not_grow_with_the_viewings(system: System, rows: int) -> None:
    fill(system, BEGIN, day(3), rows)
    system.query("input", "ANALYZE viewings")
    visited = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_all_tables WHERE relname = 'viewings'"
    system.query("input", "SELECT pg_stat_reset()")
    assert begin(system) == BEGIN
    system.query("input", "SELECT pg_stat_force_next_flush()")
    dates = (day(3) - BEGIN).days + 1
    ((found,),) = system.query("input", visited)
    assert found <= dates * 60
