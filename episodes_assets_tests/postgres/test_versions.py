"""A release and a schema outside its window refuse each other; `db init` is whole, or seen not to be."""

import itertools
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from alembic.script import ScriptDirectory

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.defs.resources import QueueDatabase, ResultsDatabase
from episodes_assets.errors import (
    BadSetting,
    EpisodesError,
    NotProvisioned,
    SchemaTooNew,
    SchemaTooOld,
)
from episodes_assets.postgres import admission
from episodes_assets.postgres.connect import connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision import init, schema
from episodes_assets.postgres.provision import status as provision_status
from episodes_assets.postgres.provision.schema import downgrade
from episodes_assets.postgres.provision.status import DatabaseStatus, read_status
from episodes_assets.postgres.provision.targets import find_targets
from episodes_assets.settings import Settings
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System

pytestmark = pytest.mark.process

# All that may see a version: those who write, and those who take labs.
WRITERS = [p for p in Purpose if p not in (Purpose.INPUT, Purpose.SCALER, Purpose.CONSUMER)]


def set_version(system: System, database: Database, version: str, oldest_beside: str | None = None) -> None:
    """Let a database be at a version, beside which releases since another one, or since that, may go on."""
    system.query(
        database,
        "UPDATE episodes_schema_version SET version_num = %s, oldest_beside = %s",
        [version, oldest_beside or version],
    )


@pytest.mark.parametrize("database", list(Database))
def test_versions_are_those_of_alembic(database: Database) -> None:
    scripts = ScriptDirectory.from_config(schema.config(database))
    newest_first = [script.revision for script in scripts.walk_revisions()]
    assert admission.known_versions(database) == tuple(reversed(newest_first))
    assert admission.needed_version(database) == scripts.get_current_head()


@pytest.mark.parametrize(
    ("version", "error", "says"),
    [
        ("queue_0001", SchemaTooOld, "here is at queue_0001, this release needs queue_00"),
        ("queue_9999", SchemaTooNew, "here is at queue_9999, this release knows it up to queue_00"),
        ("results_0001", BadSetting, "so it is not the queue database"),
        (None, NotProvisioned, "run `episodes db init`"),
    ],
)
def test_a_version_is_required(version: str | None, error: type[EpisodesError], says: str) -> None:
    admission.require_version(admission.needed_version(Database.QUEUE), Database.QUEUE, "here")
    for oldest_beside in (None, "", "queue", "queue_9998", "results_0001"):
        with pytest.raises(error, match=says):
            admission.require_version(version, Database.QUEUE, "here", oldest_beside)


def test_every_role_that_writes_is_told(system: System) -> None:
    for purpose in WRITERS:
        with connect_to_write(system.dsn(purpose), purpose.database, "development"):
            pass
        with connect_to_read(system.dsn(purpose), purpose.database):
            pass
    with (
        pytest.raises(BadSetting, match="it is not the results database"),
        connect_to_write(system.dsn(Purpose.QUEUE), Database.RESULTS, "development"),
    ):
        pass
    for number, error in (("9999", SchemaTooNew), ("0001", SchemaTooOld)):
        for database in Database:
            set_version(system, database, f"{database}_{number}")
        for purpose in WRITERS:
            dsn, database = system.dsn(purpose), purpose.database
            with pytest.raises(error), connect_to_write(dsn, database, "development"):
                pass
            with pytest.raises(error), connect_to_read(dsn, database):
                pass
    # Consumers may not see the version, and read on.
    with connect_to_read(system.dsn(Purpose.CONSUMER), Database.RESULTS) as connection:
        assert connection.execute("SELECT count(*) FROM published.days").fetchone() == (0,)


@pytest.mark.parametrize("oldest_beside", ["{}_9999", ""])
def test_assets_sensors_commands_and_dagster_refuse_a_newer_schema(
    system: System, oldest_beside: str
) -> None:
    for database in (Database.QUEUE, Database.RESULTS, Database.DAGSTER):
        set_version(system, database, f"{database}_9999", oldest_beside.format(database))
    for opened in (
        QueueDatabase(settings=system.settings).connect,
        QueueDatabase(settings=system.settings).connect_to_read,
        ResultsDatabase(settings=system.settings).connect,
        ResultsDatabase(settings=system.settings).connect_to_read,
        dg.DagsterInstance.get,
    ):
        with pytest.raises(SchemaTooNew, match="upgrade this process"), opened():
            pass
    for command in (["jobs", "status"], ["jobs", "retry", "2018-03-01"], ["run", "2018-03-01"]):
        assert isinstance(refusal(*command), SchemaTooNew)
    shown, warned = output("db", "status")
    assert "queue_9999" in shown
    assert "Set up by a newer release: dagster, queue, results" in warned


def status_of(system: System, database: Database) -> DatabaseStatus:
    return next(status for status in read_status(system.dsns) if status.database is database)


def test_init_of_an_older_release_changes_nothing(
    system: System, embedded_settings: Settings, embedded_dsns: Dsns
) -> None:
    downgrade(Database.QUEUE, system.admin["queue"], "queue_0001")
    set_version(system, Database.RESULTS, "results_9999")
    with pytest.raises(SchemaTooNew, match="is at results_9999, this release knows it up to results_0"):
        init.provision(embedded_settings, embedded_dsns, lambda _: None)
    # Not even the databases that come before that one.
    assert status_of(system, Database.QUEUE).schema_version == "queue_0001"


class Ended(Exception):
    """`db init` was ended here."""


@pytest.mark.slow
def test_an_init_that_is_ended_anywhere_is_seen_and_can_be_repeated(
    system: System,
    embedded_settings: Settings,
    embedded_dsns: Dsns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At one statement after the other: the database is as it was, and never looks ready."""
    database = Database.QUEUE
    downgrade(database, system.admin[database], f"{database}_0001")
    system.query(database, "COMMENT ON TABLE episodes_schema_version IS NULL")
    (target,) = find_targets(embedded_settings, embedded_dsns, [database])
    execute = psycopg.Cursor.execute
    left = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Ended
        left -= 1
        return execute(*arguments, **options)

    monkeypatch.setattr(init, "_install_pgqueuer", lambda _: _nothing())
    for statements in itertools.count(step=4):  # each one takes a transaction
        left = statements
        monkeypatch.setattr(psycopg.Cursor, "execute", counting)
        try:
            init._fill(target, "development", dict.fromkeys(target.roles.values(), 100), lambda _: None)
        except Ended:
            monkeypatch.setattr(psycopg.Cursor, "execute", execute)
            assert not status_of(system, database).is_current
            assert status_of(system, database).schema_version == f"{database}_0001"
        else:
            break
    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    assert statements > 5
    assert status_of(system, database).is_current


async def _nothing() -> None:
    """In place of PgQueuer's own installation, which is repeated as it is."""


KILLED = """
import os, signal, sys
from episodes_assets.postgres.provision import status as completion, init as provision
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.settings import load_settings
completion.write_mark = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
settings = load_settings()
provision.provision(settings, resolve_dsns(settings), print)
"""


@pytest.mark.long
def test_an_init_that_is_killed_leaves_nothing_half_done(
    system: System, server_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["dagster"])
    downgrade(Database.DAGSTER, system.admin["dagster"], "base")
    ended = subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert status_of(system, Database.DAGSTER).schema_version is None
    assert system.query("dagster", "SELECT to_regclass('environment_stamp')") == [(None,)]
    assert output("db", "init")[0].endswith("ready for environment 'development'.\n")
    assert status_of(system, Database.DAGSTER).is_current


def test_what_an_older_init_left_half_done_is_completed(
    system: System,
    embedded_settings: Settings,
    embedded_dsns: Dsns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It migrated first and granted later, each by itself, and left no mark."""
    monkeypatch.setattr(provision_status, "resolve_dsns", lambda _: embedded_dsns)
    steps: list[str] = []
    provision_status.ready_databases(embedded_settings, steps.append)
    assert steps == []
    system.query("queue", "COMMENT ON TABLE episodes_schema_version IS NULL")
    system.query("queue", "REVOKE ALL ON ledger.chunks FROM episodes_worker")
    assert "Not set up by this release, or not to the end: queue" in output("db", "status")[1]
    provision_status.ready_databases(embedded_settings, steps.append)
    assert steps
    with connect_to_write(system.dsn(Purpose.WORKER), Database.QUEUE, "development") as connection:
        connection.execute("SELECT FROM ledger.chunks")


def test_the_mark_stands_for_rights_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {database: provision_status.expected_mark(database) for database in Database}
    assert len(set(before.values())) == len(Database)
    registry = get_registry()
    fewer = replace(registry, by_id={number: registry.by_id[number] for number in (0, 1)})
    monkeypatch.setattr("episodes_assets.postgres.provision.status.get_registry", lambda: fewer)
    monkeypatch.setattr("episodes_assets.postgres.provision.grants.rights", lambda _: {})
    assert all(provision_status.expected_mark(database) != before[database] for database in Database)
