"""Getting at the databases from a command."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from episodes_assets.commands.console import err
from episodes_assets.errors import DatabaseUnreachable
from episodes_assets.postgres.connect import connect_to_input, connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.hosts import SETTING, describe_open, require_allowed
from episodes_assets.postgres.provision import status
from episodes_assets.postgres.provision.grants import check_input_role
from episodes_assets.settings import Settings

if TYPE_CHECKING:
    from episodes_assets.lake.drops import Drops


def ready_databases(settings: Settings) -> Dsns:
    """Find the databases; set the embedded ones up when they are not, saying so.

    With them goes the lake in the home: what an older release has left as snapshots is brought in.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
        HostNotAllowed: Outside production, if a setting names a host that is not listed.
    """
    dsns = status.ready_databases(settings, _say)
    if dsns.is_embedded and (settings.snapshots_url or Path(settings.snapshots).exists()):
        bring_in_older_snapshots(settings)
    return dsns


def bring_in_older_snapshots(settings: Settings) -> None:
    """Bring what an older release has left as snapshots into the lake, if that was not done, saying so.

    Raises:
        SnapshotDamaged: If a snapshot is not what was written.
        WrongEnvironment: If the lake belongs to another environment.
        SystemFailure: If the snapshots or the lake cannot be reached.
    """
    from episodes_assets.lake.drops import Drops  # a second, and few have such snapshots
    from episodes_assets.lake.older_snapshots import OlderSnapshots

    OlderSnapshots(settings.snapshots).bring_in(Drops(settings.lake), settings.environment, _say)


def open_drops(settings: Settings) -> "Drops":
    """The lake's drops.

    Raises:
        NotBroughtIn: If an older release has left snapshots that are not in the lake.
    """
    from episodes_assets.lake.drops import Drops  # a second
    from episodes_assets.lake.older_snapshots import OlderSnapshots

    drops = Drops(settings.lake)
    OlderSnapshots(settings.snapshots).require_brought_in(drops)
    return drops


def _say(step: str) -> None:
    err.print(step, style="dim")


def require_reachable(dsns: Dsns) -> None:
    """Fail before a run begins rather than after its retries.

    Raises:
        DatabaseUnreachable: If the queue or the results do not answer.
        SchemaTooOld: If the schema of one is of an older release.
        SchemaTooNew: If the schema of one is of a newer release.
    """
    for purpose in (Purpose.QUEUE, Purpose.RESULTS):
        with connect_to_read(dsns.require(purpose), purpose.database):
            pass


def announce_open_hosts(settings: Settings) -> None:
    """Say, outside production, which hosts are open to this process, if any."""
    if shown := describe_open(require_allowed(settings)):
        err.print(f"Open by {SETTING}: {shown}", style="dim", soft_wrap=True)


def refuse_writable_input(settings: Settings, dsns: Dsns) -> None:
    """Refuse, in production, an input role that could write; warn of it elsewhere.

    An input that cannot be reached is left to the step that reads it: days that are kept need none.

    Raises:
        InputWritable: In production, if the role could write.
    """
    if Purpose.INPUT not in dsns.by_purpose:
        return
    with (
        suppress(DatabaseUnreachable),
        connect_to_input(dsns.require(Purpose.INPUT)) as connection,
    ):
        check_input_role(
            connection,
            is_production=settings.is_production,
            warn=lambda line: err.print(f"warning: {line}", style="yellow", soft_wrap=True),
        )


def writable_input(settings: Settings, dsns: Dsns) -> str:
    """The DSN to fill the input with, after a look at its stamp.

    Raises:
        WrongEnvironment: If the input belongs to another environment.
        NotProvisioned: If it has no stamp: then it may be other systems'.
    """
    dsn = dsns.require(Purpose.INPUT_WRITER)
    with connect_to_write(dsn, Database.INPUT, settings.environment):
        pass
    return dsn
