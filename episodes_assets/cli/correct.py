"""`episodes correct` and `episodes history`: work a wrong day again, and show what is recorded of a day.

A correction reaches every later day that builds on the wrong one: a first run takes the day anew from the
input, then the later days are worked again from what the lake has of them. The order of the runs is decided
here; what a run does, in `defs/`.
"""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from episodes_assets.cli import context, supervisor
from episodes_assets.cli.console import err, out
from episodes_assets.cli.execution import materialize_days
from episodes_assets.cli.runs import AcceptLost, Workers, open_instance, run_config, worker_count
from episodes_assets.days import ONE_DAY, days_between, parse_day
from episodes_assets.errors import EpisodesError, ReasonMissing, RunFailed, StateGap
from episodes_assets.explanation.records import PlanRecord
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.episode import read_plans
from episodes_assets.ledger.held import Waiver, read_waivers
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results import recompute, restore_points, state
from episodes_assets.results.publications import PublishedDay, read_days, read_history
from episodes_assets.results.repairs import Repair, read_repairs
from episodes_assets.results.state import TrackedDay
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import require_standard_output


def correct(
    day: Annotated[str, typer.Argument(help="The day whose input was wrong, YYYY-MM-DD.")],
    reason: Annotated[str, typer.Option(help="What was wrong; kept with what is taken anew.")],
    workers: Workers = None,
    accept_lost_viewings: AcceptLost = False,
) -> None:
    """Correct a day whose input was wrong, and every later day, and show what changed.

    Takes the day anew, then plans, works and publishes it and all later days of the
    history again; those use what is kept of them, so their input may be gone. Viewings that the input has
    deleted stay in the lake; a day of which it has new ones besides is refused, unless the loss of the
    deleted ones is accepted by --accept-lost-viewings. If it is interrupted, run it again; if jobs
    are held, its error says how to finish it.

    Example: episodes correct 2018-03-05 --reason "half of the drop was missing"
    """
    first = parse_day(day)
    if not reason.strip():
        raise ReasonMissing("a correction needs a reason", "say what was wrong with the day's input")
    settings = load_settings()
    dsns = context.ready_databases(settings)
    context.announce_open_hosts(settings)
    context.refuse_writable_input(settings, dsns)
    context.require_reachable(dsns)
    _require_computable(settings, dsns, first, _last_day_built_on(dsns, first))
    before = _published(dsns, first, first)
    with (
        supervisor.temporary_workers(settings, dsns, worker_count(workers, dsns)),
        open_instance(settings, dsns) as instance,
    ):
        config = run_config(
            refresh=True, reason=reason.strip(), rework=True, accept_lost=accept_lost_viewings
        )
        with _saying_how_to_finish(dsns, first, first, is_taken_anew=True):
            materialize_days(instance, dsns, first, first, config)
        corrected, last = first, _last_day_built_on(dsns, first)
        while corrected < last:  # a daily run may have added days, on what was tracked before
            following = corrected + ONE_DAY
            before |= _published(dsns, following, last)
            with _saying_how_to_finish(dsns, following, last):
                materialize_days(instance, dsns, following, last, run_config(rework=True))
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


@contextmanager
def _saying_how_to_finish(
    dsns: Dsns, first: dt.date, last: dt.date, *, is_taken_anew: bool = False
) -> Iterator[None]:
    """Let the error of a run that works days again name the commands which finish the correction.

    Where a day's drop and plan are the same, only `--rework` has it worked again from the newest viewings.
    So the days of which this run has made no new plan need it, and so do those that come after the run.

    Args:
        dsns: Of the databases.
        first: The run's first day.
        last: Its last day.
        is_taken_anew: Whether this is the run of the corrected day alone.

    Raises:
        RunFailed: If the run fails. Nothing is added where the corrected day has no new plan: then the
            correction is to be run again.
    """
    planned = _current_plans(dsns, first, last)
    try:
        yield
    except RunFailed as error:
        try:
            commands = _left_to_run(dsns, first, last, planned, is_taken_anew=is_taken_anew)
        except EpisodesError:  # such as of a database that went away, which the run has failed with
            raise error from None
        if not commands:
            raise
        said = ", then ".join(f"`episodes {command}`" for command in commands)
        raise RunFailed(f"{error}; after that, finish the correction by {said}") from error


def _left_to_run(
    dsns: Dsns,
    first: dt.date,
    last: dt.date,
    planned: Mapping[dt.date, uuid.UUID | None],
    *,
    is_taken_anew: bool,
) -> list[str]:
    latest, plans = _last_day_built_on(dsns, first), _current_plans(dsns, first, last)
    kept = [each for each in days_between(first, last) if plans.get(each) == planned.get(each)]
    if not is_taken_anew:
        return [_command(first, latest, rework=bool(kept) or latest > last)]
    if kept:
        return []
    return [_command(first, first), *([_command(first + ONE_DAY, latest, rework=True)] * (latest > first))]


def _command(first: dt.date, last: dt.date, *, rework: bool = False) -> str:
    days = f"run {first}" if first == last else f"backfill {first} {last}"
    return f"{days} --rework" if rework else days


def _current_plans(dsns: Dsns, first: dt.date, last: dt.date) -> dict[dt.date, uuid.UUID | None]:
    """The unique id of each day's current plan; days without a plan are left out."""
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        return {each.day: each.plan_uid for each in read_progress(queue, list(days_between(first, last)))}


def _require_computable(settings: Settings, dsns: Dsns, first: dt.date, last: dt.date) -> None:
    """Refuse days that a later step would refuse, before anything is changed."""
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        published = recompute.read_published_coverage(results, first, last)
    viewings = open_lake(settings).viewings()
    recompute.require_computable(published, viewings.newest(), viewings)


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


SHORT = 16  # characters of a checksum


def history(day: Annotated[str, typer.Argument(help="The day, YYYY-MM-DD.")]) -> None:
    """Show a day's drops, viewings, state, plans, waivers, publications, repairs and restore points.

    Plans and publications name the version of the lake's viewings that they were computed from.

    Everything that was ever recorded is shown, what is superseded included; nothing is changed.

    Example: episodes history 2018-03-01
    """
    parsed = parse_day(day)
    require_standard_output()
    settings = load_settings()
    dsns = context.ready_databases(settings)
    lake = open_lake(settings)
    drops = lake.complete_drops()
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        plans = read_plans(queue, parsed)
        waivers = read_waivers(queue, [plan.plan_id for plan in plans])
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        tracked = state.read_day(results, parsed)
        is_stale = tracked is not None and state.built_on_another_past(results, tracked)
        publications = read_history(results, parsed)
        repairs = read_repairs(results, parsed)
        points = restore_points.read_restore_points(results, parsed)
    _print("drops", _drops(drops.versions(parsed), drops.find(parsed)))
    _print("viewings in the lake", _viewings(lake.viewings(), parsed))
    _print("tracked episodes", _tracked(tracked, is_stale=is_stale))
    _print("plans", _plans(plans, waivers))
    _print("publications", _publications(publications))
    _print("repairs", _repairs(repairs))
    _print(
        "restore points",
        [
            {"name": each.name, "made": _time(each.made_at), "in": ", ".join(each.databases)}
            for each in points
        ],
    )


def _repairs(repairs: Iterable[Repair]) -> list[dict[str, str]]:
    return [
        {
            "repaired": each.what,
            "at": _time(each.repaired_at),
            "by": each.repaired_by,
            "reason": each.reason,
        }
        for each in repairs
    ]


def _drops(versions: Sequence[Drop], current: Drop | None) -> list[dict[str, str]]:
    return [
        {
            "version": each.snapshot_id,
            "taken": _time(dt.datetime.fromisoformat(each.taken_at)),
            "rows": f"{each.drop_rows:,}",
            "quarantined": f"{each.quarantined_rows:,}",
            "current": "yes" if current and each.snapshot_id == current.snapshot_id else "no",
            "reason": each.reason,
        }
        for each in versions
    ]


def _viewings(viewings: Viewings, day: dt.date) -> list[dict[str, str]]:
    """The commits that took the day, as far as they have recorded their days."""
    taken = []
    for commit in viewings.commits():
        if commit.days and day in commit.days:
            gone, new = commit.lost.get(day, (0, 0))
            taken.append(
                {
                    "version": str(commit.number),
                    "taken": _time(commit.at),
                    "accepted as lost": f"{gone:,}",
                    "new instead": f"{new:,}",
                    "reason": commit.reason,
                }
            )
    return taken


def _tracked(tracked: TrackedDay | None, *, is_stale: bool) -> list[dict[str, str]]:
    if tracked is None:
        return []
    return [
        {
            "origin": tracked.origin,
            "newly tracked": f"{tracked.newly_tracked:,}",
            "in all": f"{tracked.total:,}",
            "snapshot": tracked.snapshot_id or "-",
            "checksum": tracked.checksum[:SHORT],
            "state": "stale: yesterday has changed since" if is_stale else "current",
        }
    ]


def _plans(plans: Iterable[PlanRecord], waivers: Iterable[Waiver]) -> list[dict[str, RenderableType]]:
    by_plan: defaultdict[int, list[str]] = defaultdict(list)
    for each in waivers:
        retried = (
            f", {each.jobs - each.still_waived:,} retried since" if each.still_waived < each.jobs else ""
        )
        by_plan[each.plan_id].append(
            f"{each.jobs:,} jobs by {each.decided_by} on {_time(each.decided_at)}{retried}: {each.reason}"
        )
    return [
        {
            "plan": _plan(plan.plan_id, plan.plan_uid),
            "jobs": f"{plan.jobs:,}",
            "snapshot": plan.snapshot_id,
            "viewings": _version(plan.viewings_version, plan.viewings_digest),
            "code": plan.code_version,
            "planned": _time(plan.planned_at),
            "handed out": _time(plan.fanned_out_at),
            "superseded": _time(plan.superseded_at),
            "waived": Group(*by_plan[plan.plan_id]),
        }
        for plan in plans
    ]


def _publications(publications: Iterable[PublishedDay]) -> list[dict[str, str]]:
    return [
        {
            "published": _time(each.published_at),
            "rows": f"{each.rows:,}",
            "left out": f"{each.left_out:,}",
            "snapshot": each.snapshot_id or "-",
            "viewings": _version(each.viewings_version, each.viewings_digest),
            "plan": _plan(each.plan_id, each.plan_uid),
            "code": each.code_version,
            "algorithms": ", ".join(f"{name} {'+'.join(v)}" for name, v in each.algorithm_versions.items()),
            "checksum": each.checksum[:SHORT],
            "decision": each.decision,
        }
        for each in publications
    ]


def _plan(number: int, uid: uuid.UUID | None) -> str:
    """A plan's number with its uid: after a restore, another plan may have had the same number."""
    return str(number) if uid is None else f"{number} ({uid.hex[:8]})"


def _version(number: int | None, digest: str | None) -> str:
    """A version's number with its digest: another lake has other content under the same number."""
    if number is None:
        return "-"
    return f"version {number}" + (f" ({digest[:8]})" if digest else "")


def _time(moment: dt.datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"


def _print(title: str, rows: Sequence[Mapping[str, RenderableType]]) -> None:
    if not rows:
        out.print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    out.print(table)
