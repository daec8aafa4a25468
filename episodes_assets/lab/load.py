"""Loads a bundle into a lab: its lake, its databases, and the days as they were published.

Nothing here depends on the source. Each step is atomic and skipped if it is done already, so that loading
can be killed at any moment and resumed. Published rows are not in the bundle: they are published in the lab
from the outcomes, by the code that publishes everywhere, and must have the checksum that the bundle records.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import BundleDamaged, LabDiffers
from episodes_assets.lab.bundle import LAKE, Bundle, path_of
from episodes_assets.lab.contents import lake_file_from_record, planned_from_record
from episodes_assets.lab.labs import Lab
from episodes_assets.lab.take import Report
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import COVERED, PinnedVersion, covered_to_text
from episodes_assets.ledger.copies import PlanRecord, PlanRows, put_plan
from episodes_assets.planning.episode_set import EpisodeSet
from episodes_assets.planning.jobs import newly_tracked_of_day
from episodes_assets.postgres import embedded
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.postgres.provision import status
from episodes_assets.results import state
from episodes_assets.results.copies import put_state
from episodes_assets.results.publish import CODE_VERSION, publish_day

SOURCE_VERSION = "episodes.source_version"
WORKERS = "the source's workers"
_NOTHING = EpisodeSet.of(np.array([], np.int64))
_SHOWN = 3


def require_whole(bundle: Bundle, report: Report) -> None:
    """Compare every file of a bundle with its manifest.

    Args:
        bundle: The bundle.
        report: Called with the progress.

    Raises:
        BundleDamaged: If files are gone, cut or changed; the message names the first ones.
    """
    size = sum(file.size for file in bundle.files.values())
    done, faults = 0, []
    for path, file, fault in bundle.find_faults():
        report("reading the bundle", done, size)
        done += file.size
        if fault:
            faults.append(f"{bundle.folder / path} {fault}")
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise BundleDamaged(
            f"{'; '.join(faults[:_SHOWN])}{more}",
            "copy the bundle once more, or take it again into another folder",
        )


def load(bundle: Bundle, lab: Lab, report: Report, say: Callable[[str], None]) -> None:
    """Load a bundle that is whole into a lab, or resume that.

    Args:
        bundle: The bundle.
        lab: As `begin_lab` returns it.
        report: Called with the progress.
        say: Called with each step of setting databases up, as one line.

    Raises:
        BundleDamaged: If a file is not the one that was written.
        LabInUse: If another process loads it.
        LabDiffers: If what is published in the lab is not what was published.
        DatabaseUnreachable: If the lab's PostgreSQL does not start.
        SystemFailure: If there is no room, or something cannot be written.
    """
    settings = lab.settings()
    with lab.lock_loading():
        loading = _Loading(bundle, lab, report)
        versions = loading.load_viewings()
        snapshot_ids = loading.load_drops()
        report("setting up its databases", 0, 1)
        # A lab that is lost while it is loaded is loaded again, so only the whole has to reach the disk.
        embedded.sync_later(lab.home)
        dsns = status.ready_databases(settings, say)
        loading.load_databases(dsns, versions, snapshot_ids)
        report("flushing its databases to disk", 0, 1)
        embedded.sync_now(lab.home)
        lab.mark_loaded()


class _Loading:
    """One bundle that is being loaded; what is there already is not loaded again."""

    def __init__(self, bundle: Bundle, lab: Lab, report: Report) -> None:
        lake = open_lake(lab.settings())
        self._bundle = bundle
        self._lab = lab
        self._report = report
        self._viewings = lake.viewings()
        self._drops = lake.drops()
        self._facts: Mapping[str, Mapping[str, Any]] = bundle.manifest["days"]
        self._days = [dt.date.fromisoformat(day) for day in sorted(self._facts)]

    def load_viewings(self) -> dict[int, PinnedVersion]:
        """Make the lab's viewings of the bundle's files.

        Returns:
            The lab's version for each of the source's.
        """
        viewings, environment = self._viewings, self._lab.environment
        versions = {
            int(number): [lake_file_from_record(record) for _, record in sorted(files.items())]
            for number, files in self._bundle.manifest["versions"].items()
        }
        files = {file.path: file for own in versions.values() for file in own}
        self._adopt(viewings, files.values())
        any_file = next(iter(files.values()))
        schema = pq.read_schema(self._place_of(viewings, any_file)).remove_metadata()
        covered = covered_to_text({day: _date(self._facts[str(day)]["covered_from"]) for day in self._days})
        if viewings.find_property(COVERED) != covered:
            viewings.set_property(COVERED, covered, schema, environment)
        made = {
            int(each.facts[SOURCE_VERSION]): each.number
            for each in viewings.commits()
            if SOURCE_VERSION in each.facts
        }
        pinned: dict[int, PinnedVersion] = {}
        for number, own in sorted(versions.items()):
            if number in made:
                pinned[number] = viewings.at(made[number]).pinned
            elif any(later > number for later in made):  # it has the same files as the one before it
                pinned[number] = pinned[max(pinned)]
            else:
                facts = {SOURCE_VERSION: str(number)}
                version = viewings.commit(schema, partial(_these, own), environment=environment, facts=facts)
                pinned[number] = version.pinned
        return pinned

    def load_drops(self) -> dict[dt.date, str]:
        """Make the lab's drops of the bundle's files; returns their snapshot ids by day."""
        drops = self._drops
        loaded = []
        for number, day in enumerate(self._days):
            self._report("drops", number, len(self._days))
            facts = self._facts[str(day)]
            episodes, quarantine = (lake_file_from_record(facts[table.name]) for table in drops.tables[:2])
            self._adopt(drops.episodes, [episodes], is_shown=False)
            self._adopt(drops.quarantine, [quarantine], is_shown=False)
            loaded.append(drops.read_record(episodes))
            if loaded[-1].snapshot_id != facts["snapshot_id"]:
                raise BundleDamaged(
                    f"{self._bundle.folder} has another drop of {day} than its manifest", "take it again"
                )
        drops.commit(loaded, self._lab.environment)
        return {drop.day: drop.snapshot_id for drop in loaded}

    def _adopt(self, table: LakeTable, files: Iterable[LakeFile], *, is_shown: bool = True) -> None:
        """Put files of the bundle into a table's folder that are not there."""
        wanted = list(files)
        rows = sum(file.rows for file in wanted)
        done = 0
        for file, is_there in zip(wanted, table.present(wanted), strict=True):
            if is_shown:
                self._report(table.name, done, rows)
            if not (is_there and table.is_whole(file)):
                table.adopt(self._place_of(table, file), file)
            done += file.rows

    def _place_of(self, table: LakeTable, file: LakeFile) -> Path:
        return self._bundle.folder / path_of(LAKE, table.name, file.path)

    def load_databases(
        self, dsns: Dsns, versions: Mapping[int, PinnedVersion], snapshot_ids: Mapping[dt.date, str]
    ) -> None:
        """Put the state and the plans into the lab's databases, and publish the days.

        Args:
            dsns: The lab's.
            versions: As `load_viewings` returns them.
            snapshot_ids: As `load_drops` returns them.
        """
        environment = self._lab.environment
        with (
            connect_to_write(
                dsns.require(Purpose.RESULTS), Database.RESULTS, environment, autocommit=True
            ) as results,
            connect_to_write(
                dsns.require(Purpose.QUEUE), Database.QUEUE, environment, autocommit=True
            ) as queue,
        ):
            self._report("tracked episodes", 0, 1)
            recorded = self._bundle.read("state/tracked_days.parquet")
            if self._lab.has_state:
                checksums = self._put_state(recorded, snapshot_ids)
            else:
                checksums = self._begin_state(results, recorded, snapshot_ids)
            for number, day in enumerate(self._days):
                self._report("plans, jobs and outcomes", number, len(self._days))
                self._put_plan(queue, day, versions, snapshot_ids[day], checksums.get(day - ONE_DAY))
            self._publish(queue, results)

    def _put_state(self, recorded: pa.Table, snapshot_ids: Mapping[dt.date, str]) -> dict[dt.date, str]:
        """Put the source's state into the lab; returns its checksums by day."""
        ids = [snapshot_ids.get(day) for day in recorded["day"].to_pylist()]
        days = recorded.append_column("snapshot_id", pa.array(ids, pa.string()))
        owner = embedded.start(self._lab.home).dsn(embedded.ADMINISTRATOR, Database.RESULTS)
        with connect_to_write(owner, Database.RESULTS, self._lab.environment, autocommit=True) as results:
            put_state(results, self._bundle.read("state/tracked_episodes.parquet"), days)
        return dict(zip(days["day"].to_pylist(), days["checksum"].to_pylist(), strict=True))

    def _begin_state(
        self, results: Connection, recorded: pa.Table, snapshot_ids: Mapping[dt.date, str]
    ) -> dict[dt.date, str]:
        """Begin a history with the first day, as in an empty system; returns its checksums by day."""
        versions = dict(zip(recorded["day"].to_pylist(), recorded["code_version"].to_pylist(), strict=True))
        checksums: dict[dt.date, str] = {}
        before, yesterday = _NOTHING, None
        for day in self._days:
            drop = self._drops.require(day)
            parts = self._drops.read_drop(drop, ["epid", "algorithm_id", "premier_date"])
            added = newly_tracked_of_day(parts, before, day)
            yesterday, _ = state.record_day(
                results,
                day,
                added,
                yesterday=yesterday,
                snapshot_id=snapshot_ids[day],
                code_version=versions[day],
            )
            before = before.plus(added)
            checksums[day] = yesterday.checksum
        return checksums

    def _put_plan(
        self,
        queue: Connection,
        day: dt.date,
        versions: Mapping[int, PinnedVersion],
        snapshot_id: str,
        tracked_checksum: str | None,
    ) -> None:
        facts = self._facts[str(day)]
        planned = planned_from_record(facts["plan"])
        pinned = versions[planned.viewings.number]
        if pinned.digest is None:
            raise LabDiffers(f"the lake of the lab has no digest of {day}", "load it again")
        record = PlanRecord(
            day=day,
            plan_id=planned.plan_id,
            plan_uid=planned.plan_uid,
            checksum=facts["plan_checksum"],
            snapshot_id=snapshot_id,
            code_version=planned.code_version,
            planned_at=planned.planned_at,
            fanned_out_at=planned.fanned_out_at or planned.planned_at,
            tracked_checksum=tracked_checksum,
            viewings_version=pinned.number,
            viewings_digest=pinned.digest,
        )
        put_plan(queue, record, read_plan_rows(self._bundle, day), WORKERS)

    def _publish(self, queue: Connection, results: Connection) -> None:
        for number, day in enumerate(self._days):
            self._report("publishing", number, len(self._days))
            published, _ = publish_day(queue, results, self._viewings, day, CODE_VERSION)
            facts = self._facts[str(day)]
            if (published.rows, published.checksum) != (facts["rows"], facts["published_checksum"]):
                raise LabDiffers(
                    f"what the lab publishes for {day} is not what the source has published",
                    f"`episodes lab drop {self._lab.name}` and make it again; if that does not help, take"
                    " another bundle",
                )


def _date(text: str | None) -> dt.date | None:
    return (text and dt.date.fromisoformat(text)) or None


def _these(files: Collection[LakeFile], _kept: Mapping[dt.date, LakeFile]) -> Collection[LakeFile]:
    """The files of a commit, whatever the table has."""
    return files


def read_plan_rows(bundle: Bundle, day: dt.date) -> PlanRows:
    """A plan's rows in a bundle."""
    names = ("jobs", "chunks", "outcomes", "waived", "batches")
    return PlanRows(*(bundle.read(path_of("ledger", day, f"{name}.parquet")) for name in names))
