"""The lake as a resource."""

import dagster as dg

from episodes_assets.lake.drops import Drops
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets.lake.viewings import Viewings
from episodes_assets.settings import load_settings


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
