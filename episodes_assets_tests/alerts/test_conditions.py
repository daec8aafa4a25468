"""Which alerts are open follows from what was observed alone."""

import datetime as dt
from typing import Any

import pytest

from episodes_assets.alerts.conditions import (
    LONGEST_DETAIL,
    LONGEST_SUMMARY,
    FailedCheck,
    FailedRun,
    FailedTicks,
    HeldDay,
    Kind,
    Observed,
    Severity,
    assess,
)

DAY = dt.date(2018, 3, 1)
WELL: dict[str, Any] = {
    "failed_runs": [],
    "failed_checks": [],
    "stalled": {},
    "held": [],
    "not_published": "",
    "failed_ticks": [],
    "results_away": "",
    "daemon_silent": "",
    "dagster_away": "",
    "not_evaluated": "",
}


def run(number: int, cause: str = "DiskFull", message: str = "the disk is full") -> FailedRun:
    return FailedRun(f"run-{number}", "plan_day", [DAY + dt.timedelta(days=number)], cause, message)


def test_where_all_is_well_no_alert_is_open_and_all_is_known() -> None:
    assessment = assess(Observed(**WELL))
    assert assessment.alerts == {}
    assert set(assessment.known) == set(Kind)


def test_what_was_not_observed_is_not_known() -> None:
    assert set(assess(Observed()).known) == set()
    assert set(assess(Observed(held=[])).known) == {Kind.JOBS_HELD}


@pytest.mark.parametrize(
    ("what", "observed", "key", "said"),
    [
        (
            "failed_checks",
            [FailedCheck("a", "c", is_error=True, message="why")],
            "check_failed:a.c",
            "the check c of a failed",
        ),
        ("stalled", {DAY: "stuck"}, "days_stalled", "no job is finished of 2018-03-01"),
        (
            "held",
            [HeldDay(DAY, 1_200)],
            "jobs_held",
            "1,200 jobs are held, so that 2018-03-01 cannot be published",
        ),
        ("not_published", "2018-03-01 is not", "day_not_published", "the day that is due is not published"),
        (
            "failed_ticks",
            [FailedTicks("s", is_schedule=False, in_a_row=3, message="x")],
            "automation_fails:s",
            "s fails at each tick",
        ),
        (
            "failed_ticks",
            [FailedTicks("s", is_schedule=True, in_a_row=1, message="x")],
            "automation_fails:s",
            "s fails at each tick",
        ),
        ("results_away", "no answer", "results_away", "the database results cannot be read"),
        ("daemon_silent", "80 s", "daemon_silent", "Dagster's daemon is silent"),
        ("dagster_away", "no answer", "dagster_away", "the database dagster cannot be read"),
        ("not_evaluated", "for 700 s", "alerts_not_evaluated", "alerts are not looked for"),
    ],
)
def test_each_fault_opens_an_alert_that_says_what_to_do(
    what: str, observed: object, key: str, said: str
) -> None:
    assessment = assess(Observed(**{**WELL, what: observed}))
    (alert,) = assessment.alerts.values()
    assert (alert.key, alert.severity) == (key, Severity.ERROR)
    assert alert.summary.startswith(said)
    assert alert.hint
    assert alert.kind in assessment.known


def test_runs_that_failed_for_one_cause_are_one_alert() -> None:
    runs = [run(2), run(1), run(7, "BadDrop", "the drop\nis bad")]
    alerts = assess(Observed(failed_runs=runs)).alerts
    assert {key: alert.summary for key, alert in alerts.items()} == {
        "runs_failed:DiskFull": "2 runs of 2018-03-02, 2018-03-03 failed: the disk is full",
        "runs_failed:BadDrop": "1 run of 2018-03-08 failed: the drop is bad",
    }
    assert alerts["runs_failed:DiskFull"].detail.splitlines() == [
        "run run-2 of plan_day: the disk is full",
        "run run-1 of plan_day: the disk is full",
    ]


def test_of_many_days_and_long_messages_the_beginning_is_told() -> None:
    alert = assess(Observed(failed_runs=[run(n, message="x" * 2_000) for n in range(20)])).alerts
    (found,) = alert.values()
    assert found.summary.startswith("20 runs of 2018-03-01, 2018-03-02, 2018-03-03, 2018-03-04, 2018-03-05")
    assert "and 15 more days failed: x" in found.summary
    assert len(found.summary) == LONGEST_SUMMARY
    assert len(found.detail) == LONGEST_DETAIL


def test_a_warning_stays_one() -> None:
    (alert,) = assess(
        Observed(failed_checks=[FailedCheck("a", "c", is_error=False, message="")])
    ).alerts.values()
    assert alert.severity is Severity.WARNING


def test_a_sensor_that_failed_once_is_no_alert() -> None:
    assert (
        assess(Observed(failed_ticks=[FailedTicks("s", is_schedule=False, in_a_row=2, message="x")])).alerts
        == {}
    )


def test_while_more_runs_failed_than_are_looked_at_no_alert_about_them_ends() -> None:
    assessment = assess(Observed(failed_runs=[], failed_runs_are_all=False, held=[]))
    assert set(assessment.known) == {Kind.JOBS_HELD}


def test_a_key_is_the_same_on_record() -> None:
    (key,) = assess(Observed(failed_runs=[run(1, "Any\0\ud800", "a\0b")])).alerts
    assert key == "runs_failed:Any\ufffd?"
