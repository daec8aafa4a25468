"""`episodes demo`: the main job on a new system with generated input.

It only puts together what other commands use: the input is `input/sample.py`, a run `execution`, workers
`supervisor`. It refuses configured DSNs, since it writes input: real input is `episodes input load`.
"""

import datetime as dt
import sys
import time
from os.path import relpath
from pathlib import Path
from typing import Annotated

import typer

from episodes_assets.cli import runs, supervisor
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import ready_databases, writable_input
from episodes_assets.cli.execution import materialize_days
from episodes_assets.cli.results import day_table
from episodes_assets.days import FIRST_DAY, ONE_DAY, days_between
from episodes_assets.errors import BadSetting
from episodes_assets.input import reading, sample
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results.publications import published_plans
from episodes_assets.settings import Settings, load_settings

SEED = 1
HISTORY_DAYS = 14


def demo(
    days: Annotated[int, typer.Option(min=1, max=365, help="Consecutive days to run.")] = 7,
    episodes: Annotated[int, typer.Option(min=10, help="Episodes in the sample.")] = 4_000,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Worker processes.")] = 2,
) -> None:
    """Run the main job from nothing, on the embedded databases with a sample of input.

    Creates the databases, generates a deterministic sample, materialises one day after the other
    through Dagster with real workers, and shows what was published. Run again, it reuses what is
    there. Everything it writes is in EPISODES_HOME (.episodes) and, as root, in /var/lib/episodes; delete the
    home, or run `make clean`, to start over.
    """
    settings = load_settings()
    began = time.perf_counter()
    dsns = ready_databases(settings)
    if not dsns.is_embedded:
        raise BadSetting(
            "the demo writes sample input, and DSNs are configured",
            "unset every EPISODES_*_DSN, or use `episodes run` with your own input",
        )
    wanted = list(days_between(FIRST_DAY, FIRST_DAY + (days - 1) * ONE_DAY))
    _ensure_input(settings, dsns, wanted, episodes)
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        published = published_plans(results)
    missing = [day for day in wanted if day not in published]
    if len(missing) < len(wanted):
        err.print(f"{len(wanted) - len(missing)} of {days} days are published already: reused")
    with runs.open_instance(settings, dsns) as instance:
        if missing:
            err.print(f"Materialising {len(missing)} days with {workers} workers")
            with supervisor.temporary_workers(settings, dsns, workers):
                for day in missing:
                    materialize_days(instance, dsns, day, day)
        out.print(day_table(settings, dsns, instance, wanted))
    err.print(f"{time.perf_counter() - began:.1f} s in all. To look around:")
    program = relpath(Path(sys.executable).with_name("episodes"))
    err.print(f"  the web UI             {program} up", style="bold", soft_wrap=True)
    err.print(f"  a day's results        {program} results {wanted[-1]}", style="bold", soft_wrap=True)
    err.print(f"  the next day           {program} demo --days {days + 1}", style="bold", soft_wrap=True)


def _ensure_input(settings: Settings, dsns: Dsns, days: list[dt.date], episodes: int) -> None:
    """Generate the sample days that the input lacks."""
    missing = sorted(set(days) - reading.days_with_drop(dsns.require(Purpose.INPUT), days))
    if not missing:
        err.print("The sample input is there already: reused")
        return
    err.print(f"Generating {len(missing)} days of sample input ({episodes:,} episodes)")
    sample.generate_input(
        writable_input(settings, dsns),
        episodes=episodes,
        seed=SEED,
        first=missing[0],
        last=missing[-1],
        history_days=HISTORY_DAYS if len(missing) == len(days) else 0,
        report=lambda *_: None,
    )
