"""Which alerts are open: a pure function of what was observed of the system at one moment.

Level-triggered: nothing is remembered here from one moment to the next. What could not be observed is
unknown (None), and neither opens nor ends an alert. When people are told of it is `lifecycle.py`. Nothing is
read here.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from episodes_assets import failures

NAMED = 5
LONGEST_SUMMARY = 300
LONGEST_DETAIL = 4_000
# Once the newest ticks of a sensor have failed so often in a row, it does not work. Of a schedule, whose
# ticks may be a day apart, one is enough.
FAILED_TICKS_OF_A_SENSOR = 3
FAILED_TICKS_OF_A_SCHEDULE = 1


class Kind(StrEnum):
    """What an alert is about. Each kind is observed by one process alone, which also ends its alerts."""

    RUNS_FAILED = "runs_failed"
    CHECK_FAILED = "check_failed"
    DAYS_STALLED = "days_stalled"
    JOBS_HELD = "jobs_held"
    DAY_NOT_PUBLISHED = "day_not_published"
    AUTOMATION_FAILS = "automation_fails"
    RESULTS_AWAY = "results_away"
    DAEMON_SILENT = "daemon_silent"
    DAGSTER_AWAY = "dagster_away"
    NOT_EVALUATED = "alerts_not_evaluated"


class Severity(StrEnum):
    """Whether somebody is needed now."""

    ERROR = "error"
    WARNING = "warning"


# For how long something has to be so before anybody is told: a database that is restarted is back by then.
GRACE: Mapping[Kind, dt.timedelta] = {
    Kind.RESULTS_AWAY: dt.timedelta(minutes=2),
    Kind.DAGSTER_AWAY: dt.timedelta(minutes=1),
}
NO_GRACE = dt.timedelta(0)


@dataclass(frozen=True)
class Alert:
    """Something that people are to know of, as it is now.

    Attributes:
        kind: What it is about.
        subject: Of several alerts of a kind, which; empty where there is one.
        severity: Whether somebody is needed now.
        summary: One line.
        detail: More lines; may be empty.
        hint: What to do, as a clause.
    """

    kind: Kind
    subject: str
    severity: Severity
    summary: str
    detail: str
    hint: str

    @property
    def key(self) -> str:
        """Identifies it for as long as it is open."""
        return f"{self.kind}:{self.subject}" if self.subject else self.kind.value

    @property
    def grace(self) -> dt.timedelta:
        """For how long it has to last before it is opened."""
        return GRACE.get(self.kind, NO_GRACE)


@dataclass(frozen=True)
class FailedRun:
    """A run that failed and whose work no later run has done.

    Attributes:
        run_id: Its id.
        job: Its job.
        days: The days that it covered.
        cause: The name of the error at its root, the same for runs that failed for one cause.
        message: That error, as a line for people.
    """

    run_id: str
    job: str
    days: Sequence[dt.date]
    cause: str
    message: str


@dataclass(frozen=True)
class FailedCheck:
    """An asset check whose newest evaluation failed.

    Attributes:
        asset: Its asset.
        check: Its name.
        is_error: Whether that is more than a warning.
        message: What it said.
    """

    asset: str
    check: str
    is_error: bool
    message: str


@dataclass(frozen=True)
class FailedTicks:
    """A sensor or schedule that is switched on and whose newest ticks failed.

    Attributes:
        name: Its name.
        is_schedule: Whether it is a schedule.
        in_a_row: How many of the newest ticks failed; the count ends at `FAILED_TICKS_OF_A_SENSOR`.
        message: What the newest one failed with.
    """

    name: str
    is_schedule: bool
    in_a_row: int
    message: str

    @property
    def is_persistent(self) -> bool:
        """Whether it fails for good, as far as can be told."""
        enough = FAILED_TICKS_OF_A_SCHEDULE if self.is_schedule else FAILED_TICKS_OF_A_SENSOR
        return self.in_a_row >= enough


@dataclass(frozen=True)
class HeldDay:
    """A day that is not published because jobs of it are held.

    Attributes:
        day: The day.
        held: How many jobs are held and not waived.
    """

    day: dt.date
    held: int


@dataclass(frozen=True)
class Observed:
    """What is known of the system at one moment; None is not known.

    Attributes:
        failed_runs: Runs that failed and whose work is not done, the newest first.
        failed_runs_are_all: Whether no others failed; if some did, no alert about runs ends.
        failed_checks: Asset checks whose newest evaluation failed.
        stalled: Of each day that makes no progress, what is stuck and what to do.
        held: Days with held jobs.
        not_published: Why the day that is due is not published, and what to do; empty if it is.
        failed_ticks: Sensors and schedules whose newest ticks failed.
        results_away: Why the database `results` cannot be read; empty if it can.
        daemon_silent: Why Dagster's daemon is taken to be dead; empty if it is not.
        dagster_away: Why the database `dagster` cannot be read; empty if it can.
        not_evaluated: For how long nothing but the web server has observed anything; empty if it has.
        drained: Which code locations are drained, on purpose, so that their sensors do not run.
    """

    failed_runs: Sequence[FailedRun] | None = None
    failed_runs_are_all: bool = True
    failed_checks: Sequence[FailedCheck] | None = None
    stalled: Mapping[dt.date, str] | None = None
    held: Sequence[HeldDay] | None = None
    not_published: str | None = None
    failed_ticks: Sequence[FailedTicks] | None = None
    results_away: str | None = None
    daemon_silent: str | None = None
    dagster_away: str | None = None
    not_evaluated: str | None = None
    drained: Sequence[str] = ()


_KINDS: Mapping[str, Kind] = {
    "failed_runs": Kind.RUNS_FAILED,
    "failed_checks": Kind.CHECK_FAILED,
    "stalled": Kind.DAYS_STALLED,
    "held": Kind.JOBS_HELD,
    "not_published": Kind.DAY_NOT_PUBLISHED,
    "failed_ticks": Kind.AUTOMATION_FAILS,
    "results_away": Kind.RESULTS_AWAY,
    "daemon_silent": Kind.DAEMON_SILENT,
    "dagster_away": Kind.DAGSTER_AWAY,
    "not_evaluated": Kind.NOT_EVALUATED,
}


@dataclass(frozen=True)
class Assessment:
    """The alerts that are open by what was observed.

    Attributes:
        alerts: By their keys.
        known: The kinds that were observed; nothing is said of alerts of others.
    """

    alerts: Mapping[str, Alert]
    known: Collection[Kind]


def assess(observed: Observed) -> Assessment:
    """Which alerts are open."""
    known = {kind for name, kind in _KINDS.items() if getattr(observed, name) is not None}
    if not observed.failed_runs_are_all:
        known.discard(Kind.RUNS_FAILED)
    return Assessment({alert.key: alert for alert in _alerts(observed)}, known)


def _alerts(observed: Observed) -> Iterator[Alert]:
    yield from _of_runs(observed.failed_runs or ())
    for check in observed.failed_checks or ():
        yield _alert(
            Kind.CHECK_FAILED,
            f"{check.asset}.{check.check}",
            f"the check {check.check} of {check.asset} failed",
            "what its line says; each check is in docs/checks.md",
            detail=check.message,
            severity=Severity.ERROR if check.is_error else Severity.WARNING,
        )
    if observed.stalled:
        yield _alert(
            Kind.DAYS_STALLED,
            "",
            f"no job is finished of {name_days(list(observed.stalled))}",
            "what its line says for the day: start workers, read the log of the worker that is named, or "
            "switch fan_out on",
            detail="\n".join(observed.stalled.values()),
        )
    if observed.held:
        jobs = sum(day.held for day in observed.held)
        yield _alert(
            Kind.JOBS_HELD,
            "",
            f"{'1 job is' if jobs == 1 else f'{jobs:,} jobs are'} held, so that "
            f"{name_days([day.day for day in observed.held])} cannot be published",
            "see their errors on the Fleet page or by `episodes jobs status DAY`, then retry or waive them",
        )
    if observed.not_published:
        yield _alert(
            Kind.DAY_NOT_PUBLISHED,
            "",
            "the day that is due is not published",
            "see whether its drop has arrived, which run failed, and how far its jobs are",
            detail=observed.not_published,
        )
    for ticks in observed.failed_ticks or ():
        if ticks.is_persistent:
            yield _alert(
                Kind.AUTOMATION_FAILS,
                ticks.name,
                f"{ticks.name} fails at each tick",
                "open it in the UI under Automation; its newest tick has the whole error",
                detail=ticks.message,
            )
    yield from _of_processes(observed)


def _of_processes(observed: Observed) -> Iterator[Alert]:
    if observed.results_away:
        yield _alert(
            Kind.RESULTS_AWAY,
            "",
            "the database results cannot be read",
            "see that its server is up and what its log says",
            detail=observed.results_away,
        )
    if observed.daemon_silent:
        yield _alert(
            Kind.DAEMON_SILENT,
            "",
            "Dagster's daemon is silent: nothing is planned, handed out or published",
            "start dagster-daemon again, see what it printed last, and that it runs just once",
            detail=observed.daemon_silent,
        )
    if observed.dagster_away:
        yield _alert(
            Kind.DAGSTER_AWAY,
            "",
            "the database dagster cannot be read",
            "see that its server is up and what its log says",
            detail=observed.dagster_away,
        )
    if observed.not_evaluated:
        yield _alert(
            Kind.NOT_EVALUATED,
            "",
            "alerts are not looked for: "
            + (
                f"{' and '.join(observed.drained)}"
                if observed.drained
                else "the sensor alert_people does not run, or fails"
            ),
            "end the drain by `episodes drain --resume` when the code location is replaced"
            if observed.drained
            else "switch alert_people on under Automation, and see its newest tick there",
            detail=observed.not_evaluated,
        )


def _of_runs(runs: Sequence[FailedRun]) -> Iterator[Alert]:
    """One alert for each cause, however many runs it made fail."""
    by_cause: dict[str, list[FailedRun]] = defaultdict(list)
    for run in runs:
        by_cause[run.cause].append(run)
    for cause, failed in by_cause.items():
        days = sorted({day for run in failed for day in run.days})
        of = f" of {name_days(days)}" if days else ""
        yield _alert(
            Kind.RUNS_FAILED,
            cause,
            f"{len(failed)} run{'s' if len(failed) > 1 else ''}{of} failed: {failed[0].message}",
            "fix what the line says and run the days again; runs that automation started are tried again by "
            "themselves",
            detail="\n".join(f"run {run.run_id} of {run.job}: {run.message}" for run in failed[:NAMED]),
        )


def name_days(days: Sequence[dt.date]) -> str:
    """Some days in a clause, of many the first ones."""
    named = ", ".join(str(day) for day in sorted(days)[:NAMED])
    return f"{named} and {len(days) - NAMED:,} more days" if len(days) > NAMED else named


def _alert(
    kind: Kind,
    subject: str,
    summary: str,
    hint: str,
    *,
    detail: str = "",
    severity: Severity = Severity.ERROR,
) -> Alert:
    # A subject may be the name of an error of somebody's algorithm, and becomes a part of a key. What is on
    # record is compared with it, so it has to be the same there.
    line = " ".join(failures.storable(summary).split())
    return Alert(
        kind,
        failures.storable(subject)[:100],
        severity,
        failures.shorten(line, LONGEST_SUMMARY),
        failures.shorten(failures.storable(detail), LONGEST_DETAIL),
        hint,
    )
