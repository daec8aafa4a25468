"""What is on record of one analysis of an episode, in words.

In the order of the row's way, from the catalogue to the results. The lines are shown below an answer, and the
names in answers stand for what is found here. Nobody's viewer ids are among them. Which cause follows from
the records is `diagnosis`.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from episodes_assets.algorithms.registry import Registry
from episodes_assets.explanation.diagnosis import Due, read_due
from episodes_assets.explanation.records import (
    CatalogueRow,
    DropRecord,
    JobRecord,
    Metrics,
    PlanRecord,
    PublicationRecord,
    Records,
    RefusedRow,
    Unknown,
)

_SHORT = 8  # characters of an id that tells two things of one number apart
# Days of viewings, superseded plans and publications that are told one by one.
DAYS_SHOWN = 35
EARLIER_SHOWN = 10
_GONE = "not known any more"


@dataclass(frozen=True)
class Facts:
    """The words for what is on record of one analysis.

    Attributes:
        records: What is on record of the episode.
        algorithm_id: The analysis; None where no record names any.
        registry: The algorithms that are known.
    """

    records: Records
    algorithm_id: int | None
    registry: Registry

    @property
    def algorithm(self) -> str:
        """What people call the analysis; empty where no record names any."""
        return "" if self.algorithm_id is None else self.registry.name_of(self.algorithm_id)

    @property
    def job(self) -> JobRecord | None:
        """Its job in the current plan."""
        return self.records.job_of(self.algorithm_id)

    @property
    def due(self) -> Due | None:
        """Whether its accepted row was due; None where there is no such row."""
        row = self.records.accepted_row_of(self.algorithm_id)
        return None if row is None else read_due(self.records, row)

    def names(self) -> Mapping[str, str]:
        """What the names in the answers stand for; only those of the cause at hand mean something."""
        records, job, due = self.records, self.job, self.due
        manifest, plan, state = records.manifest, records.plan, records.state
        drop = records.drops.used
        refused = records.refused_rows_of(self.algorithm_id)
        imported = state.first_origin == "import"
        return {
            "day": str(records.day),
            "algorithm": self.algorithm,
            "published": _time(manifest.published_at) if manifest else "",
            "published_plan": str(manifest.plan_id) if manifest else "",
            "published_decision": manifest.decision if manifest else "",
            "plan": str(plan.plan_id) if plan else "",
            "first": f"after {state.first}, as of which it was imported"
            if imported
            else f"with {state.first}",
            "quarantined": f"{drop.quarantined:,} of {drop.rows:,}" if isinstance(drop, DropRecord) else "",
            "seen": _seen(records),
            "more": f"; {_more_refused(drop)}" if isinstance(drop, DropRecord) and drop.more_refused else "",
            "rules": ", ".join(dict.fromkeys(rule for each in refused for rule in each.rules)),
            "window_start": str(due.window_start) if due else "",
            "late": _late(due) if due else "",
            "error": (job.error or "") if job else "",
            "worker": (job.claimed_by or "") if job else "",
            "claimed": _time(job.claimed_at) if job and job.claimed_at else "",
            "decision": _decision(job),
            "left": _left(records),
            "unknown": _unknown(records),
        }

    def sections(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What is on record, by kind."""
        yield "catalogue", tuple(self._catalogue())
        yield "tracked", (_tracked(self.records),)
        yield "due", tuple(self._due())
        yield "plan", tuple(self._plans())
        yield "job", tuple(self._job())
        yield "viewings", tuple(self._viewings())
        yield "outcome", tuple(self._outcome())
        yield "results", tuple(self._published())
        yield "earlier", tuple(self._earlier())
        yield "repairs", tuple(_repairs(self.records))

    def _catalogue(self) -> Iterator[str]:
        records = self.records
        used, newest = records.drops.used, records.drops.newest
        if isinstance(used, Unknown):
            yield f"{_GONE}: {used.why}"
        elif used is None:
            yield f"the lake has no drop of {records.day}"
        else:
            yield _drop(used)
            yield from self._rows(used)
            if newest is not None and newest.snapshot_id != used.snapshot_id:
                yield f"not planned from yet: {_drop(newest)}"

    def _rows(self, drop: DropRecord) -> Iterator[str]:
        for found in (drop.accepted, drop.refused):
            if isinstance(found, Unknown):
                yield f"{_GONE}: {found.why}"
        accepted = [
            row
            for row in self.records.accepted
            if self.algorithm_id is None or row.algorithm_id == self.algorithm_id
        ]
        refused = self.records.refused_rows_of(self.algorithm_id)
        others = {row.algorithm_id for row in self.records.accepted if row.algorithm_id is not None}
        for row in accepted:
            yield f"accepted: {_row(row)}"
        for each in refused:
            yield _refused(each, has_accepted=bool(accepted))
        if drop.more_refused:
            yield _more_refused(drop)
        if accepted or refused or isinstance(drop.accepted, Unknown):
            return
        if others:
            asked = ", ".join(self.registry.name_of(each) for each in sorted(others))
            yield f"no such row; the episode's ask for {asked}"
        elif last := self.records.drops.last_seen:
            yield f"no row of it; the last drop that had one is that of {last}"
        else:
            yield "no row of it"

    def _due(self) -> Iterator[str]:
        due, day = self.due, self.records.day
        if due is None:
            return
        why = "the premiere, since the episode was not tracked before" if due.catches_up else "the start date"
        begun = "begun" if due.has_begun(day) else "not begun"
        yield f"window from {due.window_start} on ({why}): {begun}"
        if isinstance(due.is_viewed, Unknown):
            yield f"whether it was viewed on the day is {_GONE}: {due.is_viewed.why}"
        else:
            yield "viewed on the day" if due.is_viewed else f"not viewed on the day{_since(due)}"
        yield "newly tracked by the day" if due.newly_tracked else "not newly tracked by the day"

    def _plans(self) -> Iterator[str]:
        records = self.records
        plan = records.plan
        if plan is None:
            yield "the ledger has no plan of the day"
        else:
            handed = f", handed out {_time(plan.fanned_out_at)}" if plan.fanned_out_at else ", not handed out"
            yield (
                f"{_plan(plan)}: {_count(plan.jobs, 'job')}, planned {_time(plan.planned_at)} from drop "
                f"{plan.snapshot_id} and {_version(plan.viewings_version)}, by code {plan.code_version}"
                f"{handed}"
            )
        superseded = [each for each in records.plans if each.superseded_at is not None]
        for each in superseded[-EARLIER_SHOWN:]:
            yield (
                f"{_plan(each)} was superseded {_time(each.superseded_at)}; what became of its jobs is not"
                " kept"
            )
        if len(superseded) > EARLIER_SHOWN:
            yield f"and {len(superseded) - EARLIER_SHOWN:,} superseded before"

    def _job(self) -> Iterator[str]:
        job, plan = self.job, self.records.plan
        if plan is None:
            return
        if job is None:
            yield "the plan has no such job"
            return
        yield (
            f"window {job.window_start} to {self.records.day}; position {job.position} in chunk {job.chunk}"
            f" of {_count(job.chunk_jobs, 'job')}"
        )
        yield (
            f"{_count(job.chunk_starts, 'start')} with others of its chunk, {job.starts:,} alone"
            + (f"; last claimed by {job.claimed_by}" if job.claimed_by else "")
            + (f" at {_time(job.claimed_at)}" if job.claimed_by and job.claimed_at else "")
        )
        if job.error:
            yield f"{'held' if job.is_held else 'failed'}: {job.error}"
        if job.decision:
            yield f"left out: {_decision(job)}"

    def _viewings(self) -> Iterator[str]:
        viewings, job, due = self.records.viewings, self.job, self.due
        if viewings is None:
            return
        if isinstance(viewings.by_day, Unknown):
            yield f"{_GONE}: {viewings.by_day.why}"
            return
        first = job.window_start if job else due.window_start if due else None
        if first is None or first > self.records.day:
            first = self.records.day
        counts = {day: count for day, count in sorted(viewings.by_day.items()) if day >= first}
        went_in = "went in" if job and job.outcome else "are there"
        yield (
            f"of {first} to {self.records.day}, {sum(counts.values()):,} {went_in}, on"
            f" {_count(len(counts), 'day')}; {_version(viewings.version)}"
        )
        shown = list(counts.items())[-DAYS_SHOWN:]
        if shown:
            more = len(counts) - len(shown)
            earlier = sum(counts.values()) - sum(count for _, count in shown)
            before = [f"before: {earlier:,} on {_count(more, 'day')}"] if more else []
            yield ", ".join([*before, *(f"{day}: {count:,}" for day, count in shown)])

    def _outcome(self) -> Iterator[str]:
        job = self.job
        outcome = job.outcome if job else None
        if outcome is None:
            return
        took = ""
        if outcome.seconds is not None and outcome.together:
            alone = outcome.together == 1
            took = f" in {outcome.seconds:.2f} s" + (
                "" if alone else f" for {outcome.together:,} jobs together"
            )
        yield (
            f"computed by {outcome.worker}, {self.algorithm} version {outcome.algorithm_version}, written "
            f"{_time(outcome.finished_at)}{took}"
        )
        yield self._metrics(outcome.metrics, outcome.covered_from)

    def _published(self) -> Iterator[str]:
        manifest, row = self.records.manifest, self.records.published_row_of(self.algorithm_id)
        if manifest is None:
            yield "the day has no published results"
        else:
            yield f"the day is published: {_publication(manifest)}"
        if row is None:
            return
        yield f"window {row.window_start} to {row.window_end}; {self._metrics(row.metrics, row.covered_from)}"
        outcome = self.job.outcome if self.job else None
        plan = self.records.plan
        if outcome and plan and manifest and manifest.is_of(plan) and outcome.metrics != row.metrics:
            yield "that is not its job's outcome: something else has changed one of them"

    def _metrics(self, metrics: Metrics, covered_from: dt.date | None) -> str:
        """The values in the order in which the algorithm declares them."""
        declared = None if self.algorithm_id is None else self.registry.by_id.get(self.algorithm_id)
        names = [name for name in (declared.columns if declared else ()) if name in metrics]
        ordered = {name: metrics[name] for name in names} | dict(metrics)
        values = ", ".join(f"{name} {'-' if value is None else value}" for name, value in ordered.items())
        covered = f"viewings since {covered_from}" if covered_from else "no viewings at all"
        return f"{values}; {covered}"

    def _earlier(self) -> Iterator[str]:
        earlier = self.records.publications[:-1]
        for each in earlier[-EARLIER_SHOWN:]:
            yield f"superseded: {_publication(each)}; what this row was then is not kept"
        if len(earlier) > EARLIER_SHOWN:
            yield f"and {len(earlier) - EARLIER_SHOWN:,} before"


def _time(moment: dt.datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _uid(uid: uuid.UUID | None) -> str:
    return "" if uid is None else f" ({uid.hex[:_SHORT]})"


def _plan(plan: PlanRecord) -> str:
    return f"plan {plan.plan_id}{_uid(plan.plan_uid)}"


def _version(number: int | None) -> str:
    return "no version of the lake" if number is None else f"version {number} of the lake's viewings"


def _drop(drop: DropRecord) -> str:
    reason = f", because: {drop.reason}" if drop.reason else ""
    return (
        f"drop {drop.snapshot_id}, taken {_time(drop.taken_at)}{reason}; version {drop.version} of the"
        f" lake's episodes; {_count(drop.rows, 'row')}, {drop.quarantined:,} refused"
    )


def _row(row: CatalogueRow) -> str:
    season = f"season {row.season}" if row.season is not None else ""
    episode = f"episode {row.episode}" if row.episode is not None else ""
    names = ", ".join(each for each in (row.title, row.series, season, episode) if each)
    return f"{names or 'without a title'}; premiere {row.premier_date or '-'}, start {row.start_date or '-'}"


def _refused(refused: RefusedRow, *, has_accepted: bool) -> str:
    rules = ", ".join(refused.rules)
    lost = " (an equal row was accepted)" if has_accepted and refused.rules == ("duplicate",) else ""
    found = f"; as found: {refused.as_found}" if refused.as_found else ""
    unsure = "" if refused.is_certain else "perhaps of this episode, "
    return f"{unsure}refused: {rules}{lost}: {_row(refused.row)}{found}"


def _more_refused(drop: DropRecord) -> str:
    return f"besides, {_count(drop.more_refused, 'refused row')} may be of it: too many to look at"


def _late(due: Due) -> str:
    return "" if isinstance(due.late, Unknown) else _count(due.late, "viewing")


def _since(due: Due) -> str:
    """What came after the plan, and what is not known of that."""
    if isinstance(due.late, Unknown):
        return f" by then; whether any viewing came later is not known: {due.late.why}"
    return f" by then; {_late(due)} came later" if due.late else ""


def _tracked(records: Records) -> str:
    tracked = records.tracked
    if tracked is None:
        return "never tracked"
    by = {
        "beginning": ", with which the history begins",
        "import": ", as of which the history was imported",
        None: ", before the history that was imported",
    }.get(tracked.origin, "")
    drop = f", by that day's drop {tracked.snapshot_id}" if tracked.snapshot_id else ""
    relation = ""
    if tracked.tracked_on == records.day:
        relation = "; newly tracked by this very day"
    elif tracked.tracked_on > records.day:
        relation = "; not as of this day"
    return f"since {tracked.tracked_on}{by}{drop}{relation}"


def _seen(records: Records) -> str:
    if records.drops.last_seen is not None:
        return f", and that of {records.drops.last_seen} did"
    return f", and it is tracked since {records.tracked.tracked_on}" if records.tracked else ""


def _decision(job: JobRecord | None) -> str:
    decision = job.decision if job else None
    if decision is None:
        return ""
    return f"{decision.reason} (decided by {decision.decided_by}, {_time(decision.decided_at)})"


def _left(records: Records) -> str:
    left = [
        f"{_count(count, 'job')} {one if count == 1 else more}"
        for count, one, more in (
            (records.open_jobs.unfinished, "waits or runs", "wait or run"),
            (records.open_jobs.held, "is held", "are held"),
        )
        if count
    ]
    return f": {' and '.join(left)}" if left else ""


def _unknown(records: Records) -> str:
    """Why what a job was, or would have been, made from is not known."""
    used, viewings = records.drops.used, records.viewings
    found: list[object] = []
    if isinstance(used, DropRecord):
        found += [used.accepted, used.refused]
    else:
        found.append(used if used is not None else Unknown(f"the lake has no drop of {records.day}"))
    if viewings is not None:
        found += [viewings.is_viewed, viewings.by_day]
    why = next((each.why for each in found if isinstance(each, Unknown)), "")
    return why or f"the ledger does not know the plan of {records.day} any more"


def _publication(each: PublicationRecord) -> str:
    left_out = f", without {_count(each.left_out, 'job')}: {each.decision}" if each.left_out else ""
    return (
        f"{_time(each.published_at)}, {_count(each.rows, 'row')} of plan {each.plan_id}{_uid(each.plan_uid)},"
        f" drop {each.snapshot_id or '-'}, {_version(each.viewings_version)}{left_out}"
    )


def _repairs(records: Records) -> Iterator[str]:
    for each in records.repairs:
        yield f"{each.what}, {_time(each.repaired_at)} by {each.repaired_by}: {each.reason}"
