"""What the fork server imports once, so that a process of its own costs a fork.

Also what commands and runs import only when they need it. The garbage collector then leaves all of it alone,
so that no forked process looks through it and copies its memory by that.
"""

import gc
import importlib

from episodes_assets.definitions import defs
from episodes_assets.defs import storage
from episodes_assets.planning.drop import prepare_rules
from episodes_assets_tests.support import faults

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
for _name in (
    "dagster._core.execution.execute_in_process",
    "dagster._core.executor.in_process",
    "dagster._core.storage.noop_compute_log_manager",
    "dagster._core.storage.root",
    "dagster_postgres",
    "episodes_assets.__main__",
    "episodes_assets.defs.draining",
    "episodes_assets.worker.main",
    "psycopg2.extras",
    "rich.markdown",
    "typer._click.decorators",
    "upath.implementations.local",
):
    importlib.import_module(_name)
prepare_rules()
JOB = defs.resolve_implicit_global_asset_job_def()
gc.collect()
gc.freeze()
