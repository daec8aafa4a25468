"""The command line as a user meets it: help, results, and one plain line for what goes wrong."""

import csv
import io
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from episodes_assets.cli import app
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.postgres.admission import needed_version
from episodes_assets.postgres.cluster import find_cluster
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets_tests.support.invoke import output, refusal
from episodes_assets_tests.support.system import System, day, throwaway

pytestmark = pytest.mark.process

COMMANDS = [
    ("demo",),
    ("up",),
    ("run",),
    ("backfill",),
    ("correct",),
    ("worker",),
    ("webserver",),
    ("db", "init"),
    ("db", "status"),
    ("db", "stamp"),
    ("db", "finish"),
    ("drain",),
    ("db", "check"),
    ("input", "generate"),
    ("input", "load"),
    ("state", "export"),
    ("state", "import"),
    ("jobs", "status"),
    ("jobs", "retry"),
    ("jobs", "waive"),
    *(
        ("users", each)
        for each in ("add", "list", "password", "role", "disable", "enable", "remove", "logout")
    ),
    *(("tokens", each) for each in ("create", "list", "revoke")),
    ("audit",),
    ("alerts",),
    ("alerts", "test"),
    ("results",),
    ("explain",),
    *(("profile", each) for each in ("workers", "attach", "list", "show")),
    ("history",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(command: tuple[str, ...]) -> None:
    shown, _ = output(*command, "--help")
    assert "Usage" in shown
    assert len(shown.split()) > 25


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_list_of_commands_says_what_each_does(name: str) -> None:
    first, _, _ = app.load(name).help.partition("\n\n")
    assert app.COMMANDS[name][1] == first.replace("\n", " ")


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (["--help"], set()),
        (["audit", "--help"], {"psycopg"}),
        (["results", "--help"], {"psycopg"}),
        (["explain", "--help"], {"psycopg"}),
        (["profile", "--help"], {"psycopg"}),
        (["state", "--help"], {"adbc_driver_postgresql", "psycopg", "numpy", "pandas", "pyarrow"}),
    ],
)
def test_a_command_loads_no_more_than_it_needs(command: list[str], needed: set[str]) -> None:
    """Dagster takes a second, Alembic and PgQueuer half of one."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "episodes_assets", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    ).stderr
    packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    heavy = {
        "adbc_driver_postgresql", "alembic", "dagster", "deltalake", "duckdb", "fsspec", "matplotlib",
        "numpy", "pandas", "pandera", "pgqueuer", "psycopg", "pyarrow", "sqlalchemy", "starlette",
    }  # fmt: skip
    assert packages & heavy == needed


def refused(system: System, *arguments: str, env: dict[str, str] | None = None) -> str:
    """The one line that a command fails with."""
    result = system.cli(*arguments, env=env)
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2018-02-28", "before the first day"),
        ("2999-01-01", "is not over yet"),
        ("2018-3-1", "is not a day: spell it YYYY-MM-DD"),
        ("yesterday", "is not a day"),
        ("2018-02-30", "is not a day"),
    ],
)
def test_a_bad_day_is_refused_everywhere(system: System, text: str, problem: str) -> None:
    for command in (["run", text], ["results", text], ["jobs", "status", text]):
        assert problem in str(refusal(*command))


def test_a_range_the_wrong_way_round(system: System) -> None:
    assert "give the earlier day first" in str(refusal("backfill", "2018-03-02", "2018-03-01"))


def test_a_database_that_is_down(system: System) -> None:
    allowed = {"EPISODES_ALLOWED_HOSTS": "127.0.0.1"}
    down = {**allowed, "EPISODES_QUEUE_DSN": "postgresql://who:secret@127.0.0.1:1/queue"}
    for command in (["jobs", "status"], ["jobs", "retry", "2018-03-01"]):
        line = refused(system, *command, env=down)
        assert "cannot reach who@127.0.0.1:1/queue" in line
        assert "secret" not in line
    dagster_down = {**allowed, "EPISODES_DAGSTER_DSN": "postgresql://who@127.0.0.1:1/dagster"}
    assert "who@127.0.0.1:1/dagster" in refused(system, "run", "2018-03-01", env=dagster_down)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("EPISODES_QUEUE_DSN", "postgres queue please", "a DSN cannot be read"),
        ("EPISODES_QUEUE_DSN", "", "EPISODES_QUEUE_DSN is not set"),
        ("EPISODES_CHUNK_JOBS", "many", "EPISODES_CHUNK_JOBS"),
        ("EPISODES_ALGORITHM_TIMEOUT_SECONDS", "soon", "EPISODES_ALGORITHM_TIMEOUT_SECONDS"),
    ],
)
def test_wrong_settings(
    system: System, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    assert problem in str(refusal("jobs", "status"))


def test_an_unprovisioned_database(system: System) -> None:
    system.query("results", "DROP SCHEMA published CASCADE")
    assert "run `episodes db init`" in str(refusal("results", "2018-03-01"))


def test_a_day_that_fails_says_why(system: System) -> None:
    assert "the drop of 2018-03-01 has not arrived" in refused(system, "run", "2018-03-01")
    assert "2018-03-01 is not published" in str(refusal("results", "2018-03-01"))
    assert "no planned jobs" in str(refusal("jobs", "status", "2018-03-01"))


def writes_to_standard_output_as_it_is(folder: Path) -> None:
    """`-` never opens the stream anew: what was redirected with >> keeps what it held."""
    results, state = (
        ["results", "2018-03-01", "--csv", "-"],
        ["state", "export", "-", "--as-of", "2018-03-01"],
    )
    wanted = "old\n"
    for arguments in (results, state):
        rows, said = output(*arguments)
        assert " written to -" in said
        wanted += rows
    keep = folder / "keep.csv"
    keep.write_text("old\n")
    with keep.open("ab") as file:
        for arguments in (results, state):
            subprocess.run(episodes_argv(*arguments), stdout=file, check=True)
    assert keep.read_text() == wanted

    # Data that were asked for and cannot be written are an error; a mere message is not.
    data = results, [*results[:-1], "/dev/stdout"], state, results[:2], ["jobs", "status"], ["alerts"]
    for arguments in data:
        argv = ["sh", "-c", '"$0" "$@" >&-', *episodes_argv(*arguments)]
        closed = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
        why = "standard output is closed: let it lead to a file or a pipe, or name a file"
        assert (closed.returncode, closed.stderr) == (1, f"error: {why}\n")

    # Whoever read it has gone before the first row.
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        for arguments in (results, results[:2]):
            argv = episodes_argv(*arguments)
            broken = subprocess.run(argv, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False)
            assert (broken.returncode, broken.stderr) == (1, "")

    with Path("/dev/full").open("wb") as full:
        argv = episodes_argv(*results)
        ended = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    why = "- cannot be written (No space left on device): free space there, then run it again"
    assert (ended.returncode, ended.stderr) == (1, f"error: {why}\n")


@pytest.mark.slow
def test_input_to_results(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated, _ = output("input", "generate", "--episodes", "60", "--days", "2", "--history", "2")
    assert "2 drops with" in generated
    ran = system.cli("run", "2018-03-01", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    for heading in ("catalogue", "quarantined", "newly", "succeeded", "published", "outcomes"):
        assert heading in ran.stdout
    assert "2018-03-01" in ran.stdout

    file = tmp_path / "results.csv"
    output("results", "2018-03-01", "--csv", str(file))
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == len(system.jobs(day(1)))
    keys = ["day", "epid", "algorithm_id", "window_start", "window_end", "covered_from"]
    metrics = ["views", "viewers", "seconds_watched", "completed_views", "views_last_7_days",
               "views_previous_7_days", "daily_slope", "share_completed", "mean_share",
               "median_share"]  # fmt: skip
    assert list(rows[0]) == keys + metrics
    assert all(re.fullmatch(r"-?[0-9][0-9.e+-]*|", value) for row in rows for value in row.values())
    reach = next(row for row in rows if row["algorithm_id"] == "0")
    assert reach["views"].isdigit()
    assert reach["median_share"] == ""
    piped = system.cli("results", "2018-03-01", "--csv", "-")
    assert list(csv.DictReader(io.StringIO(piped.stdout))) == rows
    writes_to_standard_output_as_it_is(tmp_path)
    assert "reach:" in output("results", "2018-03-01")[0]
    assert "yes" in output("jobs", "status")[0]
    assert "0 held jobs" in output("jobs", "retry", "2018-03-01")[0]
    assert "cannot be written" in str(refusal("results", "2018-03-01", "--csv", "/nowhere/x.csv"))
    twice = ["results", "2018-03-01", "--csv", str(tmp_path / "x.csv"), "--csv", str(tmp_path / "y.csv")]
    assert "--csv is given more than once" in str(refusal(*twice))
    monkeypatch.chdir(tmp_path)
    output("results", "2018-03-01", "--csv", "./-")
    assert (tmp_path / "-").read_bytes() == file.read_bytes()
    output("state", "export", "./-", "--as-of", "2018-03-01")
    assert (tmp_path / "-").read_text().startswith("epid,tracked_on\n")


HEADER = "batch_date,epid,algorithm_id,series,season,episode,title,premier_date,start_date\n"


def test_loading_files_takes_all_or_nothing(system: System, tmp_path: Path) -> None:
    episodes, viewings = tmp_path / "e.csv", tmp_path / "v.csv"
    episodes.write_text(HEADER + "2018-03-01,1,0,s,1,1,t,2018-01-01,2018-02-01\n")
    viewings.write_text(
        "epid,viewer_id,viewed_at,seconds_watched,completed\n1,5,2018-03-01T10:00:00Z,60,true\n"
    )
    load = ["input", "load", "--episodes", str(episodes), "--viewings", str(viewings)]
    for _ in range(2):
        assert "1 rows loaded into episodes" in output(*load)[0]
        assert system.query("input", "SELECT count(*) FROM episodes") == [(1,)]
        assert system.query("input", "SELECT count(*) FROM viewings") == [(1,)]
    viewings.write_text("epid,viewer_id,viewed_at,seconds_watched,completed\n1,5,soon,60,true\n")
    assert "v.csv, line 2, column viewed_at: 'soon' is not a time" in str(refusal(*load))
    episodes.write_text(HEADER + ",1,0,s,1,1,t,2018-01-01,2018-02-01\n")
    assert "column batch_date" in str(refusal("input", "load", "--episodes", str(episodes)))
    assert system.query("input", "SELECT count(*) FROM episodes") == [(1,)]
    assert "no file was given" in str(refusal("input", "load"))


def test_loading_several_files_of_a_table(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "epid,viewer_id,viewed_at,seconds_watched,completed\n"
    for number, name in enumerate(("a.csv", "b.csv", "-")):
        (tmp_path / name).write_text(f"{header}{number},5,2018-03-01T10:00:00Z,60,true\n")
    monkeypatch.chdir(tmp_path)
    load = ["input", "load", "--viewings", "a.csv", "--viewings", "b.csv", "--viewings", "./-"]
    assert "3 rows loaded into viewings" in output(*load)[0]
    assert system.query("input", "SELECT epid FROM viewings ORDER BY epid") == [(0,), (1,), (2,)]
    (tmp_path / "link").symlink_to("a.csv")
    assert "link is named twice" in str(refusal(*load, "--viewings", "link"))
    (tmp_path / "b.csv").write_text("x")
    assert "b.csv, line 1" in str(refusal(*load))
    assert system.query("input", "SELECT count(*) FROM viewings") == [(3,)]


@pytest.mark.slow
def test_the_state_moves_to_another_system(system: System, tmp_path: Path) -> None:
    system.generate(day(1), day(4))
    system.plan(day(1), day(3))
    for name in ("state.csv", "state.parquet"):
        exported, _ = output("state", "export", str(tmp_path / name), "--as-of", "2018-03-02")
        assert "tracked episodes as of 2018-03-02 written" in exported
    too_late = refusal("state", "export", str(tmp_path / "x.csv"), "--as-of", "2018-03-09")
    assert "no tracked episodes as of" in str(too_late)
    jobs = system.jobs(day(3))
    imported = ["state", "import", str(tmp_path / "state.csv"), "--as-of", "2018-03-02"]
    assert "a tracked history already" in str(refusal(*imported))
    system.query("results", "DELETE FROM state.tracked_days")
    system.query("results", "DELETE FROM state.tracked_episodes")
    system.forget_plans()
    assert "imported" in output(*imported)[0]
    system.plan(day(3))
    assert system.jobs(day(3)) == jobs
    bad = tmp_path / "bad.csv"
    bad.write_text("epid,tracked_on\n1,2018-03-01\n1,2018-03-01\n")
    repeated = refusal("state", "import", str(bad), "--as-of", "2018-03-02")
    assert "bad.csv, line 3, column epid: it is repeated" in str(repeated)


def test_db_status_and_init(system: System) -> None:
    status = system.cli("db", "status")
    assert status.returncode == 0, status.stderr
    for word in (*(needed_version(database) for database in Database), "development", "18."):
        assert word in status.stdout
    down = {
        Purpose.RESULTS.setting: "postgresql://who@127.0.0.1:1/results",
        "EPISODES_ALLOWED_HOSTS": "127.0.0.1:1",
    }
    assert "1 of 4 databases cannot be read" in refused(system, "db", "status", env=down)
    assert "EPISODES_ADMIN_DSN is not set" in str(refusal("db", "init"))


def test_the_demo_keeps_its_hands_off_configured_databases(system: System) -> None:
    assert "unset every EPISODES_*_DSN" in str(refusal("demo"))


@pytest.mark.long
def test_the_demo_from_nothing_and_again(system: System, tmp_path: Path) -> None:
    nothing = {purpose.setting: "" for purpose in Purpose}
    home = throwaway(tmp_path / "new" / "fresh")
    env = {**nothing, "EPISODES_HOME": str(home), "DAGSTER_HOME": ""}
    first = system.cli("demo", "--days", "2", "--episodes", "60", env=env, umask=0)
    assert first.returncode == 0, first.stderr
    assert "Materialising 2 days with 2 workers" in first.stderr
    again = system.cli("demo", "--days", "2", "--episodes", "60", env=env)
    assert "2 of 2 days are published already: reused" in again.stderr
    assert again.stdout == first.stdout
    assert "episodes up" in again.stderr
    # Everything is below the home, and the last process to leave stops the server.
    assert not (find_cluster(home).data / "postmaster.pid").exists()
    # All of it is for its owner alone, although the umask lets everybody in.
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (home.parent, home, *home.rglob("*"))}
    open_to_others = {path for path, mode in modes.items() if mode & 0o077 and not path.is_symlink()}
    assert {path.relative_to(home) for path in open_to_others} == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_run_in_one_line_and_the_day_can_be_run_again(
    system: System, number: signal.Signals
) -> None:
    system.generate(day(1), day(1))
    run = subprocess.Popen(
        episodes_argv("run", "2018-03-01", "--workers", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Without workers it waits for outcomes once the jobs are handed out.
    deadline = time.monotonic() + 60
    while system.query("queue", "SELECT count(fanned_out_at) FROM ledger.plans") != [(1,)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(run.pid, number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert re.search(r"2018-03-01: not finished, ended after \d+\.\d s\ninterrupted\n$", errors)
    again = system.cli("run", "2018-03-01", "--workers", "1")
    assert again.returncode == 0, again.stderr
