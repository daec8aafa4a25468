"""Two people run the same days: what one corrects the other does not undo, and the loser is told who won."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from episodes_assets.defs.assets import episode_jobs
from episodes_assets.ledger import plans
from episodes_assets.ledger import verify as ledger_verify
from episodes_assets.planning.jobs import plan_day
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import state
from episodes_assets.results import verify as results_verify
from episodes_assets_tests.support.days import PLANNING
from episodes_assets_tests.support.plans import NO_DIGEST, jobs_of
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.slow


@pytest.fixture
def planned(system: System) -> System:
    """Three days, planned."""
    for number in (1, 2, 3):
        system.insert_drop(day(number), [(epid, 0, "2018-02-01", "2018-02-20") for epid in range(1, 6)])
    system.plan(day(1), day(3))
    return system


def correct_the_drop(system: System) -> None:
    """As another process would, between two days of a run."""
    system.insert_drop(day(2), [(9, 0, "2018-02-01", "2018-02-20")])
    corrected = system.materialize(
        day(2), select=PLANNING, config={"refresh": True, "reason": "a row was missing"}
    )
    assert corrected.success, failure(corrected)


def track_another_episode(system: System) -> None:
    with connect(system.dsn(Purpose.RESULTS), autocommit=True) as results:
        epids = np.array([*range(1, 6), 77], dtype=np.int64)
        state.record_day(results, day(1), epids, yesterday=None, snapshot_id="s", code_version="1")


def while_planning(
    monkeypatch: pytest.MonkeyPatch, system: System, of: int, meddle: Callable[[System], None]
) -> None:
    """Let `meddle` happen once, when a day has been read and is not recorded yet."""
    done = False

    def plan(*args: Any) -> Any:
        nonlocal done
        if args[-1] == day(of) and not done:
            done = True
            with ThreadPoolExecutor(1) as pool:
                pool.submit(meddle, system).result()
        return plan_day(*args)

    monkeypatch.setattr(episode_jobs, "plan_day", plan)


def test_a_plan_from_before_a_correction_does_not_replace_the_corrected_one(
    planned: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_planning(monkeypatch, planned, 1, correct_the_drop)
    slow = planned.materialize(day(1), day(3), select=["episode_jobs"])
    assert "2018-03-02 has changed while it was planned" in failure(slow)
    assert [epid for epid, *_ in planned.jobs(day(2))] == [9]


def test_nor_one_from_before_yesterdays_episodes_changed(
    planned: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned.query("queue", "SELECT * FROM ledger.plans ORDER BY plan_id")
    while_planning(monkeypatch, planned, 2, track_another_episode)
    slow = planned.materialize(day(1), day(2), select=["episode_jobs"])
    assert "2018-03-02 has changed while it was planned" in failure(slow)
    assert planned.query("queue", "SELECT * FROM ledger.plans ORDER BY plan_id") == before


@pytest.mark.parametrize(
    ("asset", "module", "reading"),
    [
        ("episode_jobs", ledger_verify, "read_ledger_days"),
        ("job_outcomes", ledger_verify, "count_outcomes"),
        ("published_results", results_verify, "read_publication"),
    ],
)
def test_who_loses_is_told_that_another_run_goes_on(
    planned: System, monkeypatch: pytest.MonkeyPatch, asset: str, module: ModuleType, reading: str
) -> None:
    """Not that something else writes, with a statement that would spoil the other run's plan."""
    planned.finish_jobs()
    read = getattr(module, reading)

    def read_once_it_is_replaced(*args: Any) -> Any:
        with connect(planned.dsn(Purpose.QUEUE), autocommit=True) as queue:
            plans.record_plan(
                queue,
                day(1),
                jobs_of(1),
                checksum="c",
                snapshot_id="s",
                code_version="1",
                chunk_jobs=1,
                viewings=NO_DIGEST,
            )
        return read(*args)

    monkeypatch.setattr(module, reading, read_once_it_is_replaced)
    said = failure(planned.materialize(day(1), day(2), select=[asset]))
    assert said.startswith("the plan of 2018-03-01 was replaced by another run")
    assert "UPDATE" not in said
