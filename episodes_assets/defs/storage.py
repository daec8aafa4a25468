"""Dagster's own storage, found like every other database: by setting, or embedded.

`dagster.yaml` names this class, so that each of Dagster's commands works from a checkout without a variable
to export first. The storage reads its DSN as SQLAlchemy does: always a URL, which names the driver as well.

It records with each run and backfill who launched it, as `launches` says, and that this process lives, as
`postgres/processes.py` says; and old events of runs are pruned from it.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import dagster as dg
import sqlalchemy
from dagster import get_dagster_logger
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG, REPOSITORY_LABEL_TAG
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.run_storage import PostgresRunStorage
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, event
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, CreateEnginePlugin, Engine

from episodes_assets.defs.launches import LAUNCHED_BY, by_this_process, is_request, note, stamped
from episodes_assets.postgres import connect, processes, session
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.provision.status import ready_databases
from episodes_assets.postgres.session import SessionKind
from episodes_assets.settings import load_settings


class LaunchRecordingRunStorage(PostgresRunStorage):
    """Dagster's run storage, which records with each run and each backfill who launched it."""

    def add_run(self, dagster_run: dg.DagsterRun) -> dg.DagsterRun:
        """Add a run."""
        by = self._from_backfill(dagster_run.tags) or by_this_process(dagster_run.tags)
        origin = dagster_run.remote_job_origin
        # Dagster stores it beside the run; in its tags, it can be held in the queue by it (`draining`).
        of = {REPOSITORY_LABEL_TAG: origin.repository_origin.get_label()} if origin else {}
        added = super().add_run(dagster_run.with_tags({**stamped(dagster_run.tags, by), **of}))
        note(added.run_id)
        return added

    def add_backfill(self, partition_backfill: PartitionBackfill) -> None:
        """Add a backfill, whose runs the daemon makes later."""
        tags = stamped(partition_backfill.tags or {}, by_this_process({}))
        super().add_backfill(partition_backfill._replace(tags=tags))
        note(partition_backfill.backfill_id)

    def dispose(self) -> None:
        """Close the connections that are kept; Dagster's own storage keeps none."""
        self._engine.dispose()
        super().dispose()

    def _from_backfill(self, tags: Mapping[str, str]) -> str | None:
        """Who launched the backfill that a run belongs to."""
        if is_request() or BACKFILL_ID_TAG not in tags:
            return None
        backfill = self.get_backfill(tags[BACKFILL_ID_TAG])
        return None if backfill is None else (backfill.tags or {}).get(LAUNCHED_BY)


_PLUGIN = "episodes_session_settings"


class SessionSettingsPlugin(CreateEnginePlugin):
    """Pins the settings of each session of an engine whose URL names it.

    Dagster makes engines from its storage's URL in several places, and makes some of them anew later.
    """

    def update_url(self, url: URL) -> URL:
        """Called by SQLAlchemy, which has taken the plugin's name off."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Called by SQLAlchemy."""
        event.listen(engine, "connect", _pin)


def _pin(connection: Any, _record: object) -> None:  # noqa: ANN401  psycopg2 ships no types
    connection.set_client_encoding("UTF8")  # psycopg2 keeps the encoding itself as well
    with connection.cursor() as cursor:
        name = {"application_name": processes.session_name()}
        cursor.execute(session.statement(SessionKind.DAGSTER, name))
    if not connection.autocommit:
        connection.commit()


plugins.register(_PLUGIN, __name__, SessionSettingsPlugin.__name__)


def to_sqlalchemy_url(dsn: str) -> str:
    """The same database for SQLAlchemy with psycopg2, which Dagster's storage works with.

    Sessions of an engine that is made from it have their settings pinned.

    The driver is named because SQLAlchemy 2.1 changed the one behind plain postgresql://.

    Args:
        dsn: A libpq URL or connection string.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    hosts = parts.get("host", "").count(",") + 1
    if "port" in parts and "," not in parts["port"]:
        # libpq takes one port for each host; SQLAlchemy wants as many as there are hosts.
        parts["port"] = ",".join([parts["port"]] * hosts)
    url = URL.create(
        "postgresql+psycopg2",
        username=parts.pop("user", None),
        password=parts.pop("password", None),
        database=parts.pop("dbname", None),
        query={**parts, "plugin": _PLUGIN},
    )
    return url.render_as_string(hide_password=False)


_PRUNED_AT_ONCE = 20_000


def prune_run_events(instance: dg.DagsterInstance, before: dt.datetime) -> int:
    """Delete what runs have logged step by step until a time; what the UI says of assets stays.

    Materialisations and observations stay for ever, as do the runs themselves. The results of checks are kept
    in a table of their own.

    Args:
        instance: Dagster's.
        before: The time.

    Returns:
        How many events were deleted.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):  # of a test, in memory
        return 0
    events = SqlEventLogStorageTable.c
    until = before.astimezone(dt.UTC).replace(tzinfo=None)
    later = sqlalchemy.select(events.id).where(events.timestamp >= until).order_by(events.id).limit(1)
    bounds = sqlalchemy.select(sqlalchemy.func.min(events.id), sqlalchemy.func.max(events.id))
    deleted = 0
    with storage.index_connection() as connection:
        first, last = connection.execute(bounds).one()
        if first is None:
            return 0
        # By id, which has an index; the time has none.
        end = connection.execute(later).scalar() or last + 1
        for start in range(first, end, _PRUNED_AT_ONCE):
            upto = min(start + _PRUNED_AT_ONCE, end)
            pruned = SqlEventLogStorageTable.delete().where(
                events.id >= start, events.id < upto, events.timestamp < until, events.asset_key.is_(None)
            )
            deleted += connection.execute(pruned).rowcount
    return deleted


class EpisodesDagsterStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage on EPISODES_DAGSTER_DSN or the embedded server, set up when it is not.

    It keeps two connections until Dagster's instance is disposed of.

    Args:
        postgres_url: For SQLAlchemy.
        inst_data: Of Dagster's instance.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._run_storage = LaunchRecordingRunStorage(postgres_url, should_autocreate_tables=False)
        # Dagster's storages connect for each statement, three times for each event: 6 ms with a password.
        # Two connections are kept for all three storages (a call may need a second one meanwhile); more are
        # closed after use.
        engine = create_engine(
            postgres_url, isolation_level="AUTOCOMMIT", pool_size=2, max_overflow=-1, pool_pre_ping=True
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine  # noqa: SLF001  it takes none as an argument

    @classmethod
    def config_type(cls) -> Any:  # noqa: ANN401  Dagster's own type for it is private
        """It takes no configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Any,  # noqa: ANN401, ARG003
    ) -> "EpisodesDagsterStorage":
        """Called by Dagster when it loads its instance.

        Raises:
            WrongEnvironment: If the database belongs to another environment; nothing is written.
            SchemaTooOld: If our part of its schema is of an older release.
            SchemaTooNew: If our part of its schema is of a newer release.
            NotProvisioned: If `episodes db init` has not been run.
            DatabaseUnreachable: If no connection can be made.
        """
        log = get_dagster_logger("episodes")
        settings = load_settings()
        dsn = ready_databases(settings, log.info).require(Purpose.DAGSTER)
        with connect.connect_to_write(
            dsn, Database.DAGSTER, settings.environment, autocommit=True
        ) as connection:
            processes.register(connection, settings.environment)
        return cls(inst_data=inst_data, postgres_url=to_sqlalchemy_url(dsn))
