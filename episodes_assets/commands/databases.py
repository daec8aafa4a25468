"""Getting at the databases from a command."""

from episodes_assets.commands.console import err
from episodes_assets.databases.dsns import Dsns, resolve_dsns
from episodes_assets.databases.provision import provision
from episodes_assets.databases.status import read_status
from episodes_assets.settings import Settings


def ready_databases(settings: Settings) -> Dsns:
    """Find the databases; set the embedded ones up when they are not.

    Configured databases are set up by `episodes db init` alone, which needs an administrator.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
    """
    dsns = resolve_dsns(settings)
    if dsns.is_embedded and not all(status.is_current for status in read_status(dsns)):
        err.print(f"Setting up the embedded databases in {settings.home}")
        provision(settings, dsns, lambda step: err.print(f"  {step}", style="dim"))
    return dsns
