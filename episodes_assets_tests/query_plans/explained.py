"""Connections that explain what they execute: with `EXPLAIN (ANALYZE, BUFFERS)` first, then for real."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pytest
from pgqueuer.adapters.drivers.psycopg import PsycopgDriver
from psycopg import sql
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

_EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
_EXPLAINED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True)
class Executed:
    """A statement that was executed.

    Attributes:
        text: With `$1` and so on for its parameters.
        parameters: As they were given.
        types: Of the parameters.
        plan: What `EXPLAIN` says of it.
        triggers: What fired, such as the checks of foreign keys, with its table and how often.
    """

    text: str
    parameters: Sequence[Any]
    types: Sequence[str]
    plan: Mapping[str, Any]
    triggers: Sequence[tuple[str, str, int]] = ()

    @property
    def rows(self) -> float:
        """Rows that its nodes returned or looked at in vain."""
        return _rows(self.plan)

    @property
    def pages(self) -> int:
        """Pages that it touched, temporary ones included."""
        # What writes and is not read runs after the rest, which does not count its pages.
        read = {node.get("CTE Name") for node in _nodes(self.plan)}
        unread = [
            node
            for node in _nodes(self.plan)
            if node["Node Type"] == "ModifyTable"
            and node.get("Subplan Name", "").startswith("CTE ")
            and node["Subplan Name"].removeprefix("CTE ") not in read
        ]
        return sum(map(_pages, [self.plan, *unread]))

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return any(node["Node Type"] == "ModifyTable" for node in _nodes(self.plan))


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _pages(node: Mapping[str, Any]) -> int:
    names = ("Shared Hit", "Shared Read", "Temp Read", "Temp Written")
    return sum(int(node.get(f"{name} Blocks", 0)) for name in names)


def _rows(node: Mapping[str, Any]) -> float:
    if node["Node Type"] == "Bitmap Index Scan":
        return 0  # it counts what is dead as well, and the scan above it counts the rest
    looked_at = node.get("Actual Rows", 0) + sum(
        count for name, count in node.items() if name.startswith("Rows Removed by")
    )
    return float(looked_at * node.get("Actual Loops", 1)) + sum(map(_rows, node.get("Plans", ())))


@dataclass
class Log:
    """All statements executed so far."""

    executed: list[Executed] = field(default_factory=list)

    def add(self, statement: tuple[str, Sequence[Any], Sequence[str]], plan: Any) -> None:
        triggers = [
            (each.get("Constraint Name") or each["Trigger Name"], each["Relation"], each["Calls"])
            for each in plan[0].get("Triggers", ())
        ]
        self.executed.append(Executed(*statement, plan[0]["Plan"], triggers))

    def take(self) -> list[Executed]:
        """What was executed since the last time."""
        taken, self.executed = self.executed, []
        return taken


def explain_sync(connection: psycopg.Connection[Any], log: Log) -> None:
    """Let a connection explain what it executes."""

    class ExplainingCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            self._explain(query, params)
            return super().execute(query, params, **options)

        def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
            text = statement if isinstance(statement, str) else statement.as_string(None)
            if inner := _copied_query(text):
                self._explain(inner, params)
            return super().copy(statement, params, **options)

        def _explain(self, query: Any, params: Any) -> None:
            statement = _as_postgres(query, params, self.connection)
            if not statement[0].startswith(_EXPLAINED):
                return
            with self.connection.transaction(force_rollback=True):
                cursor = psycopg.Cursor(self.connection)
                cursor.execute("SET LOCAL statement_timeout = '30s'")
                cursor.execute(sql.SQL(_EXPLAIN) + _composed(query), params)
                found = cursor.fetchone()
            log.add(statement, found[0] if found else None)

    connection.cursor_factory = ExplainingCursor


def explain_async(connection: psycopg.AsyncConnection[Any], log: Log) -> None:
    """The same for an asynchronous one."""

    class ExplainingCursor(psycopg.AsyncCursor[Any]):
        async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            statement = _as_postgres(query, params, self.connection)
            if statement[0].startswith(_EXPLAINED):
                async with self.connection.transaction(force_rollback=True):
                    cursor = psycopg.AsyncCursor(self.connection)
                    await cursor.execute(sql.SQL(_EXPLAIN) + _composed(query), params)
                    found = await cursor.fetchone()
                log.add(statement, found[0] if found else None)
            return await super().execute(query, params, **options)

    connection.cursor_factory = ExplainingCursor


class ExplainingDriver(PsycopgDriver):
    """PgQueuer's way to a database, which explains what it fetches and executes."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], log: Log) -> None:
        super().__init__(connection)
        self._log = log

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        await self._explain(query, args)
        return await super().fetch(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        await self._explain(query, args)
        return await super().execute(query, *args)

    async def _explain(self, query: str, args: Sequence[Any]) -> None:
        async with self._connection.transaction(force_rollback=True):
            cursor = psycopg.AsyncRawCursor(self._connection)
            await cursor.execute(sql.SQL(_EXPLAIN) + _composed(query), args or None)
            found = await cursor.fetchone()
        self._log.add((query.strip(), args, ()), found[0] if found else None)


@contextmanager
def explain_arrow(log: Log, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let what is read as Arrow be explained on the connection that reads it."""
    execute = adbc.Cursor.execute

    def explained(cursor: Any, operation: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(operation, str) and operation.strip().startswith(_EXPLAINED) and "FROM" in operation:
            with cursor.connection.cursor() as other:
                other.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
                execute(other, _EXPLAIN + operation)
                rows = other.fetchall()
            log.add((operation.strip(), (), ()), json.loads("".join(text for (text,) in rows)))
        return execute(cursor, operation, *rest, **options)

    with patch.context() as patched:
        patched.setattr(adbc.Cursor, "execute", explained)
        yield


def _composed(query: Any) -> sql.Composable:
    return query if isinstance(query, sql.Composable) else sql.SQL(query)


def _as_postgres(query: Any, params: Any, connection: Any) -> tuple[str, Sequence[Any], Sequence[str]]:
    """A statement as the server gets it, its parameters in the order of their numbers, and their types."""
    converted = PostgresQuery(Transformer(connection))
    converted.convert(query, params)
    text = converted.query.decode().strip()
    if isinstance(params, Mapping):
        params = [params[name] for name in converted._order or ()]
    return text, params or (), list(map(_type_name, converted.types))


def _type_name(oid: int) -> str:
    known = psycopg.adapters.types.get(oid)
    if known is None:
        return "unknown"
    return f"{known.regtype}[]" if known.array_oid == oid else known.regtype


def _copied_query(statement: str) -> str | None:
    head, _, rest = statement.strip().partition("(")
    if head.strip() != "COPY" or "TO STDOUT" not in rest:
        return None
    return rest.rpartition(")")[0].strip()


@dataclass
class Prepared:
    """Statements that one session has prepared and keeps."""

    connection: psycopg.Connection[Any]
    names: dict[str, str] = field(default_factory=dict)

    def execute(self, statement: Executed) -> Executed:
        """Execute a statement again by what was prepared of it, or is now."""
        if statement.text not in self.names:
            self.names[statement.text] = f"kept_{len(self.names)}"
            types = f"({', '.join(statement.types)})" if statement.types else ""
            text: Any = f"PREPARE {self.names[statement.text]} {types} AS {statement.text}"
            self.connection.execute(text)
        name = self.names[statement.text]
        call = sql.SQL(_EXPLAIN + "EXECUTE {}").format(sql.Identifier(name))
        if statement.parameters:
            call += sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, statement.parameters)))
        row = self.connection.execute(call).fetchone()
        assert row is not None
        return replace(statement, plan=row[0][0]["Plan"])
