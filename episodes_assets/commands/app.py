"""The `episodes` command itself."""

import signal
import sys
from typing import NoReturn

import typer
from rich.text import Text

from episodes_assets import failures
from episodes_assets.commands import db, jobs, lake, state, tokens, users
from episodes_assets.commands import input as input_
from episodes_assets.commands.audit import audit
from episodes_assets.commands.console import err, escaped, show_defects_plainly
from episodes_assets.commands.correct import correct
from episodes_assets.commands.demo import demo
from episodes_assets.commands.history import history
from episodes_assets.commands.one_line_log import keep_unconfigured_logs_to_one_line
from episodes_assets.commands.results import results
from episodes_assets.commands.run import backfill, run
from episodes_assets.commands.tracebacks import keep_traceback
from episodes_assets.commands.up import up
from episodes_assets.commands.webserver import webserver
from episodes_assets.commands.worker import worker
from episodes_assets.errors import EpisodesError

INTERRUPTED = 128 + signal.SIGINT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Track episodes: a day's catalogue drop becomes jobs, outcomes and published results. "
    "Begin with `episodes demo`; settings are EPISODES_* variables (see README).",
)
for command in (demo, up, run, backfill, correct, worker, webserver):
    app.command()(command)
app.add_typer(db.app, name="db")
app.add_typer(input_.app, name="input")
app.add_typer(lake.app, name="lake")
app.add_typer(state.app, name="state")
app.add_typer(jobs.app, name="jobs")
app.add_typer(users.app, name="users")
app.add_typer(tokens.app, name="tokens")
app.command()(results)
app.command()(history)
app.command()(audit)


def invoke() -> None:
    """Run the command; a foreseen error is one line and exit code 1.

    Raises:
        KeyboardInterrupt: If it was interrupted.
    """
    show_defects_plainly()
    keep_unconfigured_logs_to_one_line()
    try:
        app()
    except EpisodesError as error:
        _fail(str(error))
    except Exception as error:  # noqa: BLE001  whatever it is, its cause is told
        traceback_is = keep_traceback()
        cause = failures.explain(error)
        _fail(f"{cause or failures.name_defect(error)} ({traceback_is})")
    except SystemExit as end:
        # Typer turns Ctrl-C into this exit code and says nothing.
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


def _fail(message: str) -> NoReturn:
    err.print(Text.assemble(("error:", "bold red"), f" {escaped(message)}"), soft_wrap=True)
    sys.exit(1)
