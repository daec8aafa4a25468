"""What a statement visits is bounded by what it asks for, whatever the statistics say.

The statistics never know the newest day: the planner then expects one row of it, and takes a plan that is
right for one row and looks at every pair of 50,000.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from episodes_assets.accounts.pool import AccountsPool
from episodes_assets.postgres.connect import connect, connect_to_input, connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.worker.main import Sessions
from episodes_assets_tests.query_plans.cases import Case, opened
from episodes_assets_tests.query_plans.explained import Executed, Log, Prepared, explain_sync
from episodes_assets_tests.query_plans.growing_tables import (
    CHUNK_JOBS,
    TABLES,
    THE_PLAN,
    GrowingTables,
    role_of,
    statistics,
)
from episodes_assets_tests.query_plans.statements import cases
from episodes_assets_tests.query_plans.written_statements import written_statements
from episodes_assets_tests.support.system import System

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


@pytest.mark.slow
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
                return [sessions[role_of(each.text)].execute(each) for each in statements]

        for _, statements in asked:
            for _ in range(6):  # PostgreSQL looks at five plans before it keeps one
                with suppress(psycopg.IntegrityError):  # rows that others refer to are not there
                    ask_again(statements)
        tables.fill_other_day()
        tables.fill_the_day()
        for case, statements in asked:
            found += [problem for each in ask_again(statements) if (problem := unbounded(case, each))]
    assert not found, "\n".join(found)


@pytest.mark.long
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
def sessions_of(system: System) -> Iterator[dict[Purpose, Prepared]]:
    """A session for each role, as our processes open it."""
    with ExitStack() as stack:
        yield {
            role: Prepared(stack.enter_context(connect(system.dsn(role), autocommit=True)))
            for role in (Purpose.QUEUE, Purpose.RESULTS, Purpose.DASHBOARD, Purpose.DAGSTER)
        }


@pytest.mark.slow
def test_visits_are_bounded_by_what_is_asked_for(
    tables: GrowingTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.empty()
    tables.fill_other_day()
    tables.analyze()
    tables.fill_the_day()
    log = Log()
    found = []
    with opened(tables, log, monkeypatch) as ask:
        for state, happens in statistics(tables).items():
            happens()
            for case in cases(tables.jobs):
                for executed in ask(case):
                    if problem := unbounded(case, executed):
                        found.append(f"{state}: {problem}")
    assert not found, "\n".join(found)


@pytest.mark.long
def test_every_statement_on_a_growing_table_is_tried(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = GrowingTables(system, 3 * CHUNK_JOBS)
    tables.fill_other_day()
    tables.fill_the_day()
    with opened(tables, Log(), monkeypatch) as ask:
        executed = {" ".join(each.text.split()) for case in cases(tables.jobs) for each in ask(case)}
    growing = [re.escape(name.removeprefix("public.")) for names in TABLES.values() for name in names]
    missing = [
        f"{statement.place}: {statement.text[:200]}"
        for statement in written_statements()
        if re.search(rf"\b({'|'.join(growing)})\b", statement.text)
        and not statement.loads
        and not any(statement.is_in(each) for each in executed)
    ]
    assert not missing, "\n".join(missing)


def test_no_statement_has_a_table_that_is_named_elsewhere() -> None:
    """Nobody would see that it is not tried. Locks are, in each of their tables; the input is others'."""
    named_elsewhere = re.compile(r"\b(FROM|JOIN|INTO|UPDATE)\s+(%s|\{\w*\})")
    found = {
        each.place.partition(":")[0] for each in written_statements() if named_elsewhere.search(each.text)
    }
    assert found == {"postgres/locks.py", "input/loading.py"}


def test_each_process_has_the_planners_settings_in_our_databases_alone(system: System) -> None:
    settings = ("enable_nestloop", "enable_seqscan", "plan_cache_mode", "jit")
    show: Any = "SELECT " + ", ".join(f"current_setting('{name}')" for name in settings)
    ours = ("off", "off", "force_custom_plan", "off")

    async def of_a_worker() -> tuple[object, object]:
        # Only its connections are asked for, which need none of the rest.
        rest: Any = None
        session = Sessions(system.dsn(Purpose.WORKER), rest, rest, rest, "development", 10)
        async with session._connections() as (messages, ledger):
            kept = await messages.fetchval("SHOW plan_cache_mode")
            return await (await ledger.execute(show)).fetchone(), kept

    assert asyncio.run(of_a_worker()) == (ours, "force_custom_plan")
    pool = AccountsPool(system.dsn(Purpose.DASHBOARD), "development")
    with pool, pool.connection() as accounts:
        assert accounts.execute(show).fetchone() == ours
    with connect_to_read(system.dsn(Purpose.CONSUMER), Database.RESULTS) as results:
        assert results.execute(show).fetchone() == ours
    dsn = make_conninfo(system.dsn(Purpose.INPUT), options="-c enable_seqscan=off")
    with connect_to_input(dsn) as others:
        assert others.execute(show).fetchone() == ("on", "off", "auto", "on")


def test_settings_from_outside_are_kept_where_we_have_none(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=7MB -c jit=on")
    show = "SELECT current_setting('work_mem'), current_setting('jit')"
    dsn = system.dsn(Purpose.QUEUE)
    with connect(dsn) as connection:
        assert connection.execute(show).fetchone() == ("7MB", "off")
    with connect(make_conninfo(dsn, options="-c work_mem=8MB")) as connection:
        assert connection.execute(show).fetchone() == ("8MB", "off")
