"""The databases as resources.

A DSN is looked up when a step runs, never when definitions load, so that loading needs no database
and no DSN appears in the UI.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from episodes_assets.databases.connections import Connection, connect, connect_to_write
from episodes_assets.databases.dsns import Purpose, resolve_dsns
from episodes_assets.settings import load_settings

_DSN = Field(default="", description="Overrides the DSN that the settings give; for tests.")


def _dsn(override: str, purpose: Purpose) -> str:
    return override or resolve_dsns(load_settings()).require(purpose)


class InputDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The input database, through the role that can only read."""

    override_dsn: str = _DSN

    @property
    def dsn(self) -> str:
        """The DSN, from EPISODES_INPUT_DSN or the embedded server."""
        return _dsn(self.override_dsn, Purpose.INPUT)


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
        """
        with connect_to_write(self.dsn, load_settings().environment, autocommit=True) as connection:
            yield connection

    @contextmanager
    def connect_to_read(self) -> Iterator[Connection]:
        """A connection that cannot write.

        Raises:
            DatabaseUnreachable: If there is no connection to be had.
        """
        with connect(self.dsn, read_only=True) as connection:
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
        """
        with connect_to_write(self.dsn, load_settings().environment, autocommit=True) as connection:
            yield connection

    @contextmanager
    def connect_to_read(self) -> Iterator[Connection]:
        """A connection that cannot write.

        Raises:
            DatabaseUnreachable: If there is no connection to be had.
        """
        with connect(self.dsn, read_only=True) as connection:
            yield connection
