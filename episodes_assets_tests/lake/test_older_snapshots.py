"""Snapshots of an older release are brought into the lake: all, in their order, or refused by name."""

import datetime as dt
import io
import json
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile

from episodes_assets.errors import NotBroughtIn, SnapshotDamaged, WrongEnvironment
from episodes_assets.lake import older_snapshots
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.older_snapshots import OlderSnapshots
from episodes_assets.lake.tables import LakeTable
from episodes_assets.planning.drop import QUARANTINED, to_table, validate_drop
from episodes_assets_tests.support.drops import drop
from episodes_assets_tests.support.older_release import FILES, put_snapshot
from episodes_assets_tests.support.older_snapshots import contents, older

DAYS = [dt.date(2018, 3, number) for number in range(1, 6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def bring_in(root: Path, drops: Drops) -> tuple[int, list[str]]:
    said: list[str] = []
    brought = OlderSnapshots(str(root)).bring_in(Drops(drops.lake_url), "development", said.append)
    return brought, said


def test_all_versions_come_in_the_order_in_which_they_were_taken(root: Path, drops: Drops) -> None:
    first = older(root, DAYS[0], 1, taken_at="2018-03-02T01:00:00+00:00")
    last = older(root, DAYS[0], 1, 2, taken_at="2018-03-05T01:00:00+00:00", reason="it was wrong")
    middle = older(root, DAYS[0], 2, taken_at="2018-03-04T01:00:00+00:00")
    # The one taken last is the day's again.
    manifest = root / f"day={DAYS[0]}" / last / "manifest.json"
    shutil.copy(manifest, manifest.parent.parent)
    other = older(root, DAYS[1], 7, viewed=())
    before = contents(root)
    assert bring_in(root, drops)[0] == 4
    assert contents(root) == before
    assert [each.snapshot_id for each in drops.versions(DAYS[0])] == [first, middle, last]
    found = drops.require(DAYS[0])
    assert (found.snapshot_id, found.reason, found.taken_at) == (
        last,
        "it was wrong",
        "2018-03-05T01:00:00+00:00",
    )
    assert (found.drop_rows, found.reasons) == (3, {"epid_negative": 1})
    (rows,) = drops.read_drop(found, ["epid", "title"])
    assert rows["epid"].tolist() == [1, 2]
    assert drops.read_viewed(found).tolist() == [3, 5]
    assert drops.read_quarantine(found)["reasons"].tolist() == ["epid_negative"]
    assert drops.read_viewed(drops.require(DAYS[1])).tolist() == []
    named = {DAYS[0]: {first, middle, last}, DAYS[1]: {other}}
    assert {day: each.existing for day, each in drops.find_named(named).items()} == named
    (old,) = drops.read_drop(drops.versions(DAYS[0])[0], ["epid"])
    assert old["epid"].tolist() == [1]


def test_once_they_are_in_they_are_not_brought_in_again(root: Path, drops: Drops) -> None:
    older(root, DAYS[0], 1)
    assert bring_in(root, drops)[0] == 1
    numbers = [table.newest() for table in drops.tables]
    assert bring_in(root, drops) == (0, [])
    # Nor when their folder has moved, whatever the day has become since.
    with drops.writer(DAYS[0], reason="corrected") as writer:
        writer.add(validate_drop(drop({"epid": 9})))
        corrected = writer.finish(drops.read_viewed(drops.require(DAYS[0])), 1)
        drops.commit([corrected], "development")
    moved = root.rename(root.with_name("moved"))
    assert bring_in(moved, drops)[0] == 0
    assert Drops(drops.lake_url).find(DAYS[0]) == corrected
    OlderSnapshots(str(moved)).require_brought_in(drops)
    OlderSnapshots(str(root)).require_brought_in(drops)
    assert numbers[0] is not None


def test_nothing_runs_before_they_are_in(root: Path, drops: Drops) -> None:
    snapshots = OlderSnapshots(str(root))
    snapshots.require_brought_in(drops)  # there are none
    (root / "day=x").mkdir(parents=True)
    (root / "environment.json").write_text("{}")
    snapshots.require_brought_in(drops)
    assert bring_in(root, drops)[0] == 0
    older(root, DAYS[0], 1)
    with pytest.raises(NotBroughtIn, match="run `episodes db init`, which brings them in"):
        snapshots.require_brought_in(drops)
    bring_in(root, drops)
    OlderSnapshots(str(root)).require_brought_in(Drops(drops.lake_url))
    shutil.rmtree(root)  # not needed any more
    OlderSnapshots(str(root)).require_brought_in(Drops(drops.lake_url))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["viewed_episodes", "quarantine", "episodes"])
@pytest.mark.parametrize("nth", [1, 3])
def test_what_was_interrupted_goes_on_where_it_was(
    root: Path, drops: Drops, monkeypatch: pytest.MonkeyPatch, table: str, nth: int
) -> None:
    monkeypatch.setattr(older_snapshots, "_COMMITTED_TOGETHER", 2)
    ids = {day: older(root, day, number) for number, day in enumerate(DAYS)}
    second = older(root, DAYS[0], 8, taken_at="2018-03-20T00:00:00+00:00")
    commit, commits = LakeTable._commit, 0

    def killed(self: LakeTable, *args: Any) -> None:
        nonlocal commits
        commits += self.name == table
        if self.name == table and commits == nth:
            raise KeyboardInterrupt
        commit(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LakeTable, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            bring_in(root, drops)
    with pytest.raises(NotBroughtIn):
        OlderSnapshots(str(root)).require_brought_in(Drops(drops.lake_url))
    kept = len(Drops(drops.lake_url).history())
    assert kept == 2 * (nth - 1)
    brought, said = bring_in(root, drops)
    assert brought == 6 - kept
    assert said[-1] == "lake: 6 of 6 older snapshots brought in"
    assert [each.snapshot_id for each in drops.versions(DAYS[0])] == [ids[DAYS[0]], second]
    assert {each.day: each.snapshot_id for each in drops.require_all(DAYS[1:])} == {
        day: ids[day] for day in DAYS[1:]
    }
    refused = drops.quarantine.newest()
    assert refused is not None
    assert {*refused.files} == {*DAYS}


def test_a_version_of_before_versions_had_manifests(root: Path, drops: Drops) -> None:
    first = older(root, DAYS[0], 1)
    (root / f"day={DAYS[0]}" / first / "manifest.json").unlink()
    second = older(root, DAYS[0], 1, 2)
    path = root / f"day={DAYS[0]}" / "manifest.json"
    said = json.loads(path.read_text())
    del said["reason"]  # nor did they have reasons
    path.write_text(json.dumps(said))
    (root / f"day={DAYS[0]}" / second / "manifest.json").unlink()
    (root / f"day={DAYS[0]}" / f"{uuid.uuid4().hex}.part").mkdir()  # of a killed process
    assert bring_in(root, drops)[0] == 2
    versions = drops.versions(DAYS[0])
    assert [each.snapshot_id for each in versions] == [first, second]
    assert (versions[0].drop_rows, versions[0].reasons, versions[0].viewed_episodes) == (
        2,
        {"epid_negative": 1},
        2,
    )


def test_columns_of_earlier_releases(root: Path, drops: Drops) -> None:
    parts = validate_drop(drop({"epid": 1}, {"epid": -1}))
    quarantined = to_table(parts.quarantined, QUARANTINED)
    narrow = quarantined.drop_columns(["as_found"])
    at = narrow.column_names.index("algorithm_id")
    narrow = narrow.set_column(at, "algorithm_id", narrow["algorithm_id"].cast(pa.int16()))
    accepted = to_table(parts.accepted)
    put_snapshot(root, DAYS[0], accepted=accepted, quarantined=narrow, viewed=[1], said={})
    assert bring_in(root, drops)[0] == 1
    (row,) = drops.read_quarantine(drops.require(DAYS[0])).to_dict("records")
    assert (row["epid"], row["algorithm_id"], row["reasons"]) == (-1, 0, "epid_negative")
    assert row["as_found"] != row["as_found"]


def rewritten(path: Path) -> None:
    pq.write_table(pq.read_table(path, partitioning=None)[:0], path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (rewritten, "not (the file that was written|hold the files that were written)"),
        (lambda path: path.write_bytes(b"no Parquet"), "(not the file that was written|cannot be read.*)"),
    ],
    ids=["rewritten", "no Parquet"],
)
def test_a_damaged_snapshot_is_refused_by_name(
    root: Path, drops: Drops, name: str, has_manifest: bool, damage: Callable[[Path], object], said: str
) -> None:
    folder = root / f"day={DAYS[0]}" / older(root, DAYS[0], 1)
    older(root, DAYS[0], 2)
    if not has_manifest:
        (folder / "manifest.json").unlink()
    damage(folder / name)
    with pytest.raises(SnapshotDamaged, match=rf"{folder}.*{said}: restore it from a backup"):
        bring_in(root, drops)
    with pytest.raises(NotBroughtIn):
        OlderSnapshots(str(root)).require_brought_in(drops)


@pytest.mark.parametrize("name", [*FILES, "manifest.json", ""])
def test_a_snapshot_that_lacks_something_is_refused_by_name(root: Path, drops: Drops, name: str) -> None:
    folder = root / f"day={DAYS[0]}" / older(root, DAYS[0], 1)
    if name == "manifest.json":
        folder.parent.joinpath(name).write_text("{")
    elif name:
        (folder / name).unlink()
    else:
        shutil.rmtree(folder)
    with pytest.raises(SnapshotDamaged, match=f"day={DAYS[0]}.*(is gone|is not a manifest)"):
        bring_in(root, drops)


def test_a_manifest_that_tells_other_rows_is_refused(root: Path, drops: Drops) -> None:
    older(root, DAYS[0], 1, accepted_rows=2)
    with pytest.raises(SnapshotDamaged, match="holds other rows than its manifest says"):
        bring_in(root, drops)


def test_a_lake_of_another_environment_takes_none(root: Path, drops: Drops) -> None:
    with drops.writer(DAYS[1]) as writer:
        writer.add(validate_drop(drop({"epid": 9})))
        drops.commit([writer.finish(np.array([9]), 1)], "development")
    older(root, DAYS[0], 1)
    with pytest.raises(WrongEnvironment, match="belongs to 'development'"):
        OlderSnapshots(str(root)).bring_in(drops, "production", lambda _: None)
    assert drops.days() == [DAYS[1]]


def test_snapshots_at_a_url(root: Path, drops: Drops) -> None:
    ids = [older(root, day, number) for number, day in enumerate(DAYS)]
    url = f"memory://{uuid.uuid4()}/snapshots"
    filesystem, place = fsspec.core.url_to_fs(url)
    for path in root.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"{place}/{path.relative_to(root)}", path.read_bytes())
    snapshots = OlderSnapshots(url)
    with pytest.raises(NotBroughtIn, match=f"below {url} are not in the lake"):
        snapshots.require_brought_in(drops)
    assert snapshots.bring_in(drops, "development", lambda _: None) == len(DAYS)
    assert [each.snapshot_id for each in drops.require_all(DAYS)] == ids


def test_files_are_read_by_the_thread_that_brings_them_in(
    root: Path, drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    older(root, DAYS[0], *range(1, 100))
    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/older", recursive=True)
    threads: set[int] = set()

    def read(file: MemoryFile, size: int = -1) -> bytes:
        threads.add(threading.get_ident())
        return io.BytesIO.read(file, size)

    monkeypatch.setattr(MemoryFile, "read", read, raising=False)
    try:
        assert OlderSnapshots("memory://older").bring_in(drops, "development", lambda _: None) == 1
    finally:
        memory.rm("/older", recursive=True)
    # One of Arrow's could still hold a file when the process ends, and would abort it.
    assert threads == {threading.get_ident()}
