"""What the fork server imports once, so that a process of its own costs a fork."""

from episodes_assets.definitions import build_defs
from episodes_assets.defs import storage
from episodes_assets.defs.assets import published_results
from episodes_assets.planning.drop import prepare_rules
from episodes_assets_tests.chaos import faults

__all__ = ["faults", "published_results", "storage"]

prepare_rules()
JOB = build_defs().resolve_implicit_global_asset_job_def()
