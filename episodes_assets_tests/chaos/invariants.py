"""What holds after every step, whatever the order: the databases say what the model says."""

import datetime as dt
from typing import Any

import psycopg

from episodes_assets_tests.chaos.model import Job, Model
from episodes_assets_tests.chaos.real import Real


def check(real: Real, model: Model) -> None:
    """State, jobs, counters, messages, backlog and published rows."""
    _check_state(real, model)
    _check_jobs(real, model)
    _check_counters(real)
    _check_published(real, model)


def _check_state(real: Real, model: Model) -> None:
    assert (
        dict(_rows(real.results, "SELECT epid, tracked_on FROM state.tracked_episodes")) == model.tracked_on
    )
    found = {
        of: tuple(rest)
        for of, *rest in _rows(real.results, "SELECT day, newly_tracked, total FROM state.tracked_days")
    }
    assert found == {of: (len(each.new), each.total) for of, each in model.tracked_days.items()}


def _check_jobs(real: Real, model: Model) -> None:
    found: dict[dt.date, dict[Job, str]] = {of: {} for of in model.plans}
    for of, *job, state in _rows(
        real.queue,
        "SELECT day, epid, algorithm_id, window_start,"
        " CASE state WHEN 'waiting' THEN 'open' WHEN 'running' THEN 'open' ELSE state END"
        " FROM ledger.job_states JOIN ledger.plans USING (plan_id)",
    ):
        found[of][tuple(job)] = state
    assert found == {of: plan.states for of, plan in model.plans.items()}
    assert _rows(real.queue, "SELECT jobs FROM ledger.backlog") == [(model.backlog,)]
    left = _rows(
        real.queue,
        "SELECT count(*) FROM ledger.jobs JOIN ledger.plans USING (plan_id) WHERE superseded_at IS NOT NULL",
    )
    assert left == [(0,)], "jobs of a superseded plan are left"


def _check_counters(real: Real) -> None:
    wrong = _rows(
        real.queue,
        "SELECT plan_id, chunk FROM ledger.chunks WHERE (succeeded, held) <> ("
        " SELECT count(*) FILTER (WHERE state = 'succeeded'),"
        " count(*) FILTER (WHERE state IN ('held', 'waived'))"
        " FROM ledger.job_states AS job"
        " WHERE job.plan_id = chunks.plan_id AND job.chunk = chunks.chunk)",
    )
    assert wrong == []
    twice = _rows(
        real.queue,
        "SELECT payload FROM pgqueuer WHERE status = 'queued' GROUP BY payload HAVING count(*) > 1",
    )
    assert twice == [], "a chunk has two messages"


def _check_published(real: Real, model: Model) -> None:
    found: dict[dt.date, set[Job]] = {
        of: set() for (of,) in _rows(real.results, "SELECT day FROM published.days")
    }
    for of, *job, views in _rows(
        real.results,
        "SELECT day, epid, algorithm_id, window_start, metrics ->> 'views' FROM published.results",
    ):
        assert views == str(job[0])
        found[of].add(tuple(job))
    assert found == {of: set(jobs) for of, (_, jobs) in model.published.items()}


def chunks_without_message(real: Real, of: dt.date) -> list[Any]:
    """Chunks of a day with open jobs that no live message names."""
    return _rows(
        real.queue,
        "SELECT chunk FROM ledger.chunks JOIN ledger.plans USING (plan_id)"
        " WHERE day = %s AND superseded_at IS NULL AND succeeded + held < chunks.jobs AND NOT EXISTS ("
        " SELECT FROM pgqueuer WHERE status = 'queued' AND convert_from(payload, 'utf8')::jsonb"
        " = jsonb_build_object('plan_id', plan_id, 'chunk', chunk))",
        of,
    )


def _rows(connection: psycopg.Connection, statement: str, *parameters: object) -> list[Any]:
    return connection.execute(statement, parameters or None).fetchall()
