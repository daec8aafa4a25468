"""Fan-outs, publications, retries, cancellations, replannings, two at once: straight at the stores, often."""

import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest

from episodes_assets.errors import DayIncomplete, NothingToCancel
from episodes_assets.ledger import plans
from episodes_assets.ledger.dispatch import FanOut, fan_out_day
from episodes_assets.ledger.held import cancel_day, retry_held_jobs
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results import state
from episodes_assets_tests.chaos.at_once import deadlocks, in_processes, in_threads
from episodes_assets_tests.chaos.conftest import Chaos
from episodes_assets_tests.chaos.fingerprint import assert_nothing_is_half_done, assert_same, fingerprint
from episodes_assets_tests.chaos.record import Promise
from episodes_assets_tests.chaos.runs import tick
from episodes_assets_tests.support.plans import NO_DIGEST
from episodes_assets_tests.support.publishing import publish, read_jobs
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.long

T = TypeVar("T")
LATEST_SECONDS = 0.01  # between the two: about as long as one of them takes


@pytest.fixture
def planned(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """A day of some chunks, planned."""
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "10")
    system.generate(day(1), day(1), episodes=60)
    system.plan(day(1))
    return system


OTHER_PLAN = uuid.UUID(int=1)


def with_queue(system: System, function: Callable[[Connection], T]) -> T:
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        return function(queue)


def live_messages(system: System) -> list[Any]:
    """How many live messages each chunk of a current plan has."""
    return system.query(
        "queue",
        "SELECT chunk, count(id), max(id) = message_id FROM ledger.chunks JOIN ledger.plans USING (plan_id)"
        " LEFT JOIN pgqueuer ON convert_from(payload, 'utf8')::jsonb"
        " = jsonb_build_object('plan_id', plan_id, 'chunk', chunk)"
        " WHERE superseded_at IS NULL GROUP BY plan_id, chunk, message_id ORDER BY chunk",
    )


def test_two_fan_outs(planned: System, chaos: Chaos) -> None:
    chunks = len(live_messages(planned))
    assert chunks > 5
    for _ in range(chaos.pick(short=15, long=300)):
        planned.query("queue", "DELETE FROM pgqueuer")
        planned.query("queue", "UPDATE ledger.plans SET fanned_out_at = NULL")
        with chaos.attack(Promise.TWO, "two fan-outs of one day"):
            one: Callable[[], FanOut] = partial(with_queue, planned, lambda queue: fan_out_day(queue, day(1)))
            sent = in_threads(chaos.random, LATEST_SECONDS, one, one)
            assert sum(each.messages for each in sent) == chunks
            assert all(row[1:] == (1, True) for row in live_messages(planned))
    for _ in range(chaos.pick(short=1, long=20)):
        planned.query("queue", "DELETE FROM pgqueuer")
        with chaos.attack(Promise.TWO, "two ticks of the fan-out sensor"):
            in_processes(chaos.random, 0.1, partial(tick, "fan_out"), partial(tick, "fan_out"))
            assert all(row[1:] == (1, True) for row in live_messages(planned))
    assert deadlocks(planned) == 0


def test_two_publications(planned: System, chaos: Chaos) -> None:
    planned.finish_jobs()
    publish(planned)
    calm = fingerprint(planned)
    for _ in range(chaos.pick(short=15, long=300)):
        if chaos.random.random() < 0.5:
            for table in ("days", "history", "results"):
                planned.query("results", f"DELETE FROM published.{table}")
        else:  # as from another plan
            for table in ("days", "history"):
                planned.query(
                    "results", f"UPDATE published.{table} SET checksum = 'other', plan_uid = %s", [OTHER_PLAN]
                )
        with chaos.attack(Promise.TWO, "two publications of one day"):
            one = partial(publish, planned)
            ends = in_threads(chaos.random, LATEST_SECONDS, one, one)
            assert sorted(changed for _, changed in ends) == [False, True]
            assert_same(fingerprint(planned), calm)
    assert deadlocks(planned) == 0


@pytest.mark.slow
def test_two_retries(planned: System, chaos: Chaos) -> None:
    for _ in range(chaos.pick(short=15, long=300)):
        planned.query("queue", "DELETE FROM pgqueuer")
        planned.query("queue", "DELETE FROM ledger.job_attempts")
        planned.hold_jobs("position % 3 = 0")
        held = planned.query("queue", "SELECT sum(held) FROM ledger.chunks")[0][0]
        with chaos.attack(Promise.TWO, "two retries of one day"):
            one: Callable[[], int] = partial(
                with_queue, planned, lambda queue: retry_held_jobs(queue, day(1))
            )
            assert sum(in_threads(chaos.random, LATEST_SECONDS, one, one)) == held
            assert planned.query("queue", "SELECT sum(held) FROM ledger.chunks") == [(0,)]
            assert all(row[1:] == (1, True) for row in live_messages(planned))
    assert deadlocks(planned) == 0


def record_some(queue: Connection, jobs: pd.DataFrame, number: int) -> plans.Plan:
    plan, _ = plans.record_plan(
        queue,
        day(1),
        jobs,
        checksum=str(number),
        snapshot_id="s",
        code_version="1",
        chunk_jobs=60,
        viewings=NO_DIGEST,
    )
    return plan


def test_two_plannings_and_two_writers_of_the_state(planned: System, chaos: Chaos) -> None:
    jobs = with_queue(planned, read_jobs)

    def plan(number: int) -> None:
        some = jobs[jobs["epid"] % 3 == number % 3].reset_index(drop=True)
        with_queue(planned, lambda queue: record_some(queue, some, number))

    def track(number: int) -> None:
        epids = np.arange(number, number + 100)
        with (
            connect(planned.dsn(Purpose.RESULTS), autocommit=True) as results,
            connect(planned.dsn(Purpose.RESULTS), autocommit=True) as lock,
            state.only_writer(lock),
        ):
            state.record_day(
                results, day(1), epids, yesterday=None, snapshot_id=str(number), code_version="1"
            )

    for number in range(chaos.pick(short=20, long=300)):
        for what, write in (("plannings of one day", plan), ("writers of the state", track)):
            with chaos.attack(Promise.TWO, f"two {what}, from different input"):
                both = partial(write, 2 * number), partial(write, 2 * number + 1)
                in_threads(chaos.random, LATEST_SECONDS, *both)
                assert_nothing_is_half_done(planned)
    assert deadlocks(planned) == 0


@pytest.mark.slow
def test_a_cancellation_beside_a_retry_a_fan_out_or_another(planned: System, chaos: Chaos) -> None:
    def cancel() -> int:
        with suppress(NothingToCancel):  # the other one was first
            return with_queue(
                planned, lambda queue: cancel_day(queue, day(1), reason="why", cancelled_by="one of two")
            )
        return 0

    others: list[Callable[[], Any]] = [
        cancel,
        partial(with_queue, planned, lambda queue: fan_out_day(queue, day(1))),
        partial(with_queue, planned, lambda queue: retry_held_jobs(queue, day(1))),
    ]
    jobs = len(planned.jobs(day(1)))
    for _ in range(chaos.pick(short=20, long=400)):
        with_queue(planned, lambda queue: retry_held_jobs(queue, day(1)))
        planned.query("queue", "DELETE FROM pgqueuer")  # so that a fan-out has something to send
        other = chaos.random.choice(others)
        with chaos.attack(Promise.TWO, "a cancellation beside a retry, a fan-out or another cancellation"):
            _, answer = in_threads(chaos.random, LATEST_SECONDS, cancel, other)
            progress = with_queue(planned, read_progress)[0]
            # All of it one after the other: each job waits or is held, with a live message or without one.
            assert sorted([progress.waiting, progress.held]) == [0, jobs], answer
            assert {count for _, count, _ in live_messages(planned)} == {int(progress.waiting > 0)}
    assert deadlocks(planned) == 0


@pytest.mark.slow
def test_a_replanning_beside_a_publication_a_fan_out_or_a_retry(planned: System, chaos: Chaos) -> None:
    jobs = with_queue(planned, read_jobs)

    def replan(number: int) -> plans.Plan:
        some = jobs[jobs["epid"] % 2 == number % 2].reset_index(drop=True)
        return with_queue(planned, lambda queue: record_some(queue, some, number))

    def publish_if_complete() -> None:
        with suppress(DayIncomplete):  # which says what to do
            publish(planned)

    others: list[Callable[[], Any]] = [
        publish_if_complete,
        partial(with_queue, planned, lambda queue: fan_out_day(queue, day(1))),
        partial(with_queue, planned, lambda queue: retry_held_jobs(queue, day(1))),
    ]
    for number in range(chaos.pick(short=20, long=400)):
        planned.finish_jobs()
        other = chaos.random.choice(others)
        with chaos.attack(Promise.TWO, "a replanning beside a publication, a fan-out or a retry"):
            plan, _ = in_threads(chaos.random, LATEST_SECONDS, partial(replan, number), other)
            assert planned.query("queue", "SELECT DISTINCT plan_id FROM ledger.jobs") == [(plan.plan_id,)]
            assert all(count <= 1 for _, count, _ in live_messages(planned))
            whole = "SELECT rows = (SELECT count(*) FROM published.results) FROM published.days"
            assert planned.query("results", whole) in ([], [(True,)])
    assert deadlocks(planned) == 0
