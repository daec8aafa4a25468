"""The databases and the lake as resources: they own the connections, and nothing else.

A DSN is looked up when a step runs, never when definitions load, so that loading needs no database and no
DSN appears in the UI. The resources have no fields: whoever launches a run could set those, and what is
typed there is kept with the run. Dagster's own storage is `storage`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import dagster as dg

from episodes_assets.lake.drops import Drops
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.connect import Connection, connect_to_input, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.postgres.provision.grants import check_input_role
from episodes_assets.settings import load_settings


class InputDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The input database, through the role that can only read."""

    @property
    def dsn(self) -> str:
        """The DSN, from EPISODES_INPUT_DSN or the embedded server."""
        return resolve_dsns(load_settings()).require(Purpose.INPUT)

    def checked_dsn(self, warn: Callable[[str], None]) -> str:
        """The DSN, after a look at whether its role can really only read.

        Args:
            warn: Called, outside production, with what would be refused in production.

        Raises:
            InputWritable: In production, if the role could write.
            DatabaseUnreachable: If there is no connection to be had.
        """
        dsn = self.dsn
        with connect_to_input(dsn) as connection:
            check_input_role(connection, is_production=load_settings().is_production, warn=warn)
        return dsn


class _OwnDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One of our own databases; a subclass says through which role."""

    _purpose: ClassVar[Purpose]

    @property
    def dsn(self) -> str:
        """The DSN, from the purpose's setting or the embedded server."""
        return resolve_dsns(load_settings()).require(self._purpose)

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
            self.dsn, self._purpose.database, load_settings().environment, autocommit=True
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
        with connect_to_read(self.dsn, self._purpose.database) as connection:
            yield connection


class QueueDatabase(_OwnDatabase):
    """The queue database, through the orchestrator's role."""

    _purpose: ClassVar[Purpose] = Purpose.QUEUE


class ResultsDatabase(_OwnDatabase):
    """The results database, through the publisher's role."""

    _purpose: ClassVar[Purpose] = Purpose.RESULTS


class Lake(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the settings say that the lake is; no field, which whoever launches a run could set."""

    def viewings(self) -> Viewings:
        """Its table of viewings."""
        return Viewings(load_settings().lake)

    def drops(self) -> Drops:
        """Its tables of drops.

        Raises:
            NotBroughtIn: If an older release has left snapshots that are not in it.
        """
        settings = load_settings()
        drops = Drops(settings.lake)
        OlderSnapshots(settings.snapshots).require_brought_in(drops)
        return drops


# Steps store what they make by themselves. Dagster's own IO manager takes a folder to write to from
# whoever launches a run; this one takes no configuration.
_nothing_stored = dg.IOManagerDefinition(lambda _: dg.InMemoryIOManager(), config_schema={})  # type: ignore[no-untyped-call]

RESOURCES: Mapping[str, Any] = {
    "input_database": InputDatabase(),
    "queue_database": QueueDatabase(),
    "results_database": ResultsDatabase(),
    "lake": Lake(),
    "io_manager": _nothing_stored,
}
