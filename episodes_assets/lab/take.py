"""Takes published days of a source into a bundle: what their results were made of, and what came of them.

First what the databases have, as of one moment; then the lake's files, which never change. The accumulated
state is always whole, since a step may be slow because of it. What is sampled is episodes (`sampling.py`).
Everything that is read is compared with the source's own checksums, so a bundle is what was published or it
is not made. Viewers get pseudonyms (`pseudonyms.py`); what people wrote or are called is left out, and
`COLUMNS` says of every column what becomes of it.

A bundle that was begun is taken up again where it was left (`bundle.py`). Nothing is written at the source.
"""

import datetime as dt
import hashlib
import importlib.metadata
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from episodes_assets.days import ONE_DAY, days_between
from episodes_assets.errors import BadLab, SourceDisagrees, TooManyRows
from episodes_assets.lab import sampling
from episodes_assets.lab.bundle import LAKE, Bundle, BundleWriter, begin_bundle, path_of
from episodes_assets.lab.digests import digest_of, published_checksum
from episodes_assets.lab.pseudonyms import Pseudonyms
from episodes_assets.lab.sampling import Ints, Kind, SampleSpec
from episodes_assets.lab.source import PlannedDay, Source, read_days
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.drops import EPISODES, QUARANTINE, Drop, Drops
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import NAME, Viewings, covered_from
from episodes_assets.ledger import copies
from episodes_assets.ledger.copies import PlanRows
from episodes_assets.planning.drop import ACCEPTED, QUARANTINED
from episodes_assets.planning.episode_set import state_checksum
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.planning.viewings import UNREADABLE
from episodes_assets.postgres.arrow import OneMoment
from episodes_assets.results.copies import read_state, read_total
from episodes_assets.results.state import find_broken_day, repair_command

Report = Callable[[str, int, int], None]
"""Called with what is done, how much of it is finished, and how much there is."""

READ_ROWS = 1 << 17
_DROP_RULES = ", "
# What stands in place of a text that nobody could read.
NOT_TAKEN = "not taken"
_KEPT, _DROPPED = "kept", "dropped"
_PSEUDONYM = "pseudonymised: another number for each, by a key that is deleted"
_OF_WHOLE_PLANS = "kept of whole plans"
_ALL_DROPPED = {"all": _DROPPED}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "viewings": {
        **dict.fromkeys(("day", "epid", "viewed_at", "seconds_watched", "completed"), _KEPT),
        "viewer_id": _PSEUDONYM,
        UNREADABLE: f"dropped: where there is text, it says {NOT_TAKEN!r}",
    },
    "episodes": {
        **dict.fromkeys(("day", *ACCEPTED.names), _KEPT),
        "episodes.drop (in the file's footer)": "kept, but for the reason that somebody gave",
    },
    "quarantine": dict.fromkeys(("day", *QUARANTINED.names), _KEPT),
    "state.tracked_episodes": dict.fromkeys(("epid", "tracked_on"), _KEPT),
    "state.tracked_days": {
        **dict.fromkeys(
            ("day", "origin", "newly_tracked", "total", "checksum", "previous_checksum", "code_version"),
            _KEPT,
        ),
        "snapshot_id": "dropped but of the days that are taken",
        "recorded_at": _DROPPED,
    },
    "state.locks": _ALL_DROPPED,
    "ledger.plans": {
        **dict.fromkeys(
            (
                "day", "plan_id", "plan_uid", "jobs", "checksum", "snapshot_id", "code_version", "planned_at",
                "fanned_out_at", "tracked_checksum", "viewings_version", "viewings_digest",
            ),
            _KEPT,
        ),
        "superseded_at": _DROPPED,
    },
    "ledger.jobs": dict.fromkeys(("plan_id", "position", "epid", "algorithm_id", "window_start"), _KEPT),
    "ledger.chunks": {
        **dict.fromkeys(("plan_id", "chunk", "first_position", "jobs", "priority"), _KEPT),
        **dict.fromkeys(
            ("succeeded", "held", "starts", "message_id", "claim", "claimed_by", "claimed_at", "moved_at"),
            _DROPPED,
        ),
    },
    "ledger.outcomes": {
        **dict.fromkeys(
            ("plan_id", "position", "covered_from", "metrics", "algorithm_version", "finished_at"), _KEPT
        ),
        "worker": _DROPPED,
    },
    "ledger.batches": {
        **dict.fromkeys(
            (
                "plan_id", "first_position", "chunk", "jobs", "seconds", "finished_at", "algorithm_ids",
                "algorithm_jobs", "algorithm_seconds",
            ),
            _OF_WHOLE_PLANS,
        ),
        "worker": _DROPPED,
    },
    "ledger.job_attempts": {
        **dict.fromkeys(("plan_id", "position"), "kept of jobs that were left out"),
        **dict.fromkeys(("starts", "is_held", "error", "traceback", "waiver_id"), _DROPPED),
    },
    **dict.fromkeys(("ledger.waivers", "ledger.workers", "ledger.locks"), _ALL_DROPPED),
    "published.days": {
        **dict.fromkeys(
            (
                "day", "jobs", "rows", "left_out", "checksum", "plan_id", "plan_uid", "plan_checksum",
                "snapshot_id", "viewings_version", "viewings_digest", "published_at",
            ),
            _KEPT,
        ),
        **dict.fromkeys(("decision", "algorithm_versions", "code_version"), _DROPPED),
    },
    "published.results": {"all": "made anew from the outcomes, and compared by their checksum"},
    **dict.fromkeys(("published.history", "published.repairs"), _ALL_DROPPED),
}  # fmt: skip
NEVER_TAKEN = (
    "users, sessions, tokens, login attempts and the audit log",
    "errors and tracebacks of jobs",
    "names of workers and their machines",
    "reasons and decisions that people wrote, and their names: waivers, repairs, the history of publications",
    "Dagster's runs, events and logs",
    "the input database",
)


@dataclass(frozen=True)
class TakeRequest:
    """What is to be taken.

    Attributes:
        day: The last day.
        days: How many days up to it.
        sample: Which episodes.
        keep_viewer_ids: Whether viewers keep their ids.
        max_rows: The most rows that the bundle may have; None for any number.
    """

    day: dt.date
    days: int = 1
    sample: SampleSpec = sampling.WHOLE
    keep_viewer_ids: bool = False
    max_rows: int | None = None

    @property
    def first(self) -> dt.date:
        """The first day."""
        return self.day - (self.days - 1) * ONE_DAY

    @property
    def all_days(self) -> list[dt.date]:
        """Each day, in order."""
        return list(days_between(self.first, self.day))

    def describe(self, source: Source) -> dict[str, object]:
        """What makes two requests the same."""
        return {
            "environment": source.environment,
            "days": [str(day) for day in self.all_days],
            "sample": self.sample.describe(),
            "keep_viewer_ids": self.keep_viewer_ids,
        }


def take(source: Source, request: TakeRequest, folder: Path, report: Report) -> Bundle:
    """Take days into a bundle, or go on with one that was begun.

    Args:
        source: Where from.
        request: What.
        folder: The bundle's; missing or empty, unless it was begun there.
        report: Called with the progress.

    Raises:
        BadLab: If the folder has something else in it, or the sample has no episode.
        RoleCanWrite: If a role that reads could write at the source.
        NotPublished: If a day is not published.
        SourceDisagrees: If the records of a day contradict each other, or it is being worked anew.
        TooManyRows: If the bundle would have more rows than it may have.
        LakeMissing: If the lake lacks what a day was computed from.
        LakeDamaged: If a file of the lake is gone, was cut or changed.
        SystemFailure: If the source cannot be reached, or there is no room.
    """
    begin = {"taken_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    with begin_bundle(folder, request.describe(source), lambda: begin) as writer:
        if isinstance(writer, Bundle):
            return writer
        taking = _Taking(source, request, writer, report)
        taking.take_databases()
        taking.take_drops()
        taking.take_viewings()
        return writer.finish(taking.manifest())


class _Taking:
    """One bundle that is being taken; what is finished of it is not done again."""

    def __init__(self, source: Source, request: TakeRequest, writer: BundleWriter, report: Report) -> None:
        self._source = source
        self._request = request
        self._writer = writer
        self._report = report
        self._content: dict[str, dict[str, Any]] = writer.said.setdefault("content", {})
        self._facts: dict[str, dict[str, Any]] = writer.said.setdefault("days", {})

    # -- what the databases have ---------------------------------------------------------------------------

    def take_databases(self) -> None:
        """All of it as of one moment, so all or nothing of it is finished."""
        writer = self._writer
        if writer.said.get("databases"):
            return
        for under in ("ledger/", "state/", "sample.parquet"):
            writer.forget(under)
        self._content.clear()
        self._facts.clear()
        days = self._request.all_days
        with self._source.visit() as (queue, results):
            planned = read_days(queue, results, days)
            if self._request.max_rows is not None:
                parts = _estimate_parts(self._source, self._request, queue, results, planned)
                _require_at_most(self._request.max_rows, sum(part.rows for part in parts), "about ")
            epids = self._choose(queue, planned)
            if epids is not None:
                writer.write_table("sample.parquet", pa.table({"epid": pa.array(epids)}))
            for number, each in enumerate(planned):
                self._report("plans, jobs and outcomes", number, len(planned))
                self._take_plan(queue, each, epids)
            self._report("tracked episodes", 0, 1)
            self._take_state(results, planned, epids)
        writer.keep(databases=True)

    def _choose(self, queue: OneMoment, planned: Sequence[PlannedDay]) -> Ints | None:
        """The episodes of the sample, ascending; None for all."""
        sample = self._request.sample
        if sample.is_whole:
            return None
        self._report("choosing episodes", 0, 1)
        drops = (table for each in planned for table in _rows_of(self._source, each, ["epid", "series"]))
        if sample.kind is Kind.SHARE:
            chosen = sampling.by_share(drops, sample.share, self._writer.key())
        elif sample.kind is Kind.SERIES:
            chosen, found = sampling.by_series(drops, sample.series)
            if missing := sorted({*sample.series} - found):
                raise BadLab(f"no episode is of the series {missing[0]!r}", "spell it as the drop does")
        elif sample.kind is Kind.EPIDS:
            there = np.unique(np.concatenate([rows["epid"].drop_null().to_numpy() for rows in drops]))
            chosen = np.intersect1d(np.array(sample.epids, np.int64), there)
        else:
            chosen = _of_chunks(queue, planned, sample)
        if not len(chosen):
            raise BadLab("the sample has no episode", "choose a larger share, or other episodes")
        return chosen

    def _take_plan(self, queue: OneMoment, planned: PlannedDay, epids: Ints | None) -> None:
        """A plan's rows, compared with what the source says of them, then restricted."""
        day = planned.day
        rows = copies.read_plan_rows(queue, planned.plan_id)
        if (len(rows.jobs), jobs_checksum(rows.jobs)) != (planned.jobs, planned.checksum):
            raise _not_as_recorded(f"the jobs of {day}", "planned", day)
        published = published_checksum(rows.jobs, rows.outcomes, day)
        if published != (planned.rows, planned.published_checksum):
            raise _not_as_recorded(f"the outcomes of {day}", "published", day)
        own = restrict(rows, epids)
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
            "plan": planned_as_json(planned),
        }
        for name, table in vars(own).items():
            self._write(f"{name} of {day}", path_of("ledger", day, f"{name}.parquet"), table)

    def _take_state(self, results: OneMoment, planned: Sequence[PlannedDay], epids: Ints | None) -> None:
        """The state whole up to the day before the first, and what the days added, restricted."""
        first, last = planned[0].day, planned[-1].day
        episodes, days = read_state(results, last)
        recorded = days.to_pylist()
        tracked_on = episodes["tracked_on"].to_numpy().astype("datetime64[D]")
        broken = find_broken_day(episodes["epid"].to_numpy(), tracked_on, recorded)
        if broken is not None:
            raise _not_as_recorded(f"the episodes tracked on {broken['day']}", "recorded", broken["day"])
        known = {row["day"]: row for row in recorded}
        for each in planned:
            yesterday = known.get(each.day - ONE_DAY)
            if each.day not in known or (yesterday and yesterday["checksum"]) != each.tracked_checksum:
                raise SourceDisagrees(
                    f"{each.day} was planned from other tracked episodes than there are now",
                    f"run `episodes run {each.day}` at the source, then take it",
                )
        kept = (tracked_on < np.datetime64(first, "D")) | sampling.is_in(episodes["epid"], epids)
        if recorded[0]["day"] >= first:  # the history begins with one of the days
            kept = sampling.is_in(episodes["epid"], epids)
        episodes = episodes.filter(pa.array(kept))
        restricted = restrict_days(episodes, recorded, first)
        self._write("tracked episodes", "state/tracked_episodes.parquet", episodes)
        days = pa.Table.from_pylist(restricted, days.schema).drop_columns(["snapshot_id"])
        self._write("tracked days", "state/tracked_days.parquet", days)
        self._writer.keep(
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
        """Note the content of a part, which is kept when the next file is listed."""
        self._content[name] = content
        if self._request.max_rows is not None:
            _require_at_most(self._request.max_rows, sum(each["rows"] for each in self._content.values()))

    # -- what the lake has ---------------------------------------------------------------------------------

    def take_drops(self) -> None:
        """The drop of each day: its accepted and its refused rows."""
        own = Drops(self._writer.lake_url)
        epids = self._epids()
        for number, day in enumerate(self._request.all_days):
            self._report("drops", number, self._request.days)
            facts = self._facts[str(day)]
            if all(self._is_listed(name, facts.get(name)) for name in (EPISODES, QUARANTINE)):
                continue
            planned = planned_from_json(facts["plan"])
            drop = self._write_drop(own, planned, epids)
            facts["snapshot_id"] = drop.snapshot_id
            for table, file in ((own.episodes, drop.episodes), (own.quarantine, drop.quarantine)):
                self._add(f"{table.name} of {day}", digest_of_file(table, file))
                facts[table.name] = lake_file_as_json(file)
                self._writer.list_file(path_of(LAKE, table.name, file.path), rows=file.rows)

    def _write_drop(self, own: Drops, planned: PlannedDay, epids: Ints | None) -> Drop:
        source = self._source.drop_of(planned)
        reasons: Counter[str] = Counter()
        with own.writer(planned.day) as writer:
            for rows in _parts_of(self._source.drops.episodes, source.episodes, ACCEPTED, epids):
                writer.episodes.write_group(rows)
            for rows in _parts_of(self._source.drops.quarantine, source.quarantine, QUARANTINED, epids):
                writer.quarantine.write_group(rows)
                broken = (each.split(_DROP_RULES) for each in rows["reasons"].to_pylist())
                reasons.update(rule for each in broken for rule in each)
            quarantine = writer.quarantine.finish()
            said = {
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
                said |= {
                    "snapshot_id": hashlib.sha256("".join(parts).encode()).hexdigest()[:16],
                    "drop_rows": writer.episodes.rows + quarantine.rows,
                    "viewed_episodes": len(viewed),
                    "reasons": dict(sorted(reasons.items(), key=lambda each: (-each[1], each[0]))),
                }
            return writer.finish_as(said, quarantine)

    def take_viewings(self) -> None:
        """All viewings of the dates in the windows of the days' jobs, of the chosen episodes."""
        versions = self._needed()
        needed = {file.path: file for files in versions.values() for file in files.values()}
        taken: dict[str, dict[str, Any]] = self._writer.said.setdefault("viewings", {})
        left = [file for path, file in needed.items() if not self._is_listed(NAME, taken.get(path))]
        if left:
            self._take_files(left, taken, sum(file.rows for file in needed.values()))
        self._writer.keep(
            versions={
                str(number): {str(day): taken[file.path] for day, file in files.items()}
                for number, files in versions.items()
            }
        )
        self._writer.forget_key()

    def _take_files(self, left: Sequence[LakeFile], taken: dict[str, dict[str, Any]], rows: int) -> None:
        own = Viewings(self._writer.lake_url)
        epids = self._epids()
        pseudonyms = None if self._request.keep_viewer_ids else Pseudonyms(self._writer.key())
        done = rows - sum(file.rows for file in left)
        for file in left:
            self._report("viewings", done, rows)
            batches = _batches_of(self._source.viewings, file)
            schema = self._source.viewings.schema_of_file(file)
            told = _disguised(batches, epids, pseudonyms)
            written = own.write(file.day, pa.RecordBatchReader.from_batches(schema, told)).file
            self._add(viewings_name(written), digest_of_file(own, written))
            taken[file.path] = lake_file_as_json(written)
            self._writer.list_file(path_of(LAKE, own.name, written.path), rows=written.rows)
            done += file.rows
        self._report("viewings", rows, rows)

    def _needed(self) -> dict[int, dict[dt.date, LakeFile]]:
        """The files of the viewings that jobs look at, by the version they are pinned to and by day."""
        needed: dict[int, dict[dt.date, LakeFile]] = {}
        for day in self._request.all_days:
            facts = self._facts[str(day)]
            planned = planned_from_json(facts["plan"])
            version = self._source.version_of(planned)
            files = version.between(dt.date.fromisoformat(facts["first_window"]), day)
            needed.setdefault(version.number, {}).update({file.day: file for file in files})
        return dict(sorted(needed.items()))

    def _epids(self) -> Ints | None:
        if self._request.sample.is_whole:
            return None
        found: Ints = Bundle(self._writer.folder, {}).read("sample.parquet")["epid"].to_numpy()
        return found

    def _is_listed(self, table: str, said: Mapping[str, Any] | None) -> bool:
        return said is not None and path_of(LAKE, table, said["path"]) in self._writer.files

    def manifest(self) -> dict[str, Any]:
        """What the bundle holds, for people as well."""
        said = self._writer.said
        sample = self._request.sample.describe()
        if "sample.parquet" in self._writer.files:
            sample["episodes"] = self._writer.files["sample.parquet"].rows
        files = self._writer.files.values()
        return {
            "what": "A piece of another environment, for `episodes lab load`: docs/lab.md",
            "taken_at": said["taken_at"],
            "release": importlib.metadata.version("episodes-assets"),
            "environment": self._source.environment,
            "request": said["request"],
            "sample": sample,
            "viewer_ids": "kept" if self._request.keep_viewer_ids else "pseudonymised",
            "rows": sum(file.rows for file in files),
            "bytes": sum(file.size for file in files),
            "columns": {table: dict(columns) for table, columns in COLUMNS.items()},
            "never_taken": list(NEVER_TAKEN),
            "days": self._facts,
            "state": said["state"],
            "versions": said["versions"],
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


def planned_as_json(planned: PlannedDay) -> dict[str, Any]:
    """A planned day as a manifest has it."""
    said = asdict(planned)
    times = {name: value.isoformat() for name, value in said.items() if isinstance(value, dt.datetime)}
    return {**said, **times, "day": str(planned.day), "plan_uid": str(planned.plan_uid)}


def planned_from_json(said: Mapping[str, Any]) -> PlannedDay:
    """The same as an object."""
    times = ("planned_at", "fanned_out_at", "published_at")
    read = {name: said[name] and dt.datetime.fromisoformat(said[name]) for name in times}
    return PlannedDay(
        **{
            **said,
            **read,
            "day": dt.date.fromisoformat(said["day"]),
            "plan_uid": uuid.UUID(said["plan_uid"]),
            "viewings": PinnedVersion(*said["viewings"]),
        }
    )


def lake_file_as_json(file: LakeFile) -> dict[str, Any]:
    """A day's file as a manifest has it."""
    return {**asdict(file), "day": str(file.day)}


def lake_file_from_json(said: Mapping[str, Any]) -> LakeFile:
    """The same as an object."""
    return LakeFile(**{**said, "day": dt.date.fromisoformat(said["day"])})


def viewings_name(file: LakeFile) -> str:
    """What a manifest calls the content of a file of viewings, of which a date has one in each version."""
    return f"viewings of {file.day} ({file.digest[:8]})"


def _not_as_recorded(what: str, recorded: str, day: dt.date) -> SourceDisagrees:
    return SourceDisagrees(
        f"{what} are not those that were {recorded}: something else writes to the source's databases",
        f"stop it, then run `{repair_command(day, day)}` at the source",
    )


def restrict(rows: PlanRows, epids: Ints | None) -> PlanRows:
    """A plan's rows of some episodes; None for all."""
    jobs, before = sampling.restrict_jobs(rows.jobs, epids)
    is_all = len(before) == len(rows.jobs)
    return PlanRows(
        jobs,
        sampling.restrict_chunks(rows.chunks, before),
        sampling.restrict_by_position(rows.outcomes, before),
        sampling.restrict_by_position(rows.waived, before),
        rows.batches if is_all else rows.batches.slice(0, 0),
    )


def restrict_days(
    episodes: pa.Table, recorded: Sequence[Mapping[str, Any]], first: dt.date
) -> list[dict[str, Any]]:
    """The manifests of the tracked days for episodes of which some that the last days added are left out.

    Args:
        episodes: `epid` and `tracked_on`, by day and epid.
        recorded: The manifests of all of them, in order.
        first: The first day of which some are left out.

    Returns:
        Those of the days before as they are, the others counted and chained anew.
    """
    epids = episodes["epid"].to_numpy()
    tracked_on = episodes["tracked_on"].to_numpy().astype("datetime64[D]")
    found: list[dict[str, Any]] = []
    for row in recorded:
        if row["day"] >= first:
            is_first = not found
            own = np.datetime64(row["day"], "D")
            added = np.sort(epids[tracked_on <= own if is_first else tracked_on == own])
            previous = None if is_first else found[-1]["checksum"]
            total = len(added) + (0 if is_first else found[-1]["total"])
            changed = {"newly_tracked": len(added), "total": total, "previous_checksum": previous}
            found.append({**row, **changed, "checksum": state_checksum(previous or "", added)})
        else:
            found.append(dict(row))
    return found


def jobs_checksum(jobs: pa.Table) -> str:
    """The checksum of a plan's jobs, in whatever order they are."""
    ordered = jobs.select(["epid", "algorithm_id", "window_start"]).sort_by(
        [("epid", "ascending"), ("algorithm_id", "ascending")]
    )
    return plan_checksum(ordered.to_pandas(date_as_object=False))


def digest_of_file(table: LakeTable, file: LakeFile) -> dict[str, Any]:
    """The rows of a day's file and the digest of its content."""
    with table.open(file) as opened:
        schema = opened.schema_arrow.remove_metadata()
        rows, digest = digest_of(opened.iter_batches(READ_ROWS, use_threads=False), schema)
    return {"rows": rows, "digest": digest}


def _batches_of(table: LakeTable, file: LakeFile) -> Iterator[pa.RecordBatch]:
    """The rows of a day's file; what is wrong with it is told of this file, whoever reads them."""
    with table.open(file) as opened:
        yield from opened.iter_batches(READ_ROWS, use_threads=False)


def _disguised(
    batches: Iterable[pa.RecordBatch], epids: Ints | None, pseudonyms: Pseudonyms | None
) -> Iterator[pa.RecordBatch]:
    """The viewings of some episodes, with other ids of their viewers, and without texts."""
    for batch in batches:
        kept = batch if epids is None else batch.filter(pa.array(sampling.is_in(batch["epid"], epids)))
        if pseudonyms is not None:
            told = pseudonyms.of_column(kept["viewer_id"])
            kept = kept.set_column(
                kept.schema.get_field_index("viewer_id"), kept.schema.field("viewer_id"), told
            )
        text = pc.if_else(kept[UNREADABLE].is_valid(), NOT_TAKEN, pa.scalar(None, pa.string()))
        yield kept.set_column(kept.schema.get_field_index(UNREADABLE), kept.schema.field(UNREADABLE), text)


def _parts_of(table: LakeTable, file: LakeFile, schema: pa.Schema, epids: Ints | None) -> Iterator[pa.Table]:
    """The rows of a drop's file, in its row groups."""
    with table.open(file) as opened:
        for number in range(opened.num_row_groups):
            rows = opened.read_row_group(number, schema.names, use_threads=False).cast(schema)
            yield rows if epids is None else rows.filter(pa.array(sampling.is_in(rows["epid"], epids)))


def _rows_of(source: Source, planned: PlannedDay, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a day's drop, of accepted and of refused rows."""
    drop = source.drop_of(planned)
    for table, file in ((source.drops.episodes, drop.episodes), (source.drops.quarantine, drop.quarantine)):
        with table.open(file) as opened:
            yield opened.read(list(columns), use_threads=False)


def _of_chunks(queue: OneMoment, planned: Sequence[PlannedDay], sample: SampleSpec) -> Ints:
    """The episodes that have a job in one of some chunks."""
    own = {each.plan_id: each for each in planned}
    if sample.kind is Kind.CHUNK:
        chunks = [sample.chunk]
    else:
        tables = [copies.read_batches(queue, plan_id) for plan_id in own]
        chunks = sampling.slowest_chunks(pa.concat_tables(tables), sample.slowest)
    epids = []
    for plan_id, chunk in chunks:
        if plan_id not in own:
            numbers = ", ".join(map(str, own))
            raise BadLab(f"plan {plan_id} is none of these days'", f"their plans are: {numbers}")
        found = copies.read_chunks(queue, plan_id)
        found = found.filter(pc.equal(found["chunk"], chunk))
        if not len(found):
            raise BadLab(
                f"plan {plan_id} has no chunk {chunk}", "`episodes jobs status DAY` shows its chunks"
            )
        begin, count = found["first_position"][0].as_py(), found["jobs"][0].as_py()
        epids.append(copies.read_jobs(queue, plan_id)["epid"].slice(begin, count).to_numpy())
    return np.unique(np.concatenate(epids)) if epids else np.array([], np.int64)


@dataclass(frozen=True)
class EstimatedPart:
    """What a part of a bundle will be about.

    Attributes:
        what: The part.
        rows: Its rows.
        bytes: Its bytes.
        read_from: Where it is read.
    """

    what: str
    rows: int
    bytes: int
    read_from: str


# Bytes of a row, compressed.
_STATE_BYTES, _JOB_BYTES, _OUTCOME_BYTES = 3.0, 6.0, 25.0


def estimate(source: Source, request: TakeRequest) -> list[EstimatedPart]:
    """About how many rows and bytes a bundle will have, by manifests and the lake's log.

    Of a sample of series or of single episodes, the drops are read.

    Raises:
        As `take`, but for what concerns the folder.
    """
    with source.visit() as (queue, results):
        planned = read_days(queue, results, request.all_days)
        return _estimate_parts(source, request, queue, results, planned)


def _estimate_parts(
    source: Source,
    request: TakeRequest,
    queue: OneMoment,
    results: OneMoment,
    planned: Sequence[PlannedDay],
) -> list[EstimatedPart]:
    share = _share(source, queue, request.sample, planned)
    drops: dict[str, LakeFile] = {}
    viewings: dict[str, LakeFile] = {}
    for each in planned:
        drop = source.drop_of(each)
        drops |= {file.path: file for file in (drop.episodes, drop.quarantine)}
        first = copies.read_first_window(queue, each.plan_id) or each.day
        files = source.version_of(each).between(min(first, each.day), each.day)
        viewings |= {file.path: file for file in files}
    jobs, tracked = sum(each.jobs for each in planned) * share, read_total(results, request.day)
    return [
        EstimatedPart("tracked episodes", tracked, round(tracked * _STATE_BYTES), "results"),
        EstimatedPart("jobs", round(jobs), round(jobs * _JOB_BYTES), "queue"),
        EstimatedPart("outcomes", round(jobs), round(jobs * _OUTCOME_BYTES), "queue"),
        _estimated("drops", drops.values(), share),
        _estimated("viewings", viewings.values(), share),
    ]


def _estimated(what: str, files: Iterable[LakeFile], share: float) -> EstimatedPart:
    own = list(files)
    rows, size = sum(file.rows for file in own), sum(file.size for file in own)
    return EstimatedPart(what, round(rows * share), round(size * share), "lake")


def _share(source: Source, queue: OneMoment, sample: SampleSpec, planned: Sequence[PlannedDay]) -> float:
    """About which part of all rows a sample has."""
    if sample.kind in (Kind.WHOLE, Kind.SHARE):
        return sample.share
    drops = [table for each in planned for table in _rows_of(source, each, ["epid", "series"])]
    there = np.unique(np.concatenate([rows["epid"].drop_null().to_numpy() for rows in drops]))
    if sample.kind is Kind.SERIES:
        chosen, _ = sampling.by_series(drops, sample.series)
    elif sample.kind is Kind.EPIDS:
        chosen = np.intersect1d(np.array(sample.epids, np.int64), there)
    else:
        chosen = _of_chunks(queue, planned, sample)
    return len(chosen) / max(len(there), 1)
