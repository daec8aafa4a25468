"""Copies of the package that stand for two releases; the newer has a migration more in each database.

The checkout's history need not be there: both are this code. In both, the algorithm `reach` is slow until a
file is made, so that a day lasts as long as it takes to replace all processes.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import episodes_assets
from episodes_assets.postgres.admission import needed_version
from episodes_assets.postgres.databases import Database

# One column more in all that is written while a day is worked, and one that older releases may still need.
_ADDED = {
    Database.QUEUE: (
        "ledger.plans", "ledger.jobs", "ledger.chunks", "ledger.outcomes", "ledger.job_attempts",
        "ledger.batches", "ledger.workers", "ledger.profiles", "ledger.waivers",
    ),
    Database.RESULTS: (
        "state.tracked_days", "state.tracked_episodes", "published.days", "published.results",
        "published.history", "published.episodes",
    ),
    Database.DAGSTER: ("dashboard.sessions", "dashboard.users", "dashboard.audit_log", "public.processes"),
}  # fmt: skip
_MIGRATION = """
from alembic import op

revision = "{revision}"
down_revision = "{before}"
oldest_beside = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE public.kept_for_older_releases ()")
    for table in {tables}:
        op.execute(f"ALTER TABLE {{table}} ADD COLUMN of_the_newer text NOT NULL DEFAULT 'nothing'")


def finish() -> None:
    op.execute("DROP TABLE public.kept_for_older_releases")


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS public.kept_for_older_releases")
    for table in {tables}:
        op.execute(f"ALTER TABLE {{table}} DROP COLUMN of_the_newer")
"""
_SLOW = """

def _slowly(viewings: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    import time
    from pathlib import Path

    deadline = time.monotonic() + {seconds}
    while not Path({hurry!r}).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return compute(viewings, jobs)

"""


@dataclass(frozen=True)
class Release:
    """A copy of the package, with a version of its own.

    Attributes:
        folder: Where modules are found.
        version: What it calls itself.
    """

    folder: Path
    version: str

    @property
    def environment(self) -> Mapping[str, str]:
        """This process's environment, in which Python finds this release."""
        return {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}


def copy_release(folder: Path, version: str, *, hurry: Path, slow_seconds: float) -> Release:
    """Copy the package.

    Args:
        folder: To be made.
        version: Of the release.
        hurry: The file with which the algorithm becomes quick.
        slow_seconds: How long it takes for a batch until then.
    """
    package = folder / "episodes_assets"
    shutil.copytree(
        Path(episodes_assets.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    reach = package / "algorithms" / "reach.py"
    code = reach.read_text()
    before, found, after = code.partition("ALGORITHM = Algorithm(")
    assert found
    slow = _SLOW.format(seconds=slow_seconds, hurry=str(hurry))
    reach.write_text(f"{before}{slow}{found}{after.replace('compute=compute', 'compute=_slowly')}")
    named = folder / f"episodes_assets-{version}.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: episodes-assets\nVersion: {version}\n")
    return Release(folder, version)


def add_migrations(release: Release) -> Mapping[Database, str]:
    """Give a release one migration more in each database that is ours; their versions."""
    added = {}
    for database, tables in _ADDED.items():
        before = needed_version(database)
        added[database] = f"{database.value}_9000"
        path = release.folder / "episodes_assets" / "postgres" / "migrations" / database.value
        text = _MIGRATION.format(revision=added[database], before=before, tables=tables)
        (path / "9000_of_the_newer.py").write_text(text)
    return added
