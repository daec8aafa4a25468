"""What the fork server imports once, so that a process of its own costs a fork."""

import importlib

from episodes_assets.definitions import defs
from episodes_assets.defs import storage
from episodes_assets.planning.drop import prepare_rules
from episodes_assets_tests.chaos import faults

__all__ = ["JOB", "faults", "storage"]

for _name in (
    "accounts",
    "app",
    "correct",
    "db",
    "demo",
    "input",
    "jobs",
    "lake",
    "results",
    "runs",
    "state",
):
    importlib.import_module(f"episodes_assets.cli.{_name}")
importlib.import_module("episodes_assets.worker.main")
prepare_rules()
JOB = defs.resolve_implicit_global_asset_job_def()
