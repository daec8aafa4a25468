"""Takes published days of a source into a bundle: the results, and all that they were computed from.

First the rows of the databases, as of one moment; then the lake's files, which never change. The accumulated
state is always whole, since a step may be slow because of it. A sample consists of episodes (`sampling.py`).
All that is read is compared with the source's own checksums, so a bundle is what was published or it is not
made. Viewers get pseudonyms (`pseudonyms.py`); texts and names of people are left out (`contents.py`).

An interrupted taking is resumed (`bundle.py`). Nothing is written at the source.
"""

import datetime as dt
import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import SourceDisagrees, TooManyRows
from episodes_assets.lab import sampling
from episodes_assets.lab.bundle import (
    DATABASES,
    LAKE,
    TOO_LARGE,
    Bundle,
    BundleWriter,
    begin_bundle,
    path_of,
)
from episodes_assets.lab.choosing import choose, estimate_parts
from episodes_assets.lab.contents import (
    COLUMNS,
    NEVER_TAKEN,
    NOT_TAKEN,
    READ_ROWS,
    digest_of_file,
    jobs_checksum,
    lake_file_to_record,
    planned_from_record,
    planned_to_record,
    viewings_name,
)
from episodes_assets.lab.digests import digest_of
from episodes_assets.lab.manifest import ANOTHER_FOLDER
from episodes_assets.lab.pseudonyms import Pseudonyms
from episodes_assets.lab.request import TakeRequest
from episodes_assets.lab.sampling import Ints
from episodes_assets.lab.source import PlannedDay, Source, each_day, read_days
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.drop_record import EPISODES, QUARANTINE, Drop
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.viewings import NAME, Viewings, covered_from
from episodes_assets.ledger import copies
from episodes_assets.ledger.verify import published_checksum
from episodes_assets.planning.drop import ACCEPTED, QUARANTINED
from episodes_assets.planning.episode_set import find_broken_day, find_unchained_day
from episodes_assets.planning.viewings import UNREADABLE
from episodes_assets.postgres.arrow import RepeatableRead
from episodes_assets.results.copies import read_state
from episodes_assets.results.repairs import repair_command

Report = Callable[[str, int, int], None]
"""Called with what is done, how much of it is finished, and how much there is."""

_DROP_RULES = ", "


def take(
    source: Source, request: TakeRequest, folder: Path, report: Report, instead: str = ANOTHER_FOLDER
) -> Bundle:
    """Take days into a bundle, or resume that.

    Args:
        source: Where from.
        request: What.
        folder: The bundle's; missing or empty, unless it was begun there.
        report: Called with the progress.
        instead: What to do where the folder cannot be used, for the message.

    Raises:
        BadLab: If the folder has something else in it, or the sample has no episode.
        RoleCanWrite: If a role that reads could write at the source.
        NotPublished: If a day is not published.
        SourceDisagrees: If the records of a day contradict each other, it is being worked on, or it was
            worked anew since the bundle was begun.
        TooManyRows: If the bundle would have more rows than it may have; with more, the same is resumed.
        LakeMissing: If the lake lacks what a day was computed from.
        LakeDamaged: If a file of the lake is gone, was cut or changed.
        SystemFailure: If the source cannot be reached, or there is no room.
    """
    begin = {"taken_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    with begin_bundle(folder, request.to_record(source.environment), lambda: begin, instead) as writer:
        if isinstance(writer, Bundle):
            return writer
        if writer.record.get(DATABASES):
            require_as_published(source, folder, writer.record["days"], instead)
        taking = _Taking(source, request, writer, report)
        try:
            taking.take_databases()
            taking.take_drops()
            taking.take_viewings()
        except TooManyRows:
            writer.note(**{TOO_LARGE: True})  # so that a smaller one may take its place
            raise
        return writer.finish(taking.manifest())


def require_as_published(
    source: Source, folder: Path, days: Mapping[str, Mapping[str, Any]], instead: str = ANOTHER_FOLDER
) -> None:
    """Refuse a bundle whose days the source has worked anew since: it is not what is published now.

    Args:
        source: Where it was taken from.
        folder: The bundle's.
        days: Of its manifest.
        instead: What to do then, for the message.

    Raises:
        SourceDisagrees: If the source has, or works one of them anew now.
        NotPublished: If one is not published any more.
        RoleCanWrite: As `take`.
        SystemFailure: If the source cannot be reached.
    """
    taken = [planned_from_record(facts["plan"]) for _, facts in sorted(days.items())]
    with source.connect() as (queue, results):
        now = read_days(queue, results, [each.day for each in taken])
    for before, after in zip(taken, now, strict=True):
        if before != after:
            raise SourceDisagrees(
                f"the source has worked {before.day} anew since the bundle in {folder} was begun", instead
            )


class _Taking:
    """One bundle that is being taken; finished files are not taken again."""

    def __init__(self, source: Source, request: TakeRequest, writer: BundleWriter, report: Report) -> None:
        self._source = source
        self._request = request
        self._writer = writer
        self._report = report
        self._content: dict[str, dict[str, Any]] = writer.record.setdefault("content", {})
        self._facts: dict[str, dict[str, Any]] = writer.record.setdefault("days", {})

    def take_databases(self) -> None:
        """Plans, outcomes and state, as of one moment; if that was interrupted, all of it is taken again."""
        writer = self._writer
        if writer.record.get(DATABASES):
            return
        for under in ("ledger/", "state/", "sample.parquet"):
            writer.unlist(under)
        self._content.clear()
        self._facts.clear()
        days = self._request.all_days
        with self._source.connect() as (queue, results):
            planned = read_days(queue, results, days)
            if self._request.max_rows is not None:
                parts = estimate_parts(self._source, self._request, queue, results, planned)
                _require_at_most(self._request.max_rows, sum(part.rows for part in parts), "about ")
            self._report("choosing episodes", 0, 1)
            epids = choose(self._source, queue, results, planned, self._request.sample, self._writer.key)
            if epids is not None:
                writer.write_table("sample.parquet", pa.table({"epid": pa.array(epids)}))
            for number, each in enumerate(each_day(planned, results)):
                self._report("plans, jobs and outcomes", number, len(planned))
                self._take_plan(queue, each, epids)
            self._report("tracked episodes", 0, 1)
            self._take_state(results, planned, epids)
        writer.note(**{DATABASES: True})

    def _take_plan(self, queue: RepeatableRead, planned: PlannedDay, epids: Ints | None) -> None:
        """A plan's rows, compared with the source's checksums, then restricted."""
        day = planned.day
        rows = copies.read_plan_rows(queue, planned.plan_id)
        if (len(rows.jobs), jobs_checksum(rows.jobs)) != (planned.jobs, planned.checksum):
            raise _not_as_recorded(f"the jobs of {day}", "planned", day)
        if len(rows.waived) < planned.left_out:  # only a retry takes back that a job is left out
            raise SourceDisagrees(
                f"{day} is being worked on again: jobs that it was published without were retried since",
                f"run `episodes run {day}` at the source, which publishes it with them, then take it",
            )
        published = published_checksum(rows.jobs, rows.outcomes, day)
        is_complete = sampling.is_each_job_settled(rows)  # else no lab could publish it
        if published != (planned.rows, planned.published_checksum) or not is_complete:
            raise _not_as_recorded(f"the outcomes of {day}", "published", day)
        own = sampling.restrict_plan(rows, epids)
        count, checksum = published_checksum(own.jobs, own.outcomes, day)
        version = self._source.version_of(planned)
        first = pc.min(own.jobs["window_start"]).as_py() or day
        self._facts[str(day)] = {
            "source_jobs": planned.jobs,
            "source_plan_checksum": planned.checksum,
            "source_rows": planned.rows,
            "source_published_checksum": planned.published_checksum,
            "jobs": len(own.jobs),
            "plan_checksum": jobs_checksum(own.jobs),
            "left_out": len(own.waived),
            "rows": count,
            "published_checksum": checksum,
            "published_at": planned.published_at.isoformat(),
            "covered_from": _text(covered_from(version, day)),
            "first_window": str(min(first, day)),
            "plan": planned_to_record(planned),
        }
        for name, table in vars(own).items():
            self._write(f"{name} of {day}", path_of("ledger", day, f"{name}.parquet"), table)

    def _take_state(self, results: RepeatableRead, planned: Sequence[PlannedDay], epids: Ints | None) -> None:
        """The state whole up to the day before the first, and what the days added, restricted."""
        first, last = planned[0].day, planned[-1].day
        episodes, days = read_state(results, last)
        recorded = days.to_pylist()
        tracked_on = episodes["tracked_on"].to_numpy().astype("datetime64[D]")
        if unchained := find_unchained_day(recorded):
            raise SourceDisagrees(
                f"the tracked episodes of {unchained} were built on another {unchained - ONE_DAY}",
                f"run `episodes backfill {unchained} {last}` at the source, then take it"
                if unchained < last
                else f"run `episodes run {last}` at the source, then take it",
            )
        broken = find_broken_day(episodes["epid"].to_numpy(), tracked_on, recorded)
        if broken is not None:
            raise _not_as_recorded(f"the episodes tracked on {broken['day']}", "recorded", broken["day"])
        by_day = {row["day"]: row for row in recorded}
        for each in planned:
            yesterday = by_day.get(each.day - ONE_DAY)
            if each.day not in by_day or (yesterday and yesterday["checksum"]) != each.tracked_checksum:
                raise SourceDisagrees(
                    f"{each.day} was planned from other tracked episodes than there are now",
                    f"run `episodes run {each.day}` at the source, then take it",
                )
        kept = (tracked_on < np.datetime64(first, "D")) | sampling.is_in(episodes["epid"], epids)
        if recorded[0]["day"] >= first:  # the history begins with one of the days
            kept = sampling.is_in(episodes["epid"], epids)
        episodes = episodes.filter(pa.array(kept))
        restricted = sampling.restrict_days(episodes, recorded, first)
        self._write("tracked episodes", "state/tracked_episodes.parquet", episodes)
        days = pa.Table.from_pylist(restricted, days.schema).drop_columns(["snapshot_id"])
        self._write("tracked days", "state/tracked_days.parquet", days)
        self._writer.note(
            state={
                "episodes": len(episodes),
                "days": len(days),
                "source_checksum": recorded[-1]["checksum"],
                "checksum": restricted[-1]["checksum"],
            }
        )

    def _write(self, name: str, path: str, table: pa.Table) -> None:
        rows, digest = digest_of([table], table.schema)
        self._add(name, {"rows": rows, "digest": digest})
        self._writer.write_table(path, table)

    def _add(self, name: str, content: dict[str, Any]) -> None:
        """Record the digest of a part; it is written when the next file is listed."""
        self._content[name] = content
        if self._request.max_rows is not None:
            _require_at_most(self._request.max_rows, sum(each["rows"] for each in self._content.values()))

    def take_drops(self) -> None:
        """The drop of each day: its accepted and its refused rows."""
        own = Drops(self._writer.lake_url)
        epids = self._epids()
        for number, day in enumerate(self._request.all_days):
            self._report("drops", number, self._request.days)
            facts = self._facts[str(day)]
            if all(self._is_listed(name, facts.get(name)) for name in (EPISODES, QUARANTINE)):
                continue
            planned = planned_from_record(facts["plan"])
            drop = self._write_drop(own, planned, epids)
            facts["snapshot_id"] = drop.snapshot_id
            for table, file in ((own.episodes, drop.episodes), (own.quarantine, drop.quarantine)):
                self._add(f"{table.name} of {day}", digest_of_file(table, file))
                facts[table.name] = lake_file_to_record(file)
                self._writer.list_file(path_of(LAKE, table.name, file.path), rows=file.rows)

    def _write_drop(self, own: Drops, planned: PlannedDay, epids: Ints | None) -> Drop:
        source = self._source.drop_of(planned)
        reasons: Counter[str] = Counter()
        with own.writer(planned.day) as writer:
            for rows in _groups_of(self._source.drops.episodes, source.episodes, ACCEPTED, epids):
                writer.episodes.write_group(rows)
            for rows in _groups_of(self._source.drops.quarantine, source.quarantine, QUARANTINED, epids):
                writer.quarantine.write_group(rows)
                broken = (each.split(_DROP_RULES) for each in rows["reasons"].to_pylist())
                reasons.update(rule for each in broken for rule in each)
            quarantine = writer.quarantine.finish()
            record = {
                **{name: getattr(source, name) for name in ("snapshot_id", "drop_rows", "viewed_episodes")},
                "accepted_rows": writer.episodes.rows,
                "quarantined_rows": quarantine.rows,
                "reasons": dict(source.reasons),
                "taken_at": source.taken_at,
                "reason": "",
            }
            if epids is not None:
                version = self._source.version_of(planned).number
                viewed = self._source.viewings.episodes_of(version, planned.day)
                viewed = viewed[sampling.is_in(pa.array(viewed), epids)]
                parts = (
                    writer.episodes.content_digest(),
                    quarantine.digest,
                    hashlib.sha256(viewed.tobytes()).hexdigest(),
                )
                record |= {
                    "snapshot_id": hashlib.sha256("".join(parts).encode()).hexdigest()[:16],
                    "drop_rows": writer.episodes.rows + quarantine.rows,
                    "viewed_episodes": len(viewed),
                    "reasons": dict(sorted(reasons.items(), key=lambda each: (-each[1], each[0]))),
                }
            return writer.finish_as(record, quarantine)

    def take_viewings(self) -> None:
        """All viewings of the dates in the windows of the days' jobs, of the chosen episodes."""
        versions = self._needed()
        needed = {file.path: file for files in versions.values() for file in files.values()}
        taken: dict[str, dict[str, Any]] = self._writer.record.setdefault("viewings", {})
        left = [file for path, file in needed.items() if not self._is_listed(NAME, taken.get(path))]
        if left:
            self._take_files(left, taken, sum(file.rows for file in needed.values()))
        self._writer.note(
            versions={
                str(number): {str(day): taken[file.path] for day, file in files.items()}
                for number, files in versions.items()
            }
        )
        self._writer.delete_key()

    def _take_files(self, left: Sequence[LakeFile], taken: dict[str, dict[str, Any]], rows: int) -> None:
        own = Viewings(self._writer.lake_url)
        epids = self._epids()
        pseudonyms = None if self._request.keep_viewer_ids else Pseudonyms(self._writer.key())
        done = rows - sum(file.rows for file in left)
        for file in left:
            self._report("viewings", done, rows)
            batches = _batches_of(self._source.viewings, file)
            schema = self._source.viewings.schema_of_file(file)
            taken_rows = _pseudonymised(batches, epids, pseudonyms)
            written = own.write(file.day, pa.RecordBatchReader.from_batches(schema, taken_rows)).file
            self._add(viewings_name(written), digest_of_file(own, written))
            taken[file.path] = lake_file_to_record(written)
            self._writer.list_file(path_of(LAKE, own.name, written.path), rows=written.rows)
            done += file.rows
        self._report("viewings", rows, rows)

    def _needed(self) -> dict[int, dict[dt.date, LakeFile]]:
        """The files of the viewings that jobs look at, by the version they are pinned to and by day."""
        needed: dict[int, dict[dt.date, LakeFile]] = {}
        for day in self._request.all_days:
            facts = self._facts[str(day)]
            planned = planned_from_record(facts["plan"])
            version = self._source.version_of(planned)
            files = version.between(dt.date.fromisoformat(facts["first_window"]), day)
            needed.setdefault(version.number, {}).update({file.day: file for file in files})
        return dict(sorted(needed.items()))

    def _epids(self) -> Ints | None:
        if self._request.sample.is_whole:
            return None
        found: Ints = Bundle(self._writer.folder, {}).read("sample.parquet")["epid"].to_numpy()
        return found

    def _is_listed(self, table: str, record: Mapping[str, Any] | None) -> bool:
        return record is not None and path_of(LAKE, table, record["path"]) in self._writer.files

    def manifest(self) -> dict[str, Any]:
        """The content of the manifest."""
        record = self._writer.record
        sample = self._request.sample.to_record()
        if "sample.parquet" in self._writer.files:
            sample["episodes"] = self._writer.files["sample.parquet"].rows
        files = self._writer.files.values()
        return {
            "what": "A piece of another environment, for `episodes lab load`: docs/lab.md",
            "taken_at": record["taken_at"],
            "release": importlib.metadata.version("episodes-assets"),
            "environment": self._source.environment,
            "request": record["request"],
            "sample": sample,
            "viewer_ids": "kept" if self._request.keep_viewer_ids else "pseudonymised",
            "rows": sum(file.rows for file in files),
            "bytes": sum(file.size for file in files),
            "columns": {table: dict(columns) for table, columns in COLUMNS.items()},
            "never_taken": list(NEVER_TAKEN),
            "days": self._facts,
            "state": record["state"],
            "versions": record["versions"],
            "content": dict(sorted(self._content.items())),
        }


def _require_at_most(most: int, rows: int, about: str = "") -> None:
    if rows > most:
        raise TooManyRows(
            f"the bundle would have {about}{rows:,} rows, and {most:,} are the most that it may have",
            "take a smaller sample, or raise --max-rows",
        )


def _text(date: dt.date | None) -> str | None:
    return None if date is None else str(date)


def _not_as_recorded(what: str, recorded: str, day: dt.date) -> SourceDisagrees:
    return SourceDisagrees(
        f"{what} are not those that were {recorded}: something else writes to the source's databases",
        f"stop it, then run `{repair_command(day, day)}` at the source",
    )


def _batches_of(table: LakeTable, file: LakeFile) -> Iterator[pa.RecordBatch]:
    """The rows of a day's file; an error while they are read names this file."""
    with table.open(file) as opened:
        yield from opened.iter_batches(READ_ROWS, use_threads=False)


def _pseudonymised(
    batches: Iterable[pa.RecordBatch], epids: Ints | None, pseudonyms: Pseudonyms | None
) -> Iterator[pa.RecordBatch]:
    """The viewings of some episodes, with pseudonyms and without texts."""
    for batch in batches:
        kept = batch if epids is None else batch.filter(pa.array(sampling.is_in(batch["epid"], epids)))
        if pseudonyms is not None:
            ids = pseudonyms.of_column(kept["viewer_id"])
            kept = kept.set_column(
                kept.schema.get_field_index("viewer_id"), kept.schema.field("viewer_id"), ids
            )
        text = pc.if_else(kept[UNREADABLE].is_valid(), NOT_TAKEN, pa.scalar(None, pa.string()))
        yield kept.set_column(kept.schema.get_field_index(UNREADABLE), kept.schema.field(UNREADABLE), text)


def _groups_of(table: LakeTable, file: LakeFile, schema: pa.Schema, epids: Ints | None) -> Iterator[pa.Table]:
    """The rows of a drop's file, in its row groups."""
    with table.open(file) as opened:
        for number in range(opened.num_row_groups):
            rows = opened.read_row_group(number, schema.names, use_threads=False).cast(schema)
            yield rows if epids is None else rows.filter(pa.array(sampling.is_in(rows["epid"], epids)))
