"""A user's file is understood as a whole, or refused with the line and the column."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from episodes_assets.errors import BadFile
from episodes_assets.stores.input_files import read_input_file
from episodes_assets.stores.input_writing import EPISODES_SCHEMA, VIEWINGS_SCHEMA

HEADER = "batch_date,epid,algorithm_id,series,season,episode,title,premier_date,start_date"
GOOD = '2018-03-01,1,0,"a ""b""",1,2,"two\nlines",2018-01-01,2018-02-01'


def write(folder: Path, *lines: str) -> Path:
    path = folder / "drop.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    table = read_input_file(write(tmp_path, HEADER, GOOD, "2018-03-01,,,,,,,,0001-01-01"), EPISODES_SCHEMA)
    assert table.schema == EPISODES_SCHEMA
    first, second = table.to_pylist()
    assert first["title"] == "two\nlines"
    assert first["series"] == 'a "b"'
    assert second["epid"] is None
    assert str(second["start_date"]) == "0001-01-01"


def test_columns_may_come_in_any_order_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "views.csv"
    path.write_text(
        "\ufeffcompleted,epid,viewer_id,viewed_at,seconds_watched\n"
        "TRUE,1,2,2018-03-01T23:59:59+01:00,-5\nf,1,2,2018-03-01 10:00,\n",
        encoding="utf-8",
    )
    rows = read_input_file(path, VIEWINGS_SCHEMA).to_pylist()
    assert rows[0]["viewed_at"].isoformat() == "2018-03-01T22:59:59+00:00"
    assert [row["completed"] for row in rows] == [True, False]
    assert [row["seconds_watched"] for row in rows] == [-5, None]


@pytest.mark.parametrize(
    ("line", "column", "value"),
    [
        ("2018-03-01,x,0,,,,,2018-01-01,2018-02-01", "epid", "'x' is not a whole number of 64 bits"),
        ("2018-03-01,1,70000,,,,,2018-01-01,2018-02-01", "algorithm_id", "16 bits"),
        ("2018-03-01,1,0,,,,,2018-02-30,2018-02-01", "premier_date", "'2018-02-30' is not a date"),
        ("2018-03-01,1,0,,,,,01.02.2018,2018-02-01", "premier_date", "is not a date"),
        ("2018-03-01,99999999999999999999,0,,,,,2018-01-01,", "epid", "64 bits"),
        ("2018-03-01,1.5,0,,,,,2018-01-01,", "epid", "'1.5'"),
    ],
)
def test_a_bad_value_names_line_and_column(tmp_path: Path, line: str, column: str, value: str) -> None:
    # The good row above spans two lines.
    path = write(tmp_path, HEADER, GOOD, GOOD, line)
    with pytest.raises(BadFile) as error:
        read_input_file(path, EPISODES_SCHEMA)
    assert f"line 6, column {column}" in str(error.value)
    assert value in str(error.value)
    assert "nothing was loaded" in str(error.value)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (HEADER.replace(",title", ""), "lacks 'title'"),
        (HEADER.replace("premier_date", "premiere_date"), "has unknown 'premiere_date'"),
        (HEADER + ",epid", "repeats 'epid'"),
        ("", "lacks 'batch_date'"),
    ],
)
def test_a_bad_header_is_line_1(tmp_path: Path, header: str, problem: str) -> None:
    with pytest.raises(BadFile) as error:
        read_input_file(write(tmp_path, header, GOOD), EPISODES_SCHEMA)
    assert "line 1" in str(error.value)
    assert problem in str(error.value)


def test_too_many_fields_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="line 4"):
        read_input_file(write(tmp_path, HEADER, GOOD, GOOD.replace("two\n", "") + ",7"), EPISODES_SCHEMA)


def test_what_is_no_text_at_all(tmp_path: Path) -> None:
    path = tmp_path / "drop.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="not a CSV file in UTF-8"):
        read_input_file(path, EPISODES_SCHEMA)
    with pytest.raises(BadFile, match="is not a file"):
        read_input_file(tmp_path / "none.csv", EPISODES_SCHEMA)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "drop.parquet"
    table = read_input_file(write(tmp_path, HEADER, GOOD), EPISODES_SCHEMA)
    pq.write_table(table, path)
    assert read_input_file(path, EPISODES_SCHEMA) == table
    pq.write_table(pa.table({"epid": ["x"]}), path)
    with pytest.raises(BadFile, match="lacks 'batch_date'"):
        read_input_file(path, EPISODES_SCHEMA)
    path.write_bytes(b"not parquet")
    with pytest.raises(BadFile, match=r"drop\.parquet"):
        read_input_file(path, EPISODES_SCHEMA)
