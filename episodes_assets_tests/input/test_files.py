"""A user's file is understood as a whole, or refused with the line and the column."""

import csv
import datetime as dt
import io
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes_assets.errors import BadFile
from episodes_assets.input import csv_text
from episodes_assets.input.csv_text import BadCsv, read_csv_text
from episodes_assets.input.files import read_input_file
from episodes_assets.input.loading import EPISODES_SCHEMA, VIEWINGS_SCHEMA

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
    ("content", "epids"),
    [("epid\n1\n2\n", [1, 2]), ("epid\r\n1\r\n", [1]), ("epid\n", []), ("epid", [])],
)
def test_a_file_of_one_column(tmp_path: Path, content: str, epids: list[int]) -> None:
    path = tmp_path / "epids.csv"
    path.write_text(content, newline="")
    schema = pa.schema([pa.field("epid", pa.int64(), nullable=False)])
    assert read_input_file(path, schema)["epid"].to_pylist() == epids


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
        (HEADER.replace(",title", ""), "line 1: the header lacks column 'title'"),
        (HEADER.replace("premier_date", "premiere_date"), "has unknown column 'premiere_date'"),
        (HEADER + ",epid", "repeats column 'epid'"),
        ("", "lacks column 'batch_date'"),
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
    with pytest.raises(BadFile) as refused:
        read_input_file(path, EPISODES_SCHEMA)
    assert f"{path}: the file lacks column 'batch_date'" in refused.value.what
    assert not re.search("line|header|commas", str(refused.value).replace(str(path), ""))
    path.write_bytes(b"not parquet")
    with pytest.raises(BadFile, match=r"drop\.parquet"):
        read_input_file(path, EPISODES_SCHEMA)


def load(folder: Path, content: str | bytes, schema: pa.Schema = VIEWINGS_SCHEMA) -> list[dict[str, Any]]:
    path = folder / "file.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows: list[dict[str, Any]] = read_input_file(path, schema).to_pylist()
    return rows


def refused(folder: Path, content: str | bytes, schema: pa.Schema = VIEWINGS_SCHEMA) -> str:
    """What a file is refused with, without its folder."""
    with pytest.raises(BadFile) as error:
        load(folder, content, schema)
    assert str(error.value).endswith("nothing was loaded")
    return str(error.value).removeprefix(f"{folder}/file.csv")


VIEWS = "epid,viewer_id,viewed_at,seconds_watched,completed\n"
VIEW = "1,2,2018-03-01T10:00:00Z,5,true\n"


def test_missing_values_beside_large_numbers(tmp_path: Path) -> None:
    rows = load(tmp_path, VIEWS + "9007199254740993,-9223372036854775808,,,\n,9223372036854775807,,,\n")
    assert [row["epid"] for row in rows] == [9007199254740993, None]
    assert [row["viewer_id"] for row in rows] == [-(2**63), 2**63 - 1]


@pytest.mark.parametrize(
    "last",
    [
        "2,12,2018-03-01T11:30:00Z,36",
        "2,12,2018-03-01T11:30:00Z,36\n",
        "2,12,2018-03-01T11:30:00Z,36\r\n",
        "2",
    ],
)
def test_a_file_that_is_cut_inside_its_last_row(tmp_path: Path, last: str) -> None:
    said = refused(tmp_path, VIEWS + VIEW + last)
    assert said.startswith(", line 3: it has too few fields")
    assert "cut" in said


@pytest.mark.parametrize(
    ("columns", "last", "is_whole"),
    [
        # 3600 and 36, true and t, +01:00 and +01, two texts: any of them may have been cut.
        ("epid,viewer_id,viewed_at,completed,seconds_watched", "1,2,2018-03-01T10:00:00Z,true,36", False),
        ("epid,viewer_id,viewed_at,seconds_watched,completed", "1,2,2018-03-01T10:00:00Z,36,t", False),
        ("epid,viewer_id,viewed_at,seconds_watched,completed", "1,2,2018-03-01T10:00:00Z,36,", False),
        ("epid,viewer_id,viewed_at,seconds_watched,completed", "1,2,2018-03-01T10:00:00Z,36,tru", False),
        ("epid,viewer_id,viewed_at,seconds_watched,completed", "1,2,2018-03-01T10:00:00Z,36,TRUE", True),
        ("epid,viewer_id,completed,seconds_watched,viewed_at", "1,2,true,36,2018-03-01T10:00", False),
        ("epid,viewer_id,completed,seconds_watched,viewed_at", "1,2,true,36,2018-03-01T10:00:00+01", False),
        ("epid,viewer_id,completed,seconds_watched,viewed_at", "1,2,true,36,2018-03-01T10:00:00+01:00", True),
    ],
)  # fmt: skip
def test_a_file_without_a_line_end_at_its_end(
    tmp_path: Path, columns: str, last: str, is_whole: bool
) -> None:
    if is_whole:
        assert len(load(tmp_path, f"{columns}\n{last}")) == 1
    else:
        assert f"line 2, column {columns.rpartition(',')[2]}: " in refused(tmp_path, f"{columns}\n{last}")


@pytest.mark.parametrize("content", [VIEWS + VIEW + "\n" + VIEW, VIEWS + VIEW + "\n", VIEWS + VIEW + "\r\n"])
def test_a_blank_line_is_no_row(tmp_path: Path, content: str) -> None:
    assert refused(tmp_path, content).startswith(", line 3: it is blank")


@pytest.mark.parametrize("rows", [3, 100_000])
@pytest.mark.parametrize(
    ("after", "problem"),
    [
        ("", ", line 3: a quote that opens there is never closed"),
        ('1,"2",,5,true\n', ", line 3: a quote that opens there is closed on line {last} "),
        ('1,2",,5,true\n', ", line 3, column viewer_id: '2,2018"),
        ('1,2",,5,true,1\n', ", line 3: it has too many fields, 6 where the header has 5; the row goes on"),
    ],
)  # fmt: skip
def test_an_open_quote_names_the_line_where_it_opens(
    tmp_path: Path, rows: int, after: str, problem: str
) -> None:
    said = refused(tmp_path, VIEWS + VIEW + '1,"2,2018-03-01T10:00:00Z,5,true\n' + VIEW * rows + after)
    assert said.startswith(problem.format(last=rows + 4))


@pytest.mark.parametrize("field", ['1"2', ' "12"', '12"', '"12"3', '"12" '])
def test_a_misplaced_quote(tmp_path: Path, field: str) -> None:
    assert ", line 3: a quote " in refused(tmp_path, VIEWS + VIEW + VIEW.replace("1", field, 1))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-03-05T20:15:00Z", "2018-03-05 20:15:00+00:00"),
        ("2018-03-05 20:15", "2018-03-05 20:15:00+00:00"),
        ("2018-03-05T20:15:00.1234560Z", "2018-03-05 20:15:00.123456+00:00"),
        ("2018-03-05T20:15:00.5", "2018-03-05 20:15:00.500000+00:00"),
        ("2018-03-05 20:15:00+00", "2018-03-05 20:15:00+00:00"),
        ("2018-03-05 20:15:00.25-0530", "2018-03-06 01:45:00.250000+00:00"),
        ("2018-03-05T20:15:00 +15:59", "2018-03-05 04:16:00+00:00"),
        ("1677-09-21T00:12:43.145224Z", "1677-09-21 00:12:43.145224+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999+00:00"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31 23:59:59.999999+00:00"),
        ("2000-02-29T00:00:00Z", "2000-02-29 00:00:00+00:00"),
        ("2018-03-05T20:15:00.1234567Z", None),
        ("2018-03-05T20:15:00.0000001Z", None),
        *(
            (text, None)
            for text in (
                "2018", "2018-03", "20180305", "2018-03-05", "2018-064", "2018-W10-1", "1520280900", "20:15",
                "20180305T201500Z", "2018-03-05T20", "2018-3-5T20:15:00Z", "2018-03-05T24:00:00Z", "now",
                "2018-03-05T20:60:00Z", "2018-03-05T23:59:60Z", "2018-02-30T20:15:00Z", "05.03.2018 20:15",
                "2018-03-05T20:15:00,5Z", "2018-03-05T20:15:00.Z", "2018-03-05T20:15:00+16:00", "-infinity",
                "2018-03-05T20:15:00+01:60", "2018-03-05T20:15Zz", "٢٠١٨-03-05T20:15:00Z", "infinity",
                "0000-12-31T23:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:00-00:01",
                "10000-01-01T00:00:00Z",
            )
        ),
    ],
)  # fmt: skip
def test_a_time_is_exact_or_refused(tmp_path: Path, text: str, moment: str | None) -> None:
    # A time of another century beside it changes nothing.
    content = VIEWS + VIEW.replace("2018-03", "1600-03") + f'1,2,"{text}",5,true\n'
    if moment is None:
        assert f"line 3, column viewed_at: '{text}' is not a time" in refused(tmp_path, content)
    else:
        assert str(load(tmp_path, content)[1]["viewed_at"]) == moment


@pytest.mark.parametrize(
    "text", ["2018", "20180305", "2018-3-5", "2018-02-29", "0000-01-01", "10000-01-01", "2018-03-05T00:00Z",
             "2018-13-01", "infinity", "2018-03-05 x", "+2018-03-05", "-2018-03-05", "٢018-03-05"],
)  # fmt: skip
def test_only_dates_are_dates(tmp_path: Path, text: str) -> None:
    row = f"2018-03-01,1,0,,,,,{text},\n"
    assert f"line 2, column premier_date: '{text}' is not a date" in refused(
        tmp_path, f"{HEADER}\n{row}", EPISODES_SCHEMA
    )


@pytest.mark.parametrize(
    "text", ["1.0", "1e3", "0x10", "1_000", "١٢", "9223372036854775808", " ", "--1", "NaN"]
)
def test_only_whole_numbers_are_whole_numbers(tmp_path: Path, text: str) -> None:
    assert "line 2, column epid: " in refused(tmp_path, VIEWS + VIEW.replace("1", text, 1))


def test_spellings_of_one_value(tmp_path: Path) -> None:
    rows = load(
        tmp_path, VIEWS + '+1,-0, 2018-03-01T10:00:00Z ,\t007,Yes\n"1","","",000000000000000000007,"0"\n'
    )
    assert [row["epid"] for row in rows] == [1, 1]
    assert [row["viewer_id"] for row in rows] == [0, None]
    assert [row["seconds_watched"] for row in rows] == [7, 7]
    assert [row["completed"] for row in rows] == [True, False]


def test_an_empty_text_is_not_a_missing_one(tmp_path: Path) -> None:
    rows = load(tmp_path, f'{HEADER}\n2018-03-01,,,"",,,,,\n2018-03-01,,,NULL,,,NA,,\n', EPISODES_SCHEMA)
    assert [(row["series"], row["title"]) for row in rows] == [("", None), ("NULL", "NA")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path: Path, end: str) -> None:
    lines = [HEADER, '2018-03-01,1,0,"a\rb\nc\r\nd",,,,,', "2018-03-01,2,x,,,,,,"]
    assert load(tmp_path, end.join(lines[:2]) + end, EPISODES_SCHEMA)[0]["series"] == "a\rb\nc\r\nd"
    # A line is what an editor shows as one.
    assert ", line 6, column algorithm_id" in refused(tmp_path, end.join(lines) + end, EPISODES_SCHEMA)


def test_mixed_line_ends_are_refused_where_a_text_could_own_one(tmp_path: Path) -> None:
    assert len(load(tmp_path, VIEWS.replace("\n", "\r\n") + VIEW + VIEW.replace("\n", "\r"))) == 2
    names = ",".join([*(name for name in HEADER.split(",") if name != "title"), "title"])
    # `csv` of Python before 3.13 and pandas with it write the text "x\r" like this.
    said = refused(tmp_path, f"{names}\n2018-03-01,1,0,,,,,,x\r\n", EPISODES_SCHEMA)
    assert said.startswith(
        ", line 2: its end is not that of line 1, and could belong to the text in column title"
    )


def test_rows_longer_than_a_block(tmp_path: Path) -> None:
    title = '"",\n' * 1_000_000
    quoted = title.replace('"', '""')
    (row,) = load(tmp_path, f'{HEADER}\n2018-03-01,1,0,,,,"{quoted}",,\n', EPISODES_SCHEMA)
    assert row["title"] == title


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", " is empty"),
        (b"\xff\xfee\0p\0", "text in UTF-16"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        (b"PK\x03\x04", "a ZIP archive or a spreadsheet"),
        (b"PAR1", "cannot be read"),
        (b"PAR1PAR1", "cannot be read"),
        (VIEWS.encode("utf-16-le"), "text in UTF-16"),
        (VIEWS.encode("utf-16-be"), "text in UTF-16"),
        (VIEWS.encode("utf-32"), "text in UTF-32"),
        (VIEWS.encode("utf-32-le"), "text in UTF-32"),
        (VIEWS.encode("utf-32-be"), "text in UTF-32"),
        (b"\x1f\x9d\x90", "compressed with compress (.Z)"),
        (b"LZIP\x01", "compressed with lzip"),
        (b"\x04\x22\x4d\x18\0", "compressed with lz4"),
        (b"\x50\x2a\x4d\x18\0", "compressed with lz4 or zstd"),
        (b"\xff\x06\0\0sNaPpY", "compressed with snappy"),
        (b"7z\xbc\xaf\x27\x1c\0", "a 7z archive"),
        (b"PK\x05\x06" + b"\0" * 18, "an empty ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "a spreadsheet (.xls)"),
        (b"ARROW1\0\0", "an Arrow or Feather file"),
        (b"ORC\x0a", "an ORC file"),
        (b"Obj\x01", "an Avro file"),
        (b"PARE\0", "Parquet that is encrypted"),
        (b"\0" * 40, " ends with 40 NUL bytes"),
        (VIEWS.encode() + VIEW.encode() + b"\0" * 1000, " ends with 1,000 NUL bytes"),
        (VIEWS.encode() + VIEW.encode() + b"\x1a", " ends with 1 end-of-file characters (Ctrl-Z"),
        (
            VIEWS.encode() + b"1,\xe9,,,\n",
            ", line 2, column viewer_id: it is not a CSV file in UTF-8 (byte 0xe9)",
        ),
        (b"\xe9,b\n", ", line 1: it is not a CSV file in UTF-8"),
        (VIEWS.replace(",", ";").encode(), "separated by commas"),
        (b'"epid,viewer_id\n' + VIEW.encode(), ", line 1: a quote that opens there is never closed"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, content: bytes, problem: str) -> None:
    assert problem in refused(tmp_path, content)


def test_text_that_the_database_cannot_hold(tmp_path: Path) -> None:
    rows = f'{HEADER}\n2018-03-01,1,0,,,,"a\n"'.encode()
    assert ", line 2, column title: 'a\\n\\x00' is not text without NUL" in refused(
        tmp_path, rows[:-1] + b'\0",,\n', EPISODES_SCHEMA
    )
    # A surrogate, which UTF-8 does not know.
    assert ", line 2, column premier_date: it is not a CSV file in UTF-8" in refused(
        tmp_path, rows + b",\xed\xa0\x80,\n", EPISODES_SCHEMA
    )


def test_no_rows_at_all(tmp_path: Path) -> None:
    assert load(tmp_path, VIEWS) == load(tmp_path, VIEWS.strip()) == []


def test_what_a_missing_value_may_not_be(tmp_path: Path) -> None:
    for field in ("", '""'):
        said = refused(tmp_path, f"{HEADER}\n{GOOD}\n{field},1,0,,,,,,\n", EPISODES_SCHEMA)
        assert said.startswith(", line 4, column batch_date: it is empty")


UTC_TIME = pa.timestamp("us", tz="UTC")
FIRST, LAST = dt.date.min, dt.date.max
DAY = dt.datetime(2018, 3, 1, tzinfo=dt.UTC)


def parquet(folder: Path, values: pa.Array, target: pa.DataType, **options: Any) -> list[Any]:
    path = folder / "file.parquet"
    pq.write_table(pa.table({"x": values}), path, **options)
    read: list[Any] = read_input_file(path, pa.schema({"x": target}))["x"].to_pylist()
    return read


@pytest.mark.parametrize(
    ("values", "target", "wanted"),
    [
        (pa.array([2**63 - 1, None], pa.uint64()), pa.int64(), [2**63 - 1, None]),
        (pa.array([-5], pa.int64()), pa.int16(), [-5]),
        (pa.array([2.0**53 - 1, None]), pa.int64(), [2**53 - 1, None]),
        (pa.array([-2048.0 + 1], pa.float16()), pa.int32(), [-2047]),
        (pa.array([Decimal("9007199254740993.00")]), pa.int64(), [9007199254740993]),
        (pa.array([Decimal(0), None], pa.decimal256(76, 76)), pa.int64(), [0, None]),
        (pa.array([None, None]), pa.int64(), [None, None]),
        (pa.array(["12", "", None]), pa.int32(), [12, None, None]),
        (pa.array([FIRST, LAST]), pa.date32(), [FIRST, LAST]),
        (pa.array([-86_400], pa.timestamp("s")), pa.date32(), [dt.date(1969, 12, 31)]),
        (pa.array([DAY], pa.timestamp("ns")), UTC_TIME, [DAY]),
        (pa.array([-1_000], pa.timestamp("ns", "America/New_York")), UTC_TIME,
         [dt.datetime(1969, 12, 31, 23, 59, 59, 999999, dt.UTC)]),
        (pa.array([1], pa.timestamp("ms")), UTC_TIME, [dt.datetime(1970, 1, 1, 0, 0, 0, 1000, dt.UTC)]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"]),
        (pa.array(["a", ""], pa.large_string()), pa.string(), ["a", ""]),
        (pa.array(["a long text of more than 12 bytes", None], pa.string_view()), pa.string(),
         ["a long text of more than 12 bytes", None]),
        (pa.array(["é".encode()]), pa.string(), ["é"]),
    ],
)  # fmt: skip
def test_parquet_types_that_are_exact(
    tmp_path: Path, values: pa.Array, target: pa.DataType, wanted: list[Any]
) -> None:
    assert parquet(tmp_path, values, target) == wanted


@pytest.mark.parametrize(
    ("values", "target", "problem"),
    [
        (pa.array([1, 2**63], pa.uint64()), pa.int64(), "row 2, column x: 9223372036854775808 is not"),
        (pa.array([1, 40_000]), pa.int16(), "row 2, column x: 40000 is not a whole number of 16 bits"),
        (pa.array([1.0, 1.5]), pa.int64(), "row 2, column x: 1.5 is not"),
        (pa.array([1.0, 2.0**53]), pa.int64(), "row 2, column x: "),
        (pa.array([2.0**24], pa.float32()), pa.int64(), "row 1, column x: "),
        (pa.array([float("nan")]), pa.int64(), "row 1, column x: nan is not"),
        (pa.array([float("inf")]), pa.int64(), "row 1, column x: inf is not"),
        (pa.array([Decimal("1.50")]), pa.int64(), "row 1, column x: 1.50 is not"),
        (pa.array([Decimal(10) ** 30]), pa.int64(), "row 1, column x: 1"),
        (pa.array([20180301]), pa.date32(), "column x: its type int64 cannot be read as a date"),
        (pa.array([20180301]), UTC_TIME, "column x: its type int64 cannot be read as a time"),
        (pa.array([1]), pa.bool_(), "column x: its type int64 cannot be read as true or false"),
        (pa.array([1.0]), UTC_TIME, "column x: its type double cannot be read as a time"),
        (pa.array([True]), pa.int64(), "column x: its type bool cannot be read as a whole"),
        (pa.array([5]), pa.string(), "column x: its type int64 cannot be read as text"),
        (pa.array([dt.date(2018, 3, 1)]), UTC_TIME, "column x: its type date32[day] cannot be read as a"),
        (pa.array([0, 1], pa.timestamp("us")), pa.date32(), "row 2, column x: 1970-01-01 00:00:00.000001 is"),
        (pa.array([0], pa.timestamp("us", "Asia/Tokyo")), pa.date32(), "column x: its type timestamp[us"),
        (pa.array([1_000, 1_001], pa.timestamp("ns")), UTC_TIME, "row 2, column x: 1970-01-01 00"),
        (pa.array([-62_135_596_800_001], pa.timestamp("ms")), UTC_TIME, "row 1, column x: "),
        (pa.array([-719_163], pa.date32()), pa.date32(), "row 1, column x: "),
        (pa.array([b"a", b"\xff"]), pa.string(), "row 2, column x: b'\\xff' is not text in UTF-8"),
        (pa.array(["a", "\0"]), pa.string(), "row 2, column x: '\\x00' is not text without NUL"),
        (pa.array(["12", "soon"]), UTC_TIME, "row 1, column x: '12' is not a time"),
        (pa.array([[1]]), pa.int64(), "column x: its type list<"),
        (pa.array([1_000, 1], pa.timestamp("ns", "Foo/Bar")), UTC_TIME,
         "row 2, column x: 1970-01-01 00:00:00.000000001Z is not a time in whole microseconds"),
        (pa.array([2**62], pa.timestamp("us", "Foo/Bar")), UTC_TIME, "row 1, column x: "),
        (pa.array([Decimal(0), Decimal("0.5")], pa.decimal256(76, 76)), pa.int64(), "row 2, column x: 0.5"),
    ],
)  # fmt: skip
def test_parquet_values_that_are_refused(
    tmp_path: Path, values: pa.Array, target: pa.DataType, problem: str
) -> None:
    with pytest.raises(BadFile) as error:
        parquet(tmp_path, values, target)
    assert f"file.parquet, {problem}" in str(error.value)


def test_the_times_of_spark(tmp_path: Path) -> None:
    """INT96, which readers let overflow silently."""
    legacy = {"use_deprecated_int96_timestamps": True}
    good = [dt.datetime(1700, 1, 1, 0, 0, 0, 1, dt.UTC), None]
    assert parquet(tmp_path, pa.array(good), UTC_TIME, **legacy) == good
    early = pa.array([DAY, DAY.replace(year=1600)])
    with pytest.raises(BadFile, match="row 2, column x: INT96 does not hold this time exactly"):
        parquet(tmp_path, early, UTC_TIME, **legacy)


def test_invalid_utf8_that_claims_to_be_text(tmp_path: Path) -> None:
    text = pa.array([b"good", b"\xc3"]).view(pa.string())
    with pytest.raises(BadFile, match=r"row 2, column x: b'\\xc3' is not text in UTF-8"):
        parquet(tmp_path, text, pa.string())


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"x": list(range(1000))}), path, write_page_checksum=True, compression="none")
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(BadFile, match="cannot be read"):
        read_input_file(path, pa.schema({"x": pa.int64()}))
    path.write_bytes(whole[:-100])
    with pytest.raises(BadFile, match="cannot be read"):
        read_input_file(path, pa.schema({"x": pa.int64()}))


_PIECES = st.sampled_from(["a", "1", '"', '""', ",", "\n", "\r\n", "\r", " ", "é", "\ufeff", ""])
_TEXT = st.text(st.sampled_from('a",\r\né\ufeff'), max_size=6)
_ROWS = st.lists(st.tuples(_TEXT, _TEXT), max_size=12)


@pytest.mark.parametrize("block_bytes", [1, 8, 32, csv_text.BLOCK_BYTES])
@settings(max_examples=400)
@given(st.lists(_PIECES, max_size=25).map("".join))
def test_what_is_accepted_is_what_a_strict_reader_reads(block_bytes: int, text: str) -> None:
    """Python's own reader, as strict as it gets, finds the same rows in whatever is accepted."""
    data = f"x,y\n{text}\n".encode()
    try:
        with mock.patch.object(csv_text, "BLOCK_BYTES", block_bytes):
            read = read_csv_text(data, check_header=lambda _: None, is_text=lambda _: True)
    except BadCsv:
        return
    names, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    assert names == ["x", "y"]
    found = [[value or "" for value in row.values()] for row in read.columns.to_pylist()]
    assert found == rows


@pytest.mark.slow
@pytest.mark.parametrize("block_bytes", [1, 8, 32, csv_text.BLOCK_BYTES])
@settings(max_examples=400)
@given(_ROWS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_texts_are_read_as_they_are_wherever_a_block_ends(
    block_bytes: int, rows: list[tuple[str, str]], end: str, mark: str, ends_with_one: bool
) -> None:
    quoted = [",".join('"' + text.replace('"', '""') + '"' for text in row) for row in rows]
    data = (mark + end.join(["x,y", *quoted]) + (end if ends_with_one else "")).encode()
    with mock.patch.object(csv_text, "BLOCK_BYTES", block_bytes):
        read = read_csv_text(data, check_header=lambda _: None, is_text=lambda _: True)
    assert [tuple(row.values()) for row in read.columns.to_pylist()] == rows


def test_a_line_break_in_a_text_at_the_end_of_a_block(tmp_path: Path) -> None:
    """A megabyte, as pyarrow would read it at once, ends between the two characters."""
    row, begin = "2018-03-01,1,0,,,,x,,\n", '2018-03-01,2,0,,,,"'
    rows = row * ((2**20 - 100) // len(row))
    title = "y" * (2**20 - len(rows) - len(begin) - 1) + "\r\nz"
    read = load(tmp_path, f'{HEADER}\n{rows}{begin}{title}",,\n{row}', EPISODES_SCHEMA)
    assert read[-2]["title"] == title


def test_a_byte_order_mark_is_one_only_at_the_beginning_of_the_file(tmp_path: Path) -> None:
    header = "title,batch_date,epid,algorithm_id,series,season,episode,premier_date,start_date"
    for mark in ("", "\ufeff"):
        read = load(tmp_path, f"{mark}{header}\n\ufeffa,2018-03-01,,,,,,,\n", EPISODES_SCHEMA)
        assert read[0]["title"] == "\ufeffa"
    said = refused(tmp_path, VIEWS + "\ufeff" + VIEW)
    assert said.startswith(", line 2, column epid: '\\ufeff1' is not a whole number")


def test_bytes_that_are_not_utf8_name_the_line_on_which_the_row_begins(tmp_path: Path) -> None:
    for content, place in (
        (f'{HEADER}\n{GOOD}\n2018-03-01,1,0,"a\nb","1\n2",,"\n\xe9",,\n', ", line 4, column title: "),
        (f'{HEADER},"x\n\xe9"\n', ", line 1: "),
    ):
        said = refused(tmp_path, content.encode("latin-1"), EPISODES_SCHEMA)
        assert said.startswith(f"{place}it is not a CSV file in UTF-8 (byte 0xe9)")


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("sizes", [(1000, 1000), (1000, 10), (10, 1000), (5, 5, 5), (5, 0)])
def test_parquet_files_put_together(tmp_path: Path, sizes: tuple[int, ...], compression: str) -> None:
    """Readers find the last footer, and in the place of its pages those of the first file."""
    path, whole = tmp_path / "file.parquet", b""
    for size in sizes:
        table = pa.table({"x": range(size), "title": ["PAR1"] * size})
        pq.write_table(table, path, compression=compression, write_page_index=True, use_dictionary=False)
        assert read_input_file(path, table.schema).num_rows == size
        whole += path.read_bytes()
    for beginning in (whole, b"PAR1" + bytes(50) + path.read_bytes()):
        path.write_bytes(beginning)
        with pytest.raises(BadFile, match="is several Parquet files put together"):
            read_input_file(path, table.schema)
