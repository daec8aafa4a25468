"""The `episodes` command itself: which commands there are, and how it fails.

A foreseen error is one line; of any other the traceback goes into a log in the home. A command's own module
is imported when it is run; its options, and what it does and prints, are there.
"""

import datetime as dt
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from episodes_assets.cli import console
from episodes_assets.errors import EpisodesError
from episodes_assets.private_files import make_folder, open_file, rotate_log
from episodes_assets.settings import load_settings
from episodes_assets.signals import leaving_at_once

INTERRUPTED = 128 + signal.SIGINT
# Each command's module and function, and its summary in the list: the first paragraph of its own help.
COMMANDS = {
    "demo": (
        "demo:demo",
        "Run the main job from nothing, on the embedded databases with a sample of input.",
    ),
    "up": (
        "up:up",
        "Run the whole system until Ctrl-C: databases, code location, daemon, web UI and workers.",
    ),
    "run": ("runs:run", "Materialise the whole graph for one day and show what was published."),
    "backfill": ("runs:backfill", "Materialise the whole graph for a range of days, in one Dagster run."),
    "correct": (
        "correct:correct",
        "Correct a day whose input was wrong, and every later day, and show what changed.",
    ),
    "worker": (
        "serve:worker",
        "Work jobs until SIGTERM or Ctrl-C, then finish the current batch and stop.",
    ),
    "webserver": ("serve:webserver", "Serve Dagster's web UI behind a login until Ctrl-C."),
    "drain": (
        "drain:drain",
        ("Let the runs of a code location end and launch no more, so that its process can be replaced."),
    ),
    "results": ("results:results", "Show what was published for a day, or write it all to a CSV file."),
    "explain": (
        "explain:explain",
        ("Explain from the records why an episode's results of a day are what they are, or are not there."),
    ),
    "history": (
        "correct:history",
        "Show a day's drops, viewings, state, plans, waivers, publications, repairs and restore points.",
    ),
    "audit": (
        "accounts:audit",
        "Show logins and changes, the newest last: when, who, how they proved it, what, from where.",
    ),
    "db": (
        "db:app",
        "Set the four databases up, see how they are, and say which environment they belong to.",
    ),
    "input": (
        "input:app",
        (
            "Fill an input database. Production input comes from other systems; this is for samples, trials "
            "and development copies, and needs a role that may write (EPISODES_INPUT_WRITER_DSN)."
        ),
    ),
    "lake": (
        "lake:app",
        (
            "Look after the lake: the input's drops and viewings as Delta Lake tables, of which plans "
            "and publications name versions."
        ),
    ),
    "state": ("state:state_app", "Export and import the accumulated tracked episodes."),
    "jobs": ("jobs:app", "See how far the fleet is; retry, waive or cancel jobs."),
    "alerts": (
        "alerts:app",
        "See which alerts are open, since when, and what to do; test how people are told of them.",
    ),
    "lab": (
        "lab:app",
        (
            "Take published days of a system with all that they were made of, load them into a lab, a home "
            "of its own that cannot reach the source, and look at them, run them again and change things "
            "there."
        ),
    ),
    "profile": (
        "profile:app",
        "See where steps and micro-batches spend their time, by file and line; ask workers for more.",
    ),
    "users": (
        "accounts:users_app",
        "Say who may log in to the dashboard with a password, and what they may do there.",
    ),
    "tokens": (
        "accounts:tokens_app",
        "Make and revoke service tokens: scripts send one as `Authorization: Bearer TOKEN`.",
    ),
}


class LazyGroup(TyperGroup):
    """Imports a command when it is run, since all of them together take more than a second.

    The pattern is Click's for lazily loaded subcommands.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  those of TyperGroup
        super().__init__(**options)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401
        """The command that is to be run."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load(str(listed.name)), rest


def load(name: str) -> Any:  # noqa: ANN401  Typer keeps its own copy of Click, which is not public
    """Import a command or a group of commands."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    with leaving_at_once():
        found = getattr(importlib.import_module(f"episodes_assets.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        command = typer.main.get_command(single)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def episodes() -> None:
    """Track episodes: a day's catalogue drop becomes jobs, outcomes and published results.

    Begin with `episodes demo`; settings are EPISODES_* variables (see docs/settings.md).
    """


# These hold nothing that leads to a lab's source, not even in the environment with which the process was
# started, which /proc shows.
APART = {("lab", name) for name in ("load", "verify", "replay", "up", "drop")}


def begin_apart(arguments: Sequence[str]) -> None:
    """Replace the process of a command that works with a lab by one that has nothing of a source (exec).

    Args:
        arguments: The command's, without its own name.
    """
    if tuple(arguments[:2]) not in APART:
        return
    from episodes_assets.lab.isolation import without_source

    environment = without_source(os.environ)
    if environment != dict(os.environ):
        os.execve(  # noqa: S606  there is no shell
            sys.executable, [sys.executable, "-P", "-m", "episodes_assets", *arguments], environment
        )


def invoke() -> None:
    """Run the command; a foreseen error is one line and exit code 1.

    Raises:
        KeyboardInterrupt: If it was interrupted.
    """
    console.install_exception_hooks()
    console.keep_unconfigured_logs_to_one_line()
    try:
        begin_apart(sys.argv[1:])
        app()
    except EpisodesError as error:
        _fail(str(error))
    except Exception as error:  # noqa: BLE001  whatever it is, its cause is shown
        from episodes_assets import failures

        cause = failures.explain(error)
        traceback_is = keep_traceback(is_explained=cause is not None)
        _fail(f"{cause or failures.name_defect(error)}{traceback_is and f' ({traceback_is})'}")
    except SystemExit as end:
        # Typer turns Ctrl-C into this exit code and says nothing.
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


def _fail(message: str) -> NoReturn:
    console.err.print(Text.assemble(("error:", "bold red"), f" {console.escaped(message)}"), soft_wrap=True)
    sys.exit(1)


LOG = "errors.log"


def keep_traceback(*, is_explained: bool = False) -> str:
    """Append the traceback of the error that is being handled to the log; print it if that is impossible.

    Args:
        is_explained: Whether its cause is known: then it is not printed.

    Returns:
        Where it is, as a clause; empty if it is nowhere.
    """
    text = traceback.format_exc()
    try:
        folder = make_folder(load_settings().home.resolve() / "logs")
        entry = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} {' '.join(sys.argv)}\n{text}\n"
        rotate_log(folder / LOG)
        with open_file(folder / LOG, "a") as log:
            log.write(entry.encode("utf-8", "backslashreplace").decode())
    except (OSError, EpisodesError):
        if is_explained:
            return ""
        console.err.print(console.block(text), soft_wrap=True)
        return "the traceback is above"
    return f"the traceback is in {folder / LOG}"
