"""What a statement visits is bounded by what it asks for, whatever the statistics say.

The statistics never know the newest day: the planner then expects one row of it, and takes a plan that is
right for one row and looks at every pair of 50,000.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest

from episodes_assets.databases.connections import connect
from episodes_assets.databases.dsns import Purpose
from episodes_assets_tests.query_plans.explained import Executed, Log, Prepared, explain_sync
from episodes_assets_tests.query_plans.growing_tables import (
    CHUNK_JOBS,
    THE_PLAN,
    GrowingTables,
    database_of,
    statistics,
)
from episodes_assets_tests.query_plans.statements import Case, cases, opened
from episodes_assets_tests.system import System

# A row is returned by several nodes of a plan; and a few are looked at for anything.
ROWS, ANY_ROWS = 15, 250
# Looked up by itself, a row costs the pages of an index; written, those of each index of its table.
LOOKED_UP, WRITTEN, LYING_TOGETHER, ANY_PAGES = 5, 30, 0.1, 200


@pytest.fixture(
    params=[
        50_000,
        pytest.param(500_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
    ids=["50,000 rows", "500,000 rows"],
)
def tables(request: pytest.FixtureRequest, system: System) -> GrowingTables:
    made = GrowingTables(system, request.param)
    made.leave_alone()
    return made


def unbounded(case: Case, executed: Executed) -> str | None:
    """What a statement visits too much; None when it does not."""
    by_itself = LYING_TOGETHER if case.lie_together else LOOKED_UP
    pages = (WRITTEN if executed.writes else by_itself) * case.asked + ANY_PAGES
    each_row = [name for name, _, calls in executed.triggers if calls > case.asked / 10 + 50]
    if executed.rows <= ROWS * case.asked + ANY_ROWS and executed.pages <= pages and not each_row:
        return None
    return (
        f"{case.name}, which asks for {case.asked:,}: {executed.rows:,.0f} rows and {executed.pages:,} pages"
        f" are visited, {each_row or 'nothing'} is called for each row, by"
        f" {' '.join(executed.text.split())[:300]}"
    )


def test_no_plan_is_kept_from_an_empty_table(tables: GrowingTables, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.fill_other_day()
    tables.fill_the_day()
    asked: list[tuple[Case, list[Executed]]] = []
    with opened(tables, Log(), monkeypatch) as ask:
        asked += [(case, ask(case)) for case in cases(tables.jobs)]
    tables.empty()
    tables.analyze()
    found = []
    with sessions_of(tables.system) as sessions:

        def ask_again(statements: list[Executed]) -> list[Executed]:
            with ExitStack() as stack:
                for session in sessions.values():
                    stack.enter_context(session.connection.transaction(force_rollback=True))
                return [sessions[database_of(each.text)].execute(each) for each in statements]

        for _, statements in asked:
            for _ in range(6):  # PostgreSQL looks at five plans before it keeps one
                with suppress(psycopg.IntegrityError):  # rows that others refer to are not there
                    ask_again(statements)
        tables.fill_other_day()
        tables.fill_the_day()
        for case, statements in asked:
            found += [problem for each in ask_again(statements) if (problem := unbounded(case, each))]
    assert not found, "\n".join(found)


def test_what_the_planner_would_do_by_itself_is_noticed(tables: GrowingTables) -> None:
    tables.fill_other_day()
    tables.analyze()
    tables.fill_the_day()
    log = Log()
    case = next(case for case in cases(tables.jobs) if case.name == "a chunk claimed")
    with psycopg.connect(tables.system.admin["queue"], autocommit=True) as connection:
        explain_sync(connection, log)
        connection.execute(
            "SELECT position FROM ledger.jobs WHERE plan_id = %s AND position < %s AND NOT EXISTS ("
            " SELECT FROM ledger.outcomes"
            " WHERE outcomes.plan_id = jobs.plan_id AND outcomes.position = jobs.position)",
            [THE_PLAN, CHUNK_JOBS],
        )
    (executed,) = log.take()
    assert unbounded(case, executed)


@contextmanager
def sessions_of(system: System) -> Iterator[dict[str, Prepared]]:
    """A session in each database, as our processes open it."""
    roles = {"queue": Purpose.QUEUE, "results": Purpose.RESULTS, "dagster": Purpose.DASHBOARD}
    with ExitStack() as stack:
        yield {
            database: Prepared(stack.enter_context(connect(system.dsn(role), autocommit=True)))
            for database, role in roles.items()
        }


def test_visits_are_bounded_by_what_is_asked_for(
    tables: GrowingTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.empty()
    tables.fill_other_day()
    tables.analyze()
    tables.fill_the_day()
    log = Log()
    found = []
    seen: list[tuple[Case, Executed]] = []
    with opened(tables, log, monkeypatch) as ask:
        for state, happens in statistics(tables).items():
            happens()
            for case in cases(tables.jobs):
                for executed in ask(case):
                    seen.append((case, executed))
                    if problem := unbounded(case, executed):
                        found.append(f"{state}: {problem}")
    import json

    json.dump(
        [(c.name, c.asked, e.rows, e.pages, e.writes, list(e.triggers), e.text) for c, e in seen],
        open("/tmp/q/seen.json", "w"),
    )
    assert len({executed.text for _, executed in seen}) > len(cases(tables.jobs))
    assert not found, "\n".join(found)
