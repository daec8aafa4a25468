"""What a bundle has of each column of a source, and the records in its manifest.

The columns that are left out are declared here and left out in `take.py`. Digests of content are computed
here, for a bundle that is taken and for a lab that is compared alike.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from episodes_assets.lab.digests import digest_of
from episodes_assets.lab.source import PlannedDay
from episodes_assets.lake.day_file import LakeFile
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.versions import PinnedVersion
from episodes_assets.planning.drop import ACCEPTED, QUARANTINED
from episodes_assets.planning.jobs import plan_checksum
from episodes_assets.planning.viewings import UNREADABLE

READ_ROWS = 1 << 17
# Replaces text in a column in which the input has something unreadable.
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
    **dict.fromkeys(("ledger.waivers", "ledger.workers", "ledger.profiles", "ledger.locks"), _ALL_DROPPED),
    **dict.fromkeys(("alerts.alerts", "alerts.messages", "alerts.evaluations"), _ALL_DROPPED),
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
    "published.episodes": {"all": "dropped: titles are in the drops"},
    **dict.fromkeys(("published.history", "published.repairs", "published.restore_points"), _ALL_DROPPED),
}  # fmt: skip
NEVER_TAKEN = (
    "users, sessions, tokens, login attempts and the audit log",
    "errors and tracebacks of jobs",
    "names of workers and their machines",
    "reasons and decisions that people wrote, and their names: waivers, repairs, the history of publications",
    "Dagster's runs, events and logs",
    "the input database",
)


def planned_to_record(planned: PlannedDay) -> dict[str, Any]:
    """A planned day as a manifest records it."""
    fields = asdict(planned)
    times = {name: value.isoformat() for name, value in fields.items() if isinstance(value, dt.datetime)}
    return {**fields, **times, "day": str(planned.day), "plan_uid": str(planned.plan_uid)}


def planned_from_record(record: Mapping[str, Any]) -> PlannedDay:
    """A planned day from its record."""
    times = ("planned_at", "fanned_out_at", "published_at")
    read = {name: record[name] and dt.datetime.fromisoformat(record[name]) for name in times}
    return PlannedDay(
        **{
            **record,
            **read,
            "day": dt.date.fromisoformat(record["day"]),
            "plan_uid": uuid.UUID(record["plan_uid"]),
            "viewings": PinnedVersion(*record["viewings"]),
        }
    )


def lake_file_to_record(file: LakeFile) -> dict[str, Any]:
    """A day's file as a manifest records it."""
    return {"day": str(file.day), **file.to_record()}


def lake_file_from_record(record: Mapping[str, Any]) -> LakeFile:
    """A day's file from its record."""
    return LakeFile.from_record(dt.date.fromisoformat(record["day"]), record)


def viewings_name(file: LakeFile) -> str:
    """The name of a file of viewings in a manifest; a date may have one in each version."""
    return f"viewings of {file.day} ({file.digest[:8]})"


def digest_of_file(table: LakeTable, file: LakeFile) -> dict[str, Any]:
    """The rows of a day's file and the digest of its content."""
    with table.open(file) as opened:
        schema = opened.schema_arrow.remove_metadata()
        rows, digest = digest_of(opened.iter_batches(READ_ROWS, use_threads=False), schema)
    return {"rows": rows, "digest": digest}


def jobs_checksum(jobs: pa.Table) -> str:
    """The checksum of a plan's jobs, in any order."""
    ordered = jobs.select(["epid", "algorithm_id", "window_start"]).sort_by(
        [("epid", "ascending"), ("algorithm_id", "ascending")]
    )
    return plan_checksum(ordered.to_pandas(date_as_object=False))
