"""What is on record of one episode on one day: plain data, as the databases and the lake say it.

Each kind of record is read where it is stored: `lake/episode.py`, `ledger/episode.py`, `results/episode.py`.
What follows from them is concluded in `diagnosis`. Records that are gone are `Unknown`, with the reason: that
is an answer like any other.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Metrics = Mapping[str, int | float | None]
# Of the days before one whose drop lacks the episode, so many drops are searched for it.
LOOKED_BACK_DAYS = 7


@dataclass(frozen=True)
class Unknown:
    """Something that is not known any more, or cannot be read now.

    Attributes:
        why: What keeps it from being known, as a clause.
    """

    why: str


@dataclass(frozen=True)
class CatalogueRow:
    """A row of a day's drop.

    Attributes:
        algorithm_id: The analysis it asks for; None where that could not be read.
        premier_date: When the episode was first shown; of a refused row also a date beyond Python's years, as
            text.
        start_date: The first date that the row asks to have analysed, likewise.
        series: Only displayed, as are the three that follow.
        season: Its number.
        episode: Its number in the season.
        title: Its title.
    """

    algorithm_id: int | None
    premier_date: dt.date | str | None
    start_date: dt.date | str | None
    series: str | None = None
    season: int | None = None
    episode: int | None = None
    title: str | None = None


@dataclass(frozen=True)
class RefusedRow:
    """A row of a day's drop that validation refused.

    Attributes:
        row: The row, as far as it could be read.
        rules: The rules that it broke, by their names.
        as_found: What could not be read of it, as a JSON object; empty where all could.
        is_certain: Whether its `epid` was read as the one that is asked about; otherwise it could not be read
            exactly, and only looks like it.
    """

    row: CatalogueRow
    rules: tuple[str, ...]
    as_found: str = ""
    is_certain: bool = True


@dataclass(frozen=True)
class DropRecord:
    """A day's drop, and its rows of the episode.

    Attributes:
        snapshot_id: The drop.
        version: The version of the lake's table `episodes` with which it became the day's.
        taken_at: When it was taken.
        reason: Why it was taken then; empty in the ordinary course of things.
        rows: All rows that were read from the input.
        quarantined: How many of them were refused.
        accepted: Rows of the episode that were accepted.
        refused: Rows of the episode that were refused.
        more_refused: How many refused rows may be of the episode besides: too many to look at, or to tell.
    """

    snapshot_id: str
    version: int
    taken_at: dt.datetime
    reason: str
    rows: int
    quarantined: int
    accepted: Sequence[CatalogueRow] | Unknown = ()
    refused: Sequence[RefusedRow] | Unknown = ()
    more_refused: int = 0


@dataclass(frozen=True)
class DayOfDrops:
    """What the lake has of a day's drops.

    Attributes:
        used: The drop that the day's plan or publication was made from; without either, the newest one.
        newest: The drop that is the day's now, without rows; the same one, unless it was taken again.
        last_seen: The last day with the episode among the days just before, looked for where the used drop
            lacks it.
    """

    used: DropRecord | Unknown | None
    newest: DropRecord | None = None
    last_seen: dt.date | None = None


@dataclass(frozen=True)
class ViewingsRecord:
    """The episode's viewings in the version that the plan names.

    Attributes:
        version: The version of the lake's table `viewings`; None for a plan from before the lake.
        is_viewed: Whether the episode was viewed on the day.
        by_day: Its viewings by day, since the earliest window; days without any are left out.
        late: Its viewings on the day in the newest version, looked for where it is not due because that of
            the plan has none.
    """

    version: int | None
    is_viewed: bool | Unknown
    by_day: Mapping[dt.date, int] | Unknown
    late: int | Unknown = 0


@dataclass(frozen=True)
class TrackedRecord:
    """Since when an episode is tracked.

    Attributes:
        tracked_on: The day that added it.
        origin: What that day is in the history: `beginning`, `day` or `import`; None for a day before one
            that was imported.
        snapshot_id: The drop that the day came from; None where it came from none.
    """

    tracked_on: dt.date
    origin: str | None
    snapshot_id: str | None


@dataclass(frozen=True)
class StateRecord:
    """What the tracked history says of a day.

    Attributes:
        first: Its first day; None when there is no history.
        first_origin: What that day is: `beginning` or `import`.
        yesterday: The checksum of all that is tracked as of the day before; None where that has no record.
    """

    first: dt.date | None = None
    first_origin: str | None = None
    yesterday: str | None = None


@dataclass(frozen=True)
class PlanRecord:
    """A plan that a day has or had.

    Attributes:
        plan_id: Its number.
        plan_uid: What tells it from another one that was given the same number.
        jobs: How many jobs it has.
        snapshot_id: The drop it was made from.
        tracked_checksum: Of the tracked episodes it was made from; None for none, or where that was not
            recorded.
        viewings_version: The version of the lake's viewings; None for a plan from before the lake.
        viewings_digest: Of that version's content; None where it was not recorded.
        code_version: Of the planning code.
        planned_at: When it was made.
        fanned_out_at: When its jobs were handed to the fleet.
        superseded_at: When another plan took its place, and its jobs were deleted; None for the current one.
    """

    plan_id: int
    plan_uid: uuid.UUID
    jobs: int
    snapshot_id: str
    tracked_checksum: str | None
    viewings_version: int | None
    viewings_digest: str | None
    code_version: str
    planned_at: dt.datetime
    fanned_out_at: dt.datetime | None
    superseded_at: dt.datetime | None


@dataclass(frozen=True)
class OutcomeRecord:
    """What came of a job.

    Attributes:
        covered_from: The first date for which there were viewings; None when there were none.
        metrics: By name.
        algorithm_version: Of the algorithm.
        worker: Who computed it.
        finished_at: When it was written.
        seconds: What reading and computing took, of all jobs that ran together; None where it is not known.
        together: How many ran together.
    """

    covered_from: dt.date | None
    metrics: Metrics
    algorithm_version: str
    worker: str
    finished_at: dt.datetime
    seconds: float | None = None
    together: int | None = None


@dataclass(frozen=True)
class DecisionRecord:
    """A recorded decision to publish the day without a held job."""

    reason: str
    decided_by: str
    decided_at: dt.datetime


@dataclass(frozen=True)
class JobRecord:
    """A job of the day's current plan.

    Attributes:
        algorithm_id: The analysis.
        window_start: The first date it analyses.
        position: Where it stands in the plan.
        chunk: Its chunk.
        chunk_jobs: How many jobs that has.
        chunk_starts: How often jobs of the chunk were started together.
        claimed_by: The worker that has claimed the chunk last; None when none has.
        claimed_at: When.
        is_claimed: Whether that worker has it still.
        starts: How often the job was started alone.
        is_held: Whether it failed for the last time, or was cancelled.
        is_cancelled: Whether it is held because somebody cancelled the day.
        error: Why its last start failed; None when none did.
        decision: To publish the day without it.
        outcome: What came of it.
    """

    algorithm_id: int
    window_start: dt.date
    position: int
    chunk: int
    chunk_jobs: int
    chunk_starts: int
    claimed_by: str | None = None
    claimed_at: dt.datetime | None = None
    is_claimed: bool = False
    starts: int = 0
    is_held: bool = False
    is_cancelled: bool = False
    error: str | None = None
    decision: DecisionRecord | None = None
    outcome: OutcomeRecord | None = None


@dataclass(frozen=True)
class OpenJobs:
    """What is left to do of the day's current plan.

    Attributes:
        unfinished: Jobs that wait or run.
        held: Jobs that failed for the last time and are not left out.
    """

    unfinished: int = 0
    held: int = 0


@dataclass(frozen=True)
class PublicationRecord:
    """A publication of the day.

    Attributes:
        published_at: When.
        rows: How many rows it had.
        left_out: How many jobs were left out.
        decision: Why, and who decided it.
        plan_id: The plan it was made from.
        plan_uid: The same; None where it was not recorded.
        snapshot_id: The drop; None where it was not recorded.
        viewings_version: The version of the lake's viewings; None for what was published before the lake.
        viewings_digest: Of that version's content; None where it was not recorded.
        code_version: Of the publishing code.
    """

    published_at: dt.datetime
    rows: int
    left_out: int
    decision: str
    plan_id: int
    plan_uid: uuid.UUID | None
    snapshot_id: str | None
    viewings_version: int | None
    viewings_digest: str | None
    code_version: str

    def is_of(self, plan: PlanRecord) -> bool:
        """Whether it was made from a plan."""
        if self.plan_uid is None:  # of a release that did not record it
            return self.plan_id == plan.plan_id
        return self.plan_uid == plan.plan_uid


@dataclass(frozen=True)
class PublishedRow:
    """A row of the results.

    Attributes:
        algorithm_id: The analysis.
        window_start: The first date of its window.
        window_end: The last.
        covered_from: The first date for which there were viewings.
        metrics: By name.
    """

    algorithm_id: int
    window_start: dt.date
    window_end: dt.date
    covered_from: dt.date | None
    metrics: Metrics


@dataclass(frozen=True)
class RepairRecord:
    """Something of the day that was damaged and repaired."""

    what: str
    reason: str
    repaired_by: str
    repaired_at: dt.datetime


@dataclass(frozen=True)
class Records:
    """All that is on record of an episode on a day.

    Attributes:
        day: The day.
        epid: The episode.
        today: The current UTC date.
        quarantine_limit: The share of a drop refused above which nothing is built on it.
        drops: What the lake has of the day's drops.
        viewings: The episode's viewings, as the plan pinned them.
        tracked: Since when it is tracked; None when it never was.
        state: What the tracked history says of the day.
        plans: All plans that the day has had, in the order in which they were made.
        jobs: The episode's jobs in the current plan.
        open_jobs: What is left to do of that plan.
        manifest: What is published of the day now; None when nothing is.
        publications: All publications of the day, in the order in which they were made.
        published: The episode's rows in the results.
        repairs: What of the day was repaired.
    """

    day: dt.date
    epid: int
    today: dt.date
    quarantine_limit: float = 0.25
    drops: DayOfDrops = field(default_factory=lambda: DayOfDrops(None))
    viewings: ViewingsRecord | None = None
    tracked: TrackedRecord | None = None
    state: StateRecord = field(default_factory=StateRecord)
    plans: Sequence[PlanRecord] = ()
    jobs: Sequence[JobRecord] = ()
    open_jobs: OpenJobs = field(default_factory=OpenJobs)
    manifest: PublicationRecord | None = None
    publications: Sequence[PublicationRecord] = ()
    published: Sequence[PublishedRow] = ()
    repairs: Sequence[RepairRecord] = ()

    @property
    def plan(self) -> PlanRecord | None:
        """The day's current plan."""
        return next((plan for plan in self.plans if plan.superseded_at is None), None)

    @property
    def accepted(self) -> Sequence[CatalogueRow]:
        """The episode's accepted rows, as far as they are known."""
        used = self.drops.used
        rows = used.accepted if isinstance(used, DropRecord) else ()
        return () if isinstance(rows, Unknown) else rows

    @property
    def refused(self) -> Sequence[RefusedRow]:
        """The episode's refused rows, as far as they are known."""
        used = self.drops.used
        rows = used.refused if isinstance(used, DropRecord) else ()
        return () if isinstance(rows, Unknown) else rows

    @property
    def was_tracked_before(self) -> bool:
        """Whether the episode was tracked as of the day before."""
        return self.tracked is not None and self.tracked.tracked_on < self.day

    @property
    def algorithm_ids(self) -> Sequence[int]:
        """The analyses that any of the records names, ascending."""
        named = {
            *(row.algorithm_id for row in self.accepted),
            *(each.row.algorithm_id for each in self.refused),
            *(job.algorithm_id for job in self.jobs),
            *(row.algorithm_id for row in self.published),
        }
        return sorted(each for each in named if each is not None)

    def job_of(self, algorithm_id: int | None) -> JobRecord | None:
        """The episode's job of an analysis, if the current plan has one."""
        return next((job for job in self.jobs if job.algorithm_id == algorithm_id), None)

    def published_row_of(self, algorithm_id: int | None) -> PublishedRow | None:
        """The episode's row of an analysis, if the results have one."""
        return next((row for row in self.published if row.algorithm_id == algorithm_id), None)

    def accepted_row_of(self, algorithm_id: int | None) -> CatalogueRow | None:
        """The episode's accepted row of an analysis, if the drop has one."""
        return next((row for row in self.accepted if row.algorithm_id == algorithm_id), None)

    def refused_rows_of(self, algorithm_id: int | None) -> Sequence[RefusedRow]:
        """The episode's refused rows of an analysis, and those of which nobody can tell which it is.

        Without an analysis, all of them.
        """
        if algorithm_id is None:
            return self.refused
        return [each for each in self.refused if each.row.algorithm_id in (algorithm_id, None)]
