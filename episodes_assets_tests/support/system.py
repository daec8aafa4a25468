"""A whole system of its own for a test: real databases, real Dagster runs, real workers."""

import atexit
import datetime as dt
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import psutil
import psycopg
import pyarrow as pa

from episodes_assets.cli.supervisor import worker_environment
from episodes_assets.days import ONE_DAY, days_between
from episodes_assets.definitions import defs
from episodes_assets.input.loading import replace_input
from episodes_assets.input.reading import reading
from episodes_assets.input.sample import drop_table, sample_drop, sample_viewings, viewings_table
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.private_files import make_folder, write_file
from episodes_assets.settings import Settings, load_settings
from episodes_assets.worker.compute import JobWindows, MicroBatch, run_micro_batch
from episodes_assets_tests.support.commands import run_command, running_workers

_ROOM = 6 * 2**30
FIRST = dt.date(2018, 3, 1)
_HISTORY = 3 * ONE_DAY


def day(number: int) -> dt.date:
    """The number-th day, from 1."""
    return FIRST + (number - 1) * ONE_DAY


def throwaway(home: Path) -> Path:
    """A home whose cluster is removed when this process ends; as root it lies outside of it.

    To be called before a server starts there: what is registered first is done last.
    """
    atexit.register(_remove_cluster, home / "postgres")
    return home


def home_in_memory() -> Path | None:
    """A throwaway home whose cluster lies in memory, where a database is made in a fraction of the time.

    None where there is no room for it, as in a container with the usual 64 MB.
    """
    place = Path("/dev/shm")
    if (
        not place.is_dir()
        or shutil.disk_usage(place).free < _ROOM
        or psutil.virtual_memory().available < _ROOM
    ):
        return None
    folder = Path(tempfile.mkdtemp(prefix="episodes-tests-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    home = make_folder(folder / "home")
    if os.geteuid() == 0:  # its server runs as another user
        folder.chmod(0o711)
        cluster = folder / "cluster"
        cluster.mkdir(mode=0o711)
        write_file(cluster / "home", str(home))
        (home / "postgres").symlink_to(cluster)
    return home


def _remove_cluster(link: Path) -> None:
    if link.is_symlink() and link.exists():
        shutil.rmtree(link.readlink())


@dataclass(frozen=True)
class System:
    """Databases, folder and environment variables of one test."""

    home: Path
    dsns: Dsns
    admin: Mapping[str, str]  # administrator's DSN by database

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens an instance of its own."""
        return {name: value for name, value in vars(self).items() if name != "dagster"}

    @property
    def settings(self) -> Settings:
        return load_settings()

    @functools.cached_property
    def dagster(self) -> dg.DagsterInstance:
        """Dagster's instance, opened once: that takes as long as a fifth of a run."""
        return dg.DagsterInstance.get()

    @property
    def drops(self) -> Drops:
        """The lake's."""
        return open_lake(self.settings).drops()

    @property
    def viewings(self) -> Viewings:
        """The lake's."""
        return open_lake(self.settings).viewings()

    def take_viewings(self, first: dt.date, last: dt.date) -> PinnedVersion:
        """Take the input's viewings of some days into the lake as they are now; the version with them."""
        lake = self.viewings
        taken = []
        for each in days_between(first, last):
            with reading(self.dsn(Purpose.INPUT), each) as source, source.viewings() as batches:
                taken.append(lake.write(each, batches))
        files = [each.file for each in taken]
        environment = self.settings.environment
        return lake.commit(taken[0].schema, lambda _: files, environment=environment, facts={}).pinned

    def compute(self, of: dt.date, windows: JobWindows, since: dt.date | None = None) -> MicroBatch:
        """The outcomes of some jobs, from the input's viewings since a day as they are now."""
        return run_micro_batch(self.settings.lake, self.take_viewings(since or of, of), of, windows)

    def dsn(self, purpose: Purpose) -> str:
        return self.dsns.require(purpose)

    def query(self, database: str, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Run a statement as the administrator."""
        with psycopg.connect(self.admin[database], autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def generate(self, first: dt.date, last: dt.date, *, episodes: int = 120, seed: int = 1) -> None:
        """Fill the input with a sample."""
        drops, viewings = _sample(episodes, seed, first, last)
        replace_input(
            self.dsn(Purpose.INPUT_WRITER),
            drops=drops,
            drop_days=list(days_between(first, last)),
            viewings=viewings,
            viewing_days=list(days_between(first - _HISTORY, last)),
        )

    def insert_drop(self, batch_date: dt.date, rows: Sequence[Sequence[object]]) -> None:
        """Insert catalogue rows: (epid, algorithm_id, premier_date, start_date)."""
        with psycopg.connect(self.dsn(Purpose.INPUT_WRITER)) as connection:
            connection.cursor().executemany(
                "INSERT INTO episodes (batch_date, epid, algorithm_id, premier_date, start_date, title)"
                " VALUES (%s, %s, %s, %s, %s, 'a title')",
                [(batch_date, *row) for row in rows],
            )

    def insert_viewings(self, rows: Sequence[Sequence[object]]) -> None:
        """Insert viewings: (epid, viewer_id, viewed_at, seconds_watched, completed)."""
        with psycopg.connect(self.dsn(Purpose.INPUT_WRITER)) as connection:
            connection.cursor().executemany("INSERT INTO viewings VALUES (%s, %s, %s, %s, %s)", rows)

    @contextmanager
    def workers(self, count: int = 1) -> Iterator[None]:
        """Real worker processes while the block lasts."""
        environment = {**os.environ, **worker_environment(self.settings, self.dsns)}
        with running_workers(environment, count, self.home / "logs"):
            yield

    def materialize(
        self,
        first: dt.date,
        last: dt.date | None = None,
        *,
        select: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        rework: bool = False,
        as_planned: bool = False,
        repair: str = "",
    ) -> dg.ExecuteInProcessResult:
        """A Dagster run over a day or a range, in the real instance; one that repairs, for a reason."""
        repairing = {"config": {"repair": True, "reason": repair}}
        repaired = ("tracked_episodes", "episode_jobs", "published_results") if repair else ()
        partitions: dict[str, Any] = (
            {"partition_key": str(first)}
            if last is None
            else {
                "tags": {
                    "dagster/asset_partition_range_start": str(first),
                    "dagster/asset_partition_range_end": str(last),
                }
            }
        )
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.dagster,
            asset_selection=[dg.AssetKey(key) for key in _whole_steps(select)] if select else None,
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {
                    **({"take_input": {"config": dict(config)}} if config else {}),
                    **(
                        {"episode_jobs": {"config": {"rework": True, "as_planned": as_planned}}}
                        if rework
                        else {}
                    ),
                    **dict.fromkeys(repaired, repairing),
                },
            },
            raise_on_error=False,
            **partitions,
        )

    def plan(self, first: dt.date, last: dt.date | None = None, *, rework: bool = False) -> None:
        """Materialise the first three assets and insist that it succeeds."""
        planning = ["input_episodes", "tracked_episodes", "episode_jobs"]
        result = self.materialize(first, last, select=planning, rework=rework)
        assert result.success, failure(result)

    def cli(
        self, *arguments: str, timeout: float = 120, env: Mapping[str, str] | None = None, umask: int = -1
    ) -> subprocess.CompletedProcess[str]:
        """Run the `episodes` command as a user does."""
        return run_command(arguments, {**os.environ, **(env or {})}, timeout=timeout, umask=umask)

    def published(self) -> pd.DataFrame:
        """All published rows, with the manifest's checksums."""
        rows = self.query(
            "results",
            "SELECT day, checksum, epid, algorithm_id, window_start, window_end, covered_from,"
            " metrics::text FROM published.days LEFT JOIN published.results USING (day)"
            " ORDER BY day, epid, algorithm_id",
        )
        columns = ["day", "checksum", "epid", "algorithm_id", "start", "end", "covered", "metrics"]
        return pd.DataFrame(rows, columns=columns)

    def jobs(self, of: dt.date) -> list[Any]:
        """The jobs of a day's current plan."""
        return self.query(
            "queue",
            "SELECT epid, algorithm_id, window_start FROM ledger.jobs JOIN ledger.plans USING (plan_id)"
            " WHERE day = %s AND superseded_at IS NULL ORDER BY epid, algorithm_id",
            [of],
        )

    def finish_jobs(self, which: str = "true", views: int = 1) -> None:
        """Let jobs have outcomes, as a worker would write them."""
        self.query(
            "queue",
            "INSERT INTO ledger.outcomes (plan_id, position, covered_from, metrics, algorithm_version,"
            " worker)"
            " SELECT plan_id, position, '2018-03-01', jsonb_build_object('views', %s::int, 'viewers', 1,"
            f" 'seconds_watched', 2, 'completed_views', 0), '1', 'w' FROM ledger.jobs WHERE {which}"
            " ON CONFLICT (plan_id, position) DO UPDATE SET metrics = excluded.metrics",
            [views],
        )
        self.query(
            "queue",
            "UPDATE ledger.chunks SET succeeded = (SELECT count(*) FROM ledger.job_states"
            " WHERE job_states.plan_id = chunks.plan_id AND job_states.chunk = chunks.chunk"
            " AND state = 'succeeded')",
        )

    def hold_jobs(self, which: str) -> None:
        """Let jobs be held, as a worker would after their last start."""
        self.query(
            "queue",
            "INSERT INTO ledger.job_attempts (plan_id, position, starts, is_held, error)"
            f" SELECT plan_id, position, 4, true, 'x' FROM ledger.jobs WHERE {which}",
        )
        self.query(
            "queue",
            "UPDATE ledger.chunks SET held = (SELECT count(*) FROM ledger.job_states"
            " WHERE job_states.plan_id = chunks.plan_id AND job_states.chunk = chunks.chunk"
            " AND state IN ('held', 'waived'))",
        )

    def forget_plans(self, of: dt.date | None = None) -> None:
        """Empty the ledger, or what it has of a day."""
        for table in ("chunks", "outcomes", "job_attempts", "batches", "jobs", "waivers", "plans"):
            self.query(
                "queue",
                f"DELETE FROM ledger.{table} WHERE plan_id IN"
                " (SELECT plan_id FROM ledger.plans WHERE day = coalesce(%s::date, day))",
                [of],
            )

    def forget_everything(self) -> None:
        """Empty state, ledger and results; the lake and the input stay."""
        self.forget_plans()
        for table in ("state.tracked_days", "state.tracked_episodes"):
            self.query("results", f"DELETE FROM {table}")
        for table in ("published.days", "published.history", "published.results"):
            self.query("results", f"DELETE FROM {table}")

    def fingerprint(self) -> dict[str, list[Any]]:
        """Everything that state, ledger and results hold."""
        return {
            "tracked": self.query("results", "SELECT * FROM state.tracked_episodes ORDER BY epid"),
            "tracked_days": self.query("results", "SELECT * FROM state.tracked_days ORDER BY day"),
            "plans": self.query("queue", "SELECT * FROM ledger.plans ORDER BY plan_id"),
            "jobs": self.query("queue", "SELECT * FROM ledger.job_states ORDER BY 1, 2"),
            "chunks": self.query("queue", "SELECT * FROM ledger.chunks ORDER BY 1, 2"),
            "job_attempts": self.query("queue", "SELECT * FROM ledger.job_attempts ORDER BY 1, 2"),
            "waivers": self.query("queue", "SELECT * FROM ledger.waivers ORDER BY 1"),
            "outcomes": self.query("queue", "SELECT * FROM ledger.outcomes ORDER BY 1, 2"),
            "published": self.query("results", "SELECT * FROM published.results ORDER BY 1, 2, 3"),
            "days": self.query("results", "SELECT * FROM published.days ORDER BY day"),
            "history": self.query("results", "SELECT * FROM published.history ORDER BY 1"),
        }


@functools.cache
def _sample(episodes: int, seed: int, first: dt.date, last: dt.date) -> tuple[pa.Table, pa.Table]:
    """What `generate_input` makes for these days, made once for all tests of this process."""
    drops = [drop_table(sample_drop(episodes, seed, day), day) for day in days_between(first, last)]
    viewings = [
        viewings_table(sample_viewings(episodes, seed, day)) for day in days_between(first - _HISTORY, last)
    ]
    return pa.concat_tables(drops), pa.concat_tables(viewings)


def _whole_steps(assets: Sequence[str]) -> list[str]:
    """Some assets, and those that their steps make as well."""
    return [*assets, *(["input_viewings"] if "input_episodes" in assets else [])]


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the first failed step of a run says."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None:
                return str(data.user_failure_data.description)
            return str(data.error)
    return ""
