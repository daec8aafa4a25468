"""`episodes worker`: one process of the fleet."""

import logging
from typing import Annotated

import typer

from episodes_assets.commands.databases import announce_open_hosts
from episodes_assets.commands.one_line_log import log_to_stderr
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.settings import load_settings
from episodes_assets.worker.compute import TimeLimits
from episodes_assets.worker.main import WorkerConfig, run_worker


def worker(
    stop_with_parent: Annotated[
        int | None,
        typer.Option(metavar="PID", help="Stop when this process, which started it, is gone."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what PgQueuer does as well.")] = False,
) -> None:
    """Work jobs until SIGTERM or Ctrl-C, then finish the current batch and stop.

    Needs EPISODES_WORKER_DSN and the lake at EPISODES_LAKE_URL and nothing else; run as many as you like, on
    as many machines as reach both. A second Ctrl-C stops at once and loses nothing either.
    """
    log_to_stderr()
    logging.getLogger("episodes_assets").setLevel(logging.INFO)
    # A held or retried message is logged by the ledger's side in one line.
    logging.getLogger("pgqueuer").setLevel(logging.DEBUG if verbose else logging.CRITICAL)
    settings = load_settings()
    dsns = resolve_dsns(settings)
    if stop_with_parent is None:  # which has said so itself
        announce_open_hosts(settings)
    # Algorithms run in a child process, which is handed no DSN.
    with dsns.as_environment(()):
        run_worker(
            WorkerConfig(
                queue_dsn=dsns.require(Purpose.WORKER),
                lake_url=settings.lake,
                environment=settings.environment,
                max_starts=settings.max_starts,
                retry_seconds=settings.retry_seconds,
                limits=TimeLimits(
                    batch=settings.batch_timeout_seconds,
                    job=settings.job_timeout_seconds,
                    by_algorithm=settings.algorithm_timeout_seconds,
                ),
                compute_memory_mb=settings.compute_memory_mb,
                heartbeat_seconds=settings.heartbeat_seconds,
                parent=stop_with_parent,
            )
        )
