"""Filling the input with viewings, and reading what the lake has of them."""

import datetime as dt
from typing import Any

import dagster as dg

from episodes_assets.cli.context import bring_in_older_snapshots
from episodes_assets_tests.support.older_release import become_older
from episodes_assets_tests.support.system import System, day, failure

ONE_DAY = dt.timedelta(days=1)
BEFORE = day(1) - ONE_DAY


def fill(system: System, first: dt.date, last: dt.date, viewers: int = 3) -> None:
    """Five episodes that everybody watches on each day; drops from day 1 on."""
    for number in range((last - first).days + 1):
        date = first + number * ONE_DAY
        if date >= day(1):
            system.insert_drop(date, [(epid, 0, "2018-02-01", "2018-02-20") for epid in range(1, 6)])
        watch(system, date, viewers)


def watch(system: System, date: dt.date, viewers: int, *, first: int = 0) -> None:
    system.insert_viewings(
        [
            (epid, viewer, f"{date} 12:00+00", 60, True)
            for epid in range(1, 6)
            for viewer in range(first, first + viewers)
        ]
    )


def materialize(system: System, first: dt.date, last: dt.date | None = None, **options: Any) -> Any:
    result = system.materialize(first, last, **options)
    assert result.success, failure(result)
    return result


def retain(system: System, since: dt.date) -> None:
    """What other teams do with old viewings."""
    system.query("input", "DELETE FROM viewings WHERE viewed_at < %s", [f"{since}Z"])


def rows(system: System) -> dict[dt.date, int]:
    newest = system.viewings.newest()
    return {date: file.rows for date, file in newest.files.items()} if newest else {}


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def before_the_lake(system: System) -> None:
    """What a release from before the lake leaves, once its snapshots were brought in."""
    become_older(system, with_viewings=False)
    bring_in_older_snapshots(system.settings)
