"""A state that cannot be right is refused by line and column, or row."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from episodes_assets.cli.state import read_state
from episodes_assets.errors import BadFile

DAY = dt.date(2018, 3, 2)


@pytest.mark.parametrize(
    ("last", "column", "problem"),
    [
        ((-1, None), "epid", "it is negative"),
        ((1, None), "epid", "it is repeated"),
        ((3, dt.date(2018, 3, 3)), "tracked_on", "it is after 2018-03-02"),
    ],
)
def test_a_row_that_cannot_be_right(
    tmp_path: Path, last: tuple[int, dt.date | None], column: str, problem: str
) -> None:
    rows = pd.DataFrame([(1, DAY), (2, None), last], columns=["epid", "tracked_on"])
    lines = ['"epid","tracked\n_on"'.replace("\n", ""), *(f"{a},{b or ''}" for a, b in rows.to_numpy())]
    (tmp_path / "state.csv").write_text("\n".join(lines) + "\n")
    rows.to_parquet(tmp_path / "state.parquet")
    for name, place in (("state.csv", "line 4"), ("state.parquet", "row 3")):
        with pytest.raises(BadFile) as error:
            read_state(tmp_path / name, DAY)
        assert f"{name}, {place}, column {column}: {problem}: fix the file; nothing was loaded" in str(
            error.value
        )


def test_a_missing_day_is_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "state.csv").write_text("epid,tracked_on\n1,\n2,2018-03-01\n")
    state = read_state(tmp_path / "state.csv", DAY)
    assert [each.date() for each in state["tracked_on"]] == [DAY, dt.date(2018, 3, 1)]
