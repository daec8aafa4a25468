"""`episodes lab`: the commands on labs. Those that make a lab are in `bundle.py`.

A command that works with a lab holds no DSN of a source: it replaces its process by one without them
(`app.begin_apart`), and what runs in a lab is a process of its own with the lab's settings. `list` and `show`
only read files. What the commands do is in `episodes_assets/lab/`.
"""

import datetime as dt
import os
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from episodes_assets.cli import bundle
from episodes_assets.cli.console import out, shown_progress
from episodes_assets.cli.supervisor import episodes_argv, run_to_end
from episodes_assets.days import parse_day
from episodes_assets.errors import BadLab, LabDiffers
from episodes_assets.lab import labs
from episodes_assets.lab.isolation import without_network
from episodes_assets.lab.request import Kind, describe_sample
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output

app = typer.Typer(
    no_args_is_help=True,
    help="Take published days of a system with all that they were made of, load them into a lab, a home "
    "of its own that cannot reach the source, and look at them, run them again and change things there.",
)
for command in (bundle.take, bundle.load, bundle.clone):
    app.command()(command)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The lab's name.")]


@app.command()
def verify(
    name: Name,
    recompute: Annotated[
        bool, typer.Option("--recompute/--no-recompute", help="Compute all outcomes anew as well.")
    ] = True,
) -> None:
    """Compare a lab with what was taken, by content, along the whole chain; fails if anything differs.

    Drop, viewings, tracked state, plan, outcomes and published rows have to be those that were taken: for a
    whole clone those of the source by its own checksums, for a sample the same restricted to its episodes.
    Then tracked episodes, plan and outcomes are computed anew from the lab's own lake and state.

    Example: episodes lab verify march
    """
    from episodes_assets.lab.verify import verify as verify_lab

    require_standard_output()
    lab = labs.require_loaded(load_settings(), name)
    shown = Table(box=None)
    for column in ("step", "day", "what"):
        shown.add_column(column)
    shown.add_column("rows", justify="right")
    shown.add_column("as taken?")
    differing = 0
    with shown_progress() as report:
        for each in verify_lab(lab, report, recompute=recompute):
            differing += not each.is_equal
            shown.add_row(
                each.step,
                str(each.day or "all"),
                each.what,
                f"{each.rows:,}",
                each.difference or "equal",
                style=None if each.is_equal else "red",
            )
    out.print(shown)
    if differing:
        raise LabDiffers(
            f"the lab {name} is not what was taken: {differing} of {len(shown.rows)} comparisons differ",
            f"unless that is intended, `episodes lab drop {name}` and load it again",
        )
    source = lab.manifest["environment"]
    sample = "" if lab.manifest["sample"]["kind"] == Kind.WHOLE else ", restricted to the sample"
    state = "" if lab.has_state else ", without its accumulated state"
    out.print(f"The lab {name} is what {source!r} has published{sample}{state}.")


@app.command("list")
def list_() -> None:
    """List the labs of this home: what each was taken from, its size and its age.

    They lie below `labs` in EPISODES_HOME, each with all that belongs to it; `episodes lab drop NAME` deletes
    one. A clone whose taking goes on, or was interrupted, is listed as well.
    """
    require_standard_output()
    settings = load_settings()
    now = dt.datetime.now(dt.UTC)
    shown = Table(box=None)
    for column in ("name", "days", "of", "sample", "viewers"):
        shown.add_column(column)
    for column in ("size", "age"):
        shown.add_column(column, justify="right")
    shown.add_column("status")
    for lab in labs.all_labs(settings):
        shown.add_row(
            lab.name,
            _days(lab.days),
            str(lab.manifest["environment"]),
            describe_sample(lab.manifest["sample"]),
            str(lab.manifest["viewer_ids"]),
            decimal(lab.size()),
            _age(now - lab.begun_at),
            _status(lab),
        )
    for clone in labs.all_cloned_bundles(settings):
        request = clone.record.get("request", {})
        shown.add_row(
            clone.name,
            _days(clone.days) if clone.days else "-",
            str(request.get("environment", "-")),
            describe_sample(request["sample"]) if request else "-",
            ("kept" if request["keep_viewer_ids"] else "pseudonymised") if request else "-",
            decimal(clone.size()),
            _age(now - clone.begun_at) if clone.begun_at else "-",
            "taken, not loaded" if clone.is_complete else "being taken",
        )
    if not shown.rows:
        out.print("There is no lab: `episodes lab clone DAY --name NAME` makes one.")
        return
    out.print(shown)


@app.command()
def show(name: Name) -> None:
    """Show what a lab was taken from and what is in it, and what became of each column of the source.

    Example: episodes lab show march
    """
    require_standard_output()
    lab = labs.find_lab(load_settings(), name)
    manifest = lab.manifest
    facts = {
        "home": str(lab.home),
        "environment": lab.environment,
        "taken": f"{manifest['taken_at']} from {manifest['environment']!r}, by release {manifest['release']}",
        "loaded": lab.facts["loaded_at"] or "not completely",
        "age": _age(dt.datetime.now(dt.UTC) - lab.begun_at),
        "size": decimal(lab.size()),
        "sample": describe_sample(manifest["sample"]),
        "viewers' ids": manifest["viewer_ids"],
        "state": f"{manifest['state']['episodes']:,} tracked episodes, {manifest['state']['days']:,} days"
        if lab.has_state
        else "left out",
    }
    for what, value in facts.items():
        out.print(f"{what:<14} {value}", soft_wrap=True)
    days = Table(box=None)
    days.add_column("day")
    for column in ("jobs", "of", "results", "of", "viewings since"):
        days.add_column(column, justify="right")
    for day, of in sorted(manifest["days"].items()):
        counts = (of["jobs"], of["source_jobs"], of["rows"], of["source_rows"])
        days.add_row(day, *(f"{count:,}" for count in counts), of["covered_from"] or "-")
    out.print(days)
    columns = Table(box=None)
    for column in ("table", "column", "in the lab"):
        columns.add_column(column)
    for table, own in manifest["columns"].items():
        for column, fate in own.items():
            columns.add_row(table, column, fate)
    out.print(columns)
    out.print("Never taken:")
    for what in manifest["never_taken"]:
        out.print(f"  {what}", soft_wrap=True)


@app.command()
def drop(name: Name) -> None:
    """Delete a lab with its databases and its lake; it is refused while a process works in it.

    What an interrupted `clone` has taken for it is deleted as well, with the key of the pseudonyms, also
    where there is no lab yet. Nothing of the source and of other labs is touched. A bundle in a folder that
    you have named stays.

    Example: episodes lab drop march
    """
    labs.drop_lab(load_settings(), name)
    out.print(f"The lab {name} is deleted.")


@app.command()
def replay(
    name: Name,
    day: Annotated[str, typer.Argument(metavar="[DAY]", help="One of its days. Default: the last.")] = "",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes to run meanwhile.")] = 2,
    no_network: Annotated[
        bool,
        typer.Option("--no-network", help="In a network namespace of its own, where nothing can be reached."),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show in which lines the steps and the workers spend their time."),
    ] = False,
) -> None:
    """Run a day of a lab again through Dagster with real workers, from what it was planned from.

    The day's plan is superseded, its jobs are planned and worked anew, and the day is published again in the
    lab. `episodes lab verify NAME` says afterwards whether that changed anything.

    Example: episodes lab replay march 2018-03-07 --no-network --profile
    """
    lab = labs.require_loaded(load_settings(), name)
    chosen = parse_day(day) if day else lab.days[-1]
    if chosen not in lab.days:
        raise BadLab(f"the lab {name} does not have {chosen}", f"it has {_days(lab.days)}")
    options = ("--workers", str(workers), *(("--profile",) if profile else ()))
    arguments = episodes_argv("run", str(chosen), "--rework", "--as-planned", *options)
    run_to_end(
        [*(without_network() if no_network else ()), *arguments],
        lab.environment_variables(os.environ),
    )


@app.command()
def up(
    name: Name,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of the web UI.")] = 3000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 2,
) -> None:
    """Run the whole system in a lab until Ctrl-C, with its own web UI.

    The login is on, with an operator of the lab's own, whose password is shown at the first start; nobody can
    sign in through OpenID Connect, whose client belongs to the source.

    Example: episodes lab up march --port 3001
    """
    lab = labs.require_loaded(load_settings(), name)
    arguments = ("up", "--port", str(port), "--workers", str(workers))
    environment = lab.environment_variables(os.environ)
    run_to_end(episodes_argv(*arguments), environment, is_stopped_by_hand=True)


def _status(lab: labs.Lab) -> str:
    state = "" if lab.has_state else ", without state"
    return f"loaded{state}" if lab.is_loaded else "not completely loaded"


def _days(days: Sequence[dt.date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _age(age: dt.timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"
