"""The snapshots as a resource."""

import dagster as dg

from episodes_assets.settings import load_settings
from episodes_assets.stores.snapshots import SnapshotStore


class Snapshots(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the settings say that snapshots are kept; no field, which whoever launches a run could set."""

    def open(self) -> SnapshotStore:
        """The store at that place."""
        return SnapshotStore(load_settings().snapshots)
