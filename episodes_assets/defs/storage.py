"""Dagster's own storage, found like every other database: by setting, or embedded; and who launched a run.

`dagster.yaml` names this class, so that each of Dagster's commands works from a checkout without a variable
to export first. The storage reads its DSN as SQLAlchemy does: always a URL, which names the driver as well.

It sets a tag on each run and backfill that says who launched it, whatever tags were sent along. The web
server says who is signed in while it answers a request. Elsewhere a run belongs to the user of the
operating system whose process makes it. Whoever holds Dagster's own DSN can write any tag: this records
what people do in the dashboard and at the command line, and is no defence against holders of that DSN.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import get_dagster_logger
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.run_storage import PostgresRunStorage
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, event
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, CreateEnginePlugin, Engine

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.postgres import session
from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.provision.status import ready_databases
from episodes_assets.postgres.session import SessionKind
from episodes_assets.settings import load_settings

LAUNCHED_BY = "episodes/launched_by"
_NOT_RECORDED = "unknown: the run does not say who launched it"


@dataclass(frozen=True)
class Launches:
    """What one request launches.

    Attributes:
        by: The name of whoever sent it.
        ids: Of the runs and backfills it made.
    """

    by: str
    ids: list[str] = field(default_factory=list)


_CURRENT: ContextVar[Launches | None] = ContextVar("launches", default=None)


@contextmanager
def launching_as(name: str) -> Iterator[Launches]:
    """Record this name with each run and backfill that is made within the block."""
    launches = Launches(name)
    token = _CURRENT.set(launches)
    try:
        yield launches
    finally:
        _CURRENT.reset(token)


def launched_by(run: dg.DagsterRun) -> str:
    """Who launched a run."""
    return run.tags.get(LAUNCHED_BY, _NOT_RECORDED)


class LaunchRecordingRunStorage(PostgresRunStorage):
    """Dagster's run storage, which records with each run and each backfill who launched it."""

    def add_run(self, dagster_run: dg.DagsterRun) -> dg.DagsterRun:
        """Add a run."""
        by = self._from_backfill(dagster_run.tags) or _by_this_process(dagster_run.tags)
        added = super().add_run(dagster_run.with_tags(_stamped(dagster_run.tags, by)))
        _note(added.run_id)
        return added

    def add_backfill(self, partition_backfill: PartitionBackfill) -> None:
        """Add a backfill, whose runs the daemon makes later."""
        tags = _stamped(partition_backfill.tags or {}, _by_this_process({}))
        super().add_backfill(partition_backfill._replace(tags=tags))
        _note(partition_backfill.backfill_id)

    def dispose(self) -> None:
        """Close the connections that are kept; Dagster's own storage keeps none."""
        self._engine.dispose()
        super().dispose()

    def _from_backfill(self, tags: Mapping[str, str]) -> str | None:
        """Who launched the backfill that a run belongs to."""
        if _CURRENT.get() is not None or BACKFILL_ID_TAG not in tags:
            return None
        backfill = self.get_backfill(tags[BACKFILL_ID_TAG])
        return None if backfill is None else (backfill.tags or {}).get(LAUNCHED_BY)


def _stamped(tags: Mapping[str, str], by: str) -> dict[str, str]:
    return {**tags, LAUNCHED_BY: by}


def _note(made: str) -> None:
    if (launches := _CURRENT.get()) is not None:
        launches.ids.append(made)


def _by_this_process(tags: Mapping[str, str]) -> str:
    if (launches := _CURRENT.get()) is not None:
        return launches.by
    user = operating_system_user()
    for kind, tag in (("schedule", SCHEDULE_NAME_TAG), ("sensor", SENSOR_NAME_TAG)):
        if tag in tags:
            return f"{user}, {kind} {tags[tag]}"
    return user


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
    connection.set_client_encoding("UTF8")  # it keeps by itself how text is decoded
    with connection.cursor() as cursor:
        cursor.execute(session.statement(SessionKind.DAGSTER))
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
        # Two connections are kept for all three (one statement asks with another); more are closed after use.
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
            DatabaseUnreachable: If there is no connection to be had.
        """
        log = get_dagster_logger("episodes")
        settings = load_settings()
        dsn = ready_databases(settings, log.info).require(Purpose.DAGSTER)
        with connect_to_write(dsn, Database.DAGSTER, settings.environment):
            pass
        return cls(inst_data=inst_data, postgres_url=to_sqlalchemy_url(dsn))
