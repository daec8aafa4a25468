"""`episodes lake`: look after the copies of the input that are kept for ever."""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import Progress
from rich.table import Table

from episodes_assets.commands.console import err, out
from episodes_assets.commands.databases import announce_open_hosts, ready_databases
from episodes_assets.databases.connections import connect_to_read
from episodes_assets.databases.dsns import Database, Dsns, Purpose
from episodes_assets.errors import LakeDamaged, LakeReplaced
from episodes_assets.lake import upkeep
from episodes_assets.lake.tables import PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets.settings import Settings, load_settings
from episodes_assets.stores import plan_history, publications
from episodes_assets.stores.taking import REASON, lost_by
from episodes_assets.user_files import require_standard_output

app = typer.Typer(
    no_args_is_help=True,
    help="Look after the lake: the input's viewings as Delta Lake tables, of which plans and publications "
    "name versions.",
)


@app.command()
def status() -> None:
    """Show each table: its version, its days, rows and bytes, and which viewings were accepted as lost.

    It fails if the lake is not the one that plans and publications name versions of.

    Example: episodes lake status
    """
    require_standard_output()
    settings = _settings()
    viewings = _viewings(settings)
    missing = upkeep.missing_of(viewings, _named_versions(ready_databases(settings)))
    table = Table(box=None)
    for name in ("table", "version", "environment", "days", "first", "last", "missing between"):
        table.add_column(name)
    for name in ("rows", "size", "bytes a row"):
        table.add_column(name, justify="right")
    found = upkeep.describe(viewings)
    if found is None:
        _require_all(viewings, missing)
        out.print(f"The lake at {viewings.shown} is empty: the first run of a day fills it.")
        return
    table.add_row(
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
    out.print(table)
    for commit in viewings.commits():
        for day, (gone, new) in sorted(lost_by(commit).items()):
            out.print(
                f"Version {commit.number} of {commit.at:%Y-%m-%d %H:%M} has {new:,} other viewings of {day}"
                f" in place of {gone:,} that were accepted as lost: {commit.facts.get(REASON, '')}",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
    _require_all(viewings, missing)


@app.command()
def verify() -> None:
    """Read every file of the newest version and of those that plans and publications name.

    Its digest must be the one that was written. All that are gone, cut or changed are named, and it fails.

    Example: episodes lake verify
    """
    require_standard_output()
    settings = _settings()
    viewings = _viewings(settings)
    named = _named_versions(ready_databases(settings))
    missing = upkeep.missing_of(viewings, named)
    files = upkeep.files_of(viewings, named - {*missing})
    damaged = []
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("verifying", total=sum(file.size for file in files))
        for file, fault in upkeep.verify(viewings, files):
            bar.update(task, advance=file.size, description=str(file.day))
            if fault:
                damaged.append(file)
                out.print(f"{viewings.shown}/{file.path} {fault}", markup=False, soft_wrap=True, style="red")
    if damaged:
        raise LakeDamaged(
            f"{len(damaged)} of {len(files)} files are damaged", "restore those above from a backup"
        )
    _require_all(viewings, missing)
    out.print(f"{len(files):,} files with {sum(file.rows for file in files):,} viewings are whole.")


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
    """List, or remove, files that neither the newest version has nor any plan or publication names.

    Late viewings and refreshed days leave such files behind, and so do killed processes. What a published day
    was computed from always stays.

    Example: episodes lake vacuum --remove
    """
    require_standard_output()
    settings = _settings()
    viewings = _viewings(settings)
    keep = _named_versions(ready_databases(settings))
    viewings.verify_environment(settings.environment)
    files, size = 0, 0
    older_than = dt.timedelta(days=days)
    # A plan that is about to be recorded may name one of these.
    keep |= {PinnedVersion(n, None) for n in viewings.versions_since(dt.datetime.now(dt.UTC) - older_than)}
    kept = {file.path for file in upkeep.files_of(viewings, keep)}
    for path, bytes_ in viewings.unnamed(kept, older_than):
        if remove and not viewings.remove_unnamed(path, older_than):
            continue  # a day's again meanwhile
        out.print(path, markup=False, highlight=False)
        files, size = files + 1, size + bytes_
    said = "removed" if remove else "could be removed: run it with --remove"
    err.print(f"{files:,} files of {decimal(size)} {said}")


def _settings() -> Settings:
    settings = load_settings()
    announce_open_hosts(settings)
    return settings


def _viewings(settings: Settings) -> Viewings:
    return Viewings(settings.lake)


def _require_all(viewings: Viewings, missing: Sequence[PinnedVersion]) -> None:
    """Refuse a lake that is not the one that plans and publications name versions of."""
    if missing:
        raise LakeReplaced(
            f"the lake at {viewings.shown} is not the one that plans and publications were made from:"
            f" {len(missing)} of the versions that they name are not there, or have other files, the first"
            f" version {missing[0].number}",
            "restore that lake, or let EPISODES_LAKE_URL name it; `episodes db status` names the days",
        )


def _named_versions(dsns: Dsns) -> set[PinnedVersion]:
    """What may never be removed, by both databases: one may have been restored to an earlier moment."""
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        named = plan_history.read_viewings_versions(queue)
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        return named | publications.read_viewings_versions(results)
