"""What the databases and the lake say of each other: pure comparisons."""

import datetime as dt
import uuid
from dataclasses import replace

import pytest

from episodes_assets.checks.consistency import (
    DayDrops,
    RecordedPlan,
    RecordedPublication,
    RecordedState,
    Records,
    compare,
)

FIRST = dt.date(2018, 3, 1)
DAYS = [FIRST + dt.timedelta(n) for n in range(5)]
UIDS = [uuid.UUID(int=n) for n in range(5)]


def agreeing() -> Records:
    """Five days that were planned, tracked and published one after the other."""
    return Records(
        plans=[
            RecordedPlan(n + 1, UIDS[n], day, f"p{n}", f"s{n}", f"t{n - 1}" if n else None, is_current=True)
            for n, day in enumerate(DAYS)
        ],
        last_plan_id=5,
        publications=[
            RecordedPublication(day, n + 1, UIDS[n], f"p{n}", f"s{n}") for n, day in enumerate(DAYS)
        ],
        newest_published_plan=5,
        state=[
            RecordedState(day, "day" if n else "beginning", f"t{n}", f"t{n - 1}" if n else None, f"s{n}")
            for n, day in enumerate(DAYS)
        ],
        drops={day: DayDrops(f"s{n}", {f"s{n}"}) for n, day in enumerate(DAYS)},
        recorded_by_dagster=DAYS,
    )


def said(records: Records) -> list[tuple[bool, str]]:
    return [(each.is_error, str(each)) for each in compare(records)]


def test_what_agrees_is_not_told() -> None:
    records = agreeing()
    assert compare(records) == []
    # What was not recorded in former times, plans that were never published, and a ledger that goes on.
    old = replace(records.publications[0], plan_uid=None, snapshot_id=None)
    former = replace(records.plans[0], tracked_checksum=None)
    more = RecordedPlan(9, uuid.uuid4(), DAYS[1], "x", "s1", "t0", is_current=True)
    superseded = replace(records.plans[1], is_current=False)
    found = replace(
        records,
        publications=[old, *records.publications[1:4]],
        plans=[former, superseded, *records.plans[2:], more],
        last_plan_id=12,
        recorded_by_dagster=DAYS[:4],
    )
    assert compare(found) == []
    assert compare(replace(records, recorded_by_dagster=None)) == []


def test_nothing_yet_agrees() -> None:
    assert compare(Records([], 0, [], 0, [], {}, [])) == []
    assert compare(Records([], 0, [], 0, [], {}, None)) == []


def test_a_first_day_may_be_planned_before_it_is_tracked() -> None:
    records = agreeing()
    first = replace(records, plans=records.plans[:1], state=[], publications=[], recorded_by_dagster=[])
    assert compare(first) == []


@pytest.mark.parametrize(
    "published",
    [
        RecordedPublication(DAYS[4], 17, UIDS[4], "p4", "s4"),  # a plan that is not there
        RecordedPublication(DAYS[4], 4, UIDS[4], "p4", "s4"),  # another day's
        RecordedPublication(DAYS[4], 5, UIDS[0], "p4", "s4"),  # its number, given again
        RecordedPublication(DAYS[4], 5, None, "other", "s4"),  # the same, of former times
    ],
)
def test_a_day_published_from_a_plan_that_the_ledger_does_not_have(published: RecordedPublication) -> None:
    records = agreeing()
    ((is_error, told),) = said(replace(records, publications=[*records.publications[:4], published]))
    assert is_error
    assert told == (
        "`queue` does not have the plans that 2018-03-05 was published from: `queue` is older than"
        " `results`, or something else writes to it: `episodes run 2018-03-05 --repair --reason WHY` plans"
        " and works them again from what was published"
    )


def test_a_plan_that_was_superseded_by_no_later_one_is_lost() -> None:
    records = agreeing()
    superseded = [*records.plans[:4], replace(records.plans[4], is_current=False)]
    ((is_error, told),) = said(replace(records, plans=superseded))
    assert is_error
    assert "does not have the plans that 2018-03-05 was published from" in told


def test_outcomes_that_were_published_and_are_gone() -> None:
    """As of a ledger of a moment when a job was open, or left out, that has an outcome since."""
    records = agreeing()
    publications = [replace(each, rows=10) for each in records.publications]
    plans = [replace(each, succeeded=10) for each in records.plans]
    assert compare(replace(records, publications=publications, plans=plans)) == []
    more = [
        replace(plans[0], succeeded=11),
        *plans[1:],
    ]  # of jobs that were retried, and are not published yet
    assert compare(replace(records, publications=publications, plans=more)) == []
    fewer = [*plans[:4], replace(plans[4], succeeded=9)]
    ((is_error, told),) = said(replace(records, publications=publications, plans=fewer))
    assert is_error
    assert told == (
        "`queue` does not have all the outcomes that 2018-03-05 was published from: `queue` is older than"
        " `results`, or something else writes to it: `episodes run 2018-03-05 --repair --reason WHY` works"
        " them again from what was published"
    )


def test_a_plan_that_names_other_viewings_than_were_published() -> None:
    """Which says nothing of the lake."""
    records = replace(agreeing(), viewings_version=3, viewings_digests={n: f"d{n}" for n in range(4)})
    plans = [replace(each, viewings_version=3, viewings_digest="d3") for each in records.plans]
    published = [replace(each, viewings_version=3, viewings_digest="d3") for each in records.publications]
    assert compare(replace(records, plans=plans, publications=published)) == []
    for version in (2, 9, None):
        changed = [*plans[:4], replace(plans[4], viewings_version=version)]
        ((is_error, told),) = said(replace(records, plans=changed, publications=published))
        assert is_error
        assert told.startswith("`queue` names other versions of the viewings than those that 2018-03-05 was")


def test_a_ledger_of_an_earlier_moment() -> None:
    records = agreeing()
    found = said(replace(records, plans=records.plans[:2], last_plan_id=2))
    assert [is_error for is_error, _ in found] == [True, False]
    assert "3 days (2018-03-03, 2018-03-04, 2018-03-05) were published from" in found[0][1]
    assert "`episodes backfill 2018-03-03 2018-03-05 --repair --reason WHY`" in found[0][1]
    assert "numbers up to 2, and plan 5 was published" in found[1][1]


def test_results_of_an_earlier_moment() -> None:
    records = agreeing()
    earlier = replace(records, publications=records.publications[:2], state=records.state[:2])
    found = said(earlier)
    assert [is_error for is_error, _ in found] == [True, True]
    assert "`results` does not have 2018-03-03, 2018-03-04, 2018-03-05, which Dagster" in found[0][1]
    assert "the tracked episodes that 2 days (2018-03-04, 2018-03-05) were planned from" in found[1][1]
    assert "`episodes backfill 2018-03-03 2018-03-05` builds them anew" in found[1][1]
    nothing = replace(records, publications=[], state=[], newest_published_plan=0)
    assert [is_error for is_error, _ in said(nothing)] == [True, True]


def test_dagsters_database_of_an_earlier_moment() -> None:
    ((is_error, told),) = said(replace(agreeing(), recorded_by_dagster=DAYS[:4]))
    assert not is_error
    assert "Dagster has no record of publishing 2018-03-05" in told
    assert "`episodes run 2018-03-05` records" in told


@pytest.mark.parametrize("left", [DayDrops("s1", set()), DayDrops(None, set()), None])
def test_a_drop_that_is_gone(left: DayDrops | None) -> None:
    records = agreeing()
    drops = {day: each for day, each in records.drops.items() if day != DAYS[1]}
    if left is not None:
        drops[DAYS[1]] = left
    ((is_error, told),) = said(replace(records, drops=drops))
    assert is_error
    assert "the drops that 2018-03-02 was made from: restore the lake from a backup (s1 of" in told


def test_what_has_changed_since_is_no_contradiction() -> None:
    records = agreeing()
    newer = {**records.drops, DAYS[1]: DayDrops("s9", {"s1"})}
    ((is_error, told),) = said(replace(records, drops=newer))
    assert (is_error, "newer drops than those that 2018-03-02 was made from" in told) == (False, True)
    state = [*records.state]
    state[1] = replace(state[1], checksum="t9")
    found = said(replace(records, state=state))
    assert [is_error for is_error, _ in found] == [False, False]
    assert "tracked episodes that 2018-03-03 was planned from have changed" in found[0][1]
    assert "of 2018-03-03 were built on another day before" in found[1][1]
    assert "`episodes backfill 2018-03-03 2018-03-05`" in found[1][1]
