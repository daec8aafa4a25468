"""Drops in the lake are whole or absent, never change, and notice damage."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from episodes_assets.errors import DropMissing, LakeDamaged, WrongEnvironment
from episodes_assets.lake import upkeep
from episodes_assets.lake.drop_record import RECORD, Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.tables import LakeTable
from episodes_assets.planning.drop import ACCEPTED, QUARANTINED, SCHEMA, validate_drop
from episodes_assets_tests.support.drops import drop
from episodes_assets_tests.support.lake_drops import DAY, read, take, write

NEXT = dt.date(2018, 3, 2)


def path_of(drops: Drops, table: LakeTable, of: Drop) -> Path:
    file = of.episodes if table.name == "episodes" else of.quarantine
    return Path(drops.lake_url, table.name, file.path)


def test_what_is_read_is_what_was_written(drops: Drops) -> None:
    taken = take(drops, 1, 2, reason="why")
    found = Drops(drops.lake_url).require(DAY)
    assert found == taken
    assert (found.drop_rows, found.accepted_rows, found.quarantined_rows) == (3, 2, 1)
    assert (found.viewed_episodes, found.reasons, found.reason) == (2, {"epid_negative": 1}, "why")
    accepted = read(drops, found)
    assert accepted["epid"].tolist() == [1, 2]
    assert accepted["premier_date"].tolist() == [pd.Timestamp("2018-01-01")] * 2
    (refused,) = drops.read_quarantine(found).to_dict("records")
    assert (refused["epid"], refused["reasons"]) == (-1, "epid_negative")
    (some,) = drops.read_drop(found, ["algorithm_id", "epid"])
    assert [str(dtype) for dtype in some.dtypes] == ["int16", "int64"]
    assert list(some.columns) == ["algorithm_id", "epid"]


def test_a_drop_of_several_parts_is_read_in_order_and_an_empty_one_as_one_part(drops: Drops) -> None:
    with drops.writer(DAY) as writer:
        for epids in ((1, 2), (3,), (5, 8)):
            writer.add(validate_drop(drop(*({"epid": epid} for epid in epids))))
        drops.commit([writer.finish(np.array([], np.int64), 5)], "development")
    assert read(drops, drops.require(DAY))["epid"].tolist() == [1, 2, 3, 5, 8]
    assert drops.read_quarantine(drops.require(DAY)).empty
    empty = take(drops, day=NEXT)
    (part,) = drops.read_drop(empty, ["epid", "algorithm_id"])
    assert part.empty


def test_every_column_of_a_drop_survives_also_in_other_engines(drops: Drops) -> None:
    with drops.writer(DAY) as writer:
        rows = drop(
            {"epid": 1, "series": "\N{CLAPPER BOARD} 'a'\n", "season": None, "premier_date": None},
            {
                "epid": 2**62,
                "algorithm_id": 1,
                "episode": 2**31 - 1,
                "start_date": pd.Timestamp("2199-12-31"),
            },
            {"epid": None, "algorithm_id": 2**40, "premier_date": pd.Timestamp("1850-01-01")},
        )
        parts = validate_drop(rows)
        writer.add(parts)
        drops.commit([writer.finish(np.array([1]), 3)], "development")
    found = drops.require(DAY)
    accepted = parts.accepted[SCHEMA.names]
    pd.testing.assert_frame_equal(read(drops, found), accepted, check_dtype=False)
    refused = drops.read_quarantine(found)
    pd.testing.assert_frame_equal(refused[SCHEMA.names], parts.quarantined[SCHEMA.names], check_dtype=False)
    with duckdb.connect() as connection:
        for table, ours in (("episodes", accepted), ("quarantine", refused)):
            files = DeltaTable(f"{drops.lake_url}/{table}").file_uris()
            columns = ", ".join(SCHEMA.names)
            read_by = f"SELECT {columns}, day FROM read_parquet($files, hive_partitioning = true)"
            theirs = connection.execute(read_by, {"files": files}).fetchall()
            as_text = [[None if pd.isna(value) else str(value) for value in row] for row in theirs]
            expected = ours[SCHEMA.names].assign(day=DAY)
            for name in ("premier_date", "start_date"):
                expected[name] = expected[name].dt.date
            assert as_text == [
                [None if pd.isna(value) else str(value) for value in row]
                for row in expected.astype("object").to_numpy().tolist()
            ]


def test_the_schemas_of_the_tables_are_those_of_a_drop(drops: Drops) -> None:
    take(drops, 1)
    for table, schema in ((drops.episodes, ACCEPTED), (drops.quarantine, QUARANTINED)):
        newest = table.newest()
        assert newest is not None
        assert newest.schema == schema
        (file,) = newest.files.values()
        assert pq.read_schema(Path(drops.lake_url, table.name, file.path)).remove_metadata() == schema


def test_a_file_says_what_its_drop_was(drops: Drops) -> None:
    taken = take(drops, 1, reason="it was wrong")
    said = json.loads(pq.read_metadata(path_of(drops, drops.episodes, taken)).metadata[RECORD.encode()])
    assert (said["snapshot_id"], said["reason"]) == (taken.snapshot_id, "it was wrong")
    assert said["quarantine"]["path"] == taken.quarantine.path


def test_drops_that_the_log_has_lost_are_told_by_day(drops: Drops) -> None:
    first, second = take(drops, 1), take(drops, 1, day=NEXT)
    assert first.snapshot_id == second.snapshot_id  # of other days with the same content
    named = [(DAY, first.snapshot_id), (NEXT, second.snapshot_id)]
    assert upkeep.missing_drops(drops, named) == []
    log = Path(drops.lake_url, "episodes", "_delta_log")
    max(log.glob("*.json")).unlink()
    assert upkeep.missing_drops(Drops(drops.lake_url), named) == named[1:]
    shutil.rmtree(log)
    assert upkeep.missing_drops(Drops(drops.lake_url), named) == named


def test_a_day_without_a_drop_says_what_to_do(drops: Drops) -> None:
    assert drops.find(DAY) is None
    with pytest.raises(DropMissing, match="no drop of 2018-03-01: materialise input_episodes of 2018-03-01"):
        drops.require(DAY)
    take(drops, 1, day=NEXT)
    with pytest.raises(DropMissing, match="no drop of 2018-03-01"):
        drops.require_all([NEXT, DAY])
    assert list(drops.find_all([DAY, NEXT])) == [NEXT]


def test_equal_input_has_an_equal_id_and_older_versions_stay(drops: Drops) -> None:
    snapshot_id = take(drops, 1, 2).snapshot_id
    first = take(drops, 2, 1)
    assert first.snapshot_id == snapshot_id
    second = take(drops, 1, 2, 3, reason="a row was missing")
    assert second.snapshot_id != first.snapshot_id
    assert drops.find(DAY) == second
    assert read(drops, first)["epid"].tolist() == [1, 2]
    assert drops.versions(DAY) == [first, second]
    back = take(drops, 1, 2, reason="it was not")
    assert [each.reason for each in drops.versions(DAY)] == ["a row was missing", "it was not"]
    assert drops.find(DAY) == back
    assert drops.versions(NEXT) == []


def test_an_id_changes_with_every_part_of_what_was_taken(drops: Drops) -> None:
    def taken(epids: tuple[int, ...], refused: tuple[int, ...], viewed: tuple[int, ...]) -> str:
        with drops.writer(DAY) as writer:
            writer.add(validate_drop(drop(*({"epid": epid} for epid in (*epids, *refused)))))
            return writer.finish(np.array(viewed, np.int64), len(epids) + len(refused)).snapshot_id

    kinds = [
        ((1,), (-1,), (3,)),
        ((2,), (-1,), (3,)),
        ((1,), (-2,), (3,)),
        ((1,), (-1,), (4,)),
        ((1,), (), ()),
    ]
    ids = [taken(*kind) for kind in kinds]
    assert len({*ids}) == len(kinds)
    assert ids == [taken(*kind) for kind in kinds]


def test_days_are_committed_together(drops: Drops) -> None:
    drops.commit([write(drops, 1), write(drops, 2, day=NEXT)], "development")
    newest = drops.episodes.newest()
    assert newest is not None
    assert (newest.number, list(newest.files)) == (1, [DAY, NEXT])
    assert [each.day for each in drops.history()] == [DAY, NEXT]


@pytest.mark.parametrize("killed_in", ["quarantine", "episodes"])
def test_a_day_is_taken_when_all_tables_have_it(
    drops: Drops, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    commit = LakeTable.commit

    def killed(self: LakeTable, *args: object, **kwargs: object) -> object:
        if self.name == killed_in:
            raise KeyboardInterrupt
        return commit(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LakeTable, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            take(drops, 1)
    assert drops.find(DAY) is None
    assert drops.history() == []
    assert take(drops, 1) == drops.find(DAY)
    refused = drops.quarantine.newest()
    assert refused is not None
    assert len(refused.files) == 1


def test_of_two_who_take_a_day_at_once_the_last_has_both_tables(
    drops: Drops, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = LakeTable.commit
    other = Drops(drops.lake_url)
    theirs: list[Drop] = []

    def overtaken(self: LakeTable, *args: object, **kwargs: object) -> object:
        if self is drops.episodes and not theirs:
            with other.writer(DAY) as writer:
                writer.add(validate_drop(drop({"epid": 7}, {"epid": -7})))
                theirs.append(writer.finish(np.array([3]), 2))
            other.commit(theirs, "development")
        return commit(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(LakeTable, "commit", overtaken)
    ours = take(drops, 1)
    refused = drops.quarantine.newest()
    assert theirs
    assert refused is not None
    assert (drops.find(DAY), refused.files[DAY]) == (ours, ours.quarantine)
    assert drops.versions(DAY) == [*theirs, ours]


def test_of_many_who_take_days_at_once_none_is_lost(drops: Drops) -> None:
    days = [DAY + number * dt.timedelta(days=1) for number in range(6)]
    take(drops, 1, day=DAY - dt.timedelta(days=1))
    with ThreadPoolExecutor(6) as threads:
        taken = list(threads.map(lambda day: take(Drops(drops.lake_url), day.day, day=day), days))
    assert drops.require_all(days) == taken


def test_drops_are_found_by_the_ids_that_name_them(drops: Drops) -> None:
    first, second = take(drops, 1), take(drops, 2)
    named = {DAY: {first.snapshot_id, second.snapshot_id, "another"}, NEXT: {first.snapshot_id}}
    found = drops.find_named(named)
    assert found[DAY].current == second.snapshot_id
    assert found[DAY].existing == {first.snapshot_id, second.snapshot_id}
    assert (found[NEXT].current, found[NEXT].existing) == (None, set())
    path_of(drops, drops.quarantine, second).unlink()
    path_of(drops, drops.episodes, first).write_bytes(b"short")
    # Both had the same rows refused, so one file.
    assert drops.find_named(named)[DAY].existing == set()


def test_a_lake_of_another_environment_is_read_and_not_written(drops: Drops) -> None:
    first = take(drops, 1)
    with pytest.raises(WrongEnvironment, match="belongs to 'development', this process to 'production'"):
        take(drops, 2, environment="production")
    with pytest.raises(WrongEnvironment):
        drops.verify_environment("production")
    assert drops.versions(DAY) == [first]
    assert read(drops, first)["epid"].tolist() == [1]


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("table", ["episodes", "quarantine"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: flipped(path, 40), "was cut or changed"),
        (lambda path: flipped(path, -40), "was cut or changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "was cut or changed"),
        (lambda path: path.unlink(), "is gone"),
    ],
    ids=["a page", "the end", "cut", "gone"],
)
def test_damage_is_noticed(drops: Drops, table: str, damage: Callable[[Path], object], said: str) -> None:
    taken = take(drops, *range(300))
    file = getattr(taken, table)
    damage(Path(drops.lake_url, table, file.path))
    with pytest.raises(LakeDamaged, match=f"{file.path} {said}"):
        read(drops, taken) if table == "episodes" else drops.read_quarantine(taken)
    found = {
        fault for name, files in upkeep.files_of_drops(drops, []) for _, fault in upkeep.verify(name, files)
    }
    assert len(found - {""}) == 1
    if said == "is gone" or "cut" in str(damage):
        assert drops.find_named({DAY: {taken.snapshot_id}})[DAY].existing == set()


def test_a_file_without_its_record_is_named(drops: Drops) -> None:
    taken = take(drops, 1)
    path = path_of(drops, drops.episodes, taken)
    pq.write_table(pq.read_table(path, partitioning=None), path)
    with pytest.raises(LakeDamaged, match=r"episodes/day=2018-03-01/.*parquet was cut or changed"):
        Drops(drops.lake_url).find(DAY)


def test_many_versions_are_found_behind_a_checkpoint(drops: Drops) -> None:
    first = take(drops, 1)
    for number in range(101):
        drops.episodes.set_property("episodes.number", str(number), ACCEPTED, "development")
    second = take(drops, 1, day=NEXT)
    assert list(Path(drops.lake_url, "episodes", "_delta_log").glob("*.checkpoint.parquet"))
    assert Drops(drops.lake_url).history() == [first, second]
    assert Drops(drops.lake_url).find(DAY) == first
