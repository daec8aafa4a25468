"""What the system is to hold, in plain Python: sets, dictionaries, no database."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field

from episodes_assets.days import ONE_DAY

REACH = 0
Job = tuple[int, int, dt.date]  # epid, algorithm, first date of the window


@dataclass(frozen=True)
class Row:
    """A valid row of a drop."""

    epid: int
    algorithm_id: int
    premier_date: dt.date
    start_date: dt.date


@dataclass(frozen=True)
class Input:
    """What a day's drop and viewings say."""

    rows: frozenset[Row]
    viewed: frozenset[int]


@dataclass(frozen=True)
class TrackedDay:
    """What a day added to the state; its checksum chains it to the days before."""

    new: frozenset[int]
    total: int
    previous: object
    checksum: object


@dataclass
class Plan:
    """A day's current plan."""

    serial: int
    states: dict[Job, str]  # open, succeeded, held or waived
    starts: dict[Job, int] = field(default_factory=dict)  # alone
    is_fanned_out: bool = False

    @property
    def open(self) -> int:
        return list(self.states.values()).count("open")


class Refused(Exception):
    """The system is to refuse this and to change nothing."""


@dataclass
class Model:
    """The whole system."""

    max_starts: int
    upstream: dict[dt.date, Input] = field(default_factory=dict)
    snapshots: dict[dt.date, Input] = field(default_factory=dict)
    tracked_on: dict[int, dt.date] = field(default_factory=dict)
    tracked_days: dict[dt.date, TrackedDay] = field(default_factory=dict)
    plans: dict[dt.date, Plan] = field(default_factory=dict)
    published: dict[dt.date, tuple[int, frozenset[Job]]] = field(default_factory=dict)
    serials: int = 0

    def take_snapshot(self, day: dt.date, refresh: bool) -> None:
        if day in self.snapshots and not refresh:
            return
        if day not in self.upstream:
            raise Refused
        self.snapshots[day] = self.upstream[day]

    def tracked_before(self, day: dt.date) -> frozenset[int]:
        """The state a day may build on; refused when there is none."""
        if not self.tracked_days:
            return frozenset()
        first = min(self.tracked_days)
        if day <= first:
            if day < first:
                raise Refused
            return frozenset()
        self._require_unbroken(first, day - ONE_DAY)
        found = self.tracked_as_of(day - ONE_DAY)
        if len(found) != self.tracked_days[day - ONE_DAY].total:
            raise Refused
        return found

    def tracked_as_of(self, day: dt.date) -> frozenset[int]:
        return frozenset(epid for epid, on in self.tracked_on.items() if on <= day)

    def _require_unbroken(self, first: dt.date, last: dt.date) -> None:
        previous: object = None
        day = first
        while day <= last:
            if day not in self.tracked_days or self.tracked_days[day].previous != previous:
                raise Refused
            previous = self.tracked_days[day].checksum
            day += ONE_DAY

    def track(self, day: dt.date) -> None:
        before = self.tracked_before(day)
        drop = self._snapshot(day).rows
        new = frozenset(newly_tracked(drop, before, day))
        yesterday = None if not self.tracked_days or day == min(self.tracked_days) else day - ONE_DAY
        previous = self.tracked_days[yesterday].checksum if yesterday else None
        checksum = (previous, tuple(sorted(new)))
        self.tracked_days[day] = TrackedDay(new, len(before) + len(new), previous, checksum)
        for epid in [epid for epid, on in self.tracked_on.items() if on == day and epid not in new]:
            del self.tracked_on[epid]
        for epid in new:
            self.tracked_on[epid] = min(day, self.tracked_on.get(epid, day))

    def plan(self, day: dt.date) -> None:
        before = self.tracked_before(day)
        jobs = set(plan_jobs(self._snapshot(day), before, day))
        if day not in self.plans or set(self.plans[day].states) != jobs:
            self.serials += 1
            self.plans[day] = Plan(self.serials, dict.fromkeys(sorted(jobs), "open"))

    def fan_out(self, day: dt.date) -> None:
        self.plans[day].is_fanned_out = True

    def work(self, day: dt.date, jobs: Iterable[Job], bad: frozenset[int]) -> None:
        """A worker has tried all open jobs of a chunk; those of bad episodes fail."""
        plan = self.plans[day]
        for job in jobs:
            if plan.states[job] != "open":
                continue
            if plan.starts.get(job, 0) >= self.max_starts:  # it seems to kill its workers
                plan.states[job] = "held"
            elif job[0] in bad:
                self.start_alone(day, job)
                self.fail(day, job)
            else:
                plan.states[job] = "succeeded"

    def start_alone(self, day: dt.date, job: Job) -> None:
        plan = self.plans[day]
        plan.starts[job] = plan.starts.get(job, 0) + 1

    def fail(self, day: dt.date, job: Job) -> None:
        plan = self.plans[day]
        if plan.starts.get(job, 0) >= self.max_starts:
            plan.states[job] = "held"

    def retry(self, day: dt.date) -> None:
        plan = self.plans[day]
        for job in [job for job, state in plan.states.items() if state in {"held", "waived"}]:
            plan.states[job] = "open"
            plan.starts.pop(job, None)
        plan.is_fanned_out = True

    def cancel(self, day: dt.date) -> None:
        plan = self.plans[day]
        unfinished = [job for job, state in plan.states.items() if state == "open"]
        if not unfinished:
            raise Refused
        plan.states.update(dict.fromkeys(unfinished, "held"))

    def waive(self, day: dt.date) -> None:
        plan = self.plans[day]
        held = [job for job, state in plan.states.items() if state == "held"]
        if not held:
            raise Refused
        plan.states.update(dict.fromkeys(held, "waived"))

    def publish(self, day: dt.date) -> None:
        plan = self.plans[day]
        if any(state not in {"succeeded", "waived"} for state in plan.states.values()):
            raise Refused
        rows = frozenset(job for job, state in plan.states.items() if state == "succeeded")
        self.published[day] = (plan.serial, rows)

    def delete_upstream(self, until: dt.date) -> None:
        self.upstream = {day: content for day, content in self.upstream.items() if day > until}

    @property
    def backlog(self) -> int:
        return sum(plan.open for plan in self.plans.values() if plan.is_fanned_out)

    def _snapshot(self, day: dt.date) -> Input:
        if day not in self.snapshots:
            raise Refused
        return self.snapshots[day]


def newly_tracked(rows: Iterable[Row], before: frozenset[int], day: dt.date) -> set[int]:
    """Episodes of `reach` that have premiered and are not tracked yet."""
    premiered = {row.epid for row in rows if row.algorithm_id == REACH and row.premier_date <= day}
    return premiered - before


def plan_jobs(content: Input, before: frozenset[int], day: dt.date) -> list[Job]:
    """The jobs of a day."""
    new = newly_tracked(content.rows, before, day)
    jobs = []
    for row in content.rows:
        catches_up = row.algorithm_id == REACH and row.epid not in before
        start = row.premier_date if catches_up else row.start_date
        if start <= day and (row.epid in content.viewed or row.epid in new):
            jobs.append((row.epid, row.algorithm_id, start))
    return jobs
