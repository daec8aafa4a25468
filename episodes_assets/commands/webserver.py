"""`episodes webserver`: Dagster's web UI and the fleet's page, behind a login."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from episodes_assets.accounts import audit
from episodes_assets.commands.console import out
from episodes_assets.commands.dagster_home import prepare_dagster_home
from episodes_assets.commands.databases import announce_open_hosts, ready_databases
from episodes_assets.commands.one_line_log import log_to_stderr
from episodes_assets.dashboard.configuration import read_configuration
from episodes_assets.postgres.databases import ORCHESTRATOR
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

    Needs EPISODES_DAGSTER_DSN, EPISODES_DASHBOARD_DSN and EPISODES_QUEUE_DSN; without --workspace, also
    what the code location needs. Users are made with `episodes users add`. Viewers see everything and
    change nothing; operators may do all that the UI offers, and the audit log says who did what.
    """
    # Dagster takes seconds to import; `--help` must not wait for it.
    from episodes_assets.dashboard.app import open_application
    from episodes_assets.dashboard.server import listening, serve

    log_to_stderr()
    logging.getLogger(audit.__name__).setLevel(logging.INFO)
    settings = load_settings()
    configuration = read_configuration(settings, host=host, port=port, is_read_only=read_only)
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    prepare_dagster_home(settings)
    with (
        listening(configuration) as listener,
        # Without --workspace Dagster starts a code server: it gets what the code location needs, and no
        # secret of the dashboard.
        dsns.as_environment(ORCHESTRATOR),
        open_application(settings, dsns, configuration, workspace) as application,
    ):
        out.print(f"Serving {configuration.address}", soft_wrap=True)
        serve(application, configuration, listener)
