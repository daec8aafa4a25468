"""Killed at each statement and each change of a file, taking and loading go on and end in the same place.

Two bundles of the same days have other pseudonyms, since each has a key of its own. So both are begun as one,
with one key, and copied.
"""

import json
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from episodes_assets.lab import labs
from episodes_assets.lab.bundle import begin_bundle, open_bundle
from episodes_assets.lab.load import load, require_whole
from episodes_assets.lab.request import Kind, SampleSpec, TakeRequest
from episodes_assets.lab.source import Source
from episodes_assets.lab.take import take
from episodes_assets.lake.opening import open_lake
from episodes_assets.postgres import embedded
from episodes_assets.postgres.databases import Purpose
from episodes_assets.postgres.dsn import resolve_dsns
from episodes_assets.settings import load_settings
from episodes_assets_tests.lab.conftest import LAST, silent
from episodes_assets_tests.lab.labs_of_tests import files_of, held_server, succeeds
from episodes_assets_tests.support.faults import Instant
from episodes_assets_tests.support.lake_contents import Contents, contents
from episodes_assets_tests.support.run_process import counted, killed_at, own_process
from episodes_assets_tests.support.system import System, throwaway
from episodes_assets_tests.support.system_calls import FileChange, watched_process

pytestmark = [pytest.mark.process, pytest.mark.slow]

REQUEST = TakeRequest(LAST, 2, SampleSpec(Kind.SHARE, share=0.4))
NOWHERE = "/nowhere/"
SEED = 1
R = TypeVar("R")


def source_of_settings() -> Source:
    settings = load_settings()
    dsns = resolve_dsns(settings)
    queue, results = (dsns.require(each) for each in (Purpose.QUEUE_READER, Purpose.RESULTS_READER))
    return Source(settings.environment, queue, results, open_lake(settings))


def take_into(folder: str) -> None:
    """In a process of its own."""
    take(source_of_settings(), REQUEST, Path(folder), silent)


def begin(source: Source, folder: Path) -> None:
    """A bundle with a key and nothing else."""
    said = {"taken_at": "2026-01-01T00:00:00+00:00"}
    with begin_bundle(folder, REQUEST.to_record(source.environment), lambda: said):
        pass


def some(moments: list[Any], count: int, *, is_slow: bool) -> list[Any]:
    """All of them, or a sample that takes less than a minute."""
    return moments if is_slow else random.Random(SEED).sample(moments, min(count, len(moments)))


@pytest.mark.parametrize(
    "is_slow",
    [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])],
    ids=["some", "all"],
)
def test_a_bundle_whose_taking_is_killed_ends_as_it_would_have(
    published: System, source: Source, tmp_path: Path, *, is_slow: bool
) -> None:
    begun, folder = tmp_path / "begun", tmp_path / "bundle"
    begin(source, begun)

    def restore() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(begun, folder)

    restore()
    with watched_process({"bundle": folder}, None, 0, take_into, str(folder)) as (process, watched):
        process.result()
    calm = files_of(folder)
    assert "manifest.json" in calm
    restore()
    with own_process(counted, NOWHERE, take_into, str(folder)) as counting:
        statements, _ = counting.result()
    assert files_of(folder) == calm
    names = " ".join(change.what for change in watched.changes)
    for expected in ("rename bundle/taking.json", "rename bundle/manifest.json", "unlink bundle/key"):
        assert expected in names
    moments: list[FileChange | Instant] = [
        *some(watched.changes, 8, is_slow=is_slow),
        *some(statements, 4, is_slow=is_slow),
    ]
    for at in moments:
        restore()
        if isinstance(at, FileChange):
            with watched_process({"bundle": folder}, at, -signal.SIGKILL, take_into, str(folder)) as (
                process, _,
            ):  # fmt: skip
                assert process.was_killed(), at
        else:
            with own_process(killed_at, at, NOWHERE, take_into, str(folder)) as dying:
                assert dying.was_killed(), at
        if (folder / "manifest.json").exists():  # then it was whole, and has no key any more
            assert open_bundle(folder).manifest
            assert not (folder / "key").exists()
            if not (folder / "taking.json").exists():
                assert files_of(folder).keys() - {"lock"} == calm.keys()
                continue
        with own_process(take_into, str(folder)) as again:
            again.result()
        assert files_of(folder) == calm, at


def load_from(bundle: str, home: str) -> None:
    """In a process of its own."""
    opened = open_bundle(Path(bundle))
    require_whole(opened, silent)
    lab = labs.begin_lab(load_settings(home=Path(home)), "it", opened)
    load(opened, lab, silent, lambda _: None)


def load_again(bundle: str, home: str) -> None:
    """The same, unless the process was killed at its very end."""
    if not labs.find_lab(load_settings(home=Path(home)), "it").is_loaded:
        load_from(bundle, home)


CONTENT = (
    ("results", "SELECT epid, tracked_on FROM state.tracked_episodes ORDER BY 1"),
    ("results", "SELECT day, checksum, snapshot_id, total FROM state.tracked_days ORDER BY 1"),
    ("queue", "SELECT day, plan_uid, checksum, snapshot_id, viewings_digest FROM ledger.plans ORDER BY 1"),
    ("queue", "SELECT * FROM ledger.job_states ORDER BY 1, 2"),
    ("queue", "SELECT plan_id, position, metrics::text, finished_at FROM ledger.outcomes ORDER BY 1, 2"),
    ("results", "SELECT day, rows, checksum, plan_uid FROM published.days ORDER BY 1"),
    ("results", "SELECT * FROM published.results ORDER BY 1, 2, 3"),
)


def content_of(home: str) -> tuple[list[list[str]], Contents]:
    """What a lab holds; in a process of its own, since that holds the lab's server."""
    import psycopg

    lab = labs.find_lab(load_settings(home=Path(home)), "it")
    server = embedded.start(lab.home)
    found = []
    for database, statement in CONTENT:
        with psycopg.connect(server.dsn(embedded.ADMINISTRATOR, database)) as connection:
            found.append([repr(row) for row in connection.execute(statement).fetchall()])
    return found, contents(lab.home / "lake")


TABLES = {
    "queue": "ledger.plans, ledger.chunks, ledger.jobs, ledger.outcomes, ledger.batches,"
    " ledger.job_attempts, ledger.waivers",
    "results": "state.tracked_days, state.tracked_episodes,"
    " published.days, published.results, published.history",
}


def begin_anew(home: str) -> None:
    """Let a lab have its empty databases and nothing else; in a process of its own, as above."""
    import psycopg

    lab = labs.find_lab(load_settings(home=Path(home)), "it")
    server = embedded.start(lab.home)
    for database, tables in TABLES.items():
        with psycopg.connect(server.dsn(embedded.ADMINISTRATOR, database)) as connection:
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
    shutil.rmtree(lab.home / "lake", ignore_errors=True)
    (lab.home / "lab.json").write_text(json.dumps({**lab.facts, "loaded_at": None}))


@pytest.mark.parametrize(
    "is_slow",
    [
        pytest.param(False, marks=pytest.mark.timeout(600)),
        pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(14_400)]),
    ],
    ids=["some", "all"],
)
def test_a_lab_whose_loading_is_killed_ends_as_it_would_have(
    published: System, source: Source, tmp_path: Path, *, is_slow: bool
) -> None:
    bundle, home = take(source, REQUEST, tmp_path / "bundle", silent), tmp_path / "home"
    lab = labs.begin_lab(load_settings(home=home), "it", bundle)
    throwaway(lab.home)
    where, there, folders = str(bundle.folder), str(home), {"lab": lab.home}

    def run(function: Callable[..., R], *arguments: str) -> R:
        with own_process(function, *arguments) as process:
            return process.result()

    # Its server is held by nobody who is killed: what kills a server is not tried, nor is setting it up,
    # which `postgres/test_versions.py` does.
    with held_server(lab.home):
        run(load_from, where, there)
        run(begin_anew, there)
        with watched_process(folders, None, 0, load_from, where, there) as (process, watched):
            process.result()
        calm = run(content_of, there)
        run(begin_anew, there)
        with own_process(counted, NOWHERE, load_from, where, there) as counting:
            statements, _ = counting.result()
        assert run(content_of, there) == calm
        # What the server writes, to its log as well, it writes when it likes.
        changes = [each for each in watched.changes if not re.search(r"lab/(logs/)?postgres", each.what)]
        names = " ".join(change.what for change in changes)
        for expected in ("rename lab/lab.json", "lab/lake/viewings/day", "lab/lake/episodes/_delta_log"):
            assert expected in names
        moments: list[FileChange | Instant] = [
            *some(changes, 4, is_slow=is_slow),
            *some(statements, 4, is_slow=is_slow),
        ]
        for at in moments:
            run(begin_anew, there)
            if isinstance(at, FileChange):
                with watched_process(folders, at, -signal.SIGKILL, load_from, where, there) as (dying, _):
                    assert dying.was_killed(), at
            else:
                with own_process(killed_at, at, NOWHERE, load_from, where, there) as stricken:
                    assert stricken.was_killed(), at
            run(load_again, where, there)
            assert run(content_of, there) == calm, at
    succeeds("lab", "drop", "it", home=home)


def drop_from(home: str) -> None:
    labs.drop_lab(load_settings(home=Path(home)), "it")


def test_a_lab_whose_deletion_is_killed_can_be_deleted(
    published: System, source: Source, tmp_path: Path
) -> None:
    bundle, home = take(source, REQUEST, tmp_path / "bundle", silent), tmp_path / "home"
    settings = load_settings(home=home)

    def begun() -> labs.Lab:
        lab = labs.begin_lab(settings, "it", bundle)
        (lab.home / "lake" / "viewings").mkdir(parents=True)
        (lab.home / "lake" / "viewings" / "some.parquet").touch()
        return lab

    with watched_process({"lab": begun().home}, None, 0, drop_from, str(home)) as (process, watched):
        process.result()
    whole = [each for each in watched.changes if not each.what.startswith("open")]
    assert len(whole) > 5
    for at in whole:
        lab = begun()
        with watched_process({"lab": lab.home}, at, -signal.SIGKILL, drop_from, str(home)) as (dying, _):
            assert dying.was_killed(), at
        if (lab.home / "lab.json").exists():
            drop_from(str(home))
            assert not lab.home.exists(), at
        else:  # what is left is in nobody's way
            shutil.rmtree(labs.begin_lab(settings, "it", bundle).home)


def test_a_clone_whose_deletion_is_killed_can_be_deleted(
    published: System, source: Source, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    folder = labs.cloned_bundle(load_settings(home=home), "it").folder

    def begun() -> None:
        begin(source, folder)
        (folder / "lake" / "viewings").mkdir(parents=True)
        (folder / "lake" / "viewings" / "some.parquet").touch()

    begun()
    with watched_process({"bundle": folder}, None, 0, drop_from, str(home)) as (process, watched):
        process.result()
    whole = [each for each in watched.changes if not each.what.startswith("open")]
    assert len(whole) > 5
    for at in whole:
        begun()
        with watched_process({"bundle": folder}, at, -signal.SIGKILL, drop_from, str(home)) as (dying, _):
            assert dying.was_killed(), at
        if folder.exists():
            drop_from(str(home))
        assert not folder.exists(), at
