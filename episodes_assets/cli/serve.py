"""`episodes webserver` and `episodes worker`: one process of the system, until it is stopped.

Each imports what it serves when it is run. `episodes up` starts them as children. What they serve is in
`dashboard/` and `worker/`.
"""

import logging
from pathlib import Path
from typing import Annotated

import typer

from episodes_assets.accounts import audit
from episodes_assets.cli.console import log_to_stderr, out
from episodes_assets.cli.context import announce_open_hosts, prepare_dagster_home, ready_databases
from episodes_assets.cli.current_folder import own_current_folder
from episodes_assets.dashboard.configuration import read_configuration
from episodes_assets.postgres import dsn, hosts
from episodes_assets.postgres.databases import ORCHESTRATOR, Purpose
from episodes_assets.settings import load_settings


def webserver(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 3000,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            "-w",
            exists=True,
            dir_okay=False,
            help="A workspace.yaml that names running code servers. Default: the code is loaded here.",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Nobody changes anything, operators included.")
    ] = False,
) -> None:
    """Serve Dagster's web UI behind a login until Ctrl-C.

    Needs EPISODES_DAGSTER_DSN, EPISODES_DASHBOARD_DSN and EPISODES_QUEUE_DSN; for the page Explain also
    EPISODES_RESULTS_READER_DSN and the lake at EPISODES_LAKE_URL, for the page Results EPISODES_CONSUMER_DSN;
    without --workspace, also what the code location needs. Users are made with `episodes users add`. Viewers
    see everything and change nothing; operators may do all that the UI offers, and the audit log says who did
    what.
    """
    # Dagster takes seconds to import; `--help` must not wait for it.
    from episodes_assets.dashboard.app import open_application
    from episodes_assets.dashboard.server import listening, serve

    settings = load_settings()
    log_to_stderr(settings.log_format)
    logging.getLogger(audit.__name__).setLevel(logging.INFO)
    configuration = read_configuration(settings, host=host, port=port, is_read_only=read_only)
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    prepare_dagster_home(settings)
    workspace = None if workspace is None else workspace.absolute()
    with (
        own_current_folder(settings),
        listening(configuration) as listener,
        # Without --workspace Dagster starts a code server: it gets what the code location needs, and no
        # secret of the dashboard.
        dsns.as_environment(ORCHESTRATOR),
        open_application(settings, dsns, configuration, workspace) as application,
    ):
        out.print(f"Serving {configuration.address}", soft_wrap=True)
        serve(application, configuration, listener)


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
    from episodes_assets.worker.compute import TimeLimits
    from episodes_assets.worker.main import WorkerConfig, run_worker

    settings = load_settings()
    log_to_stderr(settings.log_format)
    logging.getLogger("episodes_assets").setLevel(logging.INFO)
    # A held or retried message is logged by the ledger's side in one line.
    logging.getLogger("pgqueuer").setLevel(logging.DEBUG if verbose else logging.CRITICAL)
    dsns = dsn.resolve_dsns(settings)
    if stop_with_parent is None:  # a parent has printed them itself
        announce_open_hosts(settings)
    # Algorithms run in a child process, which is handed no DSN.
    with dsns.as_environment(()):
        run_worker(
            WorkerConfig(
                queue_dsn=dsns.require(Purpose.WORKER),
                lake_url=hosts.allowed_lake_url(settings),
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
