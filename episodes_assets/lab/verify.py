"""Compares a lab with what was taken, by content along the whole chain, and computes its days anew.

Drop, viewings, tracked state, plan, outcomes and published rows are each compared with the digests in the
bundle's manifest. Then the days are computed again from the lab's own lake and state: the tracked episodes
and the plan by `planning/`, the outcomes in a process of their own as a worker computes them. Nothing of that
is written.

For a whole clone the digests are the source's own checksums, for a sample those of the source's rows
restricted to it.
"""

import asyncio
import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.days import ONE_DAY
from episodes_assets.errors import EpisodesError
from episodes_assets.failures import explain, name_defect
from episodes_assets.lab.contents import digest_of_file, jobs_checksum, lake_file_from_record, viewings_name
from episodes_assets.lab.digests import digest_of
from episodes_assets.lab.labs import Lab
from episodes_assets.lab.take import Report
from episodes_assets.lake.drop_record import EPISODES, QUARANTINE
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import copies
from episodes_assets.ledger.copies import PlanRows
from episodes_assets.ledger.verify import published_checksum
from episodes_assets.planning.episode_set import (
    EpisodeSet,
    TrackedEpisodes,
    find_broken_day,
    find_unchained_day,
    state_checksum,
)
from episodes_assets.planning.jobs import PlannedJobs, newly_tracked_of_day, plan_day
from episodes_assets.postgres.arrow import bounded_session
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.results.copies import read_state
from episodes_assets.results.publications import find_day
from episodes_assets.results.publish import NO_ROWS, read_published
from episodes_assets.settings import Settings
from episodes_assets.worker.compute import ComputeProcess, JobWindows, run_micro_batch

APPLICATION = "episodes lab verify"
# Of each file of a plan whose content is compared as it was taken: the step, and what it is called.
_OF_PLANS = {
    "jobs": ("plan", "jobs in their order"),
    "chunks": ("plan", "chunks"),
    "outcomes": ("outcomes", "outcomes"),
    "waived": ("outcomes", "jobs left out"),
    "batches": ("outcomes", "micro-batches"),
}
_SHOWN = 12


@dataclass(frozen=True)
class Comparison:
    """One thing that was compared.

    Attributes:
        step: Where in the chain: `drop`, `viewings`, `state`, `plan`, `outcomes` or `published`.
        day: The day; None where it is of all days.
        what: What was compared.
        rows: How many rows.
        difference: How it differs; empty when it is equal.
    """

    step: str
    day: dt.date | None
    what: str
    rows: int
    difference: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether it is as it was taken."""
        return not self.difference


def verify(lab: Lab, report: Report, *, recompute: bool = True) -> Iterator[Comparison]:
    """Compare a lab with what was taken.

    Args:
        lab: A loaded one.
        report: Called with the progress.
        recompute: Whether the outcomes are computed anew as well.

    Yields:
        What was compared, in the order of the chain.

    Raises:
        DatabaseUnreachable: If the lab's PostgreSQL does not start.
        SystemFailure: If something cannot be read.
    """
    settings = lab.settings()
    dsns = resolve_dsns(settings)
    verifying = _Verifying(lab, settings, report)
    yield from verifying.drops()
    yield from verifying.viewings()
    if lab.has_state:
        yield from verifying.state(dsns.require(Purpose.RESULTS_READER))
    for number, day in enumerate(lab.days):
        report("plans and outcomes", number, len(lab.days))
        yield from verifying.plan(dsns.require(Purpose.QUEUE_READER), day, recompute=recompute)
    yield from verifying.published(dsns)


class _Verifying:
    """One lab that is compared, step by step."""

    def __init__(self, lab: Lab, settings: Settings, report: Report) -> None:
        lake = open_lake(settings)
        self._lab = lab
        self._settings = settings
        self._report = report
        self._content: Mapping[str, Mapping[str, Any]] = lab.manifest["content"]
        self._facts: Mapping[str, Mapping[str, Any]] = lab.manifest["days"]
        self._drops: Drops = lake.drops()
        self._viewings: Viewings = lake.viewings()
        self._tracked = TrackedEpisodes(np.array([], np.int64), np.array([], "datetime64[D]"))

    def drops(self) -> Iterator[Comparison]:
        """The accepted and the refused rows of each day."""
        for number, day in enumerate(self._lab.days):
            self._report("drops", number, len(self._lab.days))
            drop = self._drops.find(day)
            for name in (EPISODES, QUARANTINE):
                file = getattr(drop, name, None)
                found = None if file is None else self._file(getattr(self._drops, name), file)
                yield self._compared("drop", day, f"{name} of {day}", f"rows in {name}", found)

    def viewings(self) -> Iterator[Comparison]:
        """The viewings of each date, in each version that a day was computed from."""
        files = {
            record["path"]: lake_file_from_record(record)
            for own in self._lab.manifest["versions"].values()
            for record in own.values()
        }
        newest = self._viewings.newest()
        there = {file.path for file in (newest.files.values() if newest else ())}
        for number in sorted({commit.number for commit in self._viewings.commits() if commit.facts}):
            there |= {file.path for file in self._viewings.at(number).files.values()}
        differing, rows, done = [], 0, 0
        total = sum(file.rows for file in files.values())
        for path, file in sorted(files.items()):
            self._report("viewings", done, total)
            done += file.rows
            found = self._file(self._viewings, file) if path in there else None
            own = self._compared("viewings", file.day, viewings_name(file), "viewings", found)
            rows += own.rows
            if own.difference:
                differing.append(f"{file.day}: {own.difference}")
        difference = "; ".join(differing[:3])
        difference += f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        yield Comparison("viewings", None, f"viewings of {len(files)} dates", rows, difference)

    def _file(self, table: LakeTable, file: Any) -> Mapping[str, Any] | str:  # noqa: ANN401
        try:
            if not table.is_whole(file):
                return f"{table.shown}/{file.path} was cut or changed"
            return digest_of_file(table, file)
        except EpisodesError as error:
            return error.what

    def _compared(
        self, step: str, day: dt.date | None, name: str, what: str, found: Mapping[str, Any] | str | None
    ) -> Comparison:
        """Content as it is found beside content as it was taken."""
        expected = self._content.get(name)
        if expected is None or found is None:
            return Comparison(step, day, what, 0, "not there" if expected else "there was none")
        if isinstance(found, str):
            return Comparison(step, day, what, 0, found)
        difference = ""
        if found["rows"] != expected["rows"]:
            difference = f"{found['rows']:,} rows instead of {expected['rows']:,}"
        elif found["digest"] != expected["digest"]:
            difference = "other content"
        return Comparison(step, day, what, found["rows"], difference)

    def state(self, dsn: str) -> Iterator[Comparison]:
        """The tracked episodes, and that their days' checksums are an unbroken chain.

        Args:
            dsn: Of `results`.
        """
        self._report("tracked episodes", 0, 1)
        with bounded_session(dsn, APPLICATION) as results:
            episodes, days = read_state(results, self._lab.days[-1])
        rows, digest = digest_of([episodes], episodes.schema)
        found = {"rows": rows, "digest": digest}
        yield self._compared("state", None, "tracked episodes", "tracked episodes", found)
        own = days.drop_columns(["snapshot_id"])
        rows, digest = digest_of([own], own.schema)
        yield self._compared(
            "state", None, "tracked days", "days of the history", {"rows": rows, "digest": digest}
        )
        tracked_on = episodes["tracked_on"].to_numpy().astype("datetime64[D]")
        epids = episodes["epid"].to_numpy()
        manifest = days.to_pylist()
        broken = find_unchained_day(manifest)
        if broken is None and (row := find_broken_day(epids, tracked_on, manifest)):
            broken = row["day"]
        yield Comparison(
            "state", None, "chain of checksums", len(days), f"broken on {broken}" if broken else ""
        )
        self._tracked = TrackedEpisodes(epids, tracked_on)
        checksums = {row["day"]: row for row in manifest}
        for day in self._lab.days:
            yield self._tracked_anew(day, checksums.get(day), has_yesterday=day - ONE_DAY in checksums)

    def _tracked_anew(
        self, day: dt.date, recorded: Mapping[str, Any] | None, *, has_yesterday: bool
    ) -> Comparison:
        """The episodes that a day adds, by its drop and the state before it."""
        what = "newly tracked, computed anew"
        drop = self._drops.find(day)
        if recorded is None or drop is None:
            return Comparison("state", day, what, 0, "not there")
        before = self._before(day) if has_yesterday else EpisodeSet.of(np.array([], np.int64))
        try:
            parts = self._drops.read_drop(drop, ["epid", "algorithm_id", "premier_date"])
            added = newly_tracked_of_day(parts, before, day)
        except EpisodesError as error:
            return Comparison("state", day, what, 0, error.what)
        checksum = state_checksum(recorded["previous_checksum"] or "", added)
        is_equal = checksum == recorded["checksum"]
        return Comparison("state", day, what, len(added), "" if is_equal else "others than those recorded")

    def _before(self, day: dt.date) -> EpisodeSet:
        return self._tracked.as_of(day - ONE_DAY)

    def plan(self, dsn: str, day: dt.date, *, recompute: bool) -> Iterator[Comparison]:
        """A day's jobs and outcomes: as they are stored, and computed anew.

        Computing may take longer than a session may be idle, so there is none meanwhile.

        Args:
            dsn: Of `queue`.
            day: The day.
            recompute: Whether the outcomes are computed anew as well.
        """
        with bounded_session(dsn, APPLICATION) as queue:
            plans = copies.read_current_plans(queue, [day]).to_pylist()
            rows = copies.read_plan_rows(queue, plans[0]["plan_id"]) if plans else None
        if rows is None:
            yield Comparison("plan", day, "jobs", 0, "not there")
            return
        plan, facts = plans[0], self._facts[str(day)]
        stored = jobs_checksum(rows.jobs)
        is_planned_so = stored == facts["plan_checksum"]
        yield Comparison("plan", day, "jobs", len(rows.jobs), "" if is_planned_so else "other jobs")
        if self._lab.has_state:
            yield self._planned_anew(day, plan, facts)
        is_of_source = plan["plan_uid"] == facts["plan"]["plan_uid"]  # after a replay, it is the lab's own
        for name, (step, what) in (_OF_PLANS if is_of_source else {}).items():
            table = getattr(rows, name)
            count, digest = digest_of([table], table.schema)
            found = {"rows": count, "digest": digest}
            yield self._compared(step, day, f"{name} of {day}", what, found)
        yield self._results_of(day, rows, facts)
        if recompute:
            yield self._computed_anew(day, plan, rows)

    def _planned_anew(self, day: dt.date, plan: Mapping[str, Any], facts: Mapping[str, Any]) -> Comparison:
        what = "jobs, planned anew"
        try:
            drop = self._drops.require(day)
            pinned = PinnedVersion(plan["viewings_version"], plan["viewings_digest"])
            version = self._viewings.at(*pinned, by=f"the plan of {day}")
            viewed = EpisodeSet.of(self._viewings.episodes_of(version.number, day))
            parts = self._drops.read_drop(drop, ["epid", "algorithm_id", "premier_date", "start_date"])
            jobs = plan_day(parts, viewed, self._before(day), day)
        except EpisodesError as error:
            return Comparison("plan", day, what, 0, error.what)
        is_equal = facts["plan_checksum"] in PlannedJobs.of(jobs, get_registry().ids).checksums
        difference = "" if is_equal else f"{len(jobs):,} jobs, not those of the source"
        return Comparison("plan", day, what, len(jobs), difference)

    def _results_of(self, day: dt.date, rows: PlanRows, facts: Mapping[str, Any]) -> Comparison:
        """The outcomes as they would be published."""
        found = published_checksum(rows.jobs, rows.outcomes, day)
        expected = (facts["rows"], facts["published_checksum"])
        difference = ""
        if found[0] != expected[0]:
            difference = f"{found[0]:,} instead of {expected[0]:,}"
        elif found != expected:
            difference = "other results"
        return Comparison("outcomes", day, "results", found[0], difference)

    def _computed_anew(self, day: dt.date, plan: Mapping[str, Any], rows: PlanRows) -> Comparison:
        what = "results, computed anew"
        has_outcome = np.isin(rows.jobs["position"].to_numpy(), rows.outcomes["position"].to_numpy())
        jobs = rows.jobs.filter(pa.array(has_outcome))
        pinned = PinnedVersion(plan["viewings_version"], plan["viewings_digest"])
        try:
            differing = asyncio.run(self._compute(day, pinned, jobs, rows.outcomes))
        except Exception as error:  # noqa: BLE001  an algorithm may raise anything
            return Comparison("outcomes", day, what, 0, str(explain(error) or name_defect(error)))
        epids = jobs["epid"].to_numpy()[differing][:_SHOWN].tolist()
        difference = f"{len(differing):,} differ, the first of epid {epids[0]}" if len(differing) else ""
        return Comparison("outcomes", day, what, len(jobs), difference)

    async def _compute(
        self, day: dt.date, pinned: PinnedVersion, jobs: pa.Table, outcomes: pa.Table
    ) -> list[int]:
        """Which of some jobs have another outcome when they are computed anew, as a worker does."""
        process = ComputeProcess(self._settings.compute_memory_mb)
        differing: list[int] = []
        size = self._settings.chunk_jobs
        try:
            for begin in range(0, len(jobs), size):
                self._report(f"computing {day} anew", begin, len(jobs))
                own = jobs.slice(begin, size)
                windows = JobWindows(
                    epid=own["epid"].to_numpy(),
                    algorithm_id=own["algorithm_id"].to_numpy(),
                    window_start=own["window_start"].to_numpy().astype("datetime64[D]"),
                )
                lake = self._settings.lake
                batch = await process.run(None, run_micro_batch, lake, pinned, day, windows)
                stored = outcomes.slice(begin, size)
                differing += [begin + at for at in _differing(batch.outcomes, stored)]
        finally:
            process.kill()
            process.close()
        return differing

    def published(self, dsns: Dsns) -> Iterator[Comparison]:
        """What the lab has published."""
        with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
            for number, day in enumerate(self._lab.days):
                self._report("published rows", number, len(self._lab.days))
                facts = self._facts[str(day)]
                manifest = find_day(results, day)
                rows = read_published(results, [day]).get(day, NO_ROWS)
                found = [(rows.rows, rows.checksum)]
                found += [] if manifest is None else [(manifest.rows, manifest.checksum)]
                is_equal = found == [(facts["rows"], facts["published_checksum"])] * 2
                difference = "" if is_equal else f"{rows.rows:,} rows, not those of the source"
                yield Comparison("published", day, "rows and manifest", rows.rows, difference)


def _differing(computed: Mapping[str, Sequence[Any]], stored: pa.Table) -> Iterator[int]:
    """Which of some outcomes differ; numbers count, not how JSON has them."""
    rows = zip(
        computed["covered_from"],
        computed["metrics"],
        stored["covered_from"].to_pylist(),
        stored["metrics"].to_pylist(),
        strict=True,
    )
    for at, (covered, metrics, stored_covered, stored_metrics) in enumerate(rows):
        if (covered, json.loads(metrics)) != (stored_covered, json.loads(stored_metrics)):
            yield at
