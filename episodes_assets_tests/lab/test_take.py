"""What is taken is what was published, nothing more; and the source pays next to nothing for it."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from episodes_assets.errors import (
    BadLab,
    LakeDamaged,
    LakeMissing,
    NotPublished,
    SourceDisagrees,
    TooManyRows,
    WrongEnvironment,
)
from episodes_assets.lab import choosing
from episodes_assets.lab import take as taking
from episodes_assets.lab.bundle import Bundle
from episodes_assets.lab.choosing import estimate
from episodes_assets.lab.contents import COLUMNS
from episodes_assets.lab.pseudonyms import KEY_BYTES
from episodes_assets.lab.request import Kind, SampleSpec, TakeRequest
from episodes_assets.lab.source import Source, read_days
from episodes_assets.lab.take import take
from episodes_assets.ledger import copies, held
from episodes_assets.postgres.connect import connect
from episodes_assets.postgres.databases import Purpose
from episodes_assets.results.publish import CODE_VERSION, publish_day
from episodes_assets_tests.lab.conftest import FIRST, LAST, silent
from episodes_assets_tests.lab.labs_of_tests import LEFT_OUT, files_of, plan_without_a_job
from episodes_assets_tests.support.eventually import eventually
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.long

ALL = TakeRequest(LAST, 3)
R = TypeVar("R")


@pytest.fixture
def whole(source: Source, tmp_path: Path) -> Bundle:
    return take(source, ALL, tmp_path / "bundle", silent)


def bytes_of(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """All bytes of a bundle: of its files, and of each Parquet column as it is when it was unpacked."""
    for path in sorted(bundle.folder.rglob("*")):
        if not path.is_file():
            continue
        yield path.name, path.read_bytes()
        if path.suffix == ".parquet":
            for name, column in zip(*_columns(path), strict=True):
                for buffer in column.combine_chunks().buffers() if len(column) else ():
                    yield f"{path.name}, {name}", bytes(buffer) if buffer else b""


def _columns(path: Path) -> tuple[list[str], list[pa.ChunkedArray]]:
    table = pq.ParquetFile(path).read()
    columns = [column if column.num_chunks == 1 else pa.chunked_array([column.combine_chunks()])
               for column in table.columns]  # fmt: skip
    return table.column_names, columns


def places_of(ids: list[int], bundle: Bundle) -> set[str]:
    """Where any of some ids is found: as 64 bits, either end first, or in decimal digits."""
    patterns = [form for each in ids for form in (
        each.to_bytes(8, "little", signed=True), each.to_bytes(8, "big", signed=True), str(each).encode()
    )]  # fmt: skip
    return {place for place, content in bytes_of(bundle) if any(form in content for form in patterns)}


def viewers(system: System) -> list[int]:
    found = system.query("input", "SELECT DISTINCT viewer_id FROM viewings WHERE viewer_id IS NOT NULL")
    return [number for (number,) in found]


@pytest.mark.slow
def test_no_byte_of_a_bundle_is_an_id_of_a_viewer(
    published: System, source: Source, whole: Bundle, tmp_path: Path
) -> None:
    ids = viewers(published)
    assert len(ids) > 100
    assert places_of(ids, whole) == set()
    # The search finds them where they are.
    kept = take(source, TakeRequest(LAST, 3, keep_viewer_ids=True), tmp_path / "kept", silent)
    assert any(", viewer_id" in place for place in places_of(ids, kept))
    assert kept.manifest["viewer_ids"] == "kept"


def test_viewers_are_told_apart_as_before(published: System, whole: Bundle) -> None:
    files = (whole.folder / "lake" / "viewings").rglob("*.parquet")
    table = pa.concat_tables(pq.ParquetFile(path).read(["epid", "viewer_id", "viewed_at"]) for path in files)
    first = pc.min(table["viewed_at"]).as_py().date()
    rows = published.query(
        "input",
        "SELECT epid, viewer_id FROM viewings WHERE viewed_at >= %s AND viewed_at < %s",
        [first, LAST + dt.timedelta(days=1)],
    )
    taken = frame_of(table["epid"].to_pylist(), table["viewer_id"].to_pylist())
    real = frame_of([epid for epid, _ in rows], [viewer for _, viewer in rows])
    assert len(taken) == len(real)
    assert taken["viewer"].isna().sum() == real["viewer"].isna().sum() > 0
    assert taken["viewer"].nunique() == real["viewer"].nunique()
    # Who watched how often, whoever that is.
    assert sorted(taken["viewer"].value_counts()) == sorted(real["viewer"].value_counts())
    by_episode = [frame.groupby("epid")["viewer"].nunique().sort_index() for frame in (taken, real)]
    assert by_episode[0].to_dict() == by_episode[1].to_dict()


def frame_of(epids: list[int], viewers: list[int | None]) -> pd.DataFrame:
    return pd.DataFrame({"epid": epids, "viewer": pd.array(viewers, dtype="Int64")})


def test_the_key_is_gone(whole: Bundle) -> None:
    assert sorted(path.name for path in whole.folder.iterdir()) == [
        "lake", "ledger", "manifest.json", "state",
    ]  # fmt: skip


def test_the_manifest_says_of_every_column_what_became_of_it(published: System, whole: Bundle) -> None:
    said = json.loads((whole.folder / "manifest.json").read_text())
    assert said["columns"] == {table: dict(columns) for table, columns in COLUMNS.items()}
    schemas = (("queue", "ledger"), ("queue", "alerts"), ("results", "state"), ("results", "published"))
    for database, schema in schemas:
        rows = published.query(
            database,
            "SELECT table_name, array_agg(column_name::text) FROM information_schema.columns"
            " JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = %s AND table_type = 'BASE TABLE' GROUP BY 1",
            [schema],
        )
        there = {f"{schema}.{table}": set(columns) for table, columns in rows}
        named = {table: set(columns) for table, columns in COLUMNS.items() if table.startswith(f"{schema}.")}
        assert named.keys() == there.keys()
        assert {table: each for table, each in named.items() if each not in ({"all"}, there[table])} == {}
    table_of = {"viewings": published.viewings, "episodes": published.drops.episodes,
                "quarantine": published.drops.quarantine}  # fmt: skip
    for name, table in table_of.items():
        newest = table.newest()
        assert newest is not None
        assert {"day", *newest.schema.names} <= set(COLUMNS[name])


def test_nothing_changes_at_the_source(published: System, source: Source, tmp_path: Path) -> None:
    counters = (
        "SELECT pg_stat_clear_snapshot(), tup_inserted, tup_updated, tup_deleted, temp_files, conflicts"
        " FROM pg_stat_database WHERE datname = current_database()"
    )
    published.query("queue", "ALTER SYSTEM SET autovacuum = off")
    published.query("queue", "SELECT pg_reload_conf()")
    end_sessions(published)
    try:
        before = published.fingerprint()
        lake = {path: path.stat().st_mtime_ns for path in Path(published.settings.lake).rglob("*")}
        counted = [published.query(database, counters) for database in ("queue", "results")]
        take(source, ALL, tmp_path / "bundle", silent)
        end_sessions(published)
        assert [published.query(database, counters) for database in ("queue", "results")] == counted
        assert published.fingerprint() == before
        assert {path: path.stat().st_mtime_ns for path in Path(published.settings.lake).rglob("*")} == lake
    finally:
        published.query("queue", "ALTER SYSTEM RESET autovacuum")
        published.query("queue", "SELECT pg_reload_conf()")


def end_sessions(system: System) -> None:
    """Let no session be left that has still to count what it has written, as it does when it ends."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    for database in ("queue", "results"):
        system.query(database, f"SELECT pg_terminate_backend(pid) {others}")
    eventually(lambda: not any(system.query(each, f"SELECT {others}") for each in ("queue", "results")))


def test_at_most_two_sessions_are_open_at_the_source(
    published: System, source: Source, tmp_path: Path
) -> None:
    seen: list[list[tuple[str]]] = []
    readers = ("episodes_queue_reader", "episodes_results_reader")

    def look(_what: str, _done: int, _total: int) -> None:
        seen.append(
            published.query(
                "queue",
                "SELECT usename::text FROM pg_stat_activity WHERE usename = ANY (%s)",
                [list(readers)],
            )
        )

    take(source, ALL, tmp_path / "bundle", look)
    assert max(map(len, seen)) == 2
    # While the lake is read, which takes longest, there is none.
    assert seen[-1] == []


@pytest.mark.parametrize(
    "sample",
    [
        SampleSpec(Kind.EPIDS, epids=(100_000, 100_007)),
        SampleSpec(Kind.SLOWEST, slowest=1),
    ],
)
def test_no_session_is_idle_for_longer_than_a_day_takes(
    published: System, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: SampleSpec
) -> None:
    """Whenever a day is looked at, `results` has done something since the day before."""
    since = "SELECT usename::text, state_change FROM pg_stat_activity WHERE application_name = 'episodes lab'"
    seen: list[dict[str, dt.datetime]] = []

    def looked_at(function: Callable[..., R]) -> Callable[..., R]:
        def noting(*arguments: object) -> R:
            seen.append(dict(published.query("queue", since)))
            return function(*arguments)

        return noting

    monkeypatch.setattr(Source, "drop_of", looked_at(Source.drop_of))
    monkeypatch.setattr(copies, "read_plan_rows", looked_at(copies.read_plan_rows))
    take(source, replace(ALL, sample=sample, max_rows=1_000_000), tmp_path / "bundle", silent)
    changes = [each["episodes_results_reader"] for each in seen if each]
    assert len(changes) >= 2 * len(ALL.all_days)  # each is estimated, perhaps chosen from, and taken
    assert all(before < after for before, after in pairwise(changes))


def test_an_estimate_is_near_what_is_taken(source: Source, whole: Bundle) -> None:
    parts = {part.what: part for part in estimate(source, ALL)}
    rows = whole.manifest["rows"]
    assert sum(part.rows for part in parts.values()) == pytest.approx(rows, rel=0.05)
    share = TakeRequest(LAST, 3, SampleSpec(Kind.SHARE, share=0.5))
    halved = {part.what: part.rows for part in estimate(source, share)}
    assert halved["viewings"] == pytest.approx(parts["viewings"].rows / 2, abs=1)
    assert halved["tracked episodes"] == parts["tracked episodes"].rows


@pytest.mark.parametrize(
    "sample",
    [
        SampleSpec(Kind.SERIES, series=("many",)),
        SampleSpec(Kind.EPIDS, epids=(1, 2)),
        SampleSpec(Kind.SHARE, share=0.9),
    ],
)
def test_drops_are_looked_at_one_by_one(
    source: Source, monkeypatch: pytest.MonkeyPatch, sample: SampleSpec
) -> None:
    rows = 20_000
    taken: list[int] = []

    def rows_of(*_: object) -> Iterator[pa.Table]:
        taken.append(pa.total_allocated_bytes())
        yield pa.table({"epid": pa.array(range(rows), pa.int64()), "series": pa.array(["many"] * rows)})

    with source.connect() as (queue, results):
        (planned,) = read_days(queue, results, [LAST])
        monkeypatch.setattr(choosing, "rows_of", rows_of)
        choosing.choose(source, queue, results, [planned] * 20, sample, lambda: bytes(KEY_BYTES))
        choosing.estimate_parts(source, TakeRequest(LAST, sample=sample), queue, results, [planned] * 20)
    assert len(taken) >= 20
    assert max(taken) - max(taken[:5]) < 8 * rows


def test_rows_are_bounded(source: Source, whole: Bundle, tmp_path: Path) -> None:
    rows = whole.manifest["rows"]
    with pytest.raises(TooManyRows, match=r"would have about [\d,]+ rows, and 100 are the most"):
        take(source, TakeRequest(LAST, 3, max_rows=100), tmp_path / "few", silent)
    assert not (tmp_path / "few" / "manifest.json").exists()
    take(source, TakeRequest(LAST, 3, max_rows=rows), tmp_path / "enough", silent)


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (TakeRequest(day(4)), NotPublished, "2018-03-04 is not published"),
        (TakeRequest(LAST, 4), NotPublished, "2018-02-28 is not published"),
        (
            TakeRequest(LAST, sample=SampleSpec(Kind.SERIES, series=("Nobody's",))),
            BadLab,
            'no episode is of the series "Nobody\'s"',
        ),
        (TakeRequest(LAST, sample=SampleSpec(Kind.EPIDS, epids=(1, 2))), BadLab, "has no episode"),
        (TakeRequest(LAST, sample=SampleSpec(Kind.SHARE, share=1e-9)), BadLab, "has no episode"),
        (TakeRequest(LAST, sample=SampleSpec(Kind.CHUNK, chunk=(999, 0))), BadLab, "plan 999 is none of"),
        (TakeRequest(LAST, sample=SampleSpec(Kind.CHUNK, chunk=(3, 999))), BadLab, "has no chunk 999"),
    ],
)
def test_what_is_not_there_is_refused(
    source: Source, tmp_path: Path, request_: TakeRequest, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        take(source, request_, tmp_path / "bundle", silent)


SERIES = TakeRequest(LAST, sample=SampleSpec(Kind.SERIES, series=("Series 2",)))


@pytest.mark.parametrize(
    ("mistyped", "error"),
    [
        (TakeRequest(LAST, sample=SampleSpec(Kind.SERIES, series=("Seris 2",))), BadLab),
        (TakeRequest(LAST, max_rows=100), TooManyRows),
    ],
)
def test_a_folder_is_not_blocked_by_what_was_refused(
    source: Source, tmp_path: Path, mistyped: TakeRequest, error: type[Exception]
) -> None:
    (tmp_path / "bundle").mkdir()  # else it would be removed again
    with pytest.raises(error):
        take(source, mistyped, tmp_path / "bundle", silent)
    again = take(source, SERIES, tmp_path / "bundle", silent)
    assert again.manifest["sample"]["series"] == ["Series 2"]
    assert files_of(again.folder).keys() == {"manifest.json", *again.files}
    assert [fault for _, _, fault in again.find_faults() if fault] == []


def test_what_turns_out_to_be_too_large_gives_way_to_less_and_goes_on_with_more_rows(
    source: Source, whole: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "estimate_parts", lambda *_: [])  # which would refuse it beforehand
    rows = whole.manifest["rows"]
    for name in ("less", "more"):
        with pytest.raises(TooManyRows, match=rf"would have [\d,]+ rows, and {rows - 1:,} are the most"):
            take(source, replace(ALL, max_rows=rows - 1), tmp_path / name, silent)
        assert any((tmp_path / name / "lake").rglob("*.parquet"))
    less = take(source, replace(SERIES, max_rows=rows - 1), tmp_path / "less", silent)
    assert files_of(less.folder).keys() == {"manifest.json", *less.files}
    assert less.manifest["rows"] < rows
    monkeypatch.setattr(copies, "read_plan_rows", None)  # the databases are read already
    more = take(source, replace(ALL, max_rows=rows), tmp_path / "more", silent)
    assert more.manifest["content"] == whole.manifest["content"]


@pytest.mark.parametrize(
    ("database", "change", "says"),
    [
        (
            "queue",
            "UPDATE ledger.jobs SET window_start = window_start - 1 WHERE position = 0",
            "the jobs of 2018-03-01 are not those that were planned",
        ),
        (
            "queue",
            "UPDATE ledger.outcomes SET covered_from = covered_from - 1 WHERE position = 0",
            "the outcomes of 2018-03-01 are not those that were published",
        ),
        (
            "results",
            "UPDATE state.tracked_episodes SET tracked_on = tracked_on - 1 WHERE tracked_on = '2018-03-02'",
            "the episodes tracked on 2018-03-01 are not those that were recorded",
        ),
    ],
)
def test_what_something_else_has_changed_is_not_taken(
    published: System, source: Source, tmp_path: Path, database: str, change: str, says: str
) -> None:
    tables = {"queue": ("ledger.jobs", "ledger.outcomes"), "results": ("state.tracked_episodes",)}[database]
    with psycopg.connect(published.admin[database], autocommit=True) as admin:
        for table in tables:
            admin.execute(f"CREATE TABLE public.{table.replace('.', '_')}_kept AS TABLE {table}")
        try:
            admin.execute(change)
            with pytest.raises(SourceDisagrees, match=says) as refused:
                take(source, ALL, tmp_path / "bundle", silent)
            assert "--repair --reason WHY` at the source" in str(refused.value)
        finally:
            for table in tables:
                kept = f"public.{table.replace('.', '_')}_kept"
                admin.execute(f"DELETE FROM {table}")
                admin.execute(f"INSERT INTO {table} TABLE {kept}")
                admin.execute(f"DROP TABLE {kept}")


def test_a_state_that_was_built_on_another_past_is_not_taken(
    published: System, source: Source, tmp_path: Path
) -> None:
    """As when an earlier day was taken anew: nothing is damaged, and no repair is to be asked for."""
    said = "UPDATE state.tracked_days SET previous_checksum = {} WHERE day = %s"
    query = "SELECT checksum FROM state.tracked_days WHERE day = %s"
    ((before,),) = published.query("results", query, [day(1)])
    try:
        published.query("results", said.format("'another'"), [day(2)])
        says = f"of {day(2)} were built on another {day(1)}: run `episodes backfill {day(2)} {LAST}` at"
        with pytest.raises(SourceDisagrees, match=says):
            take(source, TakeRequest(LAST), tmp_path / "bundle", silent)
    finally:
        published.query("results", said.format(f"'{before}'"), [day(2)])


def test_databases_of_another_environment_are_not_taken(
    published: System, source: Source, tmp_path: Path
) -> None:
    elsewhere = replace(source, environment="staging")
    with pytest.raises(WrongEnvironment, match="belongs to 'development', this process to 'staging'"):
        take(elsewhere, ALL, tmp_path / "bundle", silent)


def test_a_day_that_is_worked_anew_waits(published: System, source: Source, tmp_path: Path) -> None:
    with psycopg.connect(published.admin["queue"], autocommit=True) as admin:
        admin.execute("UPDATE ledger.plans SET superseded_at = now() WHERE day = %s", [LAST])
        try:
            with pytest.raises(SourceDisagrees, match=f"{LAST} is being worked anew"):
                take(source, TakeRequest(LAST), tmp_path / "bundle", silent)
        finally:
            admin.execute("UPDATE ledger.plans SET superseded_at = NULL WHERE day = %s", [LAST])


def test_a_day_from_before_the_lake_is_refused_as_such(
    published: System, source: Source, tmp_path: Path
) -> None:
    before = {
        database: published.query(
            database, f"SELECT {', '.join(columns)} FROM {table} WHERE day = %s", [LAST]
        )
        for database, (table, *columns) in OF_THE_LAKE.items()
    }
    try:
        for database, (table, *columns) in OF_THE_LAKE.items():
            nulls = ", ".join(f"{column} = NULL" for column in columns)
            published.query(database, f"UPDATE {table} SET {nulls} WHERE day = %s", [LAST])
        with pytest.raises(LakeMissing, match=f"^{LAST} was published before there was a lake") as refused:
            take(source, TakeRequest(LAST), tmp_path / "bundle", silent)
        assert f"`episodes run {LAST} --rework` at the source" in refused.value.hint
    finally:
        for database, (table, *columns) in OF_THE_LAKE.items():
            values = ", ".join(f"{column} = %s" for column in columns)
            published.query(
                database, f"UPDATE {table} SET {values} WHERE day = %s", [*before[database][0], LAST]
            )


def test_a_plan_of_other_viewings_than_were_published_is_not_taken(
    published: System, source: Source, tmp_path: Path
) -> None:
    change = "UPDATE ledger.plans SET viewings_version = viewings_version + %s WHERE day = %s"
    published.query("queue", change, [1, LAST])
    try:
        with pytest.raises(
            SourceDisagrees, match="names other viewings than it was published from"
        ) as refused:
            take(source, TakeRequest(LAST), tmp_path / "bundle", silent)
        assert "--repair --reason WHY` at the source" in refused.value.hint
    finally:
        published.query("queue", change, [-1, LAST])


# What records of releases before the lake do not have.
OF_THE_LAKE = {
    "queue": ("ledger.plans", "viewings_version", "viewings_digest"),
    "results": ("published.days", "plan_uid", "viewings_version", "viewings_digest"),
}


def test_a_day_whose_left_out_job_is_retried_waits(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPISODES_CHUNK_JOBS", "40")
    source = plan_without_a_job(system)
    system.finish_jobs(f"position <> {LEFT_OUT}")
    others = system.query("queue", "SELECT DISTINCT epid FROM ledger.jobs WHERE position <> %s", [LEFT_OUT])
    one_day = TakeRequest(FIRST)
    sampled = TakeRequest(FIRST, sample=SampleSpec(Kind.EPIDS, epids=tuple(sorted(e for (e,) in others))))
    publish(system)
    bundle = take(source, one_day, tmp_path / "without", silent)
    assert bundle.read(f"ledger/{FIRST}/waived.parquet")["position"].to_pylist() == [LEFT_OUT]

    def retry() -> None:
        with connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue:
            assert held.retry_held_jobs(queue, FIRST) == 1

    def fail_again() -> None:
        system.hold_jobs(f"position = {LEFT_OUT}")

    def succeed() -> None:
        retry()
        system.finish_jobs(f"position = {LEFT_OUT}")

    for step in (retry, fail_again, succeed):
        step()
        for request in (one_day, sampled):
            with pytest.raises(SourceDisagrees, match=f"^{FIRST} is being worked on again: ") as refused:
                take(source, request, tmp_path / f"{step.__name__} {request.sample.kind}", silent)
            assert f"run `episodes run {FIRST}` at the source" in refused.value.hint
            assert "--repair" not in refused.value.hint
    publish(system)
    bundle = take(source, one_day, tmp_path / "with", silent)
    assert len(bundle.read(f"ledger/{FIRST}/waived.parquet")) == 0


def publish(system: System) -> None:
    with (
        connect(system.dsn(Purpose.QUEUE), autocommit=True) as queue,
        connect(system.dsn(Purpose.RESULTS), autocommit=True) as results,
    ):
        publish_day(queue, results, system.viewings, FIRST, CODE_VERSION)


def test_a_damaged_lake_is_not_taken(published: System, source: Source, tmp_path: Path) -> None:
    newest = published.viewings.newest()
    assert newest is not None
    path = Path(published.settings.lake) / "viewings" / newest.files[LAST].path
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        with pytest.raises(LakeDamaged, match=path.name):
            take(source, TakeRequest(LAST), tmp_path / "bundle", silent)
    finally:
        path.write_bytes(content)
    # Once it is restored, the same goes on.
    take(source, TakeRequest(LAST), tmp_path / "bundle", silent)


class Interrupted(Exception):
    pass


def interrupt_at_viewings(what: str, _done: int, _total: int) -> None:
    if what == "viewings":
        raise Interrupted


def test_one_that_was_interrupted_does_not_read_the_databases_again(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        take(source, TakeRequest(LAST), tmp_path / "bundle", interrupt_at_viewings)
    monkeypatch.setattr(copies, "read_plan_rows", None)
    monkeypatch.setattr(taking, "read_state", None)
    bundle = take(source, TakeRequest(LAST), tmp_path / "bundle", silent)
    assert [fault for _, _, fault in bundle.find_faults() if fault] == []


@pytest.mark.parametrize(
    ("database", "change", "back"),
    [
        (
            "results",
            "UPDATE published.days SET published_at = published_at + interval '1 s' WHERE day = '2018-03-02'",
            "UPDATE published.days SET published_at = published_at - interval '1 s' WHERE day = '2018-03-02'",
        ),
        (
            "queue",
            "UPDATE ledger.plans SET tracked_checksum = 'x' || tracked_checksum WHERE day = '2018-03-02'",
            "UPDATE ledger.plans SET tracked_checksum = substr(tracked_checksum, 2) WHERE day = '2018-03-02'",
        ),
    ],
)
def test_one_that_was_interrupted_is_not_finished_once_the_source_has_worked_a_day_anew(
    published: System, source: Source, tmp_path: Path, database: str, change: str, back: str
) -> None:
    with pytest.raises(Interrupted):
        take(source, ALL, tmp_path / "bundle", interrupt_at_viewings)
    published.query(database, change)
    try:
        with pytest.raises(SourceDisagrees, match="the source has worked 2018-03-02 anew since") as refused:
            take(source, ALL, tmp_path / "bundle", silent)
        assert refused.value.hint == "name another folder"
    finally:
        published.query(database, back)
    assert take(source, ALL, tmp_path / "bundle", silent).manifest["rows"] > 0


def test_text_in_place_of_completed_is_not_taken() -> None:
    batch = pa.record_batch(
        {
            "epid": pa.array([1, 2]),
            "viewer_id": pa.array([3, None], pa.int64()),
            "viewed_at": pa.array([0, 1], pa.timestamp("us", "UTC")),
            "seconds_watched": pa.array([1, 2]),
            "completed": pa.array([True, None]),
            "completed_as_found": pa.array([None, "a viewer's name"]),
        }
    )
    (taken,) = taking._pseudonymised([batch], None, None)
    assert taken["completed_as_found"].to_pylist() == [None, "not taken"]
    (taken,) = taking._pseudonymised([batch], np.array([1]), None)
    assert taken["epid"].to_pylist() == [1]


def test_the_first_day_is_known() -> None:
    assert TakeRequest(LAST, 3).all_days == [FIRST, day(2), LAST]
