"""A case: what is asked of growing tables, on connections as each kind of process has them, explained."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from episodes_assets.postgres.connect import Connection, connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.session import SessionKind, pin_async
from episodes_assets_tests.query_plans.explained import (
    Executed,
    ExplainingDriver,
    Log,
    explain_arrow,
    explain_async,
    explain_sync,
)
from episodes_assets_tests.query_plans.growing_tables import (
    GrowingTables,
)


@dataclass(frozen=True)
class Open:
    """Connections as each kind of process has them; a worker has two."""

    queue: Connection
    results: Connection
    accounts: Connection
    dagster: Connection
    worker: psycopg.AsyncConnection[Any]
    messages: ExplainingDriver
    queue_dsn: str
    results_dsn: str
    tables: GrowingTables

    @property
    def jobs(self) -> int:
        """Of a day."""
        return self.tables.jobs


@dataclass(frozen=True)
class Case:
    """Something that is asked.

    Attributes:
        name: What.
        database: Whose tables.
        asked: Rows that it asks for, or has to write.
        ask: Does so.
        is_undone: Whether a transaction around it is rolled back; some need to begin their own.
        lie_together: Whether the rows that it reads lie side by side, many on a page.
    """

    name: str
    database: str
    asked: int
    ask: Callable[[Open], Any] | Callable[[Open], Awaitable[Any]]
    is_undone: bool = True
    lie_together: bool = False


@contextmanager
def opened(
    tables: GrowingTables, log: Log, patch: pytest.MonkeyPatch
) -> Iterator[Callable[[Case], list[Executed]]]:
    """Ask as the product's processes do, on connections that explain what they execute."""
    dsn = tables.system.dsn
    with ExitStack() as stack:
        queue, results, accounts, dagster = (
            stack.enter_context(connect(dsn(purpose), autocommit=True))
            for purpose in (Purpose.QUEUE, Purpose.RESULTS, Purpose.DASHBOARD, Purpose.DAGSTER)
        )
        connections = (queue, results, accounts, dagster)
        for connection in connections:
            explain_sync(connection, log)
        stack.enter_context(explain_arrow(log, patch))
        runner = stack.enter_context(asyncio.Runner())

        async def open_worker(kind: SessionKind) -> psycopg.AsyncConnection[Any]:
            opened = await psycopg.AsyncConnection.connect(dsn(Purpose.WORKER), autocommit=True)
            await pin_async(opened, kind)
            return opened

        worker, other = (runner.run(open_worker(kind)) for kind in (SessionKind.OURS, SessionKind.PGQUEUER))
        for of_worker in (worker, other):
            stack.callback(runner.run, of_worker.close())
        explain_async(worker, log)
        messages = ExplainingDriver(other, log)
        dsns = dsn(Purpose.QUEUE), dsn(Purpose.RESULTS)
        to = Open(*connections, worker, messages, *dsns, tables)

        async def undone(asked: Awaitable[Any]) -> None:
            async with worker.transaction(force_rollback=True):
                await asked

        def ask(case: Case) -> list[Executed]:
            with ExitStack() as transactions:
                if case.is_undone:
                    for connection in connections:
                        transactions.enter_context(connection.transaction(force_rollback=True))
                asked = case.ask(to)
                if isinstance(asked, Awaitable):
                    runner.run(undone(asked))
            return log.take()

        yield ask
