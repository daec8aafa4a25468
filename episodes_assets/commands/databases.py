"""Getting at the databases from a command."""

from episodes_assets.commands.console import err
from episodes_assets.databases import provision
from episodes_assets.databases.dsns import Dsns
from episodes_assets.settings import Settings


def ready_databases(settings: Settings) -> Dsns:
    """Find the databases; set the embedded ones up when they are not, saying so.

    Raises:
        DatabaseUnreachable: If the embedded server does not start.
    """
    return provision.ready_databases(settings, lambda step: err.print(step, style="dim"))
