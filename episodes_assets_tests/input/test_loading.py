"""Filling the input: each value as it is, each day once."""

import datetime as dt
import threading
import time

import psycopg
import pyarrow as pa
import pytest

from episodes_assets.errors import InputUnwritable
from episodes_assets.input.loading import EPISODES_SCHEMA, VIEWINGS_SCHEMA, replace_input
from episodes_assets.postgres.databases import Purpose
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

AT = dt.datetime(2018, 3, 1, 20, 15, tzinfo=dt.UTC)
LARGE = 2**53 + 1


def load_viewing(system: System, epid: int = LARGE, at: dt.datetime | None = AT) -> None:
    rows = [{"epid": epid, "viewer_id": 2, "viewed_at": at, "seconds_watched": 36, "completed": True}]
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


def load_row(system: System, title: str = "abc   ") -> None:
    row = {
        "batch_date": day(1),
        "epid": 1_234_567,
        "algorithm_id": 1,
        "series": "abc   ",
        "season": 1,
        "episode": 1,
        "title": title,
        "premier_date": day(1),
        "start_date": day(1),
    }
    replace_input(
        system.dsn(Purpose.INPUT_WRITER),
        drops=pa.Table.from_pylist([row], EPISODES_SCHEMA),
        drop_days=[day(1)],
        viewings=None,
        viewing_days=[],
    )


@pytest.mark.parametrize(
    "declared", ["timestamptz(0)", "timestamp(0)", "timestamp(5)", "whole_second", "narrow"]
)
def test_a_time_that_would_be_rounded_is_refused_by_name(system: System, declared: str) -> None:
    system.query("input", "CREATE DOMAIN whole_second AS timestamptz(0)")
    system.query("input", "CREATE DOMAIN narrow AS whole_second")
    retype(system, "viewed_at", declared)
    load_viewing(system)
    for late in (dt.time(23, 59, 59, 999999), dt.time(0, 0, 0, 1)):  # of these one becomes the next day's
        with pytest.raises(
            InputUnwritable, match=r"viewings\.viewed_at in .*, which does not hold all values"
        ):
            load_viewing(system, at=dt.datetime.combine(day(1), late, dt.UTC))
    assert system.query("input", "SELECT viewed_at::text FROM viewings")[0][0].startswith(
        "2018-03-01 20:15:00"
    )


def test_a_time_of_few_decimals_is_loaded_where_they_fit(system: System) -> None:
    retype(system, "viewed_at", "timestamptz(3)")
    at = AT.replace(microsecond=120_000)
    for _ in range(2):
        load_viewing(system, at=at)
    assert system.query("input", "SELECT viewed_at FROM viewings") == [(at,)]
    load_viewing(system, at=None)


@pytest.mark.parametrize(
    ("column", "declared"),
    [
        ("epid", "numeric(7,-1)"),
        ("epid", "tens"),
        ("title", "varchar(3)"),
        ("series", "varchar(4)"),
        ("title", "short"),
    ],
)
def test_a_value_that_would_be_rounded_or_cut_is_refused_by_name(
    system: System, column: str, declared: str
) -> None:
    system.query("input", "CREATE DOMAIN short AS varchar(3); CREATE DOMAIN tens AS numeric(8,-1)")
    system.query("input", f"ALTER TABLE episodes ALTER {column} TYPE {declared}")
    with pytest.raises(InputUnwritable, match=rf"episodes\.{column} in .*, which does not hold all values"):
        load_row(system)
    assert system.query("input", "SELECT count(*) FROM episodes") == [(0,)]


@pytest.mark.parametrize("declared", ["varchar(6)", "text", 'text COLLATE "C"'])
def test_a_value_that_fits_is_loaded(system: System, declared: str) -> None:
    system.query("input", f"ALTER TABLE episodes ALTER title TYPE {declared}")
    system.query("input", "ALTER TABLE episodes ALTER epid TYPE numeric(9,2)")
    load_row(system)
    load_row(system)
    assert system.query("input", "SELECT title, epid::text FROM episodes") == [("abc   ", "1234567.00")]


TRIGGER = """
    CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
    CREATE TRIGGER acts BEFORE INSERT ON viewings FOR EACH ROW EXECUTE FUNCTION act()
"""


AS_ANOTHER = """
    ALTER TABLE viewings RENAME TO seen;
    CREATE {kind} viewings AS SELECT {distinct} * FROM seen;
    GRANT ALL ON viewings TO PUBLIC
"""
PARTITIONED = """
    DROP TABLE viewings;
    CREATE TABLE viewings (
        epid bigint, viewer_id bigint, viewed_at timestamptz, seconds_watched integer, completed boolean
    ) PARTITION BY RANGE (viewed_at);
    GRANT ALL ON viewings TO PUBLIC
"""
FEW = """
    CREATE DOMAIN few AS integer CHECK (VALUE < 9);
    ALTER TABLE viewings ALTER seconds_watched TYPE few
"""
GENERATED = """
    ALTER TABLE viewings DROP completed, ADD completed boolean GENERATED ALWAYS AS (epid > 1) STORED
"""
DEFERRED = """
    CREATE TABLE known (viewer_id bigint PRIMARY KEY);
    ALTER TABLE viewings ADD FOREIGN KEY (viewer_id) REFERENCES known INITIALLY DEFERRED
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE viewings ADD CONSTRAINT little CHECK (seconds_watched < 36)", r'viewings .*"little"'),
        (FEW, r"viewings\.seconds_watched .*few_check"),
        ("ALTER TABLE viewings ALTER viewer_id TYPE numeric(3,3)", r"viewings\.viewer_id .*field overflow"),
        ("ALTER TABLE viewings ADD at_home boolean NOT NULL", r"viewings\.at_home .*not-null"),
        (GENERATED, r"viewings .*completed.* generated"),
        ("CREATE UNIQUE INDEX once ON viewings ((1)); INSERT INTO viewings VALUES (1)", r'viewings .*"once"'),
        (DEFERRED, r"viewings .*foreign key"),
        (TRIGGER.format(body="RAISE 'not today';"), r"viewings .*not today"),
        (TRIGGER.format(body="PERFORM 1 / 0;"), r"viewings .*division by zero"),
        (TRIGGER.format(body="RETURN NULL;"), r"viewings in .* has kept 0 of the 1 rows"),
        (TRIGGER.format(body="NEW.viewer_id := 3; RETURN NEW;"), r"viewings\.viewer_id .* has kept other"),
        (TRIGGER.format(body="NEW.viewed_at := '2018-03-02'; RETURN NEW;"), r"has kept 0 of the 1 rows"),
        ("ALTER TABLE viewings ENABLE ROW LEVEL SECURITY", r"viewings .*row-level security"),
        (PARTITIONED, r"viewings .*no partition of relation"),
        (AS_ANOTHER.format(kind="VIEW", distinct=""), r"viewings .*cannot copy to view"),
        (AS_ANOTHER.format(kind="VIEW", distinct="DISTINCT"), r"viewings .*cannot delete from view"),
        (AS_ANOTHER.format(kind="MATERIALIZED VIEW", distinct=""), r"viewings .*cannot lock relation"),
    ],
)
def test_what_the_table_refuses_is_one_line_and_nothing_is_loaded(
    system: System, change: str, said: str
) -> None:
    system.query("input", change)
    before = system.query("input", "SELECT count(*) FROM viewings")
    with pytest.raises(InputUnwritable, match=said) as raised:
        load_viewing(system)
    assert "\n" not in str(raised.value)
    assert system.query("input", "SELECT count(*) FROM viewings") == before


@pytest.mark.long
def test_the_table_that_the_search_path_finds_is_filled(system: System) -> None:
    system.query("input", "CREATE SCHEMA scratch; GRANT USAGE ON SCHEMA scratch TO PUBLIC")
    name = system.query("input", "SELECT current_database()")[0][0]
    system.query("input", f"ALTER DATABASE {name} SET search_path = scratch, public")
    load_viewing(system)
    assert system.query("input", "SELECT count(*) FROM public.viewings") == [(1,)]
    system.query(
        "input",
        "CREATE TABLE scratch.viewings (LIKE public.viewings); GRANT ALL ON scratch.viewings TO PUBLIC",
    )
    load_viewing(system)
    load_viewing(system)
    assert system.query("input", "SELECT count(*) FROM scratch.viewings") == [(1,)]
    system.query("input", f"ALTER DATABASE {name} SET search_path = scratch")
    assert system.cli("input", "generate", "--days", "1").returncode == 1
    system.query(
        "input",
        "CREATE TABLE scratch.episodes (LIKE public.episodes); GRANT ALL ON scratch.episodes TO PUBLIC",
    )
    done = system.cli("input", "generate", "--days", "1", "--episodes", "20")
    assert done.returncode == 0, done.stderr
    assert system.query("input", "SELECT count(*) FROM public.episodes") == [(0,)]
