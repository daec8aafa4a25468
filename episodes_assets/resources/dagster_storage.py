"""Dagster's own storage, found like every other database: by setting, or embedded.

`dagster.yaml` names this class, so that each of Dagster's commands works from a checkout without a
variable to export first.
"""

from typing import Any

from dagster import get_dagster_logger
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import create_engine

from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.provision.status import ready_databases
from episodes_assets.postgres.sqlalchemy_url import to_sqlalchemy_url
from episodes_assets.resources.launched_by import LaunchRecordingRunStorage
from episodes_assets.settings import load_settings


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
