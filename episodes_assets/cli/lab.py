"""`episodes lab`: take a piece of a system, load it where it can harm nobody, and work with it there.

Taking holds the source's DSNs. Everything else knows nothing of a source: such a command begins anew without
them (`app.begin_apart`), and what works in a lab is a process of its own with the lab's settings. What is
done is in `lab/`.
"""

import datetime as dt
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from episodes_assets.cli import die_with_parent
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import announce_open_hosts
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.days import parse_day
from episodes_assets.errors import BadLab, LabDiffers, NotProvisioned, ProcessFailed
from episodes_assets.lab import labs
from episodes_assets.lab.isolation import without_source
from episodes_assets.lab.manifest import MANIFEST
from episodes_assets.lab.request import WHOLE, Kind, SampleSpec, TakeRequest
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import require_standard_output, user_path

if TYPE_CHECKING:
    from episodes_assets.lab.bundle import Bundle

app = typer.Typer(
    no_args_is_help=True,
    help="Take published days of a system with all that they were made of, load them into a lab, a home "
    "of its own that cannot reach the source, and look at them, run them again and change things there.",
)

Day = Annotated[str, typer.Argument(metavar="DAY", help="The last day that is taken; it must be published.")]
Days = Annotated[int, typer.Option(min=1, max=366, help="How many days up to DAY.")]
Share = Annotated[
    str,
    typer.Option(
        metavar="SHARE", help="Only a share of the series, such as 5% or 0.05, with all their episodes."
    ),
]
Series = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only the episodes of this series; may be repeated.")
]
Epids = Annotated[
    Path | None,
    typer.Option(
        parser=user_path,
        metavar="FILE",
        help="Only the episodes in a CSV or Parquet file with a column epid.",
    ),
]
Chunk = Annotated[
    str, typer.Option(metavar="PLAN/CHUNK", help="Only the episodes that have a job in this chunk.")
]
Slowest = Annotated[
    int, typer.Option(min=0, metavar="N", help="Only the episodes of the N chunks that took longest.")
]
MaxRows = Annotated[int | None, typer.Option(min=1, help="Refuse a bundle of more rows.")]
KeepViewerIds = Annotated[
    bool, typer.Option("--keep-viewer-ids", help="Keep viewers' ids, which get pseudonyms otherwise.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The lab's name.")]
Report = Callable[[str, int, int], None]


@app.command()
def take(
    day: Day,
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=user_path, metavar="DIR", help="The bundle: a folder, missing or empty."),
    ] = None,
    days: Days = 1,
    share: Share = "",
    series: Series = None,
    epids: Epids = None,
    chunk: Chunk = "",
    slowest: Slowest = 0,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say how many rows and bytes it would be.")
    ] = False,
    max_rows: MaxRows = None,
    keep_viewer_ids: KeepViewerIds = False,
) -> None:
    """Take days as they were published, with all that they were made of, into a folder: a bundle.

    Nothing is written at the source. It reads the lake, and state, plans and outcomes through two roles
    that can only read (EPISODES_QUEUE_READER_DSN, EPISODES_RESULTS_READER_DSN; `episodes db init` makes
    them), in one session each; a role that could write is refused. The accumulated state is taken whole,
    episodes as a sample if you like, always with all their rows. If it is interrupted, the same command
    goes on where it was. DIR/manifest.json says what is in it, and what of every column was left out.

    Example: episodes lab take 2018-03-07 --share 5% --to /tmp/march
    """
    request = TakeRequest(
        parse_day(day),
        days,
        _sample(share=share, series=series or [], epids=epids, chunk=chunk, slowest=slowest),
        keep_viewer_ids=keep_viewer_ids,
        max_rows=max_rows,
    )
    if estimate:
        require_standard_output()
        _estimate(load_settings(), request)
    elif to is None:
        raise BadLab("--to is missing", "name a folder for the bundle, or ask for an --estimate")
    else:
        _say_taken(_take(load_settings(), request, to))


@app.command()
def load(
    folder: Annotated[
        Path, typer.Argument(parser=user_path, metavar="DIR", help="A bundle that was taken to its end.")
    ],
    name: Annotated[str, typer.Option(help="What the lab is called: small letters, digits, - and _.")],
) -> None:
    """Load a bundle into a lab: a home of its own with an embedded PostgreSQL and a lake, stamped lab-NAME.

    Needs no DSN and knows none. The days are there as they were published; `episodes lab verify NAME`
    proves it. If it is interrupted, the same command goes on where it was. A damaged bundle is refused, and
    its damaged files are named.

    Example: episodes lab load /tmp/march --name march
    """
    from episodes_assets.lab.bundle import open_bundle
    from episodes_assets.lab.load import load as load_bundle
    from episodes_assets.lab.load import require_whole

    settings = load_settings()
    labs.require_name(name)
    bundle = open_bundle(folder)
    with _progress() as report:
        require_whole(bundle, report)
        lab = labs.begin_lab(settings, name, bundle)
        load_bundle(bundle, lab, report, lambda _: None)
    out.print(f"The lab {name} is ready, in {lab.home}:", soft_wrap=True)
    for what, command in (
        ("is it the source?", f"episodes lab verify {name}"),
        ("run its last day again", f"episodes lab replay {name}"),
        ("look around in the web UI", f"episodes lab up {name}"),
    ):
        out.print(f"  {what:<26} {command}")


@app.command()
def clone(
    day: Day,
    name: Annotated[str, typer.Option(help="What the lab is called: small letters, digits, - and _.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", parser=user_path, metavar="DIR", help="Keep the bundle in this folder."),
    ] = None,
    days: Days = 1,
    share: Share = "",
    series: Series = None,
    epids: Epids = None,
    chunk: Chunk = "",
    slowest: Slowest = 0,
    max_rows: MaxRows = None,
    keep_viewer_ids: KeepViewerIds = False,
) -> None:
    """Take days and load them into a lab: `lab take` and `lab load` in one.

    What loads is a process of its own that is handed nothing of the source. The bundle between the two is
    removed afterwards, unless --to names a folder for it. If it is interrupted, the same command goes on
    where it was.

    Example: episodes lab clone 2018-03-07 --name march
    """
    settings = load_settings()
    labs.require_name(name)
    folder = to or labs.labs_folder(settings).resolve() / f".{name}.bundle"
    if any(lab.name == name and lab.is_loaded for lab in labs.all_labs(settings)):
        raise BadLab(f"there is a lab {name} already", f"choose another name, or `episodes lab drop {name}`")
    request = TakeRequest(
        parse_day(day),
        days,
        _sample(share=share, series=series or [], epids=epids, chunk=chunk, slowest=slowest),
        keep_viewer_ids=keep_viewer_ids,
        max_rows=max_rows,
    )
    _take(settings, request, folder, is_taken_up=True)
    argv = episodes_argv("lab", "load", str(folder.resolve()), "--name", name)
    _run(argv, without_source(os.environ))
    if to is None:
        shutil.rmtree(folder)


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
    shown.add_column("is it as taken?")
    differing = 0
    with _progress() as report:
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
            f"if nobody meant that, `episodes lab drop {name}` and load it again",
        )
    source = lab.manifest["environment"]
    sample = "" if lab.manifest["sample"]["kind"] == Kind.WHOLE else ", restricted to the sample"
    out.print(f"The lab {name} is what {source!r} has published{sample}.")


@app.command("list")
def list_() -> None:
    """List the labs of this home: what each was taken from, its size and its age.

    They lie below `labs` in EPISODES_HOME, each with all that belongs to it; `episodes lab drop NAME` deletes
    one.
    """
    require_standard_output()
    now = dt.datetime.now(dt.UTC)
    shown = Table(box=None)
    for column in ("name", "days", "of", "sample", "viewers"):
        shown.add_column(column)
    for column in ("size", "age"):
        shown.add_column(column, justify="right")
    shown.add_column("state")
    for lab in labs.all_labs(load_settings()):
        shown.add_row(
            lab.name,
            _days(lab.days),
            str(lab.manifest["environment"]),
            _describe_sample(lab.manifest["sample"]),
            str(lab.manifest["viewer_ids"]),
            decimal(lab.size()),
            _age(now - lab.begun_at),
            "loaded" if lab.is_loaded else "not loaded to its end",
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
        "loaded": lab.facts["loaded_at"] or "not to its end",
        "age": _age(dt.datetime.now(dt.UTC) - lab.begun_at),
        "size": decimal(lab.size()),
        "sample": _describe_sample(manifest["sample"]),
        "viewers' ids": manifest["viewer_ids"],
        "state": f"{manifest['state']['episodes']:,} tracked episodes, {manifest['state']['days']:,} days",
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

    Nothing of the source and of other labs is touched. A bundle that was kept stays.

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
) -> None:
    """Run a day of a lab again through Dagster with real workers, from what it was planned from.

    The day's plan is superseded, its jobs are planned and worked anew, and the day is published again in the
    lab. `episodes lab verify NAME` says afterwards whether that changed anything.

    Example: episodes lab replay march 2018-03-07 --no-network
    """
    lab = labs.require_loaded(load_settings(), name)
    chosen = parse_day(day) if day else lab.days[-1]
    if chosen not in lab.days:
        raise BadLab(f"the lab {name} does not have {chosen}", f"it has {_days(lab.days)}")
    arguments = ("run", str(chosen), "--rework", "--as-planned", "--workers", str(workers))
    _run(
        [*(_without_network() if no_network else ()), *episodes_argv(*arguments)],
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
    _run(episodes_argv(*arguments), environment, is_stopped_by_hand=True)


def _sample(*, share: str, series: Sequence[str], epids: Path | None, chunk: str, slowest: int) -> SampleSpec:
    """The sample that the options ask for.

    Raises:
        BadLab: If they cannot be understood, or ask for several.
    """
    given = {
        "--share": share,
        "--series": series,
        "--epids": epids is not None,
        "--chunk": chunk,
        "--slowest": slowest,
    }
    chosen = [name for name, value in given.items() if value]
    if len(chosen) > 1:
        raise BadLab(f"{' and '.join(chosen)} exclude each other", "give one of them")
    if share:
        return SampleSpec(Kind.SHARE, share=_parse_share(share))
    if series:
        return SampleSpec(Kind.SERIES, series=tuple(sorted({*series})))
    if epids is not None:
        return SampleSpec(Kind.EPIDS, epids=_read_epids(epids))
    if chunk:
        return SampleSpec(Kind.CHUNK, chunk=_parse_chunk(chunk))
    return SampleSpec(Kind.SLOWEST, slowest=slowest) if slowest else WHOLE


def _parse_share(text: str) -> float:
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise BadLab(f"{text!r} is no share", "spell it 5% or 0.05; it is more than none and at most all")
    return share


def _parse_chunk(text: str) -> tuple[int, int]:
    plan, _, chunk = text.partition("/")
    if not (plan.isascii() and plan.isdigit() and chunk.isascii() and chunk.isdigit()):
        raise BadLab(f"{text!r} is no chunk", "spell it PLAN/CHUNK, as in 4711/12")
    return int(plan), int(chunk)


def _read_epids(path: Path) -> tuple[int, ...]:
    import pyarrow as pa

    from episodes_assets.input.files import read_input_file

    table = read_input_file(path, pa.schema([pa.field("epid", pa.int64(), nullable=False)]))
    return tuple(sorted({*table["epid"].to_pylist()}))


def _estimate(settings: Settings, request: TakeRequest) -> None:
    from episodes_assets.lab.choosing import estimate

    parts = estimate(_source(settings), request)
    shown = Table(box=None)
    shown.add_column("part")
    shown.add_column("read from")
    for column in ("rows", "bytes"):
        shown.add_column(column, justify="right")
    for part in parts:
        shown.add_row(part.what, part.read_from, f"{part.rows:,}", decimal(part.bytes))
    rows, size = sum(part.rows for part in parts), sum(part.bytes for part in parts)
    shown.add_row("about", "", f"{rows:,}", decimal(size), style="bold")
    out.print(shown)


def _take(settings: Settings, request: TakeRequest, folder: Path, *, is_taken_up: bool = False) -> "Bundle":
    """Take a bundle; with `is_taken_up`, one that is whole is what was asked for, if it was."""
    from episodes_assets.lab import take as taking
    from episodes_assets.lab.bundle import open_bundle

    source = _source(settings)
    if is_taken_up and (folder / MANIFEST).exists():
        bundle = open_bundle(folder)
        if bundle.manifest["request"] == request.describe(source.environment):
            return bundle
        raise BadLab(f"{folder} has another bundle", f"remove {folder}, or choose another name")
    with _progress() as report:
        return taking.take(source, request, folder, report)


def _source(settings: Settings) -> Any:  # noqa: ANN401  a Source, which is imported when it is needed
    from episodes_assets.lab.source import Source
    from episodes_assets.lake.opening import open_lake
    from episodes_assets.postgres.databases import Purpose
    from episodes_assets.postgres.dsn import resolve_dsns
    from episodes_assets.postgres.provision.status import read_status

    dsns = resolve_dsns(settings)
    announce_open_hosts(settings)
    if dsns.is_embedded and not all(each.is_current for each in read_status(dsns)):
        raise NotProvisioned(
            f"the embedded databases in {settings.home} are not set up by this release",
            "run `episodes db init`, since taking writes nothing there",
        )
    return Source(
        environment=settings.environment,
        queue_dsn=dsns.require(Purpose.QUEUE_READER),
        results_dsn=dsns.require(Purpose.RESULTS_READER),
        lake=open_lake(settings),
    )


def _say_taken(bundle: "Bundle") -> None:
    manifest = bundle.manifest
    out.print(
        f"{manifest['rows']:,} rows in {decimal(manifest['bytes'])} are in {bundle.folder}; "
        f"load them with `episodes lab load {bundle.folder} --name NAME`",
        soft_wrap=True,
    )


def _run(argv: Sequence[str], environment: Mapping[str, str], *, is_stopped_by_hand: bool = False) -> None:
    """Run a process with just this environment to its end.

    It has a session of its own, so that Ctrl-C reaches this process alone, which then asks it to end.

    Args:
        argv: Its command line.
        environment: Its environment.
        is_stopped_by_hand: Whether it goes on until it is asked to end, which is then no failure.

    Raises:
        typer.Exit: With its exit code, if it failed; it has said why.
        KeyboardInterrupt: If it was interrupted.
    """
    command = [*die_with_parent.argv(os.getpid()), *argv]
    with subprocess.Popen(command, env=dict(environment), start_new_session=True) as process:
        try:
            process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                process.terminate()
            if not is_stopped_by_hand or process.wait() != 0:
                raise
    if process.returncode:
        raise typer.Exit(process.returncode if process.returncode > 0 else 128 - process.returncode)


def _without_network() -> list[str]:
    """What to put before a command line whose process is to reach nothing but this machine's files.

    Raises:
        ProcessFailed: If this system does not let it.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ProcessFailed("unshare is not installed", "install util-linux, or leave --no-network out")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    prefix = [unshare, *as_root, "--net", "--"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ProcessFailed(
            f"this system lets no process leave the network ({said})",
            "run it as root or where user namespaces are allowed, or leave --no-network out",
        )
    return prefix


@contextmanager
def _progress() -> Iterator[Report]:
    """Show what is done, and how much of it, on a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("beginning", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield report


def _days(days: Sequence[dt.date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _describe_sample(sample: Mapping[str, Any]) -> str:
    kind = sample["kind"]
    said = {
        Kind.WHOLE: "whole",
        Kind.SHARE: f"{sample.get('share', 0):.3g} of the series",
        Kind.SERIES: f"series {', '.join(sample.get('series', []))}",
        Kind.EPIDS: f"{sample.get('epids', 0)} episodes asked for",
        Kind.CHUNK: f"chunk {sample.get('plan')}/{sample.get('chunk')}",
        Kind.SLOWEST: f"the {sample.get('slowest')} slowest chunks",
    }[Kind(kind)]
    return said if kind == Kind.WHOLE else f"{said}, {sample.get('episodes', 0):,} episodes"


def _age(age: dt.timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"
