"""One run of the whole graph in this process: its progress, how it is interrupted, and what it fails with.

Dagster records it in its instance like any other run, so the UI shows it with all its metadata. Which days
and which configuration a run has is decided by the commands (`runs`, `correct`, `demo`); what its steps do is
in `defs/assets/`.
"""

import datetime as dt
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from episodes_assets import failures
from episodes_assets.cli.console import err
from episodes_assets.cli.profile import print_profiles_of_run
from episodes_assets.days import days_between
from episodes_assets.errors import EpisodesError, RunFailed
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect_to_read, unreachable
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns

if TYPE_CHECKING:
    import dagster as dg


STEPS = (
    "take_input",
    "tracked_episodes",
    "episode_jobs",
    "job_outcomes",
    "published_results",
)
POLL_SECONDS = 0.5


def materialize_days(
    instance: "dg.DagsterInstance",
    dsns: Dsns,
    first: dt.date,
    last: dt.date,
    run_config: Mapping[str, Any] | None = None,
    *,
    is_profiled: bool = False,
) -> str:
    """Materialise the whole graph for the days from `first` to `last` in one run.

    A run that is profiled shows where its time went, also if it fails.

    Returns:
        The run's id.

    Raises:
        RunFailed: If a step fails.
        DatabaseUnreachable: If Dagster's own database goes away.
        KeyboardInterrupt: If it is interrupted; the run is recorded as failed.
    """
    from episodes_assets.definitions import build_defs  # loads Dagster
    from episodes_assets.defs.profiles import PROFILE_TAG

    job = build_defs().resolve_implicit_global_asset_job_def()
    run_id = str(uuid.uuid4())
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    is_day = first == last
    partitions: dict[str, Any] = {"partition_key": first.isoformat()} if is_day else {}
    range_tags = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    began, is_whole = time.monotonic(), False
    try:
        with (
            _explaining_lost_storage(dsns),
            _interruptible(),
            _shown_progress(instance, dsns, run_id, first, last),
        ):
            result = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                run_config={**quiet, **(run_config or {})},
                raise_on_error=False,
                tags={**({} if is_day else range_tags), **({PROFILE_TAG: "true"} if is_profiled else {})},
                **partitions,
            )
        is_whole = result.success
    finally:
        _print_duration(first, last, time.monotonic() - began, is_whole=is_whole)
    if is_profiled:
        print_profiles_of_run(dsns, run_id)
    if not result.success:
        raise _explain_failure(result, run_id)
    return run_id


def _label(first: dt.date, last: dt.date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _print_duration(first: dt.date, last: dt.date, seconds: float, *, is_whole: bool) -> None:
    """Print how long a run took, if stderr is no terminal and so shows no progress bar."""
    if not err.is_terminal:
        took = f"{seconds:.1f} s" if is_whole else f"not finished, ended after {seconds:.1f} s"
        err.print(f"{_label(first, last)}: {took}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Dagster's interrupt into Python's, and restore the handler of SIGTERM afterwards.

    Dagster gives SIGTERM the handler of SIGINT, which is ignored in a background job of a shell.

    Raises:
        KeyboardInterrupt: If the run is interrupted between two steps.
    """
    from dagster import DagsterExecutionInterruptedError

    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except DagsterExecutionInterruptedError as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _explaining_lost_storage(dsns: Dsns) -> Iterator[None]:
    """Name Dagster's database if it goes away, which ends a run in the middle, with what it had committed."""
    from sqlalchemy.exc import SQLAlchemyError  # loaded with Dagster

    try:
        yield
    except SQLAlchemyError as error:
        raise unreachable(dsns.require(Purpose.DAGSTER), error) from error


def _explain_failure(result: "dg.ExecuteInProcessResult", run_id: str) -> EpisodesError:
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return RunFailed(data.user_failure_data.description)
        if data.error and data.error.cls_name == "DagsterExecutionInterruptedError":
            raise KeyboardInterrupt
        return _explain_error(data.error, str(event.step_key), run_id)
    for event in result.all_events:
        if event.is_failure and event.job_failure_data.error:  # of no step
            return _explain_error(event.job_failure_data.error, "the run", run_id)
    return RunFailed(f"run {run_id} failed", "see it in the UI (`episodes up`)")


def _explain_error(error: Any, what: str, run_id: str) -> EpisodesError:  # noqa: ANN401
    """What Dagster has recorded of an error, by its innermost cause."""
    where = f"run {run_id} has the traceback in the UI (`episodes up`)"
    if error is None:
        return RunFailed(f"{what} failed", where)
    if (cause := failures.explain_recorded(error)) is not None:
        return RunFailed(str(cause))
    return RunFailed(f"{what} failed unexpectedly ({failures.name_recorded_defect(error)})", where)


@contextmanager
def _shown_progress(
    instance: "dg.DagsterInstance", dsns: Dsns, run_id: str, first: dt.date, last: dt.date
) -> Iterator[None]:
    """Show which stage a run is in and how many jobs are finished, until the block ends."""
    label = _label(first, last)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    done = threading.Event()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(f"{label}  starting", total=None)

        def watch() -> None:
            while not done.wait(POLL_SECONDS):
                try:
                    stage = _current_stage(instance, run_id)
                    finished, total = _finished_jobs(dsns, first, last)
                except Exception:  # noqa: BLE001, S112  a display must not end the run it shows
                    continue
                bar.update(
                    task,
                    description=f"{label}  {stage}",
                    completed=finished if stage == "job_outcomes" else 0,
                    total=total if stage == "job_outcomes" else None,
                )

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _current_stage(instance: "dg.DagsterInstance", run_id: str) -> str:
    begun = {step.step_key for step in instance.get_run_step_stats(run_id)}
    return next((step for step in reversed(STEPS) if step in begun), "starting")


def _finished_jobs(dsns: Dsns, first: dt.date, last: dt.date) -> tuple[int, int]:
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as connection:
        progress = read_progress(connection, list(days_between(first, last)))
    return sum(d.succeeded + d.failed for d in progress), sum(d.jobs for d in progress)
