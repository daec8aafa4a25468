"""`episodes lake`: show, verify and clean up (vacuum) the lake's tables.

Which versions and drops the databases name is read here. While the lake lacks one of them, `vacuum` removes
nothing. What is done with the tables is `lake/upkeep.py`.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import Progress
from rich.table import Table

from episodes_assets.checks.verdicts import name_days
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import announce_open_hosts, ready_databases
from episodes_assets.errors import LakeDamaged, LakeMissing, LakeReplaced
from episodes_assets.lake import opening, upkeep
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.opening import OpenedLake
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.upkeep import NamedDrop
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.ledger import plans
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results import publications, state
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import require_standard_output

app = typer.Typer(
    no_args_is_help=True,
    help="Look after the lake: the input's drops and viewings as Delta Lake tables, of which plans and "
    "publications name versions.",
)


@app.command()
def status() -> None:
    """Show each table: its version, its days, rows and bytes, and which viewings were accepted as lost.

    It fails if the lake is not the one that plans and publications name versions and drops of.

    Example: episodes lake status
    """
    require_standard_output()
    settings = _settings()
    lake = opening.open_lake(settings)
    viewings = lake.viewings()
    missing = _find_missing(lake, _read_references(ready_databases(settings)))
    shown = Table(box=None)
    for name in ("table", "version", "environment", "days", "first", "last", "missing between"):
        shown.add_column(name)
    for name in ("rows", "size", "bytes a row"):
        shown.add_column(name, justify="right")
    for found in map(upkeep.describe, (*lake.drops().tables, viewings)):
        if found is not None:
            shown.add_row(
                found.name,
                str(found.version),
                found.environment,
                f"{found.days:,}",
                str(found.first or "-"),
                str(found.last or "-"),
                f"{found.gaps:,}",
                f"{found.rows:,}",
                decimal(found.size),
                f"{found.size / found.rows:.1f}" if found.rows else "-",
            )
    if not shown.rows:
        _require_all(lake, missing)
        where = lake.drops().shown
        out.print(f"The lake at {where} is empty: the first run of a day fills it.")
        return
    out.print(shown)
    for commit in viewings.commits():
        for day, (gone, new) in sorted(commit.lost.items()):
            out.print(
                f"Version {commit.number} of {commit.at:%Y-%m-%d %H:%M} has {new:,} other viewings of {day}"
                f" in place of {gone:,} that were accepted as lost: {commit.reason}",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
    _require_all(lake, missing)


@app.command()
def verify() -> None:
    """Read every file of the newest versions and of those that plans, publications and tracked days name.

    Its digest must be the one that was written. All that are gone, cut or changed are named, and it fails. So
    it does if the lake lacks a version or a drop that they name.

    Example: episodes lake verify
    """
    require_standard_output()
    settings = _settings()
    lake = opening.open_lake(settings)
    viewings = lake.viewings()
    named = _read_references(ready_databases(settings))
    missing = _find_missing(lake, named)
    tables: list[tuple[LakeTable, list[LakeFile]]] = [
        *upkeep.files_of_drops(lake.drops(), named.drops),
        (viewings, upkeep.files_of(viewings, named.viewings_versions - {*missing.viewings_versions})),
    ]
    files = [file for _, some in tables for file in some]
    damaged = 0
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("verifying", total=sum(file.size for file in files))
        for table, some in tables:
            for file, fault in upkeep.verify(table, some):
                bar.update(task, advance=file.size, description=f"{table.name} of {file.day}")
                if fault:
                    damaged += 1
                    said = f"{table.shown}/{file.path} {fault}"
                    out.print(said, markup=False, soft_wrap=True, style="red")
    if damaged:
        raise LakeDamaged(f"{damaged} of {len(files)} files are damaged", "restore those above from a backup")
    _require_all(lake, missing)
    counts = ", ".join(f"{sum(file.rows for file in some):,} {table.name}" for table, some in tables if some)
    out.print(f"{len(files):,} files are whole, with the rows of: {counts or 'no table'}.")


@app.command()
def vacuum(
    days: Annotated[
        int,
        typer.Option("--older-than", min=1, help="Days for which a file stays that nobody names."),
    ] = 7,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove them; without it they are only listed.")
    ] = False,
) -> None:
    """List, or remove, files that neither the newest versions have nor anything names.

    Plans, publications and tracked days name what they were made from: that always stays. Late viewings and
    refreshed days leave other files behind, and so do killed processes. If the lake lacks a version or a drop
    that they name, nothing is listed or removed: files may be theirs that it cannot tell.

    Example: episodes lake vacuum --remove
    """
    require_standard_output()
    settings = _settings()
    lake = opening.open_lake(settings)
    viewings, drops = lake.viewings(), lake.complete_drops()
    named = _read_references(ready_databases(settings))
    # Once their log is back they may be read again, if their files are there.
    _require_all(lake, _find_missing(lake, named))
    files, size = 0, 0
    older_than = dt.timedelta(days=days)
    # A plan that is about to be recorded may name one of these.
    since = dt.datetime.now(dt.UTC) - older_than
    late = {PinnedVersion(number, None) for number in upkeep.versions_since(viewings, since)}
    kept: list[tuple[LakeTable, list[LakeFile]]] = [
        *upkeep.files_of_drops(drops, named.drops, since),
        (viewings, upkeep.files_of(viewings, named.viewings_versions | late)),
    ]
    for table, _ in kept:
        table.verify_environment(settings.environment)
    for table, some in kept:
        for path, bytes_ in table.unnamed({file.path for file in some}, older_than):
            if remove and not upkeep.remove_unnamed(table, path, older_than):
                continue  # part of a day again meanwhile
            out.print(f"{table.name}/{path}", markup=False, highlight=False)
            files, size = files + 1, size + bytes_
    said = "removed" if remove else "could be removed: run it with --remove"
    err.print(f"{files:,} files of {decimal(size)} {said}")


def _settings() -> Settings:
    settings = load_settings()
    announce_open_hosts(settings)
    return settings


@dataclass(frozen=True)
class _References:
    """What the databases name of the lake, and must never be removed.

    All databases are read, as one of them may have been restored to an earlier moment.

    Attributes:
        viewings_versions: Versions of the viewings.
        drops: Drops.
    """

    viewings_versions: set[PinnedVersion]
    drops: set[NamedDrop]


@dataclass(frozen=True)
class _Missing:
    """What the databases name and the lake does not have, or has with other content.

    Attributes:
        viewings_versions: Versions of the viewings, in order.
        drops: Drops, in order.
    """

    viewings_versions: Sequence[PinnedVersion]
    drops: Sequence[NamedDrop]


def _find_missing(lake: OpenedLake, named: _References) -> _Missing:
    return _Missing(
        upkeep.missing_of(lake.viewings(), named.viewings_versions),
        upkeep.missing_drops(lake.drops(), named.drops),
    )


def _require_all(lake: OpenedLake, missing: _Missing) -> None:
    """Refuse a lake that is not the one that plans and publications name versions and drops of."""
    if versions := missing.viewings_versions:
        raise LakeReplaced(
            f"the lake at {lake.viewings().shown} is not the one that plans and publications were made from:"
            f" {len(versions)} of the versions that they name are not there, or have other files, the first"
            f" version {versions[0].number}",
            "restore that lake, or let EPISODES_LAKE_URL name it; `episodes db status` names the days",
        )
    if missing.drops:
        drops = lake.complete_drops()  # those that were not brought in yet are no loss
        days = sorted({day for day, _ in missing.drops})
        day, snapshot_id = missing.drops[0]
        raise LakeMissing(
            f"the log of {drops.episodes.shown} lacks {len(missing.drops)} of the drops that plans, tracked"
            f" days and publications were made from, of {name_days(days)}, the first {snapshot_id} of {day}",
            "restore its folder `_delta_log`, or let EPISODES_LAKE_URL name the lake that was written to",
        )


def _read_references(dsns: Dsns) -> _References:
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        versions = plans.read_viewings_versions(queue)
        drops = plans.read_named_drops(queue)
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        versions |= publications.read_viewings_versions(results)
        drops |= publications.read_named_drops(results) | state.read_named_drops(results)
    return _References(versions, drops)
