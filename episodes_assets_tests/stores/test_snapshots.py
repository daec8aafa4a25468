"""Snapshots are whole or absent, immutable, and notice damage; in a folder or at a URL."""

import datetime as dt
import json
import os
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from episodes_assets.errors import SnapshotDamaged, SnapshotMissing, WrongEnvironment
from episodes_assets.stores import drop_table
from episodes_assets.stores.snapshot_manifest import Snapshot
from episodes_assets.stores.snapshots import SnapshotStore
from episodes_assets.validation.drop import validate_drop
from episodes_assets_tests.validation.test_bad_drop import drop

DAY = dt.date(2018, 3, 1)


@pytest.fixture(params=["folder", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4()}")


def write(store: SnapshotStore, *epids: int, reason: str = "", environment: str = "development") -> Snapshot:
    with store.new(DAY, environment=environment, reason=reason) as snapshot:
        snapshot.add(validate_drop(drop(*({"epid": epid} for epid in (*epids, -1)))))
        return snapshot.finish(np.array([3, 5]), len(epids) + 1)


def read(store: SnapshotStore, snapshot: Snapshot) -> pd.DataFrame:
    return pd.concat(store.read_drop(snapshot, drop_table.SCHEMA.names))


def test_what_is_read_is_what_was_written(store: SnapshotStore) -> None:
    snapshot = write(store, 1, 2)
    assert store.find(DAY) == snapshot
    assert (snapshot.drop_rows, snapshot.accepted_rows, snapshot.quarantined_rows) == (3, 2, 1)
    accepted = read(store, snapshot)
    assert accepted["epid"].tolist() == [1, 2]
    assert accepted["premier_date"].tolist() == [pd.Timestamp("2018-01-01")] * 2
    assert store.read_viewed(snapshot).tolist() == [3, 5]
    assert store.read_quarantine(snapshot)["reasons"].tolist() == ["epid_negative"]
    (some,) = store.read_drop(snapshot, ["algorithm_id", "epid"])
    assert list(some.columns) == ["algorithm_id", "epid"]


def test_a_quarantine_of_an_older_release_is_read(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = [field for field in drop_table.QUARANTINED if field.name != "as_found"]
    narrow = [each.with_type(pa.int16()) if each.name == "algorithm_id" else each for each in older]
    monkeypatch.setattr(drop_table, "QUARANTINED", pa.schema(narrow))
    snapshot = write(store, 1)
    (row,) = store.read_quarantine(snapshot).to_dict("records")
    assert (row["epid"], row["algorithm_id"], row["reasons"]) == (-1, 0, "epid_negative")
    assert pd.isna(row["as_found"])


def test_a_day_without_snapshot_says_what_to_do(store: SnapshotStore) -> None:
    assert store.find(DAY) is None
    with pytest.raises(SnapshotMissing, match="materialise input_episodes of 2018-03-01"):
        store.require(DAY)


def test_equal_input_has_an_equal_id_and_a_refresh_keeps_the_old_files(store: SnapshotStore) -> None:
    first = write(store, 1, 2)
    assert write(store, 2, 1).snapshot_id == first.snapshot_id
    second = write(store, 1, 2, 3)
    assert second.snapshot_id != first.snapshot_id
    assert store.find(DAY) == second
    assert read(store, first)["epid"].tolist() == [1, 2]


def test_nothing_is_there_until_the_manifest_is(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = SnapshotStore._put_manifest

    def killed_before_the_last(self: SnapshotStore, snapshot: Snapshot, folder: str, path: str) -> None:
        if snapshot.snapshot_id not in path:
            raise KeyboardInterrupt
        put(self, snapshot, folder, path)

    monkeypatch.setattr(SnapshotStore, "_put_manifest", killed_before_the_last)
    with pytest.raises(KeyboardInterrupt):
        write(store, 1)
    monkeypatch.undo()
    assert store.find(DAY) is None
    assert write(store, 1).accepted_rows == 1


def test_each_version_keeps_its_manifest(store: SnapshotStore) -> None:
    first = write(store, 1, 2)
    filesystem, root = store._place
    own = f"{root}/day={DAY}/{first.snapshot_id}/manifest.json"
    # A store from before versions had manifests, and reasons, has the day's alone.
    filesystem.rm(own)
    old = json.loads(filesystem.cat_file(f"{root}/day={DAY}/manifest.json"))
    del old["reason"]
    filesystem.pipe_file(f"{root}/day={DAY}/manifest.json", json.dumps(old).encode())
    assert store.versions(DAY) == [first]
    second = write(store, 1, 2, 3, reason="a row was missing")
    assert store.versions(DAY) == [first, second]
    assert [version.reason for version in store.versions(DAY)] == ["", "a row was missing"]
    back = write(store, 1, 2, reason="it was not")
    assert store.find(DAY) == back
    assert store.versions(DAY) == [second, back]
    assert store.versions(DAY + dt.timedelta(days=1)) == []


def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path))
    old = time.time() - 90_000
    for name in ("killed", "empty", "slow"):
        folder = tmp_path / f"day={DAY}" / f"{name}.part"
        folder.mkdir(parents=True)
        if name != "empty":
            (folder / "episodes.parquet").touch()
            os.utime(folder / "episodes.parquet", (old, old))
        if name == "slow":
            (folder / "quarantine.parquet").touch()
        os.utime(folder, (old, old))
    write(store, 1)
    assert [path.name for path in tmp_path.rglob("*.part")] == ["slow.part"]


def test_a_store_of_another_environment_is_read_and_not_written(store: SnapshotStore) -> None:
    first = write(store, 1)
    with pytest.raises(WrongEnvironment, match="belong to 'development', this process to 'production'") as no:
        write(store, 2, environment="production")
    assert store.url in str(no.value)
    assert store.versions(DAY) == [first]
    assert read(store, first)["epid"].tolist() == [1]


def test_a_store_changes_its_environment_on_an_explicit_word(store: SnapshotStore) -> None:
    assert store.restamp("development", "staging") is False  # nobody's yet
    write(store, 1)
    with pytest.raises(WrongEnvironment, match="belong to 'development'"):
        store.restamp("production", "staging")
    assert store.restamp("development", "staging", look_only=True) is True
    write(store, 2)
    assert store.restamp("development", "staging") is True
    write(store, 3, environment="staging")
    with pytest.raises(WrongEnvironment, match="belong to 'staging'"):
        write(store, 4)


def test_damage_is_noticed(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path))
    snapshot = write(store, 1)
    file = tmp_path / "day=2018-03-01" / snapshot.snapshot_id / "episodes.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SnapshotDamaged, match="not the file that was written"):
        read(store, snapshot)
    file.unlink()
    with pytest.raises(SnapshotDamaged, match="is gone"):
        read(store, snapshot)
    assert not list(tmp_path.rglob("*.part"))
