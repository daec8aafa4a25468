"""A state that cannot be right is refused by line and column, or row."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from episodes_assets.cli.state import read_state
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import BadDay, BadFile
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.state import record_day, state_before
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System

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


def record(results: Connection, day: dt.date, *epids: int, snapshot_id: str = "s") -> None:
    yesterday = state_before(results, day)
    added = np.array(epids, dtype=np.int64)
    record_day(results, day, added, yesterday=yesterday, snapshot_id=snapshot_id, code_version="1")


def test_a_state_that_no_manifest_describes_is_not_exported(
    system: System, results: Connection, tmp_path: Path
) -> None:
    """Another system would take it for whole, and catch up what it lacks once more."""
    file = tmp_path / "state.csv"
    record(results, DAY - ONE_DAY, 1, 2)
    record(results, DAY, 3)
    output("state", "export", str(file), "--as-of", str(DAY))
    written = "epid,tracked_on\n1,2018-03-01\n2,2018-03-01\n3,2018-03-02\n"
    assert file.read_text() == written
    # Refreshed, the day before does not track 2 any more.
    record(results, DAY - ONE_DAY, 1, snapshot_id="refreshed")
    refused = str(refusal("state", "export", str(file), "--as-of", str(DAY)))
    assert "the tracked episodes of 2018-03-02 were built on another 2018-03-01" in refused
    record(results, DAY, 3)
    output("state", "export", "-", "--as-of", str(DAY))
    system.query("results", "DELETE FROM state.tracked_episodes WHERE epid = 3")
    refused = str(refusal("state", "export", str(file), "--as-of", str(DAY)))
    assert "the episodes tracked on 2018-03-02 are not those that its manifest says" in refused
    assert "`episodes run 2018-03-02 --repair --reason WHY`" in refused
    assert file.read_text() == written


def test_a_state_is_imported_only_where_a_history_can_begin(system: System, tmp_path: Path) -> None:
    file = tmp_path / "state.csv"
    file.write_text("epid,tracked_on\n1,\n")
    today = dt.datetime.now(dt.UTC).date()
    for as_of, problem in (
        ("2018-02-27", "no history can begin after 2018-02-27, as 2018-03-01 is the first day"),
        (str(today), f"{today} is not over yet: the latest day that can be run is {today - ONE_DAY}"),
        ("2108-03-01", "2108-03-01 is not over yet"),
    ):
        refused = refusal("state", "import", str(file), "--as-of", as_of)
        assert isinstance(refused, BadDay)
        assert problem in str(refused)
    assert system.query("results", "SELECT FROM state.tracked_days") == []
    output("state", "import", str(file), "--as-of", "2018-02-28")
    assert system.query("results", "SELECT day, origin FROM state.tracked_days") == [
        (dt.date(2018, 2, 28), "import")
    ]
