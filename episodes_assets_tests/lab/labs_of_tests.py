"""Labs made by the command, as users make them, and what is in them, asked without the product's code."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.lab import labs
from episodes_assets.lab.labs import Lab
from episodes_assets.lab.source import Source
from episodes_assets.lake.opening import open_lake
from episodes_assets.ledger import held
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import load_settings
from episodes_assets_tests.lab.conftest import FIRST, let_nobody_make_temporary_tables
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.own_server import free_port
from episodes_assets_tests.support.system import System

PATIENCE_SECONDS = 300


def episodes(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; with a home, labs are looked for there."""
    environment = {**os.environ, **({"EPISODES_HOME": str(home)} if home else {})}
    return subprocess.run(
        episodes_argv(*arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def succeeds(*arguments: str, home: Path | None = None) -> str:
    """What a command prints that must succeed."""
    done = episodes(*arguments, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def loaded(bundle: Path, home: Path, *options: str, name: str = "it") -> Iterator[Lab]:
    """A lab of a bundle as long as the block lasts."""
    succeeds("lab", "load", str(bundle), "--name", name, *options, home=home)
    try:
        yield labs.find_lab(load_settings(home=home), name)
    finally:
        succeeds("lab", "drop", name, home=home)


@contextmanager
def web_ui(name: str, home: Path, log: Path) -> Iterator[tuple[str, str]]:
    """The web UI of a lab as long as the block lasts: its address, and the first operator's password."""
    port = free_port()
    argv = episodes_argv("lab", "up", name, "--port", str(port), "--workers", "0")
    with log.open("w") as output:
        up = subprocess.Popen(
            argv, env={**os.environ, "EPISODES_HOME": str(home)}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: "The UI is ready" in log.read_text(), 120)
        (password,) = re.findall(r"Sign in as operator with the password (\S+)", log.read_text())
        yield f"http://127.0.0.1:{port}", password
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0, log.read_text()


_HOLD = """
import sys
from pathlib import Path
from episodes_assets.postgres import embedded
embedded.start(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_server(home: Path) -> Iterator[None]:
    """The embedded server of a home, started and held by a process of its own as long as the block lasts."""
    argv = [sys.executable, "-P", "-c", _HOLD, str(home)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)


def published_rows(lab: Lab | None, day: object) -> pd.DataFrame:
    """The published rows of a day, in a lab or in the source."""
    environment = dict(os.environ) if lab is None else lab.environment_variables(os.environ)
    done = subprocess.run(
        episodes_argv("results", str(day), "--csv", "-"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return pd.read_csv(io.StringIO(done.stdout), dtype=str)


LEFT_OUT = 7


def plan_without_a_job(system: System) -> Source:
    """A source whose first day is planned, and is to be published without the job at position `LEFT_OUT`."""
    let_nobody_make_temporary_tables(system)
    system.generate(FIRST, FIRST)
    system.plan(FIRST)
    system.hold_jobs(f"position = {LEFT_OUT}")
    with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
        held.waive_held_jobs(queue, FIRST, reason="it is known to fail", decided_by="somebody")
    queue_dsn, results_dsn = (system.dsn(each) for each in (Purpose.QUEUE_READER, Purpose.RESULTS_READER))
    return Source(system.settings.environment, queue_dsn, results_dsn, open_lake(system.settings))


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their paths from it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
