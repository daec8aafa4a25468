"""Whether a day may be planned or computed again, and which published days are outdated.

- Optimistic concurrency: a step reads the inputs of its days once, and again before a plan is recorded; if
  another run has changed them meanwhile, the plan is refused.
- A plan names the version of the lake that its jobs are computed from. As long as its other inputs are the
  same, the day is planned from that version again.
- A published day is computed from the viewings of its jobs' windows. Where the lake lacks some of them,
  because the day was published before the lake and the input has deleted them since, computing it again would
  publish less, and is refused. Viewings that an operator has accepted as lost are not missing.
- A published day is outdated if viewings of its windows were taken again since (`checks/lake.py`).

Recording plans is `ledger/plans.py`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from episodes_assets.checks.lake import OutdatedDay
from episodes_assets.checks.verdicts import name_days
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import DayNotPlanned, LakeMissing, PlanOvertaken, ViewingsGone
from episodes_assets.lake.drop_record import Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.upkeep import missing_of
from episodes_assets.lake.versions import TableVersion
from episodes_assets.lake.viewings import Viewings, covered_from
from episodes_assets.planning.jobs import LONG_WINDOW_DAYS
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.provenance import Provenance
from episodes_assets.results.publications import read_other_than
from episodes_assets.results.state import state_before


@dataclass(frozen=True)
class PlanInputs:
    """What the jobs of a day are planned from.

    Attributes:
        day: The day.
        snapshot_id: Its drop.
        yesterday: The checksum of what was tracked the day before; None when nothing was.
    """

    day: dt.date
    snapshot_id: str
    yesterday: str | None


def read_plan_inputs(state: Connection, days: Sequence[dt.date], taken: Sequence[Drop]) -> list[PlanInputs]:
    """Read what some days are planned from; to be called before the tracked episodes are read.

    Args:
        state: To `results`.
        days: The days, in order.
        taken: Their drops.
    """
    checksums = read_checksums(state, days[0] - ONE_DAY, days[-1] - ONE_DAY)
    return [
        PlanInputs(day, drop.snapshot_id, checksums.get(day - ONE_DAY))
        for day, drop in zip(days, taken, strict=True)
    ]


def require_same_inputs(inputs: PlanInputs, state: Connection, drops: Drops) -> None:
    """Refuse a plan whose inputs are not the day's any more.

    Args:
        inputs: What the plan was made from.
        state: To `results`; it must see what others have committed meanwhile.
        drops: The lake's.

    Raises:
        PlanOvertaken: If the day has another drop, or builds on another yesterday.
        StateGap: If its yesterday is gone, or was built on another past.
        DropMissing: If its drop is gone.
    """
    yesterday = state_before(state, inputs.day)
    checksum = yesterday.checksum if yesterday else None
    if (drops.require(inputs.day).snapshot_id, checksum) != (inputs.snapshot_id, inputs.yesterday):
        raise PlanOvertaken(
            f"{inputs.day} has changed while it was planned: another run has taken a new drop of it, or "
            "tracks other episodes up to the day before",
            f"let that run end, then materialise episode_jobs from {inputs.day} on again",
        )


def version_as_planned(viewings: Viewings, found: Provenance, inputs: PlanInputs) -> TableVersion | None:
    """The version of the lake that a day's plan names, if all else is as it was planned; None otherwise.

    So planning a day again changes nothing: late viewings take `rework`.

    Args:
        viewings: The lake's.
        found: The day's plan, beside what was published of the day.
        inputs: What else it is planned from now.

    Raises:
        LakeMissing: If the lake does not have that version.
        LakeReplaced: If it has another one of that number.
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    plan = found.plan
    if plan is None or plan.viewings_version is None:
        return None
    if (plan.snapshot_id, plan.tracked_checksum) != (inputs.snapshot_id, inputs.yesterday):
        return None
    return viewings.at(plan.viewings_version, plan.viewings_digest, f"the plan of {inputs.day}")


def require_as_planned(viewings: Viewings, found: Provenance, inputs: PlanInputs) -> TableVersion:
    """The version of `version_as_planned`, with its arguments and errors; or why there is none.

    Raises:
        DayNotPlanned: If the day has no plan.
        PlanDamaged: If the plan names another version than when it was published.
        LakeMissing: If the plan is of a release before the lake.
        PlanOvertaken: If something else than the viewings has changed since the day was planned.
    """
    if found.plan is None:
        raise DayNotPlanned(f"{inputs.day} has no planned jobs", "work it again without `as_planned`")
    found.require_pinned()
    if version := version_as_planned(viewings, found, inputs):
        return version
    if found.plan.viewings_version is None:
        raise LakeMissing(
            f"the plan of {inputs.day} is of a release before the lake, and names no version of it",
            "work it again without `as_planned`",
        )
    raise PlanOvertaken(
        f"{inputs.day} has another drop than it was planned from, or builds on another yesterday",
        "work it again without `as_planned`",
    )


DAYS_COMPARED = 35


def read_published_coverage(results: Connection, first: dt.date, last: dt.date) -> dict[dt.date, dt.date]:
    """Since when each published day of a range has viewings; days without any are left out."""
    found = results.execute(
        """
        SELECT day, begin FROM published.days
        CROSS JOIN LATERAL (
            SELECT min(covered_from) AS begin FROM published.results WHERE results.day = days.day OFFSET 0
        ) AS published
        WHERE day BETWEEN %s AND %s AND begin IS NOT NULL
        """,
        [first, last],
    ).fetchall()
    return dict(found)


def read_outdated(results: Connection, viewings: Viewings, upto: dt.date) -> list[OutdatedDay]:
    """Which of the last published days were computed from other viewings than the lake has by now.

    The table's history names the days of each commit, so only versions of published days whose viewings were
    taken again since are opened.

    Args:
        results: To `results`.
        viewings: The lake's.
        upto: The last day to compare; the last `DAYS_COMPARED` published days up to it are.
    """
    newest = viewings.newest()
    if newest is None:
        return []
    published = read_other_than(results, newest.pinned, upto, DAYS_COMPARED)
    if not published:
        return []
    missing = missing_of(viewings, published.values())
    commits = viewings.commits(min(pinned.number for pinned in published.values()) + 1)
    days_of = {commit.number: commit.days for commit in commits}
    found = []
    for day, pinned in published.items():
        if pinned in missing:
            found.append(OutdatedDay(day, [], is_of_another_lake=True))
            continue
        # A commit whose entry in the log is lost may have taken any day.
        since = [days_of.get(number) for number in range(pinned.number + 1, newest.number + 1)]
        window = newest.between(day - LONG_WINDOW_DAYS * ONE_DAY, day)
        again = [file for file in window if any(days is None or file.day in days for days in since)]
        used = viewings.at(*pinned).files if again else {}
        if retaken := [file.day for file in again if used.get(file.day) != file]:
            found.append(OutdatedDay(day, retaken))
    return found


def require_computable(
    published: Mapping[dt.date, dt.date], version: TableVersion | None, viewings: Viewings
) -> None:
    """Refuse to compute days again that would lose viewings which nobody has accepted as lost.

    Args:
        published: Since when each of the days has viewings, as published.
        version: The version of the viewings that they would be computed from; None if the lake has none.
        viewings: The lake's.

    Raises:
        ViewingsGone: If it lacks some of them.
        LakeDamaged: If Delta's log cannot be read.
        SystemFailure: If the lake cannot be reached.
    """
    lost = [day for day, begin in sorted(published.items()) if not _has(version, day, begin, {})]
    if lost and version is not None:  # the log's history is read only now, as that takes a while
        given_up = viewings.given_up(version.number)
        lost = [day for day in lost if not _has(version, day, published[day], given_up)]
    if lost:
        begin = covered_from(version, lost[0]) if version and lost[0] in version.files else None
        raise ViewingsGone(
            f"{name_days(lost)} cannot be computed again: {lost[0]} was published from viewings since "
            f"{published[lost[0]]}, and the lake has "
            + (f"viewings of that time only since {begin}" if begin else "no viewings of that time"),
            "what is published stays as it is; if the input still has them, materialise input_viewings of "
            f"{lost[0]} with `viewings_since`, or restore the lake from a backup",
        )


def _has(version: TableVersion | None, day: dt.date, begin: dt.date, given_up: Mapping[dt.date, int]) -> bool:
    if version is None or day not in version.files:
        return False
    covered = covered_from(version, day, given_up)
    return covered is not None and covered <= begin


def read_checksums(connection: Connection, first: dt.date, last: dt.date) -> dict[dt.date, str]:
    """The checksums of those of some days that were materialised.

    Args:
        connection: To `results`.
        first: The first day.
        last: The last one, included.
    """
    return dict(
        connection.execute(
            "SELECT day, checksum FROM state.tracked_days WHERE day BETWEEN %s AND %s", [first, last]
        ).fetchall()
    )
