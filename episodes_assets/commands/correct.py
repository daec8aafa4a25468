"""`episodes correct`: put a day right whose input was wrong, and all that was built on it."""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.commands.console import err, out
from episodes_assets.commands.dagster_runs import materialize_days, open_instance
from episodes_assets.commands.databases import (
    announce_open_hosts,
    ready_databases,
    refuse_writable_input,
    require_reachable,
)
from episodes_assets.commands.processes import temporary_workers
from episodes_assets.commands.run import AcceptLost, Workers, run_config, workers_of_ones_own
from episodes_assets.days import ONE_DAY, days_between, parse_day
from episodes_assets.errors import ReasonMissing, StateGap
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results import state
from episodes_assets.results.publish import PublishedDay, read_days
from episodes_assets.results.recompute import read_published_coverage, require_computable
from episodes_assets.settings import Settings, load_settings


def correct(
    day: Annotated[str, typer.Argument(help="The day whose input was wrong, YYYY-MM-DD.")],
    reason: Annotated[str, typer.Option(help="What was wrong; kept with what is taken anew.")],
    workers: Workers = None,
    accept_lost_viewings: AcceptLost = False,
) -> None:
    """Correct a day whose input was wrong, and every later day, and show what changed.

    Takes the day anew, then plans, works and publishes it and all later days of the
    history again; those use what is kept of them, so their input may be gone. Viewings that the input has
    deleted stay in the lake; a day of which it has new ones besides is refused, unless it is said that the
    deleted ones shall be lost. If it is interrupted, run it again.

    Example: episodes correct 2018-03-05 --reason "half of the drop was missing"
    """
    first = parse_day(day)
    if not reason.strip():
        raise ReasonMissing("a correction needs a reason", "say what was wrong with the day's input")
    settings = load_settings()
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    refuse_writable_input(settings, dsns)
    require_reachable(dsns)
    _require_computable(settings, dsns, first, _last_day_built_on(dsns, first))
    before = _published(dsns, first, first)
    with (
        temporary_workers(settings, dsns, workers_of_ones_own(workers, dsns)),
        open_instance(settings, dsns) as instance,
    ):
        config = run_config(
            refresh=True, reason=reason.strip(), rework=True, accept_lost=accept_lost_viewings
        )
        materialize_days(instance, dsns, first, first, config)
        corrected, last = first, _last_day_built_on(dsns, first)
        while corrected < last:  # a daily run may have added days, on what was tracked before
            before |= _published(dsns, corrected + ONE_DAY, last)
            materialize_days(instance, dsns, corrected + ONE_DAY, last, run_config(rework=True))
            corrected, last = last, _last_day_built_on(dsns, first)
    after = _published(dsns, first, last)
    out.print(_changes(first, last, before, after))
    changed = sum(_checksum(before, each) != _checksum(after, each) for each in days_between(first, last))
    err.print(f"{changed} of {len(after)} days changed; `episodes history {day}` shows what is on record")


def _last_day_built_on(dsns: Dsns, day: dt.date) -> dt.date:
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        tracked = state.read_day(results, day)
        latest = state.latest_day(results)
    if tracked is None or latest is None:
        raise StateGap(
            f"{day} has never been run, so there is nothing to correct", f"run `episodes run {day}`"
        )
    if tracked.origin == "import":
        raise StateGap(
            f"the history begins with the state imported as of {day}", "correct a later day, or import anew"
        )
    return latest.day


def _require_computable(settings: Settings, dsns: Dsns, first: dt.date, last: dt.date) -> None:
    """Refuse before anything changes what some step would refuse later on."""
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        published = read_published_coverage(results, first, last)
    require_computable(published, Viewings(settings.lake).newest())


def _published(dsns: Dsns, first: dt.date, last: dt.date) -> dict[dt.date, PublishedDay]:
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        return {each.day: each for each in read_days(results, first, last)}


def _checksum(published: Mapping[dt.date, PublishedDay], day: dt.date) -> str | None:
    return published[day].checksum if day in published else None


def _changes(
    first: dt.date,
    last: dt.date,
    before: Mapping[dt.date, PublishedDay],
    after: Mapping[dt.date, PublishedDay],
) -> Table:
    table = Table(box=None)
    table.add_column("day", no_wrap=True)
    for name in ("rows before", "rows after"):
        table.add_column(name, justify="right")
    table.add_column("content")
    for day in days_between(first, last):
        is_same = _checksum(before, day) == _checksum(after, day)
        rows = [f"{published[day].rows:,}" if day in published else "-" for published in (before, after)]
        table.add_row(str(day), *rows, "unchanged" if is_same else "changed")
    return table
