"""`episodes lab take`, `load` and `clone`: a bundle of published days, and the lab that is made of it.

Taking holds the source's DSNs and loading holds none: `clone` loads in a process of its own. The commands on
labs that are loaded are in `lab.py`, what all of them do is in `episodes_assets/lab/`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table

from episodes_assets.cli.console import out, shown_progress
from episodes_assets.cli.context import announce_open_hosts
from episodes_assets.cli.supervisor import episodes_argv, started_ahead
from episodes_assets.days import parse_day
from episodes_assets.errors import BadLab, BundleDamaged, NotProvisioned
from episodes_assets.lab import labs
from episodes_assets.lab.isolation import without_source
from episodes_assets.lab.manifest import ANOTHER_FOLDER, MANIFEST, discard
from episodes_assets.lab.request import TakeRequest, parse_sample
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import require_standard_output, user_path

if TYPE_CHECKING:
    from episodes_assets.lab.bundle import Bundle

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
WithoutState = Annotated[
    bool,
    typer.Option(
        "--without-state",
        help="Leave the accumulated state out: the lab's history begins with its first day.",
    ),
]
WhenTold = Annotated[bool, typer.Option("--when-told", hidden=True)]
NewName = Annotated[str, typer.Option(help="What to call the lab: small letters, digits, - and _.")]


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
    resumes. DIR/manifest.json lists what is in it, and what has become of every column of the source.

    Example: episodes lab take 2018-03-07 --share 5% --to /tmp/march
    """
    request = TakeRequest(
        parse_day(day),
        days,
        parse_sample(share=share, series=series, epids=_read_epids(epids), chunk=chunk, slowest=slowest),
        keep_viewer_ids=keep_viewer_ids,
        max_rows=max_rows,
    )
    if estimate:
        require_standard_output()
        _estimate(load_settings(), request)
    elif to is None:
        raise BadLab("--to is missing", "name a folder for the bundle, or ask for an --estimate")
    else:
        _say_taken(_take(load_settings(), request, to, ANOTHER_FOLDER))


def load(
    folder: Annotated[Path, typer.Argument(parser=user_path, metavar="DIR", help="A complete bundle.")],
    name: NewName,
    without_state: WithoutState = False,
    when_told: WhenTold = False,
) -> None:
    """Load a bundle into a lab: a home of its own with an embedded PostgreSQL and a lake, stamped lab-NAME.

    It needs no DSN and is given none. The days are there as they were published; `episodes lab verify NAME`
    proves it. If it is interrupted, the same command resumes. A damaged bundle is refused, and its damaged
    files are named. Whether a step is slow because of the accumulated state is seen beside a second lab of
    the same bundle, loaded --without-state.

    Example: episodes lab load /tmp/march --name march
    """
    from episodes_assets.lab.bundle import open_bundle
    from episodes_assets.lab.load import load as load_bundle
    from episodes_assets.lab.load import require_whole

    if when_told and not sys.stdin.readline():  # `clone` has taken no bundle
        raise typer.Exit(1)
    settings = load_settings()
    labs.require_name(name)
    is_clone = folder.resolve() == labs.cloned_bundle(settings, name).folder
    instead = _drop_first(name) if is_clone else ""
    with shown_progress() as report:
        with _repaired_by(instead):
            bundle = open_bundle(folder)
            require_whole(bundle, report)
        lab = labs.begin_lab(settings, name, bundle, has_state=not without_state)
        with _repaired_by(instead):
            load_bundle(bundle, lab, report, lambda _: None)
    out.print(f"The lab {name} is ready, in {lab.home}:", soft_wrap=True)
    for what, command in (
        ("is it the source?", f"episodes lab verify {name}"),
        ("run its last day again", f"episodes lab replay {name}"),
        ("look around in the web UI", f"episodes lab up {name}"),
    ):
        out.print(f"  {what:<26} {command}")


def clone(
    day: Day,
    name: NewName,
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
    without_state: WithoutState = False,
) -> None:
    """Take days and load them into a lab: `lab take` and `lab load` in one.

    Loading is a process of its own that is given nothing of the source; it starts at once and begins when all
    is taken. The bundle between the two is removed afterwards, unless --to names a folder for it. If it is
    interrupted, the same command resumes, unless the source has worked one of the days anew since. To give it
    up, run `episodes lab drop NAME`.

    Example: episodes lab clone 2018-03-07 --name march
    """
    settings = load_settings()
    labs.require_name(name)
    own = labs.cloned_bundle(settings, name)
    folder = to or own.folder
    if any(lab.name == name and lab.is_loaded for lab in labs.all_labs(settings)):
        raise BadLab(f"there is a lab {name} already", f"choose another name, or `episodes lab drop {name}`")
    request = TakeRequest(
        parse_day(day),
        days,
        parse_sample(share=share, series=series, epids=_read_epids(epids), chunk=chunk, slowest=slowest),
        keep_viewer_ids=keep_viewer_ids,
        max_rows=max_rows,
    )
    options = ["--without-state"] if without_state else []
    argv = episodes_argv("lab", "load", str(folder.resolve()), "--name", name, "--when-told", *options)
    with started_ahead(argv, without_source(os.environ)) as go_on:
        _take(settings, request, folder, ANOTHER_FOLDER if to else _drop_first(name), resumes=True)
        with nullcontext() if to else own.lock():
            go_on()
    if to is None:
        discard(folder)


def _drop_first(name: str) -> str:
    """What to do where the bundle of a clone cannot be used."""
    return f"`episodes lab drop {name}`, then run the same command again"


@contextmanager
def _repaired_by(instead: str) -> Iterator[None]:
    """Say instead how a damaged bundle is repaired here, where another way is given."""
    try:
        yield
    except BundleDamaged as error:
        raise BundleDamaged(error.what, instead or error.hint) from error


def _read_epids(path: Path | None) -> list[int] | None:
    if path is None:
        return None
    import pyarrow as pa

    from episodes_assets.input.files import read_input_file

    table = read_input_file(path, pa.schema([pa.field("epid", pa.int64(), nullable=False)]))
    epids: list[int] = table["epid"].to_pylist()
    return epids


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


def _take(
    settings: Settings, request: TakeRequest, folder: Path, instead: str, *, resumes: bool = False
) -> "Bundle":
    """Take a bundle; with `resumes`, a complete one of the same request is returned as it is.

    The message of a folder that cannot be used ends with what to do instead.
    """
    from episodes_assets.lab import take as taking
    from episodes_assets.lab.bundle import open_bundle

    source = _source(settings)
    if resumes and (folder / MANIFEST).exists():
        with _repaired_by(instead):
            bundle = open_bundle(folder)
        if bundle.manifest["request"] != request.to_record(source.environment):
            raise BadLab(f"{folder} has another bundle", instead)
        taking.require_as_published(source, folder, bundle.manifest["days"], instead)
        return bundle
    with shown_progress() as report:
        return taking.take(source, request, folder, report, instead)


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
