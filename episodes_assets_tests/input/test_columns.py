"""Columns as other teams have them: read exactly, quarantined with what they hold, or refused by name."""

import datetime as dt
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from episodes_assets.errors import (
    DatabaseUnreachable,
    InputUnreadable,
    StatementFailed,
    TimedOut,
    ViewingUnreadable,
)
from episodes_assets.input.columns import look_at_columns
from episodes_assets.input.reading import days_with_drop, drops_beside, reading
from episodes_assets.ledger.claims import INFRASTRUCTURE
from episodes_assets.planning.drop import validate_drop
from episodes_assets.postgres.arrow import read_arrow
from episodes_assets.postgres.databases import Purpose
from episodes_assets.worker.compute import JobWindows
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

INSERT = "INSERT INTO episodes (batch_date, epid, algorithm_id, start_date)"


def alter(system: System, *statements: str) -> None:
    """Change the input's tables, and have that seen."""
    for statement in statements:
        system.query("input", statement)
    look_at_columns(system.dsn(Purpose.INPUT))


def retype(table: str, column: str, declared: str) -> str:
    return f"ALTER TABLE {table} DROP COLUMN {column}, ADD COLUMN {column} {declared}"


def read_drop(system: System, of: dt.date) -> pd.DataFrame:
    with reading(system.dsn(Purpose.INPUT), of) as source:
        return pd.concat(source.drop())


def read_viewings(system: System, epids: list[int], since: str = "2018-03-01") -> pa.Table:
    """What comes out of the lake that is taken from the input of the first two days."""
    version = system.take_viewings(day(1), day(2)).number
    wanted = np.array(epids, dtype=np.int64), np.full(len(epids), np.datetime64(since))
    ((_, found),) = system.viewings.read(version, *wanted, day(2))
    return found


def read_viewed(system: System, of: dt.date) -> list[int]:
    return [int(epid) for epid in system.viewings.episodes_of(system.take_viewings(of, of).number, of)]


WHOLE = 2**63 - 1
DAY = pd.Timestamp("2018-03-01")


@pytest.mark.parametrize(
    ("column", "declared", "literal", "expected"),
    [
        ("epid", "integer", "2147483647", 2**31 - 1),
        ("epid", "smallint", "-7", -7),
        ("epid", "numeric", "9007199254740993", 2**53 + 1),
        ("epid", "numeric", str(WHOLE), WHOLE),
        ("epid", "numeric", "7.000", 7),
        ("epid", "numeric", str(WHOLE + 1), "9223372036854775808"),
        ("epid", "numeric", "7.5", "7.5"),
        ("epid", "numeric", "'NaN'", "NaN"),
        ("epid", "numeric", "'Infinity'", "Infinity"),
        ("epid", "text", "'9007199254740993'", 2**53 + 1),
        ("epid", "varchar(30)", f"'{-WHOLE - 1}'", -WHOLE - 1),
        ("epid", "char(9)", "'77'", 77),
        ("epid", "text", "'007'", "007"),
        ("epid", "text", "'S01E02'", "S01E02"),
        ("epid", "text", f"'{WHOLE + 1}'", str(WHOLE + 1)),
        ("epid", "text", "'  '", None),
        ("epid", "text", "'\"start_date\":'", '"start_date":'),
        ("algorithm_id", "integer", "99999", 99999),
        ("algorithm_id", "bigint", str(WHOLE), WHOLE),
        ("algorithm_id", "numeric", "0.5", "0.5"),
        ("algorithm_id", "text", "'1'", 1),
        ("start_date", "timestamp", "'2018-03-01 23:59:59.999999'", DAY),
        ("start_date", "timestamptz", "'2018-03-01 23:59:59.999999Z'", DAY),
        ("start_date", "timestamptz", "'2018-03-01 20:00:00-05'", DAY + pd.Timedelta(days=1)),
        ("start_date", "timestamp", "'infinity'", None),
        ("start_date", "text", "'2018-03-01'", DAY),
        ("start_date", "text", "'2016-02-29'", pd.Timestamp("2016-02-29")),
        ("start_date", "text", "'2018-02-30'", "2018-02-30"),
        ("start_date", "text", "'2018-02-29'", "2018-02-29"),
        ("start_date", "text", "'0000-01-01'", "0000-01-01"),
        ("start_date", "text", "'20180301'", "20180301"),
        ("start_date", "text", "'01.03.2018'", "01.03.2018"),
        ("start_date", "text", "''", None),
        ("premier_date", "date", "'-infinity'", None),
        ("premier_date", "text", "'soon'", "soon"),
    ],
)
def test_a_value_arrives_exactly_or_is_quarantined_as_it_was_found(
    system: System, column: str, declared: str, literal: str, expected: Any
) -> None:
    alter(system, retype("episodes", column, declared))
    values = {"epid": "7", "algorithm_id": "1", "premier_date": "'2018-03-01'", "start_date": "'2018-03-01'"}
    names = ", ".join(values | {column: literal})
    literals = ", ".join((values | {column: literal}).values())
    system.query("input", f"INSERT INTO episodes (batch_date, {names}) VALUES ('2018-03-01', {literals})")
    drop = read_drop(system, day(1))
    found = drop[column].iloc[0]
    validated = validate_drop(drop)
    if isinstance(expected, str):
        assert pd.isna(found)
        (row,) = validated.quarantined.to_dict("records")
        assert row["reasons"] == f"{column}_unreadable"
        assert json.loads(row["as_found"]) == {column: expected}
    else:
        assert pd.isna(found) if expected is None else found == expected
        assert drop["as_found"].isna().all()
    assert len(validated.accepted) + len(validated.quarantined) == 1


@pytest.mark.parametrize(
    ("column", "declared", "literal", "expected"),
    [
        ("season", "bigint", "3000000000", None),
        ("season", "bigint", "3", 3),
        ("season", "double precision", "2.0", 2),
        ("season", "numeric", "'NaN'", None),
        ("season", "text", "'S01'", None),
        ("episode", "text", "'12'", 12),
        ("episode", "jsonb", "'[1]'", None),
        ("title", "jsonb", '\'{"de": "Ä"}\'', '{"de": "Ä"}'),
        ("title", "char(5)", "'ab'", "ab"),
        ("title", "integer", "7", "7"),
        ("title", "bytea", "'\\x00ff'", "\\x00ff"),
        ("series", "text[]", "'{a,b}'", "{a,b}"),
        ("series", "point", "'(1,2)'", "(1,2)"),
    ],
)
def test_what_is_only_displayed_stops_nothing(
    system: System, column: str, declared: str, literal: str, expected: Any
) -> None:
    alter(system, retype("episodes", column, declared))
    system.query(
        "input",
        f"INSERT INTO episodes (batch_date, epid, algorithm_id, start_date, {column})"
        f" VALUES ('2018-03-01', 7, 1, '2018-03-01', {literal})",
    )
    found = validate_drop(read_drop(system, day(1))).accepted[column].iloc[0]
    assert pd.isna(found) if expected is None else found == expected


def test_what_is_only_displayed_may_be_missing_and_more_may_be_there(system: System) -> None:
    alter(
        system,
        "ALTER TABLE episodes DROP COLUMN series, DROP COLUMN season, DROP COLUMN episode, DROP COLUMN title",
        "ALTER TABLE episodes ADD COLUMN more text, ADD twice bigint GENERATED ALWAYS AS (epid * 2) STORED",
        f"{INSERT} VALUES ('2018-03-01', 7, 1, '2018-03-01')",
    )
    accepted = validate_drop(read_drop(system, day(1))).accepted
    assert accepted["epid"].tolist() == [7]
    assert accepted[["series", "season", "episode", "title"]].isna().all(axis=None)


@pytest.mark.parametrize("declared", ["timestamp", "timestamptz", "date"])
def test_a_drop_is_found_by_its_date_however_that_is_kept(system: System, declared: str) -> None:
    alter(system, retype("episodes", "batch_date", declared))
    for at in ("2018-02-28", "2018-03-01", "2018-03-02"):
        literal = f"'{at} 00:00Z'" if declared == "timestamptz" else f"'{at}'"
        system.query("input", f"{INSERT} VALUES ({literal}, {at[-2:]}, 1, '2018-03-01')")
    assert read_drop(system, day(1))["epid"].tolist() == [1]
    dsn = system.dsn(Purpose.INPUT)
    assert days_with_drop(dsn, [day(1), day(2), day(3)]) == {day(1), day(2)}
    assert drops_beside(dsn, day(1)) == (dt.date(2018, 2, 28), day(2))
    assert drops_beside(dsn, day(9)) == (day(2), None)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("declared", ["timestamp", "timestamptz", "date"])
def test_times_are_of_their_utc_date_whatever_the_servers_zone(
    system: System, zone: str, declared: str
) -> None:
    name = system.query("input", "SELECT current_database()")[0][0]
    system.query("input", f"ALTER DATABASE {name} SET TimeZone = '{zone}'")
    alter(system, retype("viewings", "viewed_at", declared))
    suffix = "Z" if declared == "timestamptz" else ""
    moments = [
        "2018-02-28 23:59:59.999999",
        "2018-03-01 00:00:00",
        "2018-03-02 23:59:59.999999",
        "2018-03-03 00:00:00",
    ]
    for epid, moment in enumerate(moments):
        system.query("input", f"INSERT INTO viewings (epid, viewed_at) VALUES ({epid}, '{moment}{suffix}')")
    version = system.viewings.at(system.take_viewings(day(1), day(2)).number)
    assert list(version.files) == [day(1), day(2)]
    taken = []
    for file in version.files.values():
        with system.viewings.open(file) as opened:
            taken += opened.read(["epid", "viewed_at"]).to_pylist()
    assert [each["epid"] for each in taken] == [1, 2]
    expected = [
        dt.datetime(2018, 3, 1, tzinfo=dt.UTC),
        dt.datetime(2018, 3, 2, 23, 59, 59, 999999, tzinfo=dt.UTC),
    ]
    if declared == "date":
        expected[1] = dt.datetime(2018, 3, 2, tzinfo=dt.UTC)
    assert [each["viewed_at"] for each in taken] == expected
    on = read_viewings(system, [0, 1, 2, 3])["viewed_on"].cast(pa.date32()).to_pylist()
    assert on == [day(1), day(2)]
    assert [read_viewed(system, day(n)) for n in (1, 2)] == [[1], [2]]


@pytest.mark.parametrize(
    ("column", "declared", "literals", "expected"),
    [
        ("seconds_watched", "bigint", ["9223372036854775807", "-1"], [86400, 0]),
        ("seconds_watched", "smallint", ["60"], [60]),
        ("seconds_watched", "numeric", ["3600", "3600.0", "3599.999", "-0.5"], [3600, 3600, 3599, 0]),
        ("seconds_watched", "numeric", ["'NaN'", "'Infinity'", "NULL"], [0, 86400, 0]),
        ("seconds_watched", "double precision", ["1e300", "'-Infinity'", "'NaN'", "59.9"], [86400, 0, 0, 59]),
        ("completed", "integer", ["1", "0", "NULL"], [True, False, False]),
        ("completed", "numeric", ["1.0", "0"], [True, False]),
        ("completed", "bit", ["B'1'", "B'0'"], [True, False]),
        ("completed", "text", ["'true'", "'F'", "' yes '", "''", "'0'"], [True, False, True, False, False]),
    ],
)
def test_viewings_count_as_documented(
    system: System, column: str, declared: str, literals: list[str], expected: list[Any]
) -> None:
    alter(system, retype("viewings", column, declared))
    for epid, literal in enumerate(literals):
        system.query(
            "input",
            f"INSERT INTO viewings (epid, viewed_at, {column}) VALUES ({epid}, '2018-03-01Z', {literal})",
        )
    windows = JobWindows(
        epid=np.arange(len(literals)),
        algorithm_id=np.zeros(len(literals), dtype=np.int16),
        window_start=np.full(len(literals), np.datetime64("2018-03-01")),
    )
    outcomes = system.compute(day(1), windows).outcomes["metrics"]
    metric = {"seconds_watched": "seconds_watched", "completed": "completed_views"}[column]
    assert [json.loads(text)[metric] for text in outcomes] == [int(value) for value in expected]


@pytest.mark.parametrize(
    ("declared", "literal"), [("integer", "57"), ("text", "'perhaps'"), ("bit(2)", "B'01'")]
)
def test_a_viewing_that_may_or_may_not_be_completed_fails_its_episode_alone(
    system: System, declared: str, literal: str
) -> None:
    alter(system, retype("viewings", "completed", declared))
    yes = {"integer": "1", "text": "'t'", "bit(2)": "NULL"}[declared]
    for epid, value in ((1, yes), (2, literal)):
        system.query(
            "input",
            f"INSERT INTO viewings (epid, viewed_at, completed) VALUES ({epid}, '2018-03-01Z', {value})",
        )
    assert read_viewings(system, [1]).num_rows == 1
    shown = literal.strip("B'")
    with pytest.raises(ViewingUnreadable, match=f"viewings.completed of epid 2 .* holds '{shown}'"):
        read_viewings(system, [1, 2])


@pytest.mark.parametrize(
    ("declared", "literals", "viewers"),
    [
        ("text", ["'a'", "'A'", "'a'", "'a '"], 3),
        ("uuid", ["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'6BA7B810-9DAD-11D1-80B4-00C04FD430C8'"], 1),
        ("numeric", ["5", "5.0", "9223372036854775808", "9223372036854775809"], 3),
        ("bytea", ["'\\x01'", "'\\x0100'"], 2),
        ("bigint", ["9007199254740992", "9007199254740993", "NULL"], 3),
        ("bigint", ["-1", "NULL"], 2),
        ("bigint", ["-1", "-9223372036854775808", "NULL", "NULL"], 3),
        ("text", ["'1'", "NULL", "NULL"], 2),
    ],
)
def test_viewers_are_told_apart(system: System, declared: str, literals: list[str], viewers: int) -> None:
    alter(system, retype("viewings", "viewer_id", declared))
    for literal in literals:
        system.query(
            "input", f"INSERT INTO viewings (epid, viewed_at, viewer_id) VALUES (7, '2018-03-01Z', {literal})"
        )
    windows = JobWindows(
        epid=np.array([7]),
        algorithm_id=np.array([0], dtype=np.int16),
        window_start=np.array([np.datetime64("2018-03-01")]),
    )
    (outcome,) = system.compute(day(1), windows).outcomes["metrics"]
    assert json.loads(outcome)["viewers"] == viewers


@pytest.mark.parametrize("declared", ["smallint", "integer", "numeric", "text", "varchar(9)", "char(9)"])
def test_viewings_are_found_by_their_episode_whatever_its_type(system: System, declared: str) -> None:
    alter(system, retype("viewings", "epid", declared))
    for epid in ("'7'", "'70'", "'-7'", "NULL"):
        system.query(
            "input",
            f"INSERT INTO viewings (epid, viewed_at) VALUES ({epid}::text::{declared}, '2018-03-01Z')",
        )
    assert read_viewings(system, [-7, 7, 8])["epid"].to_pylist() == [-7, 7]
    assert read_viewed(system, day(1)) == [-7, 7, 70]


def test_odd_episodes_of_viewings_are_unknown_ones(system: System) -> None:
    alter(system, retype("viewings", "epid", "text"))
    system.query(
        "input",
        "INSERT INTO viewings (epid, viewed_at) SELECT unnest(ARRAY['07', 'x', '', '7']), '2018-03-01Z'",
    )
    assert read_viewings(system, [7])["epid"].to_pylist() == [7]
    assert read_viewed(system, day(1)) == [7]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (retype("viewings", "viewed_at", "text"), "viewings.viewed_at in .* is of the type text"),
        (retype("viewings", "viewed_at", "bigint"), "viewings.viewed_at in .* is of the type bigint"),
        (retype("viewings", "seconds_watched", "interval"), "viewings.seconds_watched in .* type interval"),
        (retype("viewings", "seconds_watched", "money"), "viewings.seconds_watched in .* type money"),
        (retype("viewings", "viewer_id", "jsonb"), "viewings.viewer_id in .* type jsonb"),
        (
            retype("viewings", "viewer_id", "double precision"),
            "viewings.viewer_id in .* type double precision",
        ),
        (retype("viewings", "completed", "jsonb"), "viewings.completed in .* type jsonb"),
        (retype("episodes", "epid", "uuid"), "episodes.epid in .* type uuid"),
        (retype("episodes", "epid", "real"), "episodes.epid in .* type real"),
        (retype("episodes", "epid", "bigint[]"), r"episodes.epid in .* type bigint\[\]"),
        (
            retype("episodes", "algorithm_id", "double precision"),
            "episodes.algorithm_id in .* double precision",
        ),
        (retype("episodes", "batch_date", "text"), "episodes.batch_date in .* type text"),
        (retype("episodes", "start_date", "integer"), "episodes.start_date in .* type integer"),
        ("ALTER TABLE viewings DROP COLUMN viewer_id", "has no column viewings.viewer_id"),
        ('ALTER TABLE episodes RENAME COLUMN epid TO "EPID"', "has no column episodes.epid"),
        ("DROP TABLE viewings", "has no table viewings"),
        ("ALTER TABLE episodes RENAME TO catalogue", "has no table episodes"),
    ],
)
def test_what_cannot_be_read_exactly_is_one_line_before_anything_is_read(
    system: System, statement: str, named: str
) -> None:
    system.query("input", statement)
    with pytest.raises(InputUnreadable, match=named) as raised:
        look_at_columns(system.dsn(Purpose.INPUT))
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_step_says_what_it_cannot_read(system: System) -> None:
    system.insert_drop(day(1), [(7, 0, "2018-03-01", "2018-03-01")])
    system.query("input", retype("viewings", "viewed_at", "text"))
    result = system.materialize(day(1), select=["input_episodes"])
    assert "viewings.viewed_at" in failure(result)
    assert "Traceback" not in failure(result)
    assert system.drops.find(day(1)) is None


def test_tables_of_any_kind_and_domains_are_read(system: System) -> None:
    system.query("input", "CREATE SCHEMA catalogue")
    system.query("input", "CREATE DOMAIN catalogue.id AS numeric(20)")
    system.query("input", "CREATE DOMAIN catalogue.epid AS catalogue.id CHECK (value > 0)")
    system.query("input", "CREATE TYPE catalogue.truth AS ENUM ('yes', 'no')")
    system.query("input", "ALTER TABLE episodes SET SCHEMA catalogue")
    system.query("input", "ALTER TABLE catalogue.episodes RENAME TO drops")
    system.query(
        "input", "CREATE VIEW catalogue.episodes AS SELECT *, epid::catalogue.epid AS e FROM catalogue.drops"
    )
    system.query("input", "DROP TABLE viewings")
    system.query(
        "input",
        "CREATE TABLE catalogue.viewings (epid catalogue.epid, viewer_id varchar, viewed_at timestamp,"
        " seconds_watched integer, completed catalogue.truth) PARTITION BY RANGE (viewed_at)",
    )
    system.query(
        "input",
        "CREATE TABLE catalogue.viewings_2018 PARTITION OF catalogue.viewings"
        " FOR VALUES FROM ('2018-01-01') TO ('2019-01-01')",
    )
    system.query("input", "GRANT USAGE ON SCHEMA catalogue TO PUBLIC")
    system.query("input", "GRANT SELECT ON ALL TABLES IN SCHEMA catalogue TO PUBLIC")
    name = system.query("input", "SELECT current_database()")[0][0]
    system.query("input", f"ALTER DATABASE {name} SET search_path = catalogue, public")
    system.query("input", f"{INSERT} VALUES ('2018-03-01', 7, 2, '2018-03-01')")
    system.query("input", "INSERT INTO viewings VALUES (7, 'ann', '2018-03-01 23:59:59.999999', 60, 'yes')")
    look_at_columns(system.dsn(Purpose.INPUT))
    assert read_drop(system, day(1))["epid"].tolist() == [7]
    assert read_viewings(system, [7]).select(["viewer_id", "completed"]).to_pylist() == [
        {"viewer_id": "ann", "completed": True}
    ]


@pytest.mark.parametrize("declared", ["numeric", "double precision", "jsonb"])
def test_a_type_that_changes_under_a_process_is_looked_at_again(system: System, declared: str) -> None:
    windows = JobWindows(
        epid=np.array([7]),
        algorithm_id=np.array([0], dtype=np.int16),
        window_start=np.array([np.datetime64("2018-03-01")]),
    )
    system.compute(day(1), windows)
    system.query("input", retype("viewings", "seconds_watched", declared))
    system.query(
        "input", "INSERT INTO viewings (epid, viewed_at, seconds_watched) VALUES (7, '2018-03-01Z', '1')"
    )
    with suppress(Exception):  # the step that met it fails, and is started again
        system.compute(day(1), windows)
    if declared == "jsonb":
        with pytest.raises(InputUnreadable):
            look_at_columns(system.dsn(Purpose.INPUT))  # as the next attempt does
    else:
        (outcome,) = system.compute(day(1), windows).outcomes["metrics"]
        assert json.loads(outcome)["seconds_watched"] == 1


@pytest.mark.slow
def test_a_day_on_tables_of_other_types(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many columns of other types at once, on a server in New York; the results are worked out by hand."""
    monkeypatch.setenv("EPISODES_QUARANTINE_LIMIT", "1")
    name = system.query("input", "SELECT current_database()")[0][0]
    system.query("input", f"ALTER DATABASE {name} SET TimeZone = 'America/New_York'")
    for statement in (
        retype("viewings", "viewed_at", "timestamp"),
        retype("viewings", "seconds_watched", "numeric(12, 3)"),
        retype("viewings", "completed", "integer"),
        retype("viewings", "viewer_id", "text"),
        retype("viewings", "epid", "numeric"),
        retype("episodes", "algorithm_id", "integer"),
        retype("episodes", "epid", "text"),
        retype("episodes", "season", "bigint"),
    ):
        system.query("input", statement)
    rows = "(batch_date, epid, algorithm_id, season, premier_date, start_date, title)"
    for epid, algorithm in (("9007199254740993", 0), ("9007199254740993", 99999), ("7", 0), ("7.5", 0)):
        system.query(
            "input",
            f"INSERT INTO episodes {rows} VALUES"
            f" ('2018-03-01', '{epid}', {algorithm}, 3000000000, '2018-03-01', '2018-03-01', 'a')",
        )
    # At both borders of the day, and beside them: 10 (of 10.9), 20 and 30 seconds count, of two viewers.
    for at, viewer, seconds, completed in (
        ("2018-03-01 00:00:00", "ann", "10.9", 1),
        ("2018-03-01 23:59:59.999999", "bob", "20", 0),
        ("2018-03-01 12:00:00", "ann", "30", 1),
        ("2018-03-02 00:00:00", "cem", "40", 1),
        ("2018-02-28 23:59:59.999999", "dan", "50", 1),
    ):
        system.query(
            "input",
            "INSERT INTO viewings (epid, viewer_id, viewed_at, seconds_watched, completed)"
            f" VALUES (9007199254740993, '{viewer}', '{at}', {seconds}, {completed})",
        )
    with system.workers():
        result = system.materialize(day(1))
    assert result.success, failure(result)
    published = system.query(
        "results", "SELECT epid, algorithm_id, metrics FROM published.results ORDER BY 1"
    )
    assert published == [
        (7, 0, {"views": 0, "viewers": 0, "seconds_watched": 0, "completed_views": 0}),
        (2**53 + 1, 0, {"views": 3, "viewers": 2, "seconds_watched": 60, "completed_views": 2}),
    ]
    quarantined = system.drops.read_quarantine(system.drops.require(day(1)))
    shown = quarantined[["algorithm_id", "reasons", "as_found"]].astype("object").to_dict("records")
    assert {row["reasons"]: row["algorithm_id"] for row in shown} == {
        "algorithm_id_unknown": 99999,
        "epid_unreadable": 0,
    }
    assert [json.loads(row["as_found"]) for row in shown if row["reasons"] == "epid_unreadable"] == [
        {"epid": "7.5"}
    ]


def test_a_row_that_a_view_cannot_convert_is_no_outage(system: System) -> None:
    rows = "SELECT day(viewed_at) AS viewed_at, epid, viewer_id, seconds_watched, completed FROM kept"
    alter(
        system,
        "ALTER TABLE viewings RENAME TO kept",
        "ALTER TABLE kept ALTER viewed_at TYPE text",
        "INSERT INTO kept VALUES (7, 1, '2018-03-01 20:15Z', 5, true), (7, 2, '2018-02-30 20:15Z', 5, true)",
        "CREATE VIEW viewings AS " + rows.replace("day(viewed_at)", "viewed_at::timestamptz"),
        "GRANT SELECT ON viewings TO episodes_input_reader",
    )
    with pytest.raises(StatementFailed, match=r'cannot give all rows \(.*"2018-02-30 20:15Z"\)') as raised:
        read_viewings(system, [7])
    assert isinstance(raised.value, INFRASTRUCTURE)  # no job is held for it


def test_a_statement_that_takes_too_long_and_a_session_that_ends_are_told_as_before(system: System) -> None:
    def read(expression: str) -> None:
        read_arrow(system.dsn(Purpose.INPUT), f"SELECT {expression}::text", is_ours=False)

    with pytest.raises(DatabaseUnreachable, match="terminating connection"):
        read("pg_terminate_backend(pg_backend_pid())")
    system.query("input", "ALTER ROLE episodes_input_reader SET statement_timeout = 300")
    try:
        with pytest.raises(TimedOut, match="statement timeout"):
            read("pg_sleep(5)")
    finally:
        system.query("input", "ALTER ROLE episodes_input_reader RESET statement_timeout")


VIEWED = "INSERT INTO viewings (epid, viewed_at, viewer_id) VALUES ('7', '2018-03-01Z', %s)"
# The embedded server lacks the extension; this is how it makes its type.
CITEXT = """
    CREATE TYPE citext;
    CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
    CREATE TYPE citext (
        INPUT = citextin, OUTPUT = citextout, INTERNALLENGTH = VARIABLE, STORAGE = extended, COLLATABLE = true
    );
    CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT
"""


# Nor does it make collations of that kind, which ICU's alone may be.
ANY_CASE = """
    CREATE COLLATION anycase FROM "C";
    SET allow_system_table_mods = on;
    UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'anycase'
"""


def test_viewers_that_citext_takes_for_one_are_one(system: System) -> None:
    viewers = ["Ann", "ANN", "ÄNN", "änn", "ann "]
    alter(system, CITEXT, retype("viewings", "viewer_id", "citext"), retype("viewings", "epid", "citext"))
    for viewer in viewers:
        system.query("input", VIEWED, [viewer])
    assert set(read_viewings(system, [7])["viewer_id"].to_pylist()) == {"ann", "änn", "ann "}


def test_viewers_of_any_other_text_are_told_apart_by_case(system: System) -> None:
    alter(system, retype("viewings", "viewer_id", "text"), retype("viewings", "epid", "text"))
    for viewer in ("Ann", "ann"):
        system.query("input", VIEWED, [viewer])
    assert sorted(read_viewings(system, [7])["viewer_id"].to_pylist()) == ["Ann", "ann"]


@pytest.mark.parametrize(
    ("table", "column"), [("viewings", "viewer_id"), ("viewings", "epid"), ("episodes", "start_date")]
)
def test_a_collation_that_equates_texts_is_refused_by_name(system: System, table: str, column: str) -> None:
    system.query("input", ANY_CASE)
    with pytest.raises(InputUnreadable, match=rf"{table}\.{column} in .* has the collation anycase, "):
        alter(system, retype(table, column, "text COLLATE anycase"))


def test_what_is_only_shown_may_have_any_collation(system: System) -> None:
    system.query("input", ANY_CASE)
    alter(
        system,
        retype("episodes", "season", "text COLLATE anycase"),
        retype("episodes", "title", "text COLLATE anycase"),
        "INSERT INTO episodes (batch_date, epid, algorithm_id, start_date, season, title)"
        " VALUES ('2018-03-01', 7, 1, '2018-03-01', '3', 'A Title')",
    )
    shown = read_drop(system, day(1))
    assert (shown["season"].tolist(), shown["title"].tolist()) == ([3], ["A Title"])
