"""`episodes db`: set the databases up, finish upgrades, change stamps, show all that; and the lake's.

The databases are set up, finished and looked at in `postgres/provision/`. What concerns the lake is added
here: `init` brings an older release's snapshots in, `stamp` changes the stamp of its tables too, and `check`
and `status` show where databases and lake contradict each other (`checks/consistency.py`). No SQL is here.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from episodes_assets.checks.consistency import Disagreement, Records, compare
from episodes_assets.cli.console import err, escaped, out
from episodes_assets.cli.context import announce_open_hosts, bring_in_older_snapshots, ready_databases
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import DatabasesDisagree, DatabaseUnreachable
from episodes_assets.lake.opening import open_lake
from episodes_assets.ledger.workers import read_older_workers
from episodes_assets.postgres.connect import connect, connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.postgres.processes import read_drained, read_older
from episodes_assets.postgres.provision.finish import finish as finish_schemas
from episodes_assets.postgres.provision.init import provision
from episodes_assets.postgres.provision.schema import SchemaState
from episodes_assets.postgres.provision.status import DatabaseStatus, read_status
from episodes_assets.postgres.provision.targets import change_stamp
from episodes_assets.results.restore_points import find_newest_restore_point
from episodes_assets.results.verify import read_records
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import require_standard_output

app = typer.Typer(
    no_args_is_help=True,
    help="Set the four databases up, see how they are, and say which environment they belong to.",
)


@app.command()
def init() -> None:
    """Create or upgrade roles, databases, schemas, rights and stamps; safe to run again.

    With configured DSNs, role names, passwords and database names are taken from them, and
    EPISODES_ADMIN_DSN names a role that may create them. The input tables are made only when
    EPISODES_INPUT_WRITER_DSN is set: the input database belongs to other systems.

    A database without a stamp is stamped with EPISODES_ENVIRONMENT; one that another environment's
    processes write to is refused, and so is one that a newer release has set up.

    Snapshots that an older release has left, where EPISODES_SNAPSHOTS_URL says, are brought into the lake;
    they themselves stay as they are.
    """
    settings = load_settings()
    dsns = resolve_dsns(settings)
    announce_open_hosts(settings)
    provision(settings, dsns, out.print)
    bring_in_older_snapshots(settings)
    out.print(f"All databases are ready for environment {settings.environment!r}.")


@app.command()
def finish() -> None:
    """Remove from the schemas what only older releases need, once no process of them lives.

    The last step of an upgrade: `episodes db init` only adds, so that processes of the release before go on.
    From then on they are refused. While one of them lives it is named and nothing is changed. Safe to run
    again. Needs EPISODES_ADMIN_DSN when DSNs are configured.
    """
    settings = load_settings()
    dsns = resolve_dsns(settings)
    announce_open_hosts(settings)
    finish_schemas(settings, dsns, lambda versions: _older_processes(dsns, versions), out.print)


def _older_processes(dsns: Dsns, versions: Mapping[Database, str]) -> list[str]:
    """The living processes whose release does not know some versions of schemas, by database, or may not."""
    with connect(dsns.require(Purpose.DAGSTER), read_only=True) as dagster:
        found = [str(each) for each in read_older(dagster, versions)] + read_drained(dagster)
    if Database.QUEUE in versions:
        with connect(dsns.require(Purpose.QUEUE), read_only=True) as queue:
            found += read_older_workers(queue, versions[Database.QUEUE])
    return found


@app.command()
def stamp(
    new: Annotated[str, typer.Argument(help="The environment the databases shall belong to.")],
    old: Annotated[str, typer.Option("--from", help="The environment they belong to now.")],
    database: Annotated[
        list[Database] | None, typer.Option(help="Only this database; may be repeated.")
    ] = None,
    lake: Annotated[
        bool,
        typer.Option("--lake", "--snapshots", help="The lake's stamp too; alone, no database's."),
    ] = False,
) -> None:
    """Change which environment databases and lake belong to, say after restoring a copy.

    Without options it is all four databases and the lake.

    From then on only processes with EPISODES_ENVIRONMENT=NEW may write to them, so stop the others
    first. Nothing else changes a stamp. Refused, with nothing changed, when a database is not
    stamped with --from. Needs EPISODES_ADMIN_DSN when DSNs are configured.

    Example: episodes db stamp development --from production --database queue --database results
    """
    load_settings(environment=new)  # a name that no process can have is refused
    settings = load_settings()
    dsns = resolve_dsns(settings)
    announce_open_hosts(settings)
    opened = open_lake(settings)
    tables = [opened.viewings(), *opened.drops().tables] if lake or not database else []
    written = [table for table in tables if table.change_stamp(old, new, dry_run=True)]
    if database or not lake:
        change_stamp(settings, dsns, database or (), old=old, new=new, report=out.print)
    for table in written:
        table.change_stamp(old, new)
        out.print(f"lake: stamp of {table.shown} changed from {old} to {new}", soft_wrap=True)
    if new != settings.environment:
        err.print(f"This process belongs to {settings.environment!r}; set EPISODES_ENVIRONMENT={new}.")


@app.command()
def status() -> None:
    """Show each database: where it is, its versions, its size and its environment stamp.

    Databases that another environment's processes or another release's may write to are pointed out. Then
    the databases and the lake are compared with each other, as `episodes db check` does; it fails if they
    contradict each other.
    """
    require_standard_output()
    settings = load_settings()
    dsns = resolve_dsns(settings)
    announce_open_hosts(settings)
    found = read_status(dsns)
    table = Table(box=None)
    for name in ("database", "where", "PostgreSQL", "schema", "environment", "size"):
        table.add_column(name)
    for each in found:
        if each.error:
            table.add_row(each.database, each.where, Text(escaped(each.error), style="red"))
            continue
        latest = f" (latest: {each.latest_version})" if each.schema_version != each.latest_version else ""
        table.add_row(
            each.database,
            each.where,
            each.server_version,
            f"{each.schema_version or 'not ours to see'}{latest if each.schema_version else ''}",
            each.environment or "-",
            decimal(each.size_bytes),
        )
    out.print(table)
    broken = [each for each in found if each.error]
    if broken:
        raise DatabaseUnreachable(
            f"{len(broken)} of {len(found)} databases cannot be read", "see the table above"
        )
    if _point_out(settings, [each for each in found if each.schema_version]):
        _compare(settings, dsns)


def _point_out(settings: Settings, seen: Sequence[DatabaseStatus]) -> bool:
    """Print what is not as it should be of databases whose version is known; whether they may be compared."""
    newer = [each.database for each in seen if each.is_newer and not each.lets_this_go_on]
    ahead = [each.database for each in seen if each.lets_this_go_on]
    behind = [each.database for each in seen if not each.is_current and not each.is_newer]
    foreign = [each.database for each in seen if each.environment not in (None, settings.environment)]
    if newer:
        err.print(f"Set up by a newer release: {', '.join(newer)}. Upgrade this one.", style="yellow")
    if ahead:
        err.print(f"Of a newer release, beside which this one may go on: {', '.join(ahead)}.", style="yellow")
    if behind:
        err.print(
            f"Not set up by this release, or not to the end: {', '.join(behind)}. Run `episodes db init`.",
            style="yellow",
        )
    if foreign:
        err.print(
            f"Not of environment {settings.environment!r}, so not written to: {', '.join(foreign)}.",
            style="yellow",
        )
    if unfinished := [each.database for each in seen if each.is_current and _is_unfinished(each)]:
        err.print(
            f"Kept as older releases need it: {', '.join(unfinished)}. When none of their processes lives any"
            " more, run `episodes db finish`.",
            style="yellow",
        )
    return not newer and not behind


def _is_unfinished(found: DatabaseStatus) -> bool:
    state = SchemaState(str(found.schema_version), found.finished or str(found.schema_version))
    return bool(state.unfinished(found.database))


@app.command()
def check() -> None:
    """Say of which days the databases, the lake and Dagster's records do not agree, and what to run.

    That is what a restore of one of them to another moment leaves behind: plans, outcomes, tracked episodes,
    published days, drops or viewings that one of them names and another one lacks or has otherwise. It
    fails then; what is only older than what it was made from is told, and is no failure. Nothing is changed,
    and days may be worked meanwhile. Needs EPISODES_QUEUE_DSN, EPISODES_RESULTS_DSN, EPISODES_DAGSTER_DSN and
    the lake.

    Example: episodes db check
    """
    require_standard_output()
    settings = load_settings()
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    dsns.require(Purpose.DAGSTER)  # without it, what Dagster knows of days would count as agreeing
    records = _read_records(settings, dsns)
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        point = find_newest_restore_point(results)
    found = compare(records)
    for each in found:
        out.print(each.what, style="bold red" if each.is_error else "yellow", soft_wrap=True)
        if each.days:
            out.print(f"  days: {_spans(each.days)}", soft_wrap=True)
        out.print(f"  to do: {each.hint}", soft_wrap=True)
    if point is not None:
        where = ", ".join(point.databases)
        out.print(
            f"The newest restore point: {point.name}, made in {where} at {point.made_at:%Y-%m-%d %H:%M:%S %Z}"
            f" after {point.day} was published.",
            soft_wrap=True,
        )
    _conclude(records, found)


def _spans(days: Sequence[dt.date]) -> str:
    """Days, one after the other written as a span."""
    ordered = sorted(set(days))
    starts = [day for day in ordered if day - ONE_DAY not in ordered]
    ends = [day for day in ordered if day + ONE_DAY not in ordered]
    return ", ".join(
        str(start) if start == end else f"{start} to {end}" for start, end in zip(starts, ends, strict=True)
    )


def _compare(settings: Settings, dsns: Dsns) -> None:
    """Print where the databases and the lake disagree.

    Raises:
        DatabasesDisagree: If something that one of them names is not there.
    """
    if not {Purpose.QUEUE, Purpose.RESULTS} <= dsns.by_purpose.keys():
        return
    records = _read_records(settings, dsns)
    found = compare(records)
    for each in found:
        out.print(str(each), style="red" if each.is_error else "yellow", markup=False, soft_wrap=True)
    _conclude(records, found)


def _conclude(records: Records, found: Sequence[Disagreement]) -> None:
    if any(each.is_error for each in found):
        raise DatabasesDisagree(
            "the databases and the lake contradict each other",
            "do what is said above; docs/backup.md has more on restoring one of them",
        )
    if not found:
        days = f"{len(records.publications):,} published days, {len(records.state):,} tracked days"
        out.print(f"The databases and the lake agree ({days}).")


def _read_records(settings: Settings, dsns: Dsns) -> Records:
    """What the databases and the lake record; without Dagster's where this process has no DSN of it.

    Raises:
        SchemaTooOld: If one has the schema of an older release, as after a restore to before an upgrade.
        SchemaTooNew: If one has that of a newer release.
    """
    with (
        connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue,
        connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results,
        ExitStack() as stack,
    ):
        dagster = None
        if dsn := dsns.by_purpose.get(Purpose.DAGSTER):
            dagster = stack.enter_context(connect_to_read(dsn, Database.DAGSTER))
        lake = open_lake(settings)
        return read_records(queue, results, lake.complete_drops(), lake.viewings(), dagster)
