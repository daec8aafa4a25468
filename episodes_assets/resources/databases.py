"""The databases as resources.

A DSN is looked up when a step runs, never when definitions load, so that loading needs no database
and no DSN appears in the UI.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from episodes_assets.databases import doors
from episodes_assets.databases.connections import (
    Connection,
    connect,
    connect_to_read,
    connect_to_write,
)
from episodes_assets.databases.dsns import Database, Purpose, resolve_dsns
from episodes_assets.databases.input_role import check_input_role
from episodes_assets.settings import load_settings

_DSN = Field(default="", description="Overrides the DSN that the settings give; for tests.")


def _dsn(override: str, purpose: Purpose) -> str:
    settings = load_settings()
    if override:
        doors.require_allowed_dsn(settings, f"override_dsn of {purpose}", override)
        return override
    return resolve_dsns(settings).require(purpose)


class InputDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The input database, through the role that can only read."""

    override_dsn: str = _DSN

    @property
    def dsn(self) -> str:
        """The DSN, from EPISODES_INPUT_DSN or the embedded server."""
        return _dsn(self.override_dsn, Purpose.INPUT)

    def checked_dsn(self, warn: Callable[[str], None]) -> str:
        """The DSN, after a look at whether its role can really only read.

        Args:
            warn: Is told, outside production, what is refused there.

        Raises:
            InputWritable: In production, if the role could write.
            DatabaseUnreachable: If there is no connection to be had.
        """
        dsn = self.dsn
        with connect(dsn, read_only=True) as connection:
            check_input_role(connection, is_production=load_settings().is_production, warn=warn)
        return dsn


class QueueDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The queue database, through the orchestrator's role."""

    override_dsn: str = _DSN

    @property
    def dsn(self) -> str:
        """The DSN, from EPISODES_QUEUE_DSN or the embedded server."""
        return _dsn(self.override_dsn, Purpose.QUEUE)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in autocommit mode: the ledger's functions make their own transactions.

        Raises:
            DatabaseUnreachable: If there is no connection to be had.
            WrongEnvironment: If the database belongs to another environment.
            SchemaTooOld: If its schema is of an older release.
            SchemaTooNew: If its schema is of a newer release.
        """
        with connect_to_write(
            self.dsn, Database.QUEUE, load_settings().environment, autocommit=True
        ) as connection:
            yield connection

    @contextmanager
    def connect_to_read(self) -> Iterator[Connection]:
        """A connection that cannot write.

        Raises:
            DatabaseUnreachable: If there is no connection to be had.
            SchemaTooOld: If its schema is of an older release.
            SchemaTooNew: If its schema is of a newer release.
        """
        with connect_to_read(self.dsn, Database.QUEUE) as connection:
            yield connection


class ResultsDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The results database, through the publisher's role."""

    override_dsn: str = _DSN

    @property
    def dsn(self) -> str:
        """The DSN, from EPISODES_RESULTS_DSN or the embedded server."""
        return _dsn(self.override_dsn, Purpose.RESULTS)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in autocommit mode: the stores' functions make their own transactions.

        Raises:
            DatabaseUnreachable: If there is no connection to be had.
            WrongEnvironment: If the database belongs to another environment.
            SchemaTooOld: If its schema is of an older release.
            SchemaTooNew: If its schema is of a newer release.
        """
        with connect_to_write(
            self.dsn, Database.RESULTS, load_settings().environment, autocommit=True
        ) as connection:
            yield connection

    @contextmanager
    def connect_to_read(self) -> Iterator[Connection]:
        """A connection that cannot write.

        Raises:
            DatabaseUnreachable: If there is no connection to be had.
            SchemaTooOld: If its schema is of an older release.
            SchemaTooNew: If its schema is of a newer release.
        """
        with connect_to_read(self.dsn, Database.RESULTS) as connection:
            yield connection
