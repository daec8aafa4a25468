"""The lake as a resource."""

import dagster as dg

from episodes_assets.lake.viewings import Viewings
from episodes_assets.settings import load_settings


class Lake(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the settings say that the lake is; no field, which whoever launches a run could set."""

    def viewings(self) -> Viewings:
        """Its table of viewings."""
        return Viewings(load_settings().lake)
