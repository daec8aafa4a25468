"""`episodes profile`: ask the fleet for profiles, look at those that are there, and take them along.

`episodes run DAY --profile` profiles the steps of a run and shows them as here. The statements are
`ledger/profiles.py`; what a profile shows is found by `profiling/`.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.days import parse_day
from episodes_assets.errors import BadFile, ProfileMissing
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import ProfileRow, State
from episodes_assets.postgres.connect import connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.profiling.engines import DEFAULT_RATE, MOST_RATE, MOST_SECONDS, Sampling
from episodes_assets.profiling.stacks import Profile
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output, user_path, written_whole

app = typer.Typer(
    no_args_is_help=True,
    help="See where steps and micro-batches spend their time, by file and line; ask workers for more.",
)

Rate = Annotated[int, typer.Option(min=1, max=MOST_RATE, help="Samples a second.")]
Wait = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for them; 0 only asks for them.")
]
LINES_SHOWN = 10
PROFILES_SHOWN = 30
_POLL_SECONDS = 0.5
_OPEN = (State.WAITING, State.RUNNING)


@app.command()
def workers(
    day: Annotated[str, typer.Argument(metavar="[DAY]", help="Only micro-batches of this day.")] = "",
    batches: Annotated[
        int, typer.Option(min=1, max=profiles.MOST_BATCHES, help="How many micro-batches.")
    ] = 3,
    rate: Rate = DEFAULT_RATE,
    wait: Wait = 120.0,
) -> None:
    """Profile the fleet's next micro-batches, wherever they run, and show where their time went.

    Each worker takes them where it is, so nothing has to be reached but the queue. Those that no worker
    begins with within ten minutes are given up. The dashboard shows the same at /profiles.

    Example: episodes profile workers 2018-03-01 --batches 3
    """
    wanted = parse_day(day) if day else None
    sampling = Sampling(rate)
    settings = load_settings()
    dsns = ready_databases(settings)
    dsn = dsns.require(Purpose.QUEUE)
    with connect_to_write(dsn, Database.QUEUE, settings.environment, autocommit=True) as queue:
        numbers = profiles.request_batches(
            queue, batches, sampling, requested_by=operating_system_user(), day=wanted
        )
    _show_when_done(dsns, numbers, wait)


@app.command()
def attach(
    worker: Annotated[
        str,
        typer.Argument(
            help="By name or process id, as `episodes jobs status` shows it, or worker-1: the oldest one."
        ),
    ],
    seconds: Annotated[float, typer.Option(min=0.1, max=MOST_SECONDS, help="How long.")] = 30.0,
    rate: Rate = DEFAULT_RATE,
    wait: Wait = 60.0,
) -> None:
    """Profile what a worker computes at this moment, which may hang, and show where it is.

    The worker looks at its compute process and stops nothing. --wait counts beyond --seconds. A worker that
    is silent itself cannot answer: run `py-spy dump --pid PID` on its machine.

    Example: episodes profile attach worker-1 --seconds 30
    """
    settings = load_settings()
    dsns = ready_databases(settings)
    dsn = dsns.require(Purpose.QUEUE)
    with connect_to_write(dsn, Database.QUEUE, settings.environment, autocommit=True) as queue:
        number = profiles.request_worker(
            queue, worker, Sampling(rate, seconds), requested_by=operating_system_user()
        )
    _show_when_done(dsns, [number], wait and wait + seconds)


@app.command("list")
def list_() -> None:
    """List the profiles that were asked for last, the newest first, and what became of each.

    They are kept for EPISODES_PROFILE_DAYS.
    """
    require_standard_output()
    dsns = ready_databases(load_settings())
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        rows = profiles.read_profiles(queue, PROFILES_SHOWN)
    if not rows:
        out.print("Nothing has been profiled: `episodes run DAY --profile` does it.")
        return
    shown = Table(box=None)
    shown.add_column("id", justify="right")
    shown.add_column("of")
    shown.add_column("state")
    shown.add_column("seconds", justify="right")
    for name in ("asked for by", "at"):
        shown.add_column(name)
    for row in rows:
        shown.add_row(
            str(row.profile_id),
            row.title,
            row.problem or row.state,
            "-" if row.samples is None else f"{row.seconds:.2f}",
            row.requested_by,
            f"{row.requested_at:%Y-%m-%d %H:%M:%S %Z}",
        )
    out.print(shown)


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", min=0, max=2**63 - 1, help="The profile.")],
    folded: Annotated[
        Path | None,
        typer.Option(parser=user_path, metavar="FILE", help="Write it as folded stacks ('-': stdout)."),
    ] = None,
    speedscope: Annotated[
        Path | None,
        typer.Option(
            parser=user_path, metavar="FILE", help="Write it as JSON for www.speedscope.app ('-': stdout)."
        ),
    ] = None,
    lines: Annotated[int, typer.Option(min=1, max=1_000, help="Lines to show.")] = 30,
) -> None:
    """Show the lines in which a profile's time was spent, or write all of it to a file.

    A line of our code counts with what it calls in libraries. Of folded stacks, flamegraph.pl and other
    programs make pictures; the dashboard shows one at /profiles/ID.

    Example: episodes profile show 12 --speedscope twelve.json
    """
    if folded and speedscope:
        raise BadFile("--folded and --speedscope are given both", "name one of them")
    if not (folded or speedscope):
        require_standard_output()
    dsns = ready_databases(load_settings())
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        row, profile = profiles.read_profile(queue, number)
    if profile is None:
        raise ProfileMissing(f"profile {number} holds nothing ({row.problem or row.state})", "take another")
    path = folded or speedscope
    if path is None:
        print_profile(row, profile, lines)
        return
    text = profile.folded() if folded else json.dumps(profile.speedscope(f"{number}: {row.title}"))
    with written_whole(path) as file:
        file.write(text.encode())
    err.print(f"profile {number} is written to {path}")


def _show_when_done(dsns: Dsns, numbers: Sequence[int], wait_seconds: float) -> None:
    """Wait until profiles are there, and print them; those that are not are named."""
    listed = ", ".join(map(str, numbers))
    out.print(f"asked for: {listed}")
    end = time.monotonic() + wait_seconds
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        while True:
            rows = profiles.read_profiles_by_id(queue, numbers)
            if not any(row.state in _OPEN for row in rows) or time.monotonic() >= end:
                break
            time.sleep(_POLL_SECONDS)
    print_profiles(dsns, rows)
    if any(row.state in _OPEN for row in rows):
        out.print("Look again later: episodes profile list")


def print_profiles_of_run(dsns: Dsns, run_id: str) -> None:
    """Print where the steps of a run, and the micro-batches that were profiled for it, spent their time."""
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
        rows = profiles.read_profiles_of_run(queue, run_id)
    print_profiles(dsns, rows)
    if not rows:
        out.print("No profile was taken; the run's log says why.")


def print_profiles(dsns: Dsns, rows: Sequence[ProfileRow]) -> None:
    """Print the hottest lines of some profiles, and what became of those that have none."""
    for row in rows:
        if row.state != State.DONE:
            out.print(f"profile {row.profile_id}, {row.title}: {row.problem or row.state}", soft_wrap=True)
            continue
        with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue:
            _, profile = profiles.read_profile(queue, row.profile_id)
        if profile is not None:
            print_profile(row, profile, LINES_SHOWN)


def print_profile(row: ProfileRow, profile: Profile, most: int) -> None:
    """Print the hottest lines of a profile."""
    out.print(
        f"profile {row.profile_id}, {row.title}: {profile.seconds:.2f} s by {row.engine}, "
        f"/profiles/{row.profile_id} in the dashboard",
        soft_wrap=True,
    )
    if not profile.stacks:
        out.print("  it only waited for something to do")
        return
    shown = Table(box=None, padding=(0, 1, 0, 0))
    shown.add_column("share", justify="right")
    shown.add_column("seconds", justify="right")
    shown.add_column("line", no_wrap=True)
    shown.add_column("function", overflow="fold")
    shown.add_column("mostly in", overflow="fold")
    for each in profile.hot_lines(most):
        shown.add_row(
            f"{each.samples / profile.samples:.1%}",
            f"{each.samples / profile.rate:.2f}",
            each.frame.place,
            each.frame.function,
            each.calls,
        )
    out.print(shown)
