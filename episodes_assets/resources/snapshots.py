"""The snapshots as a resource."""

import dagster as dg
from pydantic import Field

from episodes_assets.settings import load_settings
from episodes_assets.stores.snapshots import SnapshotStore


class Snapshots(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where snapshots are kept: a local folder or an fsspec URL."""

    url: str = Field(default="", description="A folder or fsspec URL; by default what the settings say.")

    def open(self) -> SnapshotStore:
        """The store at that place."""
        return SnapshotStore(self.url or load_settings().snapshots)
