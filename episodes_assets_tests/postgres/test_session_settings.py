"""Nothing that a server, a database, a role or a shell sets changes what our sessions read and write."""

import ast
import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from adbc_driver_manager import AdbcStatusCode, OperationalError
from adbc_driver_postgresql import dbapi as adbc
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text

import episodes_assets
from episodes_assets.accounts.pool import AccountsPool
from episodes_assets.defs.storage import to_sqlalchemy_url
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.ledger.messages import read_message_figures
from episodes_assets.ledger.workers import Activity, WorkerName
from episodes_assets.postgres import arrow
from episodes_assets.postgres.arrow import connect_arrow, read_arrow
from episodes_assets.postgres.connect import connect, connect_to_input, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.worker.main import Presence, Sessions
from episodes_assets_tests.support.fleet_page import client, get
from episodes_assets_tests.support.system import System, day, failure

pytestmark = pytest.mark.process

# The setting, what it is set to from outside, and what a session of ours has to have.
SETTINGS = [
    ("DateStyle", "German, DMY", "ISO, MDY"),
    ("IntervalStyle", "sql_standard", "postgres"),
    ("TimeZone", "America/New_York", "UTC"),
    ("extra_float_digits", "-15", "1"),
    ("bytea_output", "escape", "hex"),
    ("standard_conforming_strings", "off", "on"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("array_nulls", "off", "on"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_deferrable", "on", "off"),
    ("quote_all_identifiers", "on", "off"),
    ("client_min_messages", "debug1", "error"),
    ("exit_on_error", "on", "off"),
]
ENVIRONMENT = {
    "PGTZ": "Asia/Kathmandu",
    "PGDATESTYLE": "SQL, DMY",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c IntervalStyle=iso_8601 -c enable_nestloop=on",
}
SHOW: Any = "SELECT " + ", ".join(f"current_setting('{name}')" for name, _, _ in SETTINGS)
WANTED = [wanted for _, _, wanted in SETTINGS]
QUOTING = next(n for n, setting in enumerate(SETTINGS) if setting[0] == "standard_conforming_strings")


@contextmanager
def hostile(system: System) -> Iterator[None]:
    """Settings that nobody would expect, of all four databases and of the environment."""
    databases = {database: str(conninfo_to_dict(dsn)["dbname"]) for database, dsn in system.admin.items()}
    with (
        psycopg.connect(system.admin["queue"], autocommit=True) as admin,
        pytest.MonkeyPatch.context() as patch,
    ):
        for database, name in databases.items():
            named = sql.Identifier(name)
            for setting, value, _ in SETTINGS:
                change = sql.SQL("ALTER DATABASE {} SET {} = {}")
                admin.execute(change.format(named, sql.Identifier(setting), sql.SQL(f"{value!r}")))
            if database != "input":  # there it says which tables are meant
                admin.execute(sql.SQL("ALTER DATABASE {} SET search_path = nowhere").format(named))
                role = sql.Identifier(Purpose.DAGSTER.embedded_role)
                admin.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, named))
        for variable, value in ENVIRONMENT.items():
            patch.setenv(variable, value)
        try:
            yield
        finally:
            for name in databases.values():
                admin.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(name)))


@pytest.mark.slow
def test_days_are_worked_and_shown_right(system: System) -> None:
    system.insert_drop(day(1), [(7, 0, "2018-03-01", "2018-03-01"), (7, 2, None, "2018-03-01")])
    system.insert_drop(day(2), [(7, 0, "2018-03-01", "2018-03-01"), (8, 0, "2018-03-01", "2018-03-01")])
    title = "Σ \\ 'quoted' 🎬"
    system.query("input", "UPDATE episodes SET title = %s", [title])
    system.insert_viewings(
        [
            (7, 1, "2018-03-01T00:00:00Z", 10, True),
            (7, 2, "2018-03-01T23:59:59.999999Z", 20, False),
            (7, 1, "2018-03-02T00:00:00Z", 40, False),
            (7, 1, "2018-03-02T23:59:59.999999Z", 80, False),
            (7, 1, "2018-03-03T00:00:00Z", 160, False),
        ]
    )
    exported = system.home / "exported.csv"
    with hostile(system):
        with system.workers():
            result = system.materialize(day(1), day(2))
        assert result.success, failure(result)
        for arguments, shown in [
            (("jobs", "status"), "2018-03-02"),
            (("jobs", "status", "2018-03-02"), "2018-03-02"),
            (("history", "2018-03-02"), "reach 1"),
            (("results", "2018-03-02"), "2018-03-01"),
            (("results", "2018-03-02", "--csv", str(exported)), ""),
            (("db", "status"), "2 published days"),
            (("users", "list"), ""),
            (("audit",), ""),
        ]:
            done = system.cli(*arguments)
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
            assert shown in done.stdout, (arguments, done.stdout)
            assert "DEBUG" not in done.stderr, (arguments, done.stderr)
        assert "2018-03-02" in get(client(system), "/fleet").text
        asyncio.run(read_message_figures(system.dsn(Purpose.QUEUE)))
    (second,) = [line for line in exported.read_text().splitlines() if line.startswith("2018-03-02,7,0,")]
    # Viewings of both days, and not the one at the very end: 10 + 20 + 40 + 80 seconds of two viewers.
    assert second.startswith("2018-03-02,7,0,2018-03-01,2018-03-02,2018-03-01,4,2,150,1,"), second
    (first,) = system.query(
        "results", "SELECT metrics FROM published.results WHERE day = '2018-03-01' AND algorithm_id = 0"
    )
    assert first[0] == {"views": 2, "viewers": 2, "seconds_watched": 30, "completed_views": 1}
    drop = next(iter(system.drops.read_drop(system.drops.require(day(2)), ["epid", "title"])))
    assert drop["title"].tolist() == [title, title]


Show = Callable[[System], Any]


def of_commands(system: System) -> Any:
    with connect(system.dsn(Purpose.QUEUE)) as connection:
        return connection.execute(SHOW).fetchone()


def of_writers(system: System) -> Any:
    with connect_to_write(system.dsn(Purpose.RESULTS), Database.RESULTS, "development") as connection:
        return connection.execute(SHOW).fetchone()


def of_readers(system: System) -> Any:
    with connect_to_read(system.dsn(Purpose.CONSUMER), Database.RESULTS) as connection:
        return connection.execute(SHOW).fetchone()


def of_the_inputs_readers(system: System) -> Any:
    with connect_to_input(system.dsn(Purpose.INPUT)) as connection:
        return connection.execute(SHOW).fetchone()


def of_the_dashboard(system: System) -> Any:
    with AccountsPool(system.dsn(Purpose.DASHBOARD), "development") as pool, pool.connection() as connection:
        return connection.execute(SHOW).fetchone()


def of_readers_of_columns(system: System) -> Any:
    return [column[0].as_py() for column in read_arrow(system.dsn(Purpose.INPUT), SHOW, is_ours=False)]


def of_readers_of_our_columns(system: System) -> Any:
    return [column[0].as_py() for column in read_arrow(system.dsn(Purpose.QUEUE), SHOW)]


def of_writers_of_columns(system: System) -> Any:
    with connect_arrow(system.dsn(Purpose.INPUT_WRITER)) as connection, connection.cursor() as cursor:
        cursor.execute(SHOW)
        return cursor.fetchone()


def of_dagsters_storage(system: System) -> Any:
    quoted = "a \\ 'quoted' \n 🎬"
    engine = create_engine(to_sqlalchemy_url(system.dsn(Purpose.DAGSTER)))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT :quoted"), {"quoted": quoted}).scalar() == quoted
        found = list(connection.execute(text(SHOW)).fetchone() or ())
    # The driver looks at it while it connects, and quotes accordingly.
    assert found[QUOTING] == "off"
    return [*found[:QUOTING], "on", *found[QUOTING + 1 :]]


def of_a_workers_session(system: System) -> Any:
    async def ask() -> tuple[Any, Any]:
        rest: Any = None
        session = Sessions(system.dsn(Purpose.WORKER), rest, rest, rest, "development", 10)
        async with session._connections() as (messages, ledger):
            return await messages.fetchrow(SHOW), await (await ledger.execute(SHOW)).fetchone()

    messages, ledger = asyncio.run(ask())
    assert list(messages) == list(ledger)
    return ledger


@pytest.mark.parametrize(
    "ask",
    [
        of_commands,
        of_writers,
        of_readers,
        of_the_inputs_readers,
        of_the_dashboard,
        of_readers_of_columns,
        of_readers_of_our_columns,
        of_writers_of_columns,
        of_dagsters_storage,
        of_a_workers_session,
    ],
)
def test_sessions_pin_what_results_depend_on(system: System, ask: Show) -> None:
    with hostile(system):
        assert list(ask(system)) == WANTED


def test_columns_are_read_and_written_though_identifiers_are_quoted_for_a_shell(
    system: System, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(
        "PGOPTIONS", "-c work_mem=7MB -c quote_all_identifiers=on -c client_min_messages=debug5"
    )
    shown = read_arrow(
        system.dsn(Purpose.INPUT), "SELECT current_setting('work_mem') AS a, true AS b", is_ours=False
    )
    assert shown.schema.types == [pa.string(), pa.bool_()]
    with connect_arrow(system.dsn(Purpose.INPUT_WRITER)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('work_mem')")
        assert cursor.fetchone() == ("7MB",)
    assert capfd.readouterr().err == ""


def test_a_pooler_between_is_refused_plainly_only_where_types_have_no_names(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = system.dsn(Purpose.INPUT)
    name = conninfo_to_dict(dsn)["dbname"]
    connect_anyhow = adbc.connect

    def refuse_options(uri: str, **rest: Any) -> Any:
        if "options=" in uri:
            raise OperationalError("unsupported startup parameter: options", status_code=AdbcStatusCode.IO)
        return connect_anyhow(uri, **rest)

    monkeypatch.setattr(adbc, "connect", refuse_options)
    system.query("input", f"ALTER DATABASE {name} SET client_min_messages = debug1")
    assert read_arrow(dsn, "SELECT 'x' AS a", is_ours=False).to_pylist() == [{"a": "x"}]
    system.query("input", f"ALTER DATABASE {name} SET quote_all_identifiers = on")
    arrow._pool.clear()
    with pytest.raises(DatabaseUnreachable, match="let quote_all_identifiers be off"):
        read_arrow(dsn, "SELECT 1", is_ours=False)


DRIVERS = {
    "psycopg.connect",
    "psycopg.AsyncConnection.connect",
    "asyncpg.connect",
    "adbc.connect",
    "ConnectionPool",
}
PINS = {"pin", "pin_async", "session.statement"}


def test_whoever_connects_pins() -> None:
    """Each place that opens a session: what is opened elsewhere is caught here."""
    places = []
    for path in Path(episodes_assets.__file__).parent.rglob("*.py"):
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        opened = sum(call in DRIVERS for call in calls)
        if opened:
            places.append(path.name)
            pinned = sum(call in PINS for call in calls)
            assert pinned >= opened, path
    assert len(places) >= 7


class Startup:
    """A server that keeps what clients send when they connect, and then turns them away."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sent: list[dict[str, str]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"postgresql://me:secret@127.0.0.1:{self.listener.getsockname()[1]}/d"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client:
                    self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        while True:
            (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
            body = client.recv(length - 4, socket.MSG_WAITALL)
            if struct.unpack("!i", body[:4]) == (196608,):
                break
            client.sendall(b"N")  # neither TLS nor GSSAPI
        words = body[4:].decode().split("\0")
        self.sent.append(dict(zip(words[::2], words[1::2], strict=False)))
        error = b"SFATAL\0C28000\0Mno\0\0"
        client.sendall(b"E" + struct.pack("!i", len(error) + 4) + error)


def test_a_pooler_is_sent_nothing_that_it_could_refuse() -> None:
    server = Startup()
    dsn = server.dsn
    nobody: Any = None

    async def opened_by_a_session() -> None:
        await Sessions(dsn, nobody, nobody, nobody, "development", 10)._connections().__aenter__()

    presence = Presence(dsn, "development", WorkerName(), Activity())
    tries: list[Callable[[], Any]] = [
        lambda: connect(dsn).__enter__(),
        lambda: connect_to_input(dsn).__enter__(),
        lambda: AccountsPool(dsn, "development"),
        lambda: read_arrow(dsn, "SELECT 1"),
        lambda: connect_arrow(dsn).__enter__(),
        lambda: create_engine(to_sqlalchemy_url(dsn)).connect(),
        lambda: asyncio.run(opened_by_a_session()),
        lambda: asyncio.run(presence._keep_once(asyncio.Event())),
        lambda: asyncio.run(read_message_figures(dsn)),
    ]
    with server.listener:
        for tried in tries:
            before = len(server.sent)
            with pytest.raises(Exception, match="no"):
                tried()
            assert len(server.sent) > before
    # What PgBouncer takes of every client.
    taken = {"user", "database", "application_name", "client_encoding"}
    assert {name for sent in server.sent for name in sent if name} <= taken
