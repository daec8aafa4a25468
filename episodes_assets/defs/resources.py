"""The settings, the databases and the lake as resources: they own the connections, and nothing else.

A DSN is looked up when a step runs, never when definitions load, so that loading needs no database and no
DSN appears in the UI. Nothing about a resource can be configured by whoever launches a run, since what is
typed there is kept with the run. No resource reads the environment: all depend on the resource `settings`,
which `definitions.build_defs` supplies. Dagster's own storage is `storage`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import dagster as dg

from episodes_assets.lake.drops import Drops
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.connect import Connection, connect_to_input, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.postgres.provision.grants import check_input_role
from episodes_assets.settings import Settings


class InputDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The input database, through the role that can only read."""

    settings: dg.ResourceDependency[Settings]

    @property
    def dsn(self) -> str:
        """The DSN, from EPISODES_INPUT_DSN or the embedded server."""
        return resolve_dsns(self.settings).require(Purpose.INPUT)

    def checked_dsn(self, warn: Callable[[str], None]) -> str:
        """The DSN, after checking that its role can only read.

        Args:
            warn: Called, outside production, with what would be refused in production.

        Raises:
            InputWritable: In production, if the role could write.
            DatabaseUnreachable: If no connection can be made.
        """
        dsn = self.dsn
        with connect_to_input(dsn) as connection:
            check_input_role(connection, is_production=self.settings.is_production, warn=warn)
        return dsn


class OwnDatabase(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One of our own databases; a subclass says through which role."""

    settings: dg.ResourceDependency[Settings]
    _purpose: ClassVar[Purpose]

    @property
    def dsn(self) -> str:
        """The DSN, from the purpose's setting or the embedded server."""
        return resolve_dsns(self.settings).require(self._purpose)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in autocommit mode: the stores' functions make their own transactions.

        Raises:
            DatabaseUnreachable: If no connection can be made.
            WrongEnvironment: If the database belongs to another environment.
            SchemaTooOld: If its schema is of an older release.
            SchemaTooNew: If its schema is of a newer release.
        """
        with connect_to_write(
            self.dsn, self._purpose.database, self.settings.environment, autocommit=True
        ) as connection:
            yield connection

    @contextmanager
    def connect_to_read(self) -> Iterator[Connection]:
        """A connection that cannot write.

        Raises:
            DatabaseUnreachable: If no connection can be made.
            SchemaTooOld: If its schema is of an older release.
            SchemaTooNew: If its schema is of a newer release.
        """
        with connect_to_read(self.dsn, self._purpose.database) as connection:
            yield connection


class QueueDatabase(OwnDatabase):
    """The queue database, through the orchestrator's role."""

    _purpose: ClassVar[Purpose] = Purpose.QUEUE


class ResultsDatabase(OwnDatabase):
    """The results database, through the publisher's role."""

    _purpose: ClassVar[Purpose] = Purpose.RESULTS


class DagsterDatabase(OwnDatabase):
    """Dagster's own database, through its role; for restore points alone."""

    _purpose: ClassVar[Purpose] = Purpose.DAGSTER


class Lake(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The lake, where the settings say that it is."""

    settings: dg.ResourceDependency[Settings]

    def viewings(self) -> Viewings:
        """Its table of viewings.

        Raises:
            HostNotAllowed: Outside production, if it lies on a host that is not listed.
        """
        return open_lake(self.settings).viewings()

    def drops(self) -> Drops:
        """Its tables of drops.

        Raises:
            HostNotAllowed: Outside production, if it lies on a host that is not listed.
            NotBroughtIn: If an older release has left snapshots that are not in it.
        """
        return open_lake(self.settings).complete_drops()


# Steps store what they make by themselves. Dagster's own IO manager takes a folder to write to from
# whoever launches a run; this one takes no configuration.
_nothing_stored = dg.IOManagerDefinition(lambda _: dg.InMemoryIOManager(), config_schema={})  # type: ignore[no-untyped-call]


def build_resources(read_settings: Callable[[], Settings]) -> dict[str, Any]:
    """All resources by name.

    Args:
        read_settings: Is called whenever a run or a tick begins that uses a resource.
    """
    # With an empty schema, since `hardcoded_resource` takes any configuration, which is kept with the run.
    settings = dg.ResourceDefinition(
        lambda _: read_settings(), config_schema={}, description="The settings: docs/settings.md."
    )
    return {
        "settings": settings,
        "input_database": InputDatabase(settings=settings),
        "queue_database": QueueDatabase(settings=settings),
        "results_database": ResultsDatabase(settings=settings),
        "dagster_database": DagsterDatabase(settings=settings),
        "lake": Lake(settings=settings),
        "io_manager": _nothing_stored,
    }
