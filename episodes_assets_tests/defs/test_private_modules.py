"""Which modules of Dagster without a promise of stability are used, and why: where an upgrade has to look.

`dagster` and `dagster_postgres` themselves are public; what lies below them, or in Dagster's other packages,
may change with any release.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from episodes_assets.settings import PROJECT_FOLDER

PACKAGE = PROJECT_FOLDER / "episodes_assets"
PUBLIC = {"dagster", "dagster_postgres"}
# By our module and Dagster's: the reason.
REASONS = {
    "dashboard/auth/audit.py": {
        "dagster_postgres.utils": "what its storage raises when the database is away",
    },
    "dashboard/auth/graphql.py": {
        "dagster_graphql.schema": "requests are checked by the schema that executes them",
        "dagster_shared.yaml_utils": "a run's configuration is read as Dagster reads it",
    },
    "dashboard/dagster_ui.py": {
        "dagster._core.remote_representation.code_location": "to ask a code server whether it answers",
        "dagster._core.workspace.context": "one workspace, and a read-only view of it for viewers",
        "dagster._core.workspace.load_target": "a workspace, as `dagster-webserver` makes its own",
        "dagster_webserver.webserver": "Dagster's web application, to be served behind our gate",
    },
    "dashboard/health.py": {
        "dagster._core.remote_representation.external": "the type of a sensor in a workspace",
        "dagster._core.scheduler.instigation": "when a sensor was switched on, which no public call tells",
        "dagster._core.workspace.context": "the type of the workspace that the sensors are looked up in",
    },
    "dashboard/watch.py": {
        "dagster._core.workspace.context": "the type of the workspace that the sensors are looked up in",
    },
    "defs/draining.py": {
        "dagster._core.definitions.repository_definition": "how the runs of a code location are labelled",
        "dagster._core.execution.stats": "which step a run is in",
        "dagster._core.run_coordinator.queued_run_coordinator": "the queue that ours extends by a limit",
        "dagster._core.scheduler.instigation": "sensors and schedules, to switch them off and on",
        "dagster._core.storage.runs.sql_run_storage": "its connections, to lock a row by which drains wait",
        "dagster._core.storage.tags": "the tag by which the queue tells code locations apart",
    },
    "defs/launches.py": {
        "dagster._core.storage.tags": "the tags by which automation marks its runs",
    },
    "defs/observed.py": {
        "dagster._core.definitions.run_request": "which ticks are of sensors and which of schedules",
        "dagster._core.scheduler.instigation": "how the newest ticks of a sensor or schedule ended",
        "dagster._core.storage.asset_check_execution_record": "how the newest evaluation of a check ended",
    },
    "defs/run_launcher.py": {
        "dagster._core.errors": "that a code server does not answer",
        "dagster._core.launcher.base": "what Dagster's monitoring is told of a run",
        "dagster._core.storage.tags": "the tag by which a run names its code server",
        "dagster._grpc.client": "the type of what asks the code server",
        "dagster._grpc.types": "the question whether it executes a run",
        "dagster._serdes": "the answer, and the type of what `dagster.yaml` configures a launcher with",
    },
    "defs/storage.py": {
        "dagster._core.execution.backfill": "the type of what the run storage is given for a backfill",
        "dagster._core.storage.event_log.schema": "the table of events, of which no public call deletes some",
        "dagster._core.storage.event_log.sql_event_log": "whether events are stored in that table",
        "dagster._core.storage.tags": "the tag by which a backfill marks its runs",
        "dagster._serdes": "the type of what `dagster.yaml` configures a storage with",
        "dagster_postgres.run_storage": "the run storage that ours extends by a tag",
    },
}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # Of a package, a name may be a module.
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_"))


def test_each_private_module_of_dagster_is_used_for_a_reason() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        for name in imported(file):
            if name.split("_")[0].split(".")[0] == "dagster" and name not in PUBLIC:
                found[file.relative_to(PACKAGE).as_posix()].add(name)
    assert found == {file: {*modules} for file, modules in REASONS.items()}
