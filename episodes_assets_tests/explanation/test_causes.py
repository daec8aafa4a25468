"""Whether a row is due is concluded as planning decides it, and every cause can be told."""

import datetime as dt
import uuid
from dataclasses import replace
from string import Formatter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.errors import BadQuestion
from episodes_assets.explanation.causes import Cause
from episodes_assets.explanation.diagnosis import decide, read_due
from episodes_assets.explanation.explaining import explain, parse_algorithm, parse_epid
from episodes_assets.explanation.records import (
    CatalogueRow,
    DayOfDrops,
    DropRecord,
    PlanRecord,
    Records,
    TrackedRecord,
    Unknown,
    ViewingsRecord,
)
from episodes_assets_tests.support.planning_reference import plan_jobs_reference

DAY = dt.date(2018, 3, 5)
NOON = dt.datetime(2018, 3, 6, 12, tzinfo=dt.UTC)
NEAR = st.dates(DAY - dt.timedelta(3), DAY + dt.timedelta(3))
ROWS = st.dictionaries(st.integers(0, 2), st.tuples(NEAR, NEAR), min_size=1)


def records(
    rows: dict[int, tuple[dt.date, dt.date]],
    *,
    is_viewed: bool,
    tracked_on: dt.date | None,
    late: int | Unknown = 0,
) -> Records:
    accepted = [CatalogueRow(number, *dates) for number, dates in rows.items()]
    drop = DropRecord("s", 1, NOON, "", len(rows), 0, accepted)
    return Records(
        day=DAY,
        epid=7,
        today=DAY + dt.timedelta(1),
        drops=DayOfDrops(drop, drop),
        viewings=ViewingsRecord(1, is_viewed, {DAY: 1} if is_viewed else {}, late),
        tracked=TrackedRecord(tracked_on, "day", "s") if tracked_on else None,
        plans=[
            PlanRecord(
                plan_id=1,
                plan_uid=uuid.UUID(int=1),
                jobs=0,
                snapshot_id="s",
                tracked_checksum=None,
                viewings_version=1,
                viewings_digest=None,
                code_version="1",
                planned_at=NOON,
                fanned_out_at=None,
                superseded_at=None,
            )
        ],
    )


@given(rows=ROWS, viewings=st.sampled_from([(False, 0), (False, 3), (True, 0)]), tracked_on=st.none() | NEAR)
def test_a_row_is_due_when_planning_makes_a_job_of_it(
    rows: dict[int, tuple[dt.date, dt.date]], viewings: tuple[bool, int], tracked_on: dt.date | None
) -> None:
    is_viewed, late = viewings
    drop = pd.DataFrame(
        [
            {"epid": 7, "algorithm_id": number, "premier_date": first, "start_date": start}
            for number, (first, start) in rows.items()
        ]
    ).astype({"premier_date": "datetime64[s]", "start_date": "datetime64[s]"})
    tracked_before = {7} if tracked_on and tracked_on < DAY else set()
    planned, planned_anew = (
        {
            algorithm_id: window
            for _, algorithm_id, window in plan_jobs_reference(drop, viewed, tracked_before, DAY)
        }
        for viewed in ({7} if is_viewed else set(), {7} if is_viewed or late else set())
    )
    found = records(rows, is_viewed=is_viewed, tracked_on=tracked_on, late=late)
    for algorithm_id in rows:
        row = found.accepted_row_of(algorithm_id)
        assert row is not None
        cause = decide(found, algorithm_id)
        is_due = cause is Cause.JOB_MISSING
        assert is_due == (algorithm_id in planned)
        assert (cause is Cause.VIEWED_LATE) == (algorithm_id in planned_anew and not is_due)
        if is_due:
            assert read_due(found, row).window_start == planned[algorithm_id]


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_can_be_told(cause: Cause) -> None:
    (told,) = explain(records({0: (DAY, DAY)}, is_viewed=True, tracked_on=None))
    names = {name for text in (cause.answer, cause.hint) for _, name, _, _ in Formatter().parse(text) if name}
    assert cause.label
    assert cause.when
    assert not cause.answer.endswith(".")
    assert names <= {
        "day", "algorithm", "published", "published_plan", "published_decision", "plan", "first",
        "quarantined",
        "seen", "more", "late", "rules", "window_start", "error", "worker", "claimed", "decision", "left",
        "unknown",
    }  # fmt: skip
    assert told.cause is Cause.JOB_MISSING


def test_an_answer_says_when_refused_rows_were_too_many_to_look_at() -> None:
    drop = DropRecord("s", 1, NOON, "", 900, 900, more_refused=800)
    found = replace(records({}, is_viewed=False, tracked_on=None), drops=DayOfDrops(drop, drop))
    for tracked, cause in ((None, Cause.NEVER_SEEN), (TrackedRecord(DAY, "day", "s"), Cause.NOT_IN_DROP)):
        (told,) = explain(replace(found, tracked=tracked), 0)
        more = "besides, 800 refused rows may be of it: too many to look at"
        assert told.cause is cause
        assert told.answer.endswith(f"; {more}")
        assert more in told.sections[0].lines


def test_whether_a_viewing_came_later_may_be_unknown() -> None:
    begun = {1: (DAY, DAY)}
    found = records(begun, is_viewed=False, tracked_on=None, late=Unknown("the lake does not answer"))
    (told,) = explain(found, 1)
    assert told.cause is Cause.NOT_VIEWED
    (due,) = (section.lines for section in told.sections if section.title == "due")
    assert due[1] == (
        "not viewed on the day by then; whether any viewing came later is not known: the lake does not answer"
    )


def test_ids_and_algorithms_are_read_exactly() -> None:
    assert [parse_epid(text) for text in ("0", "-7", str(2**63 - 1), str(-(2**63)))] == [
        0,
        -7,
        2**63 - 1,
        -(2**63),
    ]
    assert [parse_algorithm(text) for text in ("reach", "momentum", "2", "99")] == [0, 1, 2, 99]
    for text in ("", "x", "1.0", "1e3", "٣", str(2**63), "--1", "1 "):
        with pytest.raises(BadQuestion, match=r"is not an episode's id: it is a whole number of 64 bits"):
            parse_epid(text)
    with pytest.raises(BadQuestion, match=r"'rech' is not an algorithm: choose one of .*reach \(0\)"):
        parse_algorithm("rech")
