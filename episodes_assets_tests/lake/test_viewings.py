"""What is read of many episodes is what was taken, whatever their windows and however the days are cut."""

import datetime as dt
import gc
import multiprocessing
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from episodes_assets.errors import (
    BadSetting,
    LakeDamaged,
    LakeMismatch,
    LakeMissing,
    LakeReplaced,
    ViewingUnreadable,
    WrongEnvironment,
)
from episodes_assets.lake import day_file, upkeep
from episodes_assets.lake import viewings as lake_viewings
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.upkeep import missing_of
from episodes_assets.lake.versions import PinnedVersion, TableVersion
from episodes_assets.lake.viewings import Viewings, covered_from, schema_of

FIRST = dt.date(2018, 3, 1)
ONE_DAY = dt.timedelta(days=1)
SCHEMA = schema_of(pa.int64())


def rows_of(day: dt.date, *viewings: tuple[int | None, int], unreadable: str | None = None) -> pa.Table:
    """Viewings of a day: each of an episode, so many seconds after midnight."""
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
    return pa.Table.from_pylist(
        [
            {
                "epid": epid,
                "viewer_id": number,
                "viewed_at": midnight + dt.timedelta(seconds=second),
                "seconds_watched": second,
                "completed": None if unreadable else number % 2 == 0,
                "completed_as_found": unreadable,
            }
            for number, (epid, second) in enumerate(viewings)
        ],
        SCHEMA,
    )


def take(lake: Viewings, *taken: pa.Table, days: list[dt.date], **facts: str) -> int:
    files = [
        lake.write(day, pa.RecordBatchReader.from_batches(each.schema, each.to_batches())).file
        for day, each in zip(days, taken, strict=True)
    ]
    return lake.commit(taken[0].schema, lambda _: files, environment="development", facts=facts).number


def read(lake: Viewings, version: int, since: dict[int, dt.date], until: dt.date) -> list[pa.Table]:
    epids = np.array(sorted(since), np.int64)
    begins = np.array([since[int(epid)] for epid in epids], "datetime64[D]")
    parts = list(lake.read(version, epids, begins, until))
    assert [upto for upto, _ in parts] == sorted({upto for upto, _ in parts})
    assert parts[-1][0] == epids[-1]
    for upto, table in parts:
        assert all(epid <= upto for epid in table["epid"].to_pylist())
    return [table for _, table in parts]


DAYS = 4
EPISODE = st.integers(0, 12) | st.sampled_from([np.iinfo(np.int64).max, np.iinfo(np.int64).min])
VIEWING = st.tuples(st.none() | EPISODE, st.integers(0, 86_399))


@given(
    days=st.lists(st.lists(VIEWING, max_size=60), min_size=DAYS, max_size=DAYS),
    wanted=st.dictionaries(EPISODE, st.integers(-1, DAYS), min_size=1),
    until=st.integers(0, DAYS),
    part=st.integers(1, 40),
    row_group=st.integers(1, 20),
    run=st.integers(1, 60),
    footers=st.sampled_from([0, 3 * lake_viewings._ROW_GROUP_BYTES, lake_viewings.FOOTER_BYTES]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_was_taken(
    tmp_path_factory: pytest.TempPathFactory,
    days: list[list[tuple[int | None, int]]],
    wanted: dict[int, int],
    until: int,
    part: int,
    row_group: int,
    run: int,
    footers: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (day_file, lake_viewings):
            patch.setattr(module, "ROW_GROUP_ROWS", row_group)
        patch.setattr(lake_viewings, "PART_VIEWINGS", part)
        patch.setattr(lake_viewings, "RUN_ROWS", run)
        patch.setattr(lake_viewings, "FOOTER_BYTES", footers)
        lake = Viewings(str(tmp_path_factory.mktemp("lake")))
        dates = [FIRST + number * ONE_DAY for number in range(DAYS)]
        version = take(
            lake, *(rows_of(day, *each) for day, each in zip(dates, days, strict=True)), days=dates
        )
        since = {epid: FIRST + number * ONE_DAY for epid, number in wanted.items()}
        last = FIRST + until * ONE_DAY
        parts = read(lake, version, since, last)
        expected = [
            (epid, day, second, number)
            for day, viewings in zip(dates, days, strict=True)
            for number, (epid, second) in enumerate(viewings)
            if epid in since and since[epid] <= day <= last
        ]
        found = [row for table in parts for row in table.to_pylist()]
        keys = [(row["epid"], row["viewed_on"], row["seconds_watched"]) for row in found]
        assert keys == sorted(keys)
        assert sorted(
            (row["epid"], row["viewed_on"].date(), row["seconds_watched"], row["viewer_id"]) for row in found
        ) == sorted(expected)
        assert all(row["completed"] == (row["viewer_id"] % 2 == 0) for row in found)
        for table in parts:
            assert len(table) <= part or len(table["epid"].unique()) == 1
        assert sum(each.bytes for each in lake._footers._kept.values()) == lake._footers._bytes <= footers
        for number, day in enumerate(dates):
            viewed = sorted({epid for epid, _ in days[number] if epid is not None})
            assert lake.episodes_of(version, day).tolist() == viewed


def _peak_of_reading(folder: str, version: int, epids: list[int], days: list[dt.date], told: Any) -> None:
    begins = np.full(len(epids), days[0], "datetime64[D]")
    lake = Viewings(folder)
    for day in days:  # what is kept of files' ends is not what is asked about here
        lake.count(lake.at(version).files[day])
    before = pa.total_allocated_bytes()
    rows = sum(len(part) for _, part in lake.read(version, np.array(epids), begins, days[-1]))
    told.put((rows, pa.default_memory_pool().max_memory() - before))


@pytest.mark.parametrize(
    ("count", "episodes", "epids"),
    [(1, 400_000, list(range(0, 400_000, 4_000))), (50, 8_000, list(range(8)))],
    ids=["far apart in a file", "together in each of many files"],
)
def test_little_is_held_beside_what_is_asked_for(
    tmp_path: Path, count: int, episodes: int, epids: list[int]
) -> None:
    """Row groups with 1.6 and 0.8 million viewings have to be looked at for some hundreds."""
    of = 4
    dates = [FIRST + number * ONE_DAY for number in range(count)]
    lake = Viewings(str(tmp_path))
    number = np.arange(of * episodes)
    table = pa.table(
        {
            "epid": number // of,
            "viewer_id": number * 7_919 % 1_000_003,
            "viewed_at": (np.datetime64(FIRST, "us") + number).astype("datetime64[us]"),
            "seconds_watched": number % 3_600,
            "completed": number % 5 == 0,
            "completed_as_found": pa.nulls(len(number), pa.string()),
        }
    )
    version = take(lake, *[table.cast(SCHEMA)] * count, days=dates)
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    reader = context.Process(target=_peak_of_reading, args=(str(tmp_path), version, epids, dates, told))
    reader.start()
    rows, peak = told.get(timeout=120)
    reader.join(120)
    assert rows == of * len(epids) * count
    assert peak < 12 << 20


def test_the_ends_of_files_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_viewings, "ROW_GROUP_ROWS", 5)
    monkeypatch.setattr(day_file, "ROW_GROUP_ROWS", 5)
    lake = Viewings(str(tmp_path))
    dates = [FIRST + number * ONE_DAY for number in range(6)]
    large, small = [(1, n) for n in range(100)], [(1, 1)]
    days = [rows_of(day, *(large if day == dates[2] else small)) for day in dates]
    files = lake.at(take(lake, *days, days=dates)).files

    def kept() -> list[dt.date]:
        return [each.file.day for each in lake._footers._kept.values()]

    monkeypatch.setattr(lake_viewings, "FOOTER_BYTES", 6 * lake_viewings._ROW_GROUP_BYTES)
    for day in (dates[0], dates[1], dates[3], dates[0], dates[4]):
        assert lake.count(files[day]) == 1
    assert kept() == [dates[3], dates[0], dates[4]]
    assert lake.count(files[dates[2]]) == 100  # by itself more than is kept
    assert kept() == []
    newest = lake.newest()
    assert newest is not None
    epids = np.array([1], np.int64)
    for _, part in lake.read(newest.number, epids, np.array([FIRST], "datetime64[D]"), dates[-1]):
        assert len(part) == 105
        # Nor does a read hold those of all days that it looks at.
        alive = [
            each
            for each in gc.get_objects()
            if isinstance(each, lake_viewings._Footer) and each.file in files.values()
        ]
        assert sum(each.bytes for each in alive) <= 6 * lake_viewings._ROW_GROUP_BYTES


def test_versions_stay_readable(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    first = take(lake, rows_of(FIRST, (1, 10)), days=[FIRST])
    second = take(lake, rows_of(FIRST, (1, 10), (1, 20)), days=[FIRST], reason="one came later")
    (before,), (after,) = (read(Viewings(str(tmp_path)), each, {1: FIRST}, FIRST) for each in (first, second))
    assert (before.num_rows, after.num_rows) == (1, 2)
    assert (
        take(lake, rows_of(FIRST, (1, 20), (1, 10)), days=[FIRST]) > second
    )  # other viewers in other seconds
    again = take(lake, rows_of(FIRST, (1, 10)), days=[FIRST])
    assert read(lake, again, {1: FIRST}, FIRST) == [before]
    assert take(lake, rows_of(FIRST, (1, 10)), days=[FIRST]) == again  # the same content is no new version
    with pytest.raises(LakeMissing, match=f"has no version 99, its newest is {again}"):
        lake.at(99)
    with pytest.raises(LakeMissing, match="it is empty"):
        Viewings(str(tmp_path / "elsewhere")).at(0)


def test_coverage_is_what_was_taken_without_a_gap(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    days = [FIRST, *(FIRST + number * ONE_DAY for number in (40, 41, 42, 60))]
    taken = [rows_of(day, (1, 1)) for day in days]
    taken[2] = rows_of(days[2])  # nobody watched, which is known
    version = lake.at(take(lake, *taken, days=days))
    assert covered_from(version, days[4]) == days[4]  # of the days before it nothing is known
    assert covered_from(version, FIRST) == FIRST
    assert covered_from(version, days[2]) == covered_from(version, days[3]) == days[1]
    assert covered_from(version, FIRST - ONE_DAY) is None
    assert lake.episodes_of(version.number, days[2]).tolist() == []
    with pytest.raises(LakeMissing, match="no viewings of 2018-03-02"):
        lake.episodes_of(version.number, FIRST + ONE_DAY)


@given(
    counts=st.lists(st.integers(0, 200), min_size=1, max_size=50),
    later=st.lists(st.integers(0, 200), max_size=40),
)
@settings(max_examples=100, deadline=None)
def test_later_days_do_not_change_what_is_covered(counts: list[int], later: list[int]) -> None:
    def version(of: list[int]) -> TableVersion:
        days = [FIRST + number * ONE_DAY for number in range(len(of))]
        files = {day: LakeFile(day, "x", rows, 1) for day, rows in zip(days, of, strict=True)}
        return TableVersion(0, SCHEMA, files)

    day = FIRST + (len(counts) - 1) * ONE_DAY
    assert covered_from(version(counts), day) == covered_from(version(counts + later), day)


def test_equal_viewings_make_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one second and those of no episode included, in whatever order they come."""
    table = rows_of(
        FIRST, *((epid, second) for epid in (1, 2, None) for second in (5, 5, 5, 9) for _ in range(40))
    )
    random = np.random.default_rng(1)
    digests = set()
    for beyond_memory in (10**6, 100):
        monkeypatch.setattr(lake_viewings, "IN_MEMORY_VIEWINGS", beyond_memory)
        for number in range(3):
            lake = Viewings(str(tmp_path / f"{beyond_memory}-{number}"))
            shuffled = table.take(random.permutation(len(table)))
            digests.add(lake.write(FIRST, shuffled.to_reader(max_chunksize=50)).file.digest)
    assert len(digests) == 1


def test_a_lake_of_another_environment_is_read_and_not_written(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    lake.verify_environment("production")  # nobody's yet
    assert lake.restamp("development", "staging") is False
    version = take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    with pytest.raises(WrongEnvironment, match="belongs to 'development', this process to 'production'"):
        lake.verify_environment("production")
    with pytest.raises(WrongEnvironment, match="EPISODES_LAKE_URL"):
        lake.commit(SCHEMA, lambda _: [], environment="production", facts={})
    with pytest.raises(WrongEnvironment):
        lake.restamp("production", "staging")
    assert lake.restamp("development", "staging", look_only=True) is True
    lake.verify_environment("development")
    assert lake.restamp("development", "staging") is True
    lake.verify_environment("staging")
    assert read(Viewings(str(tmp_path)), version, {1: FIRST}, FIRST)[0].num_rows == 1
    newest = lake.newest()
    assert newest is not None
    assert list(newest.files) == [FIRST]


def _take_one(url: str, number: int) -> None:
    day = FIRST + number * ONE_DAY
    take(Viewings(url), rows_of(day, (number, 1)), days=[day])


def test_of_many_who_write_at_once_none_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_take_one, args=(str(tmp_path), number)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * len(writers)
    newest = Viewings(str(tmp_path)).newest()
    assert newest is not None
    assert list(newest.files) == [FIRST + number * ONE_DAY for number in range(6)]


def test_who_was_overtaken_decides_again(tmp_path: Path) -> None:
    lake, other = Viewings(str(tmp_path)), Viewings(str(tmp_path))
    take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    mine = lake.write(FIRST, rows_of(FIRST, (2, 2)).to_reader()).file
    asked = []

    def choose(files: Any) -> list[LakeFile]:
        asked.append(dict(files))
        if len(asked) == 1:  # somebody commits after we have looked
            take(other, rows_of(FIRST, (3, 3)), days=[FIRST])
            return [mine]
        return []

    kept = lake.commit(SCHEMA, choose, environment="development", facts={})
    assert len(asked) == 2
    assert asked[0] != asked[1] == kept.files
    assert lake.episodes_of(kept.number, FIRST).tolist() == [3]


@pytest.mark.parametrize("damage", ["removed", "cut", "changed", "replaced"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, *((epid, epid) for epid in range(2_000))), days=[FIRST])
    file = lake.at(version).files[FIRST]
    path = tmp_path / "viewings" / file.path
    content = path.read_bytes()
    assert lake.is_whole(file)
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "changed":
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    else:
        path.write_bytes(b"x" * len(content))
    reader = Viewings(str(tmp_path))
    with pytest.raises(LakeDamaged, match=f"{file.path} (is gone|was cut or changed|was changed)"):
        read(reader, version, dict.fromkeys(range(2_000), FIRST), FIRST)
    if damage == "removed":
        with pytest.raises(LakeDamaged, match="is gone"):
            reader.is_whole(file)
    else:
        assert not reader.is_whole(file)


def test_a_file_that_vanishes_after_it_was_read_once_is_refused(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    read(lake, version, {1: FIRST}, FIRST)
    (tmp_path / "viewings" / lake.at(version).files[FIRST].path).unlink()
    with pytest.raises(LakeDamaged, match="is gone"):
        read(lake, version, {1: FIRST}, FIRST)


def test_a_log_that_is_damaged_is_told(tmp_path: Path) -> None:
    take(Viewings(str(tmp_path)), rows_of(FIRST, (1, 1)), days=[FIRST])
    (tmp_path / "viewings" / "_delta_log" / f"{1:020}.json").write_text("{")
    with pytest.raises(LakeDamaged, match="viewings cannot be read"):
        Viewings(str(tmp_path)).newest()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_an_entry_of_the_log_that_is_damaged_is_told(tmp_path: Path, number: int, damage: str) -> None:
    lake = Viewings(str(tmp_path))
    for count in (1, 2):
        last = take(lake, rows_of(FIRST, *((1, second) for second in range(count))), days=[FIRST])
    entry = tmp_path / "viewings" / "_delta_log" / f"{number:020}.json"
    content = entry.read_bytes()
    if damage == "removed":
        entry.unlink()
    else:
        entry.write_bytes(content[: len(content) * 2 // 3] if damage == "cut" else b"x" * len(content))
    with pytest.raises((LakeDamaged, LakeMissing), match="viewings"):
        Viewings(str(tmp_path)).at(last)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"day":"2018-03-01"', '"day":"2018-03-02"'),  # another day's
        ('"remove":{"path":"day=2018-03-01/', '"remove":{"path":"day=2018-03-01/1'),  # two of a day
        ('"stats"', '"state"'),  # of unknown many
    ],
)
def test_a_log_that_delta_reads_and_that_does_not_add_up_is_refused(
    tmp_path: Path, old: str, new: str
) -> None:
    lake = Viewings(str(tmp_path))
    for count in (1, 2):
        take(lake, rows_of(FIRST, *((1, second) for second in range(count))), days=[FIRST])
    entry = tmp_path / "viewings" / "_delta_log" / f"{2:020}.json"
    text = entry.read_text(encoding="utf-8")
    assert old in text
    entry.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LakeDamaged, match=r"what its log says of 2018-03-0[12] in version 2 does not add up"):
        Viewings(str(tmp_path)).newest()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("old", "new"), [(r"(?s).*", ""), ('{"add"', '{"adc"'), (r'(?s)(.*)\n\{"add.*', r"\1")]
)
def test_a_log_that_has_lost_what_it_added_is_refused(
    tmp_path: Path, number: int, old: str, new: str
) -> None:
    """Delta reads it without a word: the day is as it was before, or there is none."""
    lake = Viewings(str(tmp_path))
    for count in (1, 2):
        day = FIRST + (count % 2) * ONE_DAY
        take(lake, rows_of(day, *((1, second) for second in range(count))), days=[day])
    entry = tmp_path / "viewings" / "_delta_log" / f"{number:020}.json"
    text = entry.read_text(encoding="utf-8")
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    entry.write_text(changed, encoding="utf-8")
    with pytest.raises(LakeDamaged, match="version 2 is not what its log's entry says that it is"):
        Viewings(str(tmp_path)).newest()


@pytest.mark.parametrize("name", [f"{3:020}.checkpoint.parquet", "_last_checkpoint"])
@pytest.mark.parametrize("content", [b"", b"x" * 5_000])
def test_a_checkpoint_that_is_damaged_is_refused_or_done_without(
    tmp_path: Path, name: str, content: bytes
) -> None:
    lake = Viewings(str(tmp_path))
    for count in (1, 2, 3, 4):
        take(lake, rows_of(FIRST, *((1, second) for second in range(count))), days=[FIRST])
        if count == 3:
            DeltaTable(str(tmp_path / "viewings")).create_checkpoint()
    newest = Viewings(str(tmp_path)).newest()
    (tmp_path / "viewings" / "_delta_log" / name).write_bytes(content)
    try:
        assert Viewings(str(tmp_path)).newest() == newest
    except LakeDamaged as error:
        assert str(tmp_path / "viewings") in str(error)  # noqa: PT017  both are right


def test_a_completed_that_cannot_be_told_fails_who_reads_it_and_nobody_else(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    odd = rows_of(FIRST, (1, 5), unreadable="perhaps")
    version = take(lake, pa.concat_tables([odd, rows_of(FIRST, (2, 5))]), days=[FIRST])
    assert read(lake, version, {2: FIRST}, FIRST)[0].num_rows == 1
    with pytest.raises(ViewingUnreadable, match=r"epid 1 at 2018-03-01 00:00:05.*'perhaps'"):
        read(lake, version, {1: FIRST, 2: FIRST}, FIRST)


def test_viewers_are_told_apart_in_one_way(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    text = rows_of(FIRST, (1, 1)).cast(schema_of(pa.string()))
    version = take(lake, text, days=[FIRST])
    assert read(lake, version, {1: FIRST}, FIRST)[0]["viewer_id"].to_pylist() == ["0"]
    with pytest.raises(
        LakeMismatch, match=r"viewer_id of the input is read as int64, but .* holds it as string"
    ):
        lake.write(FIRST, rows_of(FIRST, (1, 1)).to_reader())


def test_a_failed_taking_leaves_nothing(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))

    def broken() -> Any:
        yield rows_of(FIRST, (1, 1)).to_batches()[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="No space left"):
        lake.write(FIRST, pa.RecordBatchReader.from_batches(SCHEMA, broken()))
    assert lake.newest() is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_more_viewings_than_memory_holds_are_ordered_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_viewings, "SORT_MEMORY", "64MB")
    random = np.random.default_rng(7)
    midnight = np.datetime64(FIRST, "us")

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(24):
            at = midnight + random.integers(0, 86_400_000_000, 50_000).astype("timedelta64[us]")
            yield pa.record_batch(
                [
                    pa.array(random.integers(0, 9_000, 50_000)),
                    pa.array(random.integers(0, 10**12, 50_000)),
                    pa.array(at, pa.timestamp("us", "UTC")),
                    pa.array(random.integers(0, 3_600, 50_000)),
                    pa.array(random.random(50_000) < 0.5),
                    pa.nulls(50_000, pa.string()),
                ],
                schema=SCHEMA,
            )

    taken = list(batches())
    random = np.random.default_rng(7)
    lake = Viewings(str(tmp_path))
    found = lake.write(FIRST, pa.RecordBatchReader.from_batches(SCHEMA, batches()))
    lake.commit(SCHEMA, lambda _: [found.file], environment="development", facts={})
    table = pq.read_table(tmp_path / "viewings" / found.file.path, partitioning=None)
    expected = pa.Table.from_batches(taken).sort_by([("epid", "ascending"), ("viewed_at", "ascending")])
    keys = ["epid", "viewed_at"]
    assert table.select(keys).equals(expected.select(keys))
    by_all = [(name, "ascending") for name in SCHEMA.names]
    assert table.sort_by(by_all).equals(expected.sort_by(by_all))
    assert found.episodes.tolist() == list(range(9_000))


def test_the_lake_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "lake"
    lake = Viewings(str(home))
    take(lake, rows_of(FIRST, (1, 1)), days=[FIRST])
    assert {path.stat().st_mode & 0o777 for path in (home, home / "viewings")} == {0o700}


def test_a_lake_in_the_place_of_another_is_told_by_its_content(tmp_path: Path) -> None:
    """Also by who has read the one before, and keeps what it has read of it."""
    lake = Viewings(str(tmp_path / "lake"))
    second = FIRST + ONE_DAY
    take(lake, rows_of(FIRST, (1, 10)), days=[FIRST])
    kept = lake.at(take(lake, rows_of(second, (1, 10)), days=[second]))
    assert lake.at(*kept.pinned) == kept
    shutil.move(tmp_path / "lake", tmp_path / "before")
    other = Viewings(str(tmp_path / "lake"))
    for number in range(3):
        take(other, rows_of(FIRST + number * ONE_DAY, (2, 20)), days=[FIRST + number * ONE_DAY])
    newest = lake.newest()
    assert newest is not None
    assert newest.files == other.at(3).files  # none of them of the lake before
    for reader in (lake, Viewings(str(tmp_path / "lake"))):
        with pytest.raises(LakeReplaced, match="is not the one that the plan of today was made from"):
            reader.at(*kept.pinned, by="the plan of today")
    assert missing_of(lake, [kept.pinned, newest.pinned, PinnedVersion(9, None)]) == [
        kept.pinned,
        PinnedVersion(9, None),
    ]
    # What was read of another lake does not stand in the way of this one.
    shutil.rmtree(tmp_path / "lake")
    shutil.move(tmp_path / "before", tmp_path / "lake")
    assert lake.at(*kept.pinned) == kept
    with pytest.raises(LakeReplaced):
        lake.at(2, other.at(3).digest)


def test_the_same_content_is_the_same_whatever_the_lake(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        lake = Viewings(str(tmp_path / name))
        for number in range(2):
            day = FIRST + number * ONE_DAY
            take(lake, rows_of(day, (1, number)), days=[day])
        digests.append(lake.digests(range(9)))
        assert digests[-1] == {n: Viewings(str(tmp_path / name)).at(n).digest for n in range(3)}
    assert digests[0] == digests[1]
    assert lake.restamp("development", "staging")
    assert lake.digests([3]) == {3: digests[0][2]}


@pytest.mark.parametrize(
    "other", [0x01, *(pytest.param(each, marks=pytest.mark.slow) for each in (0x80, 0xFF))]
)
def test_a_byte_that_differs_is_refused_or_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    """Whichever of a file: of a page's header or data, or of the end, which says where pages are."""
    monkeypatch.setattr(day_file, "ROW_GROUP_ROWS", 20)
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, *((epid, epid) for epid in range(30))), days=[FIRST])
    wanted = dict.fromkeys(range(5, 28), FIRST)
    taken = read(lake, version, wanted, FIRST)
    path = tmp_path / "viewings" / lake.at(version).files[FIRST].path
    content = path.read_bytes()
    refused = 0
    for at, byte in enumerate(content):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte ^ other]))
        reader = Viewings(str(tmp_path))
        monkeypatch.setattr(reader, "_known", lake._known)  # the log is read once
        try:
            assert read(reader, version, wanted, FIRST) == taken, at
        except LakeDamaged:
            refused += 1
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))
    assert refused > 0.5 * len(content)  # pages of columns that are not read are none of them


def test_a_page_that_is_passed_over_is_refused_in_batches_too(tmp_path: Path) -> None:
    """Arrow passes over a page of whose header a byte differs, and has the rows of the others."""
    lake = Viewings(str(tmp_path))
    version = take(lake, rows_of(FIRST, *((epid, epid) for epid in range(30))), days=[FIRST])
    file = lake.at(version).files[FIRST]
    path = tmp_path / "viewings" / file.path
    content = path.read_bytes()
    for at, byte in enumerate(content):
        path.write_bytes(content[:at] + bytes([byte ^ 1]) + content[at + 1 :])
        with suppress(LakeDamaged), lake.open(file) as opened:
            assert sum(batch.num_rows for batch in opened.iter_batches(7)) == file.rows, at


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/[lake", "Cannot parse URI"),
        ("s3://[bucket", "Invalid IPv6 URL"),
        ("s3://bucket/a lake", "Cannot parse URI"),
        ("s3:/bucket", "Missing bucket name"),
        ("foo://bucket/lake", "Unrecognized filesystem type"),
        ("s3://bucket/lake?region=eu", "a query or a fragment"),
        ("file://elsewhere/lake", "on another host"),
    ],
)
def test_a_url_that_is_no_place_for_a_lake_is_refused(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_ENVIRONMENT", "production")  # where any host is allowed
    with pytest.raises(BadSetting, match=f"(?s)EPISODES_LAKE_URL = .* is no place for a lake .*{reason}"):
        Viewings(url).newest()


def test_a_log_that_says_other_rows_than_a_file_has_is_told(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    take(lake, rows_of(FIRST, (1, 1), (2, 2)), days=[FIRST])
    entry = tmp_path / "viewings" / "_delta_log" / f"{1:020}.json"
    said = entry.read_text(encoding="utf-8")
    assert said.count('numRecords\\": 2') == 1
    entry.write_text(said.replace('numRecords\\": 2', 'numRecords\\": 3'), encoding="utf-8")
    found = Viewings(str(tmp_path))
    newest = found.newest()
    assert newest is not None
    ((_, fault),) = upkeep.verify(found, list(newest.files.values()))
    assert fault == "has 2 rows, but 3 by the table's log"
