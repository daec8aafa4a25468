"""From a process's settings to the tables of the lake that they name.

Here it is decided whether the lake's host may be reached, once and before anything is read. The tables
themselves (`tables.py`, `drops.py`, `viewings.py`, `older_snapshots.py`) are made from a URL and read no
settings. A worker, which hands the URL to the process that computes, has it checked in the same way before
that process exists (`cli/serve.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from episodes_assets.lake.drops import Drops
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres import hosts
from episodes_assets.settings import Settings


@dataclass(frozen=True)
class OpenedLake:
    """A lake on a host that may be reached, and the older release's snapshots that belong to it.

    Attributes:
        url: The folder or URL of the lake.
        snapshots_url: The folder or fsspec URL of those snapshots.
    """

    url: str
    snapshots_url: str

    def viewings(self) -> Viewings:
        """The table of viewings."""
        return Viewings(self.url)

    def drops(self) -> Drops:
        """The tables of drops, unchecked."""
        return Drops(self.url)

    def complete_drops(self) -> Drops:
        """The tables of drops, after checking that no snapshots of an older release are missing in them.

        Raises:
            NotBroughtIn: If an older release has left snapshots that are not in them.
            SystemFailure: If the snapshots or the lake cannot be reached.
        """
        drops = self.drops()
        OlderSnapshots(self.snapshots_url).require_brought_in(drops)
        return drops

    def bring_in_older_snapshots(self, environment: str, report: Callable[[str], None]) -> None:
        """Bring the snapshots of an older release into the lake, if that was not done.

        Args:
            environment: This process's.
            report: Called with the progress, as one line.

        Raises:
            SnapshotDamaged: If a snapshot is not what was written.
            WrongEnvironment: If the lake belongs to another environment.
            SystemFailure: If the snapshots or the lake cannot be reached.
        """
        OlderSnapshots(self.snapshots_url).bring_in(self.drops(), environment, report)


def open_lake(settings: Settings) -> OpenedLake:
    """The lake that the settings name; nothing is read yet.

    Raises:
        HostNotAllowed: Outside production, if the lake or the snapshots lie on a host that is not listed.
        BadSetting: Outside production, if one of the URLs or the list cannot be read.
    """
    url = hosts.allowed_lake_url(settings)
    hosts.require_allowed_url(settings, hosts.SNAPSHOTS, settings.snapshots)
    return OpenedLake(url, settings.snapshots)
