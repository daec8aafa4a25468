"""What is downloaded of rows that an older version of an algorithm, or an odd one, has left."""

import csv
import io
from typing import Any

import pyarrow.parquet as pq
import pytest

from episodes_assets.algorithms.declaration import Declaration, Metric
from episodes_assets.dashboard.downloads import to_csv, to_parquet
from episodes_assets.results.rows import Row, Selection
from episodes_assets_tests.support.system import day

ODD = Declaration(
    algorithm_id=9,
    name="odd",
    version="1",
    description="It has metrics that are called like columns of the catalogue.",
    columns={"title": Metric.INTEGER, "share": Metric.REAL},
)
WANTED = Selection(day(1), 9)


# Of OWASP's list on CSV injection; tabs and line ends are separators besides.
SIGNS = (
    *"=+-@",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
SEPARATORS = (";", "\t", "\r", "\n", "\r\n")


def row(series: str = "a series", **metrics: Any) -> Row:
    return Row(
        epid=1,
        series=series,
        season=None,
        episode=None,
        title="a title",
        titled_on=day(1),
        window_start=day(1),
        window_end=day(1),
        covered_from=None,
        metrics=metrics,
        value=None,
    )


def both(*rows: Row) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The rows as CSV has them, and as Parquet has them."""
    parts = [list(rows)] if rows else []
    text = b"".join(to_csv(parts, WANTED, ODD)).decode()
    table = pq.read_table(io.BytesIO(b"".join(to_parquet(parts, WANTED, ODD))))
    return list(csv.DictReader(io.StringIO(text, newline=""))), table.to_pylist()


@pytest.mark.parametrize(
    ("metrics", "title", "share"),
    [
        ({"title": 2**63 - 1, "share": -1}, 2**63 - 1, -1.0),
        ({"title": 3.0, "share": 0.1}, 3, 0.1),
        ({"title": 1.5, "share": "0.1"}, None, None),
        ({"title": 2**63, "share": True}, None, None),
        ({"title": float("1e300"), "share": [1]}, None, None),
        ({"title": 10**400, "share": 10**400}, None, None),
        ({}, None, None),
    ],
)
def test_a_value_of_another_type_is_missing(
    metrics: dict[str, Any], title: int | None, share: float | None
) -> None:
    (in_csv,), (in_parquet,) = both(row(**metrics))
    assert (in_parquet["title"], in_parquet["share"]) == (title, share)
    assert (in_csv["title"], in_csv["share"]) == tuple(
        "" if each is None else repr(each) for each in (title, share)
    )


def test_a_metric_goes_before_a_column_of_the_catalogue_of_its_name() -> None:
    (in_csv,), (in_parquet,) = both(row(title=7))
    assert list(in_csv) == list(in_parquet)
    assert list(in_csv)[6:] == ["title", "share", "series", "season", "episode"]
    assert (in_parquet["title"], in_parquet["series"]) == (7, "a series")


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("sign", SIGNS)
def test_no_cell_is_a_formula_by_whatever_a_spreadsheet_separates_cells(sign: str, separator: str) -> None:
    formula = f"{sign}1+1"
    for text in (
        formula,
        f"x{separator}{formula}",
        f"{separator}{formula}",
        f"x, y{separator}{separator}{formula}",
        f'x{separator}"{formula}',
        f'x{separator}"{formula}{separator}{formula}"',
        f'"{formula}"{separator}""{formula}',
    ):
        written = b"".join(to_csv([[row(series=text)]], WANTED, ODD)).decode()
        for delimiter in ",;\t":
            # As spreadsheets, it takes a quote for one only where a cell begins.
            lines = csv.reader(io.StringIO(written, newline=""), delimiter=delimiter)
            cells = [cell for line in lines for cell in line]
            assert [cell for cell in cells if cell.lstrip("\t\r\n").startswith(SIGNS)] == []
        (read,) = csv.DictReader(io.StringIO(written, newline=""))
        assert read["series"].replace("'", "") == text


@pytest.mark.parametrize("text", ["a=b", "1; 2", "a\nb", 'x;"y"', "x;y-z", "it's; -1", 'a "-" b', "9;10\t11"])
def test_a_text_without_a_formula_is_as_it_is(text: str) -> None:
    (in_csv,), (in_parquet,) = both(row(series=text))
    assert (in_csv["series"], in_parquet["series"]) == (text, text)


def test_no_rows_are_a_head() -> None:
    assert both() == ([], [])
    head, *rest = b"".join(to_csv([], WANTED, ODD)).decode().splitlines()
    assert head.startswith("day,epid,algorithm_id,")
    assert rest == []
