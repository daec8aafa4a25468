"""A lab is the source as it was, by the product's own proof and by what both say when they are asked."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import psutil
import psycopg
import pytest

from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.lab import labs
from episodes_assets.lab.bundle import Bundle
from episodes_assets.lab.labs import Lab
from episodes_assets.lab.request import Kind, SampleSpec, TakeRequest
from episodes_assets.lab.source import Source
from episodes_assets.lab.take import take
from episodes_assets.lab.verify import verify
from episodes_assets.postgres import embedded
from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import WITHHELD, Settings, load_settings
from episodes_assets_tests.lab.conftest import FIRST, LAST, Published, silent
from episodes_assets_tests.lab.labs_of_tests import (
    LEFT_OUT,
    episodes,
    loaded,
    plan_without_a_job,
    published_rows,
    succeeds,
)
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.run_process import own_process
from episodes_assets_tests.support.system import System, day, failure, throwaway

pytestmark = [pytest.mark.process, pytest.mark.slow]

R = TypeVar("R")
SAMPLED = TakeRequest(LAST, 2, SampleSpec(Kind.SHARE, share=0.4))


@pytest.fixture(scope="session")
def whole(published_once: Published) -> Iterator[Lab]:
    """A whole clone of all days, which is only looked at; this process holds its server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in published_once.environment.items():
            patch.setenv(name, value)
        said = succeeds("lab", "clone", str(LAST), "--days", "3", "--name", "whole")
        assert "The lab whole is ready" in said
        lab = labs.find_lab(load_settings(), "whole")
        throwaway(lab.home)
        embedded.start(lab.home)
    yield lab
    assert not (lab.home.parent / ".whole.bundle").exists()


def ask(lab: Lab, database: str, statement: str) -> list[Any]:
    """What a database of a lab says to its administrator."""
    dsn = embedded.start(lab.home).dsn(embedded.ADMINISTRATOR, database)
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


SAME = {
    "indexes of the state": (
        "results",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'state' ORDER BY 1",
    ),
    "constraints of the state": (
        "results",
        (
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = 'state.tracked_episodes'::regclass ORDER BY 1"
        ),
    ),
    "tracked episodes": ("results", "SELECT epid, tracked_on FROM state.tracked_episodes ORDER BY 1"),
    "tracked days": (
        "results",
        (
            "SELECT day, origin, newly_tracked, total, checksum, previous_checksum"
            " FROM state.tracked_days ORDER BY 1"
        ),
    ),
    "plans": (
        "queue",
        (
            "SELECT plan_id, plan_uid, day, jobs, checksum, snapshot_id, tracked_checksum, planned_at,"
            " fanned_out_at"
            " FROM ledger.plans ORDER BY 1"
        ),
    ),
    "jobs": (
        "queue",
        (
            "SELECT plan_id, position, chunk, epid, algorithm_id, window_start, state FROM ledger.job_states"
            " ORDER BY 1, 2"
        ),
    ),
    "chunks": (
        "queue",
        (
            "SELECT plan_id, chunk, first_position, jobs, succeeded, held, priority"
            " FROM ledger.chunks ORDER BY 1, 2"
        ),
    ),
    "outcomes": (
        "queue",
        (
            "SELECT plan_id, position, covered_from, metrics::text, algorithm_version, finished_at"
            " FROM ledger.outcomes ORDER BY 1, 2"
        ),
    ),
    "batches": (
        "queue",
        (
            "SELECT plan_id, first_position, chunk, jobs, seconds, algorithm_ids, algorithm_jobs,"
            " algorithm_seconds"
            " FROM ledger.batches ORDER BY 1, 2"
        ),
    ),
    "published days": (
        "results",
        (
            "SELECT day, jobs, rows, left_out, checksum, snapshot_id, plan_id, plan_uid, plan_checksum,"
            " algorithm_versions FROM published.days ORDER BY 1"
        ),
    ),
    "published rows": (
        "results",
        (
            "SELECT day, epid, algorithm_id, window_start, window_end, covered_from, metrics::text"
            " FROM published.results ORDER BY 1, 2, 3"
        ),
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_a_whole_clone_says_what_the_source_says(published: System, whole: Lab, what: str) -> None:
    database, statement = SAME[what]
    found = ask(whole, database, statement)
    assert found
    assert found == published.query(database, statement)


def test_a_whole_clone_verifies_equal(published: System, whole: Lab) -> None:
    said = succeeds("lab", "verify", "whole")
    assert "The lab whole is what 'development' has published." in said
    for step in ("drop", "viewings", "state", "plan", "outcomes", "published"):
        assert f"\n {step} " in said, step
    assert "results, computed anew" in said
    assert "differ" not in said


def test_no_session_waits_while_a_day_is_computed_anew(published: System, whole: Lab) -> None:
    """Computing may take longer than a session may be idle."""
    sessions = "SELECT FROM pg_stat_activity WHERE application_name = 'episodes lab verify'"
    computed = []

    def report(what: str, _done: int, _total: int) -> None:
        if what.startswith("computing"):
            eventually(lambda: not ask(whole, "queue", sessions), 30)
            computed.append(what)

    assert [each for each in verify(whole, report) if not each.is_equal] == []
    assert len(computed) >= 3


def test_a_lab_has_the_stamp_of_its_own(published: System, whole: Lab) -> None:
    assert whole.environment == "lab-whole"
    for database in ("dagster", "input", "queue", "results"):
        assert ask(whole, database, "SELECT environment FROM environment_stamp") == [("lab-whole",)]
    assert whole.settings().environment == "lab-whole"
    tables = [whole.home / "lake" / name for name in ("viewings", "episodes", "quarantine")]
    assert all(table.is_dir() for table in tables)


def test_a_lab_has_no_people(published: System, whole: Lab) -> None:
    for table in ("users", "sessions", "service_tokens", "audit_log", "login_attempts"):
        assert ask(whole, "dagster", f"SELECT count(*) FROM dashboard.{table}") == [(0,)]
    assert ask(whole, "queue", "SELECT DISTINCT worker FROM ledger.outcomes") == [("the source's workers",)]


def test_the_databases_and_the_lake_of_a_lab_agree(published: System, whole: Lab) -> None:
    done = subprocess.run(
        episodes_argv("db", "status"),
        env=whole.environment_variables(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Its Dagster has run nothing, of which nothing is lost.
    assert "Dagster has no record of publishing" in done.stdout or "agree" in done.stdout


@pytest.fixture
def chunk(published: System) -> tuple[int, int]:
    ((plan_id, number),) = published.query(
        "queue", "SELECT plan_id, chunk FROM ledger.chunks ORDER BY plan_id DESC, chunk LIMIT 1"
    )
    return plan_id, number


SAMPLES: dict[str, Callable[[tuple[int, int]], SampleSpec]] = {
    "share": lambda _: SampleSpec(Kind.SHARE, share=0.4),
    "series": lambda _: SampleSpec(Kind.SERIES, series=("Series 2", "Series 5")),
    "epids": lambda _: SampleSpec(Kind.EPIDS, epids=(100_000, 100_007, 100_070, 100_140)),
    "chunk": lambda chunk: SampleSpec(Kind.CHUNK, chunk=chunk),
    "slowest": lambda _: SampleSpec(Kind.SLOWEST, slowest=1),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_sample_is_the_source_restricted_to_it(
    published: System, source: Source, tmp_path: Path, kind: str, chunk: tuple[int, int]
) -> None:
    request = TakeRequest(LAST, 2, SAMPLES[kind](chunk))
    bundle = take(source, request, tmp_path / "bundle", silent)
    epids = set(bundle.read("sample.parquet")["epid"].to_pylist())
    assert 0 < len(epids) < 119
    with loaded(bundle.folder, tmp_path / "home") as lab:
        said = succeeds("lab", "verify", "it", home=tmp_path / "home")
        assert "restricted to the sample" in said
        assert lab.manifest["sample"]["kind"] == kind
        everything = published_rows(None, LAST)
        expected = everything[everything["epid"].astype("int64").isin(epids)].reset_index(drop=True)
        assert 0 < len(expected) < len(everything)
        pd.testing.assert_frame_equal(published_rows(lab, LAST), expected)


def test_the_state_of_a_sample_is_whole(published: System, source: Source, tmp_path: Path) -> None:
    bundle = take(source, SAMPLED, tmp_path / "bundle", silent)
    tracked = bundle.read("state/tracked_episodes.parquet").to_pandas()
    rows = published.query("results", "SELECT epid, tracked_on FROM state.tracked_episodes")
    before = {epid for epid, tracked_on in rows if tracked_on < day(2)}
    assert set(tracked.loc[tracked["tracked_on"] < day(2), "epid"]) == before
    chosen = set(bundle.read("sample.parquet")["epid"].to_pylist())
    later = {epid for epid, tracked_on in rows if tracked_on >= day(2)}
    assert set(tracked.loc[tracked["tracked_on"] >= day(2), "epid"]) == later & chosen


def test_a_lab_without_state_begins_its_history_with_its_first_day(
    published: System, source: Source, tmp_path: Path
) -> None:
    bundle, home = take(source, SAMPLED, tmp_path / "bundle", silent), tmp_path / "home"
    with loaded(bundle.folder, home, "--without-state") as lab:
        assert "loaded, without state" in succeeds("lab", "list", home=home)
        assert "left out" in succeeds("lab", "show", "it", home=home)
        said = succeeds("lab", "verify", "it", home=home)
        assert "restricted to the sample, without its accumulated state" in said
        assert not any(line.split()[0] == "state" for line in said.splitlines())
        pd.testing.assert_frame_equal(
            published_rows(lab, LAST).astype({"epid": int}),
            published_rows(None, LAST)
            .astype({"epid": int})
            .merge(bundle.read("sample.parquet").to_pandas(), on="epid"),
        )
        before = published_rows(lab, LAST)
        succeeds("lab", "replay", "it", home=home)
        statement = "SELECT day, origin, newly_tracked FROM state.tracked_days ORDER BY day"
        with own_process(ask, lab, "results", statement) as asking:  # which holds the lab's server
            days = asking.result()
        # Nothing was tracked before, so every episode that has premiered is new on the first day.
        assert [(each, origin) for each, origin, _ in days] == [(day(2), "beginning"), (LAST, "day")]
        assert days[0][2] > 10 * days[1][2]
        # Due jobs begin with the premiere again, so there are at least as many, with longer windows.
        again = published_rows(lab, LAST)
        assert len(again) >= len(before)
        assert (again["window_start"].min()) < before["window_start"].min()


def test_a_day_without_the_jobs_that_were_left_out(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "40")
    source = plan_without_a_job(system)
    with system.workers(1):
        result = system.materialize(FIRST, select=["job_outcomes", "published_results"])
    assert result.success, failure(result)
    home = tmp_path / "labs"
    bundle = take(source, TakeRequest(FIRST), tmp_path / "bundle", silent)
    with loaded(bundle.folder, home) as lab:
        said = succeeds("lab", "verify", "it", home=home)
        assert "The lab it is what 'development' has published." in said
        for what in ("jobs", "chunks", "published days"):
            database, statement = SAME[what]
            with own_process(ask, lab, database, statement) as asking:  # which holds the lab's server
                assert asking.result() == system.query(database, statement), what
    assert system.query("queue", "SELECT state FROM ledger.job_states WHERE state <> 'succeeded'") == [
        ("waived",)
    ]
    # Of a sample that does not have it, nothing is left out.
    (epid,) = (epid for epid, position in system.query(
        "queue", "SELECT epid, position FROM ledger.jobs") if position == LEFT_OUT)  # fmt: skip
    others = tuple({each for each, *_ in system.jobs(FIRST)} - {epid})
    sample = SampleSpec(Kind.EPIDS, epids=tuple(sorted(others)))
    part = take(source, TakeRequest(FIRST, sample=sample), tmp_path / "part", silent)
    with loaded(part.folder, home):
        assert "restricted to the sample" in succeeds("lab", "verify", "it", "--no-recompute", home=home)


@dataclass(frozen=True)
class Witness:
    """What every Python that is started notes: its network namespace, and whether it reaches this process."""

    notes: Path

    def read(self) -> list[tuple[str, bool, str]]:
        """The namespace of each, whether it reached this process, and its command line."""
        lines = [line.split(" ", 2) for line in self.notes.read_text().splitlines()]
        return [(namespace, found == "reached", argv) for namespace, found, argv in lines]


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Witness]:
    folder = tmp_path / "witness"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, socket, sys\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', int(os.environ['WITNESS_PORT'])), 30).close()\n"
        "    found = 'reached'\n"
        "except OSError:\n"
        "    found = 'refused'\n"
        "with open(os.environ['WITNESS_NOTES'], 'a') as notes:\n"
        "    print(os.readlink('/proc/self/ns/net'), found, *sys.orig_argv, file=notes)\n"
    )
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as server:
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setenv("WITNESS_PORT", str(server.getsockname()[1]))
        monkeypatch.setenv("WITNESS_NOTES", str(folder / "notes"))
        yield Witness(folder / "notes")


def test_a_replay_publishes_the_same_numbers(
    published: System, source: Source, tmp_path: Path, witness: Witness
) -> None:
    bundle = take(source, SAMPLED, tmp_path / "bundle", silent)
    home = tmp_path / "home"
    with loaded(bundle.folder, home) as lab:
        before = published_rows(lab, LAST)
        no_network = ["--no-network"] if may_leave_the_network() else []
        witness.notes.unlink()
        done = episodes("lab", "replay", "it", *no_network, home=home)
        assert done.returncode == 0, done.stdout + done.stderr
        noted = witness.read()
        own = str(Path("/proc/self/ns/net").readlink())
        assert all(is_reached for namespace, is_reached, _ in noted if namespace == own)
        assert any(namespace == own and " lab replay " in argv for namespace, _, argv in noted)
        if no_network:
            apart = [(is_reached, argv) for namespace, is_reached, argv in noted if namespace != own]
            assert not any(is_reached for is_reached, _ in apart)
            # What runs the steps, and the workers.
            assert [argv for _, argv in apart if " episodes_assets run " in argv]
            assert len([argv for _, argv in apart if " episodes_assets worker " in argv]) == 2
        pd.testing.assert_frame_equal(published_rows(lab, LAST), before)
        succeeds("lab", "verify", "it", home=home)
        said = succeeds("lab", "show", "it", home=home)
        assert "40.0% of the series" in said or "0.4 of the series" in said
        assert "viewer_id" in said


def may_leave_the_network() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run(
        [unshare, "--net", "true"], capture_output=True, check=False
    ).returncode == 0  # fmt: skip


LESS_VIEWS = """metrics = metrics || '{"views": -1}'"""
# Where it is to be found, and what changes it.
TAMPERED = {
    ("state", "tracked episodes"): (
        "results",
        "DELETE FROM state.tracked_episodes WHERE epid = (SELECT min(epid) FROM state.tracked_episodes)",
    ),
    ("plan", "jobs"): ("queue", "UPDATE ledger.jobs SET window_start = window_start - 1 WHERE position = 1"),
    ("plan", "chunks"): ("queue", "UPDATE ledger.chunks SET priority = priority + 1 WHERE chunk = 0"),
    ("outcomes", "outcomes"): ("queue", f"UPDATE ledger.outcomes SET {LESS_VIEWS} WHERE position = 0"),
    ("outcomes", "jobs left out"): (
        "queue",
        (
            "WITH waivers AS (INSERT INTO ledger.waivers (plan_id, jobs, reason, decided_by)"
            " SELECT plan_id, 1, 'none', 'nobody' FROM ledger.plans RETURNING plan_id, waiver_id)"
            " INSERT INTO ledger.job_attempts (plan_id, position, is_held, error, waiver_id)"
            " SELECT plan_id, 3, true, 'none', waiver_id FROM waivers"
        ),
    ),
    ("outcomes", "micro-batches"): ("queue", "UPDATE ledger.batches SET seconds = seconds + 1"),
    ("published", "rows and manifest"): (
        "results",
        f"UPDATE published.results SET {LESS_VIEWS} WHERE epid = (SELECT min(epid) FROM published.results)",
    ),
}


def tamper(home: str) -> None:
    """In a process of its own, since that holds the lab's server."""
    lab = labs.find_lab(load_settings(home=Path(home)), "it")
    for database, statement in TAMPERED.values():
        assert ask(lab, database, f"{statement} RETURNING 1"), statement


def differing(home: str) -> dict[tuple[str, str], str]:
    """What differs in a lab, and how; in a process of its own."""
    lab = labs.find_lab(load_settings(home=Path(home)), "it")
    return {(each.step, each.what): each.difference for each in verify(lab, silent) if not each.is_equal}


def test_a_lab_that_was_changed_is_found(published: System, source: Source, tmp_path: Path) -> None:
    bundle = take(source, TakeRequest(LAST, 2), tmp_path / "bundle", silent)
    home = tmp_path / "home"

    def run(function: Callable[[str], R]) -> R:
        with own_process(function, str(home)) as process:
            return process.result()

    with loaded(bundle.folder, home) as lab:
        assert run(differing) == {}
        run(tamper)
        found = run(differing)
        assert TAMPERED.keys() <= found.keys()
        assert "the first of epid" in found["outcomes", "results, computed anew"]
        done = episodes("lab", "verify", "it", "--no-recompute", home=home)
        assert done.returncode == 1
        assert "error: the lab it is not what was taken" in done.stderr
        # Its files as well, each of them named.
        of_day = lab.manifest["days"][str(LAST)]
        (of_date,) = (files[str(LAST)] for files in lab.manifest["versions"].values() if str(LAST) in files)
        files = {"episodes": of_day["episodes"], "quarantine": of_day["quarantine"], "viewings": of_date}
        for table, record in files.items():
            path = lab.home / "lake" / table / record["path"]
            content = path.read_bytes()
            path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
        found = run(differing)
        for table, record in files.items():
            step = "viewings" if table == "viewings" else "drop"
            said = [how for (where, _), how in found.items() if where == step and record["path"] in how]
            assert len(said) == 1, (table, found)
            assert said[0].endswith("was cut or changed")


@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_bundle_is_refused_by_name(
    published: System, source: Source, tmp_path: Path, how: str
) -> None:
    bundle = take(source, SAMPLED, tmp_path / "bundle", silent)
    path = damage(bundle, how)
    done = episodes("lab", "load", str(bundle.folder), "--name", "it", home=tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path} ")
    assert "take it again into another folder" in done.stderr
    assert not (tmp_path / "home" / "labs").exists()


def damage(bundle: Bundle, how: str) -> Path:
    path = bundle.folder / next(name for name in bundle.files if name.startswith("lake/viewings"))
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "cut" else content[:99] + b"?" + content[100:])
    return path


def test_what_loads_holds_no_dsn_of_the_source(
    published: System, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = take(source, SAMPLED, tmp_path / "bundle", silent)
    monkeypatch.setenv("PGPASSWORD", "a-secret-of-libpq")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-lake")
    monkeypatch.setenv("EPISODES_OPENID_CLIENT_SECRET", "a-secret-of-the-client")
    secrets = [
        *(published.dsn(purpose).encode() for purpose in Purpose),
        b"a-secret-of-libpq", b"a-secret-of-the-lake", b"a-secret-of-the-client",
    ]  # fmt: skip
    home = tmp_path / "home"
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    before = {database: set(published.query(database, sessions)) for database in ("queue", "results")}
    process = subprocess.Popen(
        episodes_argv("lab", "load", str(bundle.folder), "--name", "it"),
        env={**os.environ, "EPISODES_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    clean = 0
    while process.poll() is None:
        found = environments_of(process.pid)
        is_clean = not any(secret in each for each in found for secret in secrets)
        assert is_clean or not clean, "a process that loads was handed a secret of the source"
        clean += is_clean and bool(found)
        for database in ("queue", "results"):
            assert set(published.query(database, sessions)) <= before[database]
        assert internet_connections_of(process.pid) == []
        time.sleep(0.05)
    assert process.returncode == 0
    assert clean > 10
    succeeds("lab", "drop", "it", home=home)


def environments_of(pid: int) -> list[bytes]:
    """What a process and those that it has started were started with.

    Nothing of one that has ended, or that just becomes another program and has no environment yet.
    """
    found = []
    for each in [pid, *(child.pid for child in children_of(pid))]:
        with suppress(OSError):
            found.append(Path(f"/proc/{each}/environ").read_bytes())
    return [each for each in found if each]


def children_of(pid: int) -> list[psutil.Process]:
    try:
        return [*psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def internet_connections_of(pid: int) -> list[Any]:
    with suppress(psutil.Error):
        return [*psutil.Process(pid).net_connections(kind="inet")]
    return []


def test_nothing_that_works_in_a_lab_is_told_of_the_source(
    published: System, whole: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, field in Settings.model_fields.items():
        if "secret" in name or "openid" in name:
            monkeypatch.setenv(f"EPISODES_{name.upper()}", "operator" if "role" in name else "x")
        assert field is not None
    monkeypatch.setenv("episodes_home", "/elsewhere")
    environment = whole.environment_variables(os.environ)
    assert "DAGSTER_HOME" not in environment
    assert "/elsewhere" not in environment.values()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("EPISODES_", "DAGSTER_"))]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        told = load_settings()
    own = whole.settings()
    assert {name: value for name, value in told if name != "snapshots_url"} == {
        name: value for name, value in own if name != "snapshots_url"
    }
    assert [name for name in Settings.model_fields if name.endswith("_dsn") and getattr(told, name)] == []
    assert told.openid_issuer == ""
    assert told.allowed_hosts == ""
    assert environment["EPISODES_QUEUE_DSN"] == WITHHELD
