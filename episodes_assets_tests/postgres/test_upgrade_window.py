"""Releases of which one may go on beside the other: what a schema says, and when it is finished."""

import asyncio
import datetime as dt
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import dagster as dg
import psycopg
import pytest
from alembic import op

from episodes_assets.defs import draining
from episodes_assets.errors import LockHeld, OlderReleaseLives, SchemaTooNew, SchemaTooOld
from episodes_assets.ledger.workers import Activity, WorkerName, send_heartbeat
from episodes_assets.postgres import admission, processes
from episodes_assets.postgres.connect import Connection, connect, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision import init, schema
from episodes_assets.postgres.provision import status as provision_status
from episodes_assets.postgres.provision.finish import finish
from episodes_assets.postgres.provision.schema import downgrade, migrations
from episodes_assets.settings import Settings
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System

WINDOW = "SELECT version_num, oldest_beside, finished FROM episodes_schema_version"
WRITERS = [p for p in Purpose if p not in (Purpose.INPUT, Purpose.SCALER, Purpose.CONSUMER)]


@pytest.mark.parametrize("database", list(Database))
def test_every_migration_declares_the_oldest_release_beside_it(database: Database) -> None:
    known = admission.known_versions(database)
    found = migrations(database)  # which fails without a declaration
    assert tuple(each.revision for each in found) == known
    for each in found:
        assert isinstance(each.oldest_beside, str)
        assert each.oldest_beside in known
        assert each.oldest_beside <= each.revision


def upgraded_by_a_newer_release(system: System, oldest_beside: str | None = None) -> None:
    """Let the schemas be as if a newer release had upgraded them, beside which this one may go on."""
    for database in Database:
        system.query(
            database,
            "UPDATE episodes_schema_version SET version_num = %s, oldest_beside = %s",
            [f"{database}_9999", oldest_beside or admission.needed_version(database)],
        )


def test_this_release_goes_on_beside_a_newer_one_that_says_so(system: System) -> None:
    upgraded_by_a_newer_release(system)
    for purpose in WRITERS:
        with connect_to_write(system.dsn(purpose), purpose.database, "development"):
            pass
        with connect_to_read(system.dsn(purpose), purpose.database):
            pass
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []
    assert output("jobs", "status")[0]
    said = " ".join(output("db", "status")[1].split())
    assert "beside which this one may go on: dagster, input, queue, results." in said


def test_an_older_release_fits_as_well(system: System) -> None:
    """One of before this release, as long as it knows what the schema says."""
    upgraded_by_a_newer_release(system, "queue_0001")
    with connect_to_write(system.dsn(Purpose.QUEUE), Database.QUEUE, "development"):
        pass


def test_a_schema_from_before_the_window_says_nothing(system: System) -> None:
    """Its table of the version has no such column; what was refused then is refused now."""
    for version, error in (("queue_9999", SchemaTooNew), ("queue_0013", SchemaTooOld)):
        system.query("queue", "ALTER TABLE episodes_schema_version DROP COLUMN IF EXISTS oldest_beside")
        system.query("queue", "UPDATE episodes_schema_version SET version_num = %s", [version])
        with (
            pytest.raises(error),
            connect_to_write(system.dsn(Purpose.WORKER), Database.QUEUE, "development"),
        ):
            pass


def test_only_the_newest_release_sets_databases_up(
    system: System, embedded_settings: Settings, embedded_dsns: Dsns, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgraded_by_a_newer_release(system)
    with pytest.raises(SchemaTooNew, match="is at dagster_9999"):
        init.provision(embedded_settings, embedded_dsns, lambda _: None)
    with pytest.raises(SchemaTooNew, match="is at dagster_9999"):
        finish(embedded_settings, embedded_dsns, lambda _: [], lambda _: None)
    # Nor does an embedded system's own start.
    monkeypatch.setattr(provision_status, "resolve_dsns", lambda _: embedded_dsns)
    steps: list[str] = []
    provision_status.ready_databases(embedded_settings, steps.append)
    assert steps == []


@pytest.mark.long
def test_a_window_is_recorded_with_the_version(
    system: System, embedded_settings: Settings, embedded_dsns: Dsns
) -> None:
    newest = admission.needed_version(Database.QUEUE)
    as_made = (newest, schema.oldest_beside(Database.QUEUE, newest, newest), newest)
    assert system.query("queue", WINDOW) == [as_made]
    downgrade(Database.QUEUE, system.admin["queue"], "queue_0009")
    assert system.query("queue", WINDOW) == [("queue_0009", "queue_0009", "queue_0009")]
    init.provision(embedded_settings, embedded_dsns, lambda _: None)
    assert system.query("queue", WINDOW) == [(newest, as_made[1], "queue_0009")]


OLD, NEW = admission.known_versions(Database.QUEUE)[-2:]


@pytest.fixture
def unfinished(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue's schema keeps a table that a release before needs, and lets that go on."""

    def drop() -> None:
        op.execute("DROP TABLE ledger.kept")

    real = migrations(Database.QUEUE)
    made = tuple(
        replace(each, oldest_beside=OLD, finish=drop) if each.revision == NEW else each for each in real
    )
    monkeypatch.setattr(
        schema, "migrations", lambda database: made if database is Database.QUEUE else migrations(database)
    )
    system.query("queue", "CREATE TABLE ledger.kept ()")
    system.query("queue", "UPDATE episodes_schema_version SET finished = %s, oldest_beside = %s", [OLD, OLD])


@pytest.fixture
def finished(
    system: System, embedded_settings: Settings, embedded_dsns: Dsns, unfinished: None
) -> Callable[[Callable[..., Sequence[str]]], list[str]]:
    """Finish the schemas; what is reported."""

    def finish_them(find_older: Callable[..., Sequence[str]]) -> list[str]:
        steps: list[str] = []
        finish(embedded_settings, embedded_dsns, find_older, steps.append)
        return steps

    return finish_them


def is_kept(system: System) -> bool:
    return system.query("queue", "SELECT to_regclass('ledger.kept') IS NOT NULL") == [(True,)]


def oldest(system: System) -> str:
    return str(system.query("queue", "SELECT oldest_beside FROM episodes_schema_version")[0][0])


def test_what_older_releases_need_is_removed_once(
    system: System, finished: Callable[[Callable[..., Sequence[str]]], list[str]]
) -> None:
    asked = []

    def nobody(versions: object) -> list[str]:
        asked.append((versions, oldest(system)))
        return []

    assert "Kept as older releases need it: queue." in output("db", "status")[1]
    assert finished(nobody) == [f"queue: finished {NEW}"]
    # It is asked again once nobody of that release can begin any more.
    assert asked == [({Database.QUEUE: NEW}, OLD), ({Database.QUEUE: NEW}, NEW)]
    assert not is_kept(system)
    assert system.query("queue", WINDOW)[0][1:] == (NEW, system.query("queue", WINDOW)[0][0])
    assert "Kept as" not in output("db", "status")[1]
    (nothing,) = finished(nobody)
    assert "there is nothing" in nothing


@pytest.mark.parametrize("looks", [1, 2])
def test_nothing_is_removed_while_an_older_process_lives(
    system: System, finished: Callable[[Callable[..., Sequence[str]]], list[str]], looks: int
) -> None:
    """Whether it lives all the time, or begins just before nobody may begin any more."""
    found: Iterator[list[str]] = iter([[]] * (looks - 1) + [["worker w of release 0.1.0"]])
    with pytest.raises(OlderReleaseLives, match="live: worker w of release"):
        finished(lambda _: next(found))
    assert is_kept(system)
    assert oldest(system) == OLD  # it goes on


def test_a_failed_removal_changes_nothing(
    system: System, finished: Callable[[Callable[..., Sequence[str]]], list[str]]
) -> None:
    system.query("queue", "CREATE VIEW ledger.seen AS SELECT * FROM ledger.kept")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        finished(lambda _: [])
    assert is_kept(system)
    assert oldest(system) == OLD


@pytest.mark.parametrize("fails", [1, 2])
def test_a_window_that_cannot_be_closed_leaves_all_open(
    system: System,
    embedded_settings: Settings,
    embedded_dsns: Dsns,
    monkeypatch: pytest.MonkeyPatch,
    unfinished: None,
    fails: int,
) -> None:
    """Of the second database, when the first is closed; or the connection is lost just afterwards."""
    closed: list[Database] = []
    real = schema.close_window

    def close(admin: Connection, database: Database, state: schema.SchemaState) -> None:
        closed.append(database)
        real(admin, database, state)
        if len(closed) == fails:
            admin.commit()
            raise LockHeld("a lock", "wait")

    made = schema.migrations
    last = {each: each_made[-1] for each in Database if (each_made := made(each))}
    kept = {
        database: (*made(database)[:-1], replace(newest, finish=newest.finish or (lambda: None)))
        for database, newest in last.items()
    }
    monkeypatch.setattr(schema, "migrations", kept.__getitem__)
    monkeypatch.setattr(schema, "close_window", close)
    before = admission.known_versions(Database.RESULTS)[-2]
    system.query("results", "UPDATE episodes_schema_version SET finished = %s", [before])
    windows = [system.query(each, WINDOW) for each in ("queue", "results")]
    with pytest.raises(LockHeld):
        finish(embedded_settings, embedded_dsns, lambda _: [], lambda _: None)
    assert len(closed) == fails
    assert [system.query(each, WINDOW) for each in ("queue", "results")] == windows


def beat(system: System, name: WorkerName, *, is_last: bool = False) -> None:
    async def main() -> None:
        dsn = system.dsn(Purpose.WORKER)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await send_heartbeat(connection, name, Activity(), is_last=is_last)

    asyncio.run(main())


@pytest.mark.usefixtures("unfinished")
def test_the_command_names_older_workers(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["queue"])
    older = WorkerName("there", 8, "0.0.9", OLD)
    beat(system, WorkerName("here", 7))
    beat(system, older)
    refused = refusal("db", "finish")
    assert isinstance(refused, OlderReleaseLives)
    assert refused.what.endswith("older release live: worker there-8 of release 0.0.9")
    beat(system, older, is_last=True)
    # Its release has said nothing of what it knows.
    beat(system, WorkerName("elsewhere", 9, "0.0.1", ""))
    assert "elsewhere-9" in str(refusal("db", "finish"))
    beat(system, WorkerName("elsewhere", 9, "0.0.1", ""), is_last=True)
    # While it is drained, a code location is not seen, whatever its release.
    with dg.DagsterInstance.get() as instance:
        begun = draining.begin(instance, "episodes_assets", dt.datetime.now(dt.UTC))
        said = f"code location episodes_assets, drained since {begun.since} by {begun.by}"
        assert said in str(refusal("db", "finish"))
        draining.resume(instance, "episodes_assets")
    assert f"queue: finished {NEW}" in output("db", "finish")[0]


def test_processes_of_dagster_are_known_while_they_live(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {Database.RESULTS: "results_9999"}
    monkeypatch.setattr(processes, "_registered", {})
    monkeypatch.setattr("sys.argv", ["/usr/bin/dagster-daemon", "run", "--workspace", "w.yaml"])
    with connect(system.dsn(Purpose.DAGSTER), autocommit=True) as connection:
        with dg.DagsterInstance.get() as instance:
            instance.get_runs()
            (found,) = processes.read_older(connection, newer)
            assert found.is_connected
            assert str(found).startswith("`dagster-daemon run` of release 0.1.0 on ")
            current = {each: admission.needed_version(each) for each in Database}
            assert processes.read_older(connection, current) == []
            # However long ago it has begun: its session is open.
            system.query("dagster", "UPDATE processes SET seen_at = now() - interval '1 day'")
            assert len(processes.read_older(connection, newer)) == 1
            # What others call their sessions says nothing: another role's, or another database's.
            system.query("dagster", "UPDATE processes SET session = 'theirs', seen_at = '2018-03-01'")
            others = [system.admin["dagster"], system.admin["queue"], system.dsn(Purpose.WORKER)]
            for other in others:
                with psycopg.connect(other, application_name="theirs"):
                    assert processes.read_older(connection, newer) == []
            name = processes.session_name()
            system.query("dagster", "UPDATE processes SET session = %s, seen_at = now()", [name])
        # Without a session, as the code location is between two ticks, it lives for some seconds.
        system.query("dagster", "UPDATE processes SET seen_at = now() - interval '1 day'")
        eventually(lambda: processes.read_older(connection, newer) == [])
        system.query("dagster", "UPDATE processes SET seen_at = now() + interval '1 day'")
        assert processes.read_older(connection, newer) == []
        system.query("dagster", "UPDATE processes SET seen_at = now()")
        (found,) = processes.read_older(connection, newer)
        assert not found.is_connected
        assert "s ago)" in str(found)


def test_sessions_of_two_processes_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL cuts a name off, and a container's process has the number of the one before it."""
    names = set()
    for host in ("a" * 60 + "1", "a" * 60 + "2"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        for pid in (7, 4_194_303):
            monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
            names.add(processes.session_name())
            monkeypatch.setattr(processes, "_STARTED", secrets.token_hex(4))
            names.add(processes.session_name())
    assert len({each[:63] for each in names}) == 8
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/v/bin/dagster", "api", "grpc", "--module-name", "m"], "dagster api grpc"),
        (["/v/bin/dagster", "api", "execute_run", '{"a": 1}'], "dagster api execute_run"),
        (["/v/episodes_assets/__main__.py", "webserver", "--port", "1"], "episodes webserver"),
        (["/v/bin/episodes", "run", "2018-03-01"], "episodes run"),
        ([], ""),
    ],
)
def test_a_process_is_called_by_what_it_runs(arguments: list[str], says: str) -> None:
    assert processes.program(arguments) == says


def test_a_process_that_may_not_go_on_any_more_does_not_begin(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window closes between its admission and its row."""
    monkeypatch.setattr(processes, "_registered", {})
    with connect(system.dsn(Purpose.DAGSTER), autocommit=True) as connection:
        upgraded_by_a_newer_release(system, "dagster_9999")
        with pytest.raises(SchemaTooNew):
            processes.register(connection, "development")
        assert len(processes.read_older(connection, {Database.DAGSTER: "dagster_9999"})) == 1
