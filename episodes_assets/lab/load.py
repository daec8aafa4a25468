"""Loads a bundle into a lab: its lake, its databases, and the days as they were published.

It knows nothing of the source. Each step is done whole or not at all, and what is there is left alone, so a
process that is killed goes on where it was. Published rows are not in the bundle: they are published in the
lab from the outcomes, by the code that publishes everywhere, and must have the checksum that the bundle
names.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from episodes_assets.days import ONE_DAY
from episodes_assets.errors import BundleDamaged, LabDiffers
from episodes_assets.lab.bundle import LAKE, Bundle, path_of
from episodes_assets.lab.contents import lake_file_from_json, planned_from_json
from episodes_assets.lab.labs import Lab
from episodes_assets.lab.take import Report
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.opening import open_lake
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import COVERED, PinnedVersion, covered_to_text
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.copies import PlanRecord, PlanRows, put_plan
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns, resolve_dsns
from episodes_assets.postgres.provision import status
from episodes_assets.results.copies import put_state
from episodes_assets.results.publish import CODE_VERSION, publish_day
from episodes_assets.settings import Settings

SOURCE_VERSION = "episodes.source_version"
WORKERS = "the source's workers"


def require_whole(bundle: Bundle, report: Report) -> None:
    """Compare every file of a bundle with what was written.

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
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise BundleDamaged(
            f"{'; '.join(faults[:3])}{more}",
            "copy the bundle once more, or take it again into another folder",
        )


def load(bundle: Bundle, lab: Lab, report: Report, say: Callable[[str], None]) -> None:
    """Load a bundle that is whole into a lab, or go on with it.

    Args:
        bundle: The bundle.
        lab: As `begin_lab` gives it.
        report: Called with the progress.
        say: Called with steps of setting databases up, as one line.

    Raises:
        BundleDamaged: If a file is not the one that was written.
        LabDiffers: If what is published in the lab is not what was published.
        DatabaseUnreachable: If the lab's PostgreSQL does not start.
        SystemFailure: If there is no room, or something cannot be written.
    """
    settings = lab.settings()
    versions, snapshot_ids = load_lake(bundle, lab, settings, report)
    report("setting up its databases", 0, 1)
    dsns = resolve_dsns(settings)
    if not all(each.is_current for each in status.read_status(dsns)):
        from episodes_assets.postgres.provision.init import provision  # with Alembic and PgQueuer

        provision(settings, dsns, say)
    _load_databases(bundle, settings, dsns, versions, snapshot_ids, report)
    lab.mark_loaded()


def load_lake(
    bundle: Bundle, lab: Lab, settings: Settings, report: Report
) -> tuple[dict[int, PinnedVersion], dict[dt.date, str]]:
    """Make the lab's lake of the bundle's files.

    Returns:
        The lab's version of the viewings for each of the source's, and the days' drops.
    """
    lake = open_lake(settings)
    days: Mapping[str, Mapping[str, Any]] = bundle.manifest["days"]
    viewings = lake.viewings()
    versions = _load_viewings(bundle, lab, viewings, report)
    drops = lake.drops()
    loaded = []
    for number, (day, facts) in enumerate(sorted(days.items())):
        report("drops", number, len(days))
        episodes, quarantine = (lake_file_from_json(facts[table.name]) for table in drops.tables[:2])
        _adopt(bundle, drops.episodes, [episodes])
        _adopt(bundle, drops.quarantine, [quarantine])
        loaded.append(drops.read_record(episodes))
        if loaded[-1].snapshot_id != facts["snapshot_id"]:
            raise BundleDamaged(
                f"{bundle.folder} has another drop of {day} than its manifest says", "take it again"
            )
    drops.commit(loaded, lab.environment)
    return versions, {drop.day: drop.snapshot_id for drop in loaded}


def _load_viewings(bundle: Bundle, lab: Lab, viewings: Viewings, report: Report) -> dict[int, PinnedVersion]:
    covered = {
        dt.date.fromisoformat(day): facts["covered_from"] and dt.date.fromisoformat(facts["covered_from"])
        for day, facts in bundle.manifest["days"].items()
    }
    versions = {
        int(number): [lake_file_from_json(said) for _, said in sorted(files.items())]
        for number, files in bundle.manifest["versions"].items()
    }
    files = {file.path: file for own in versions.values() for file in own}
    _adopt(bundle, viewings, files.values(), report)
    any_file = next(iter(files.values()))
    schema = pq.read_schema(_place_of(bundle, viewings, any_file)).remove_metadata()
    said = covered_to_text(covered)
    if viewings.find_property(COVERED) != said:
        viewings.set_property(COVERED, said, schema, lab.environment)
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
            version = viewings.commit(schema, partial(_these, own), environment=lab.environment, facts=facts)
            pinned[number] = version.pinned
    return pinned


def _these(files: Collection[LakeFile], _kept: Mapping[dt.date, LakeFile]) -> Collection[LakeFile]:
    """Choose some files, whatever there is."""
    return files


def _adopt(
    bundle: Bundle, table: LakeTable, files: Iterable[LakeFile], report: Report = lambda *_: None
) -> None:
    """Put files of the bundle into a table's folder that are not there."""
    wanted = list(files)
    rows = sum(file.rows for file in wanted)
    done = 0
    for file, is_there in zip(wanted, table.present(wanted), strict=True):
        report(table.name, done, rows)
        if not (is_there and table.is_whole(file)):
            table.adopt(_place_of(bundle, table, file), file)
        done += file.rows


def _place_of(bundle: Bundle, table: LakeTable, file: LakeFile) -> Path:
    return bundle.folder / path_of(LAKE, table.name, file.path)


def _load_databases(
    bundle: Bundle,
    settings: Settings,
    dsns: Dsns,
    versions: Mapping[int, PinnedVersion],
    snapshot_ids: Mapping[dt.date, str],
    report: Report,
) -> None:
    days = [dt.date.fromisoformat(day) for day in sorted(bundle.manifest["days"])]
    with (
        connect_to_write(
            dsns.require(Purpose.RESULTS), Database.RESULTS, settings.environment, autocommit=True
        ) as results,
        connect_to_write(
            dsns.require(Purpose.QUEUE), Database.QUEUE, settings.environment, autocommit=True
        ) as queue,
    ):
        report("tracked episodes", 0, 1)
        tracked = bundle.read("state/tracked_days.parquet")
        ids = [snapshot_ids.get(day) for day in tracked["day"].to_pylist()]
        tracked = tracked.append_column("snapshot_id", pa.array(ids, pa.string()))
        put_state(results, bundle.read("state/tracked_episodes.parquet"), tracked)
        checksums = dict(zip(tracked["day"].to_pylist(), tracked["checksum"].to_pylist(), strict=True))
        for number, day in enumerate(days):
            report("plans, jobs and outcomes", number, len(days))
            _load_plan(bundle, queue, day, versions, snapshot_ids[day], checksums.get(day - ONE_DAY))
        _publish(bundle, queue, results, open_lake(settings).viewings(), days, report)


def _load_plan(
    bundle: Bundle,
    queue: Connection,
    day: dt.date,
    versions: Mapping[int, PinnedVersion],
    snapshot_id: str,
    tracked_checksum: str | None,
) -> None:
    facts = bundle.manifest["days"][str(day)]
    planned = planned_from_json(facts["plan"])
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
    put_plan(queue, record, read_plan_rows(bundle, day), WORKERS)


def read_plan_rows(bundle: Bundle, day: dt.date) -> PlanRows:
    """A plan's rows as a bundle has them."""
    names = ("jobs", "chunks", "outcomes", "waived", "batches")
    return PlanRows(*(bundle.read(path_of("ledger", day, f"{name}.parquet")) for name in names))


def _publish(
    bundle: Bundle,
    queue: Connection,
    results: Connection,
    viewings: Viewings,
    days: Sequence[dt.date],
    report: Report,
) -> None:
    for number, day in enumerate(days):
        report("publishing", number, len(days))
        published, _ = publish_day(queue, results, viewings, day, CODE_VERSION)
        facts = bundle.manifest["days"][str(day)]
        if (published.rows, published.checksum) != (facts["rows"], facts["published_checksum"]):
            raise LabDiffers(
                f"what the lab publishes for {day} is not what the source has published",
                "drop the lab and load the bundle again; if that does not help, take it again",
            )
