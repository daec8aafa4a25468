"""What is read of many episodes is what was taken, whatever their windows and however the days are cut."""

import datetime as dt
import gc
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from episodes_assets.errors import (
    LakeMismatch,
    LakeMissing,
    ViewingsGone,
    ViewingUnreadable,
)
from episodes_assets.lake import day_file
from episodes_assets.lake import viewings as lake_viewings
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.versions import LOST, TableVersion
from episodes_assets.lake.viewings import Viewings, covered_from, schema_of
from episodes_assets.results.recompute import require_computable
from episodes_assets_tests.support.small_lakes import FIRST, ONE_DAY, SCHEMA, read, rows_of, take

pytestmark = pytest.mark.process

DAYS = 4

EPISODE = st.integers(0, 12) | st.sampled_from([np.iinfo(np.int64).max, np.iinfo(np.int64).min])

VIEWING = st.tuples(st.none() | EPISODE, st.integers(0, 86_399))


@pytest.mark.slow
@given(
    days=st.lists(st.lists(VIEWING, max_size=60), min_size=DAYS, max_size=DAYS),
    wanted=st.dictionaries(EPISODE, st.integers(-1, DAYS), min_size=1),
    until=st.integers(0, DAYS),
    part=st.integers(1, 40),
    row_group=st.integers(1, 20),
    run=st.integers(1, 60),
    footers=st.sampled_from([0, 3 * day_file._ROW_GROUP_BYTES, day_file.FOOTER_BYTES]),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        patch.setattr(day_file, "FOOTER_BYTES", footers)
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
        assert sum(each.bytes for each in lake._footers._footers.values()) == lake._footers._bytes <= footers
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


@pytest.mark.slow
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
        return [each.file.day for each in lake._footers._footers.values()]

    monkeypatch.setattr(day_file, "FOOTER_BYTES", 6 * day_file._ROW_GROUP_BYTES)
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
            if isinstance(each, day_file.Footer) and each.file in files.values()
        ]
        assert sum(each.bytes for each in alive) <= 6 * day_file._ROW_GROUP_BYTES


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
@settings(max_examples=100)
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


def test_a_day_without_the_viewings_that_were_given_up_is_computed_again(tmp_path: Path) -> None:
    lake, last = Viewings(str(tmp_path)), FIRST + ONE_DAY
    take(lake, rows_of(FIRST, (1, 1), (2, 2)), rows_of(last, (1, 1)), days=[FIRST, last])
    published = {last: FIRST}
    require_computable(published, lake.newest(), lake)
    take(lake, rows_of(FIRST), days=[FIRST])  # as if somebody else had changed it: nothing says why
    with pytest.raises(ViewingsGone, match=f"{last} cannot be computed again"):
        require_computable(published, lake.newest(), lake)
    take(lake, rows_of(FIRST, (1, 1), (2, 2)), days=[FIRST])
    take(lake, rows_of(FIRST), days=[FIRST], **{LOST: json.dumps({str(FIRST): (2, 0)})})
    newest = lake.newest()
    assert newest is not None
    assert covered_from(newest, last) == last
    require_computable(published, newest, lake)
    with pytest.raises(ViewingsGone, match=f"{last} cannot be computed again"):
        require_computable({last: FIRST - ONE_DAY}, newest, lake)
    with pytest.raises(ViewingsGone, match=f"{last} cannot be computed again"):
        require_computable(published, lake.at(2), lake)  # before they were given up


def test_a_completed_that_cannot_be_told_fails_who_reads_it_and_nobody_else(tmp_path: Path) -> None:
    lake = Viewings(str(tmp_path))
    odd = rows_of(FIRST, (1, 5), unreadable="perhaps")
    version = take(lake, pa.concat_tables([odd, rows_of(FIRST, (2, 5))]), days=[FIRST])
    assert read(lake, version, {2: FIRST}, FIRST)[0].num_rows == 1
    with pytest.raises(
        ViewingUnreadable, match=r"epid 1 at 2018-03-01 00:00:05.*'perhaps'.*--since 2018-03-01 "
    ):
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


@pytest.mark.slow
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
