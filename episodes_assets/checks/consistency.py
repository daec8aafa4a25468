"""Whether the databases and the lake agree with each other; after a restore of one of them they may not.

`Records` has what each says of the others, and `compare` finds the contradictions: a pure comparison, which
`episodes db check` shows by day and `episodes db status` in short. The records are read by
`results/verify.py`. Whether the rows inside one of them are right, such as those behind a manifest, is for
the asset checks in the other modules.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from episodes_assets.checks.verdicts import name_days
from episodes_assets.days import ONE_DAY


@dataclass(frozen=True)
class RecordedPlan:
    """A plan in the ledger; `is_current` unless it was superseded, `succeeded` jobs have an outcome.

    It `is_done` when all of them have.
    """

    plan_id: int
    plan_uid: uuid.UUID
    day: dt.date
    checksum: str
    snapshot_id: str
    tracked_checksum: str | None
    is_current: bool
    succeeded: int = 0
    viewings_version: int | None = None
    viewings_digest: str | None = None
    is_done: bool = False


@dataclass(frozen=True)
class RecordedPublication:
    """What a published day says it was made of; `plan_uid` and `snapshot_id` may not have been recorded."""

    day: dt.date
    plan_id: int
    plan_uid: uuid.UUID | None
    plan_checksum: str
    snapshot_id: str | None
    rows: int = 0
    viewings_version: int | None = None
    viewings_digest: str | None = None


@dataclass(frozen=True)
class RecordedState:
    """A day of the tracked history."""

    day: dt.date
    origin: str
    checksum: str
    previous_checksum: str | None
    snapshot_id: str | None


@dataclass(frozen=True)
class DayDrops:
    """The drop that is a day's now, and those of the named ones whose files are there."""

    current: str | None
    existing: Collection[str]


@dataclass(frozen=True)
class Records:
    """What the databases and the lake say.

    Attributes:
        plans: All that the ledger has.
        last_plan_id: The number that it gave last.
        publications: Of the days that are published.
        newest_published_plan: The greatest number of a plan that was ever published; 0 for none.
        state: The tracked history, by day.
        drops: What the lake has, by day, of all days that the others name.
        recorded_by_dagster: The days whose publication Dagster has recorded; None when it was not asked.
        viewings_version: The newest version of the lake's viewings; None when the lake is empty.
        viewings_digests: Of the content that the lake has now under the numbers of `named_versions`.
    """

    plans: Sequence[RecordedPlan]
    last_plan_id: int
    publications: Sequence[RecordedPublication]
    newest_published_plan: int
    state: Sequence[RecordedState]
    drops: Mapping[dt.date, DayDrops]
    recorded_by_dagster: Collection[dt.date] | None
    viewings_version: int | None = None
    viewings_digests: Mapping[int, str] = field(default_factory=dict)

    @property
    def current_plans(self) -> Sequence[RecordedPlan]:
        """Those that are not superseded."""
        return [plan for plan in self.plans if plan.is_current]

    @property
    def named_drops(self) -> set[tuple[dt.date, str]]:
        """What has to be there to work the days again."""
        named = [
            *((each.day, each.snapshot_id) for each in self.current_plans),
            *((each.day, each.snapshot_id) for each in self.publications),
            *((each.day, each.snapshot_id) for each in self.state),
        ]
        return {(day, snapshot_id) for day, snapshot_id in named if snapshot_id}

    @property
    def published_plans(self) -> Sequence[tuple[RecordedPublication, RecordedPlan]]:
        """The publications whose plan is still the day's, with it."""
        plans = {plan.plan_id: plan for plan in self.current_plans}
        pairs = [(each, plans[each.plan_id]) for each in self.publications if each.plan_id in plans]
        return [(each, plan) for each, plan in pairs if _is_of(each, plan)]

    @property
    def repinned_days(self) -> Sequence[dt.date]:
        """The days whose plan names another version of the viewings than when it was published."""
        return [
            each.day
            for each, plan in self.published_plans
            if each.viewings_version is not None
            and (plan.viewings_version, plan.viewings_digest) != (each.viewings_version, each.viewings_digest)
        ]

    @property
    def _pinned(self) -> Sequence[RecordedPlan | RecordedPublication]:
        """What names a version of the viewings, but for plans of which that was changed."""
        repinned = {*self.repinned_days}
        return [*(plan for plan in self.current_plans if plan.day not in repinned), *self.publications]

    @property
    def numbered_versions(self) -> Sequence[tuple[dt.date, int]]:
        """The days that were made from versions of the lake's viewings, and their numbers."""
        return [(e.day, e.viewings_version) for e in self._pinned if e.viewings_version is not None]

    @property
    def named_versions(self) -> Sequence[tuple[dt.date, int, str]]:
        """The versions of the lake's viewings that days were made from, where their content is on record.

        Day, number and digest, as often as they are named.
        """
        named = [(each.day, each.viewings_version, each.viewings_digest) for each in self._pinned]
        return [(day, version, digest) for day, version, digest in named if version is not None and digest]


@dataclass(frozen=True)
class Disagreement:
    """Something that two of them say differently.

    Attributes:
        what: What, and of which days.
        hint: What to run.
        is_error: Whether something is missing; otherwise something is older than what it was made from.
        days: The days; none where it is not about days.
    """

    what: str
    hint: str
    is_error: bool
    days: Sequence[dt.date] = ()

    def __str__(self) -> str:
        return f"{self.what}: {self.hint}"


def compare(records: Records) -> list[Disagreement]:
    """All that does not agree, what is missing first."""
    found = [each for look in _LOOKS for each in look(records)]
    return sorted(found, key=lambda each: not each.is_error)


def _published_from_unknown_plans(records: Records) -> Iterator[Disagreement]:
    known = {plan.plan_id: plan for plan in records.plans}
    current = {plan.day: plan.plan_id for plan in records.current_plans}
    days = [
        each.day
        for each in records.publications
        # One that is superseded without a later plan was not superseded by planning.
        if not _is_of(each, known.get(each.plan_id)) or current.get(each.day, 0) < each.plan_id
    ]
    if days:
        yield Disagreement(
            f"`queue` does not have the plans that {_count(days)} published from",
            f"`queue` is older than `results`, or something else writes to it: {_repair(days)} plans and"
            " works them again from what was published",
            is_error=True,
            days=days,
        )


def _lost_outcomes(records: Records) -> Iterator[Disagreement]:
    days = [each.day for each, plan in records.published_plans if plan.succeeded < each.rows]
    if days:
        yield Disagreement(
            f"`queue` does not have all the outcomes that {_count(days)} published from",
            f"`queue` is older than `results`, or something else writes to it: {_repair(days)} works them"
            " again from what was published",
            is_error=True,
            days=days,
        )


def _changed_versions(records: Records) -> Iterator[Disagreement]:
    if days := records.repinned_days:
        yield Disagreement(
            f"`queue` names other versions of the viewings than those that {_count(days)} published from",
            f"something else writes to it; stop that, then {_repair(days)} works them again from what was"
            " published",
            is_error=True,
            days=days,
        )


def _is_of(publication: RecordedPublication, plan: RecordedPlan | None) -> bool:
    if plan is None or (plan.day, plan.checksum) != (publication.day, publication.plan_checksum):
        return False
    return publication.plan_uid in (None, plan.plan_uid)


def _unpublished_plans(records: Records) -> Iterator[Disagreement]:
    done = {plan.day: plan.plan_id for plan in records.current_plans if plan.is_done}
    days = [each.day for each in records.publications if done.get(each.day, 0) > each.plan_id]
    if days:
        yield Disagreement(
            f"`queue` has worked a later plan than the one that {_count(days)} published from",
            f"{_backfill(days)} publishes it, if the sensor publish_finished_days does not",
            is_error=False,
            days=days,
        )


def _numbers_to_be_skipped(records: Records) -> Iterator[Disagreement]:
    if records.newest_published_plan > records.last_plan_id:
        yield Disagreement(
            f"`queue` has given plan numbers up to {records.last_plan_id}, and plan"
            f" {records.newest_published_plan} was published",
            "the next planning skips those in between, so that none is given twice",
            is_error=False,
        )


def _missing_drops(records: Records) -> Iterator[Disagreement]:
    there = records.drops
    gone = sorted(
        (day, snapshot_id)
        for day, snapshot_id in records.named_drops
        if day not in there or snapshot_id not in there[day].existing
    )
    if gone:
        day, snapshot_id = gone[0]
        yield Disagreement(
            f"the lake does not have the drops that {_count([day for day, _ in gone])} made from",
            f"restore the lake from a backup ({snapshot_id} of {day} and the like); while a drop is in the"
            f" input, `episodes correct {day} --reason ...` takes it anew instead",
            is_error=True,
            days=[day for day, _ in gone],
        )


def _older_drops(records: Records) -> Iterator[Disagreement]:
    named = [
        *((each.day, each.snapshot_id) for each in records.current_plans),
        *((each.day, each.snapshot_id) for each in records.state),
    ]
    days = [day for day, snapshot_id in named if snapshot_id and _is_older(records, day, snapshot_id)]
    if days:
        yield Disagreement(
            f"there are newer drops than those that {_count(days)} made from",
            f"{_backfill(days)} uses them, if no run is at it",
            is_error=False,
            days=days,
        )


def _is_older(records: Records, day: dt.date, snapshot_id: str) -> bool:
    return day in records.drops and records.drops[day].current not in (None, snapshot_id)


def _missing_viewings(records: Records) -> Iterator[Disagreement]:
    newest = -1 if records.viewings_version is None else records.viewings_version
    days = [day for day, version in records.numbered_versions if version > newest]
    if days:
        yield Disagreement(
            f"the lake does not have the versions of the viewings that {_count(days)} made from",
            "it is older than the databases, or another one: restore it, or let EPISODES_LAKE_URL name the"
            " one that was written to",
            is_error=True,
            days=days,
        )


def _replaced_viewings(records: Records) -> Iterator[Disagreement]:
    there = records.viewings_digests
    days = [day for day, version, digest in records.named_versions if there.get(version, digest) != digest]
    if days:
        yield Disagreement(
            f"the lake is not the one that {_count(days)} made from: it has versions of its own under their"
            " numbers",
            "restore that lake, or let EPISODES_LAKE_URL name it",
            is_error=True,
            days=days,
        )


def _missing_state(records: Records) -> Iterator[Disagreement]:
    checksums = {each.day: each.checksum for each in records.state}
    plans = records.current_plans
    first = min([*checksums, *(plan.day for plan in plans)], default=dt.date.max)
    missing, stale = [], []
    for plan in plans:
        yesterday = checksums.get(plan.day - ONE_DAY)
        if yesterday is None and (plan.tracked_checksum or plan.day > first):
            missing.append(plan.day)
        elif plan.tracked_checksum and plan.tracked_checksum != yesterday:
            stale.append(plan.day)
    if missing:
        yield Disagreement(
            f"`results` does not have the tracked episodes that {_count(missing)} planned from",
            f"`results` is older than `queue`: {_backfill([min(missing) - ONE_DAY, max(missing)])} builds"
            " them anew from the lake",
            is_error=True,
            days=missing,
        )
    if stale:
        yield Disagreement(
            f"the tracked episodes that {_count(stale)} planned from have changed since",
            f"{_backfill(stale)} plans them anew, if no run is at it",
            is_error=False,
            days=stale,
        )


def _broken_chain(records: Records) -> Iterator[Disagreement]:
    checksums = {each.day: each.checksum for each in records.state}
    days = [
        each.day
        for each in records.state
        if each.origin == "day" and checksums.get(each.day - ONE_DAY) != each.previous_checksum
    ]
    if days:
        last = max(each.day for each in records.state)
        yield Disagreement(
            f"the tracked episodes of {name_days(days)} were built on another day before",
            f"{_backfill([min(days), last])} builds them anew, if no run is at it",
            is_error=False,
            days=days,
        )


def _dagsters_record(records: Records) -> Iterator[Disagreement]:
    if records.recorded_by_dagster is None:
        return
    published = {each.day for each in records.publications}
    if lost := sorted(set(records.recorded_by_dagster) - published):
        yield Disagreement(
            f"`results` does not have {name_days(lost)}, which Dagster has recorded as published",
            f"`results` is older than `dagster`: {_backfill(lost)} publishes them again",
            is_error=True,
            days=lost,
        )
    if unknown := sorted(published - set(records.recorded_by_dagster)):
        yield Disagreement(
            f"Dagster has no record of publishing {name_days(unknown)}",
            f"`dagster` is older than `results`, nothing is lost: {_backfill(unknown)} records them",
            is_error=False,
            days=unknown,
        )


_LOOKS: Sequence[Callable[[Records], Iterator[Disagreement]]] = (
    _published_from_unknown_plans,
    _lost_outcomes,
    _changed_versions,
    _unpublished_plans,
    _dagsters_record,
    _missing_state,
    _missing_drops,
    _missing_viewings,
    _replaced_viewings,
    _older_drops,
    _broken_chain,
    _numbers_to_be_skipped,
)


def _count(days: Sequence[dt.date]) -> str:
    """Some days as the subject of a sentence in the passive voice."""
    distinct = sorted(set(days))
    if len(distinct) == 1:
        return f"{distinct[0]} was"
    return f"{len(distinct):,} days ({name_days(distinct)}) were"


def _backfill(days: Sequence[dt.date], *options: str) -> str:
    """The command that materialises all from the first of some days to the last."""
    first, last = min(days), max(days)
    command = ("run", str(first)) if first == last else ("backfill", str(first), str(last))
    return f"`{' '.join(('episodes', *command, *options))}`"


def _repair(days: Sequence[dt.date]) -> str:
    """The command that puts back what something else has changed, and leaves alone what is whole."""
    return _backfill(days, "--repair", "--reason", "WHY")
