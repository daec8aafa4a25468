"""What is read of an episode while runs go on is as it was at some moment: nothing of it is a false alarm."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from episodes_assets.explanation.causes import Cause
from episodes_assets.results import episode
from episodes_assets_tests.support.explained import PREMIERE, START, explained, watch
from episodes_assets_tests.support.publishing import publish
from episodes_assets_tests.support.system import System, day


@pytest.mark.long
def test_what_is_written_between_two_reads_is_no_alarm(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        system.insert_drop(day(number), [(epid, 0, PREMIERE, START) for epid in (1, 2)])
        watch(system, day(number), 1)

    def cause_if(then: Callable[[], Any], *, after: str, of: dt.date, epid: int) -> Cause:
        """Why a row is there, or is not, if something happens right after one of the reads."""
        read = getattr(episode, after)

        def reading(*asked: Any) -> Any:
            found = read(*asked)
            then()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(episode, after, reading)
            return explained(system, of, epid).cause

    def plan_both() -> None:
        system.plan(day(1), day(2))

    # The plan is compared with the tracked state that it was made from, which is there before it.
    assert cause_if(plan_both, after="read_repairs", of=day(2), epid=2) is Cause.NOT_VIEWED

    system.finish_jobs()
    published = cause_if(lambda: publish(system), after="read_published_rows", of=day(1), epid=1)
    assert published is Cause.NOT_PUBLISHED_YET
    assert explained(system, day(1), 1).cause is Cause.PUBLISHED

    def plan_anew() -> None:
        system.plan(day(1), rework=True)

    assert cause_if(plan_anew, after="read_plans", of=day(1), epid=1) is Cause.PUBLISHED
    assert explained(system, day(1), 1).cause is Cause.PUBLISHED_FROM_OLDER_PLAN

    def plan_anew_and_publish() -> None:
        plan_anew()
        system.finish_jobs()
        publish(system)

    replaced = cause_if(plan_anew_and_publish, after="read_repairs", of=day(1), epid=1)
    assert replaced is Cause.PUBLISHED_FROM_OLDER_PLAN
    assert explained(system, day(1), 1).cause is Cause.PUBLISHED
