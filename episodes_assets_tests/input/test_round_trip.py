"""Any table comes out of PostgreSQL as it went into a file, or the file is refused by line and column."""

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from episodes_assets.cli.app import app
from episodes_assets.errors import BadFile
from episodes_assets.input.files import read_input_file
from episodes_assets.input.loading import EPISODES_SCHEMA, VIEWINGS_SCHEMA
from episodes_assets_tests.support.system import System

Row = tuple[Any, ...]

NUMBER = {"epid": 64, "viewer_id": 64, "algorithm_id": 16, "season": 32, "episode": 32, "seconds_watched": 32}
TYPES = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}


def numbers(bits: int) -> st.SearchStrategy[int]:
    most = 2 ** (bits - 1)
    extremes = [-most, 1 - most, -1, 0, 1, most - 1, *(v for v in (2**53 - 1, 2**53 + 1) if v < most)]
    return st.one_of(st.sampled_from(extremes), st.integers(-most, most - 1))


MOMENTS = st.one_of(
    st.datetimes(timezones=st.just(dt.UTC)),
    st.sampled_from(
        [
            dt.datetime.min.replace(tzinfo=dt.UTC),
            dt.datetime.max.replace(tzinfo=dt.UTC),
            dt.datetime(1969, 12, 31, 23, 59, 59, 999999, dt.UTC),
            dt.datetime(1677, 9, 21, 0, 12, 43, 145224, dt.UTC),
            dt.datetime(2262, 4, 11, 23, 47, 16, 854776, dt.UTC),
        ]
    ),
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.text(st.sampled_from('",\r\n \t;\\a'), max_size=6),
    st.sampled_from(["", "NULL", "NA", "nan", "\\N", "\\.", "=1+1", "\ufeff", "x" * 10_000, "\U0010ffff"]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: numbers(bits) for name, bits in NUMBER.items()},
    "batch_date": st.dates(),
    "premier_date": st.one_of(st.dates(), st.sampled_from([dt.date.min, dt.date.max])),
    "start_date": st.dates(),
    "series": TEXTS,
    "title": TEXTS,
    "viewed_at": MOMENTS,
    "completed": st.booleans(),
}


def tables(names: list[str]) -> st.SearchStrategy[list[Row]]:
    required = {"batch_date"}
    columns = [VALUES[name] if name in required else st.none() | VALUES[name] for name in names]
    return st.lists(st.tuples(*columns), max_size=12)


def spelt(value: Any, choose: random.Random) -> str:
    """A value as one of many programs would write it."""
    match value:
        case None:
            return ""
        case bool():
            return choose.choice(["true", "TRUE", "t", "1"] if value else ["false", "False", "f", "0"])
        case dt.datetime():
            away = dt.timezone(dt.timedelta(minutes=choose.choice([0, 330, -570])))
            moved = value
            if dt.MINYEAR < value.year < dt.MAXYEAR:
                moved = value.astimezone(away)
            text = moved.isoformat(choose.choice("T "), "microseconds")
            return text.replace("+00:00", choose.choice(["Z", "+00", "", "+0000"]))
        case str():
            return '"' + value.replace('"', '""') + '"'
        case _:
            return str(value)


def write_csv(path: Path, names: list[str], rows: list[Row], choose: random.Random) -> None:
    """By nobody's library: only what RFC 4180 says."""
    end = choose.choice(["\n", "\r\n", "\r"])
    order = choose.sample(range(len(names)), len(names))
    lines = [
        ",".join(names[n] for n in order),
        *(",".join(spelt(row[n], choose) for n in order) for row in rows),
    ]
    path.write_bytes((choose.choice(["", "\ufeff"]) + end.join(lines) + end).encode())


def write_parquet(path: Path, names: list[str], rows: list[Row], choose: random.Random) -> None:
    columns = {}
    for number, name in enumerate(names):
        values = [row[number] for row in rows]
        kind = parquet_type(name, values, choose)
        columns[name] = pa.array(values, pa.date32() if name.endswith("_date") else None).cast(kind)
        if name in {"series", "title"} and choose.random() < 0.3:
            columns[name] = pa.array(values, pa.string()).dictionary_encode()
    pq.write_table(pa.table(columns), path)


def parquet_type(name: str, values: list[Any], choose: random.Random) -> pa.DataType:
    if name in NUMBER:
        is_positive = all(value is None or value >= 0 for value in values)
        wider = [pa.int64(), pa.decimal128(38, 2), *([pa.uint64()] if is_positive else [])]
        return choose.choice([TYPES[NUMBER[name]], *wider])
    if name in {"series", "title"}:
        return choose.choice([pa.string(), pa.large_string(), pa.string_view()])
    if name.endswith("_date"):
        return choose.choice([pa.date32(), pa.timestamp("s")])
    return (
        pa.timestamp("us", choose.choice([None, "UTC", "America/New_York"]))
        if name == "viewed_at"
        else pa.bool_()
    )


@pytest.fixture
def loaded(system: System, tmp_path: Path) -> Iterator[Any]:
    """Loads a file as the command does, and gives back what the table holds then."""
    with psycopg.connect(system.admin["input"], autocommit=True) as connection:

        def load(table: str, path: Path) -> list[Row]:
            connection.execute(f"TRUNCATE {table}")
            for _ in range(2):  # the second time replaces the first
                result = CliRunner().invoke(app, ["input", "load", f"--{table}", str(path)])
                if result.exception is not None:
                    raise result.exception
            return connection.execute(f"SELECT * FROM {table}").fetchall()

        connection.execute("SET TIME ZONE 'UTC'")
        yield load


def ordered(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=repr)


PROPERTY = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_csv, write_parquet])
@pytest.mark.parametrize(
    ("table", "names"), [("episodes", EPISODES_SCHEMA.names), ("viewings", VIEWINGS_SCHEMA.names)]
)
def test_what_goes_in_comes_out(
    loaded: Any, tmp_path: Path, table: str, names: list[str], write: Any
) -> None:
    path = tmp_path / ("file.csv" if write is write_csv else "file.parquet")

    @PROPERTY
    @given(tables(names), st.randoms(use_true_random=False))
    def check(rows: list[Row], choose: random.Random) -> None:
        write(path, names, rows, choose)
        assert ordered(loaded(table, path)) == ordered(rows)

    check()


KINDS = {
    "epid": "bigint",
    "viewed_at": "timestamptz",
    "completed": "boolean",
    "seconds_watched": "integer",
    "premier_date": "date",
}
JUNK = st.text(st.sampled_from('0129-+:.TZ"e,\n\r t'), max_size=12)


@st.composite
def beginnings(draw: st.DrawFn, name: str) -> str:
    """A good value, or what is left of one that was cut."""
    text = spelt(draw(VALUES[name]), draw(st.randoms(use_true_random=False)))
    return text[: draw(st.integers(0, len(text)))]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_of_any_text_postgresql_thinks_the_same(system: System, tmp_path: Path, name: str) -> None:
    """A field is refused with its line and column, or becomes what PostgreSQL itself reads in it."""
    path = tmp_path / "file.csv"
    schema = EPISODES_SCHEMA if name == "premier_date" else VIEWINGS_SCHEMA
    given_field = {"batch_date": "2018-03-01"}
    with psycopg.connect(system.admin["input"], autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")

        @settings(PROPERTY, max_examples=100)
        @given(JUNK | beginnings(name))
        def check(text: str) -> None:
            quoted = '"' + text.replace('"', '""') + '"'
            fields = [quoted if each == name else given_field.get(each, "") for each in schema.names]
            path.write_bytes(f"{','.join(schema.names)}\n{','.join(fields)}\n".encode())
            refused = ""
            try:
                read = read_input_file(path, schema)
            except BadFile as error:
                refused = str(error)
            if refused:
                assert f"line 2, column {name}: " in refused
                return
            wanted = connection.execute(f"SELECT nullif(%s, '')::{KINDS[name]}", [text]).fetchone()
            assert (read[name][0].as_py(),) == wanted

        check()
