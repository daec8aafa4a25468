"""Profiles of steps: in runs that ask for it, and of a step that takes far longer than it usually does.

A step is profiled from within its own process, and what it spends its time in is shown with what it
materialises. `job_outcomes` only waits: in its place the fleet's micro-batches are profiled. A profile that
cannot be taken or stored is a warning in the step's log and nothing else. The engines are
`profiling/engines.py`, the statements `ledger/profiles.py`.
"""

import datetime as dt
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import dagster as dg

from episodes_assets.defs import launches, partitions
from episodes_assets.defs.metadata import image, table
from episodes_assets.defs.resources import QueueDatabase
from episodes_assets.errors import ProfilerUnavailable
from episodes_assets.failures import explain, name_defect
from episodes_assets.ledger import profiles
from episodes_assets.ledger.profiles import Claim, Kind, Seen
from episodes_assets.profiling.engines import Recording, Sampling, record_self
from episodes_assets.profiling.stacks import Profile, flame_graph
from episodes_assets.settings import Settings

# A run with this tag profiles its steps, whatever the tag's value.
PROFILE_TAG = "episodes/profile"
ASKED_FOR = Sampling(seconds=600)
OF_SLOW_STEP = Sampling(seconds=60)
BATCHES = 3
# No step is slow before.
FLOOR_SECONDS = 60.0
ONCE_IN = dt.timedelta(hours=1)
BY_ITSELF = "a slow step"
# Of earlier runs: what is usual is their median.
LEAST_RUNS, MOST_RUNS = 3, 15
# A run over a range has an event for each of its days.
_EVENTS_READ = 200
HOT_LINES_SHOWN = 15
_BOXES_SHOWN = 250
_STEPS = "episodes_assets/defs/assets/"


@dataclass(frozen=True)
class Duration:
    """How long an earlier run of a step took.

    Attributes:
        seconds: So long.
        days: For so many days.
    """

    seconds: float
    days: int


def slow_after(history: Sequence[Duration], days: int, factor: float) -> float | None:
    """After how many seconds a step over some days is slow; None if that cannot be said yet.

    Args:
        history: Of its earlier runs.
        days: How many it is about.
        factor: How many times the usual seconds for a day it may take for each; 0 for any time.
    """
    if factor == 0 or len(history) < LEAST_RUNS:
        return None
    usual = median(each.seconds / max(each.days, 1) for each in history) * days
    return max(factor * usual, FLOOR_SECONDS)


def read_durations(instance: dg.DagsterInstance, asset: dg.AssetKey) -> list[Duration]:
    """How long the last runs of an asset's step took, from the metadata of what they materialised."""
    found: dict[str, Duration] = {}
    for record in instance.fetch_materializations(asset, limit=_EVENTS_READ).records:
        materialization = record.asset_materialization
        metadata = materialization.metadata if materialization else {}
        if record.run_id not in found and {"seconds", "days in this run"} <= metadata.keys():
            seconds, days = metadata["seconds"].value, metadata["days in this run"].value
            found[record.run_id] = Duration(float(str(seconds)), int(str(days)))
        if len(found) == MOST_RUNS:
            break
    return list(found.values())


@contextmanager
def profiled(
    context: dg.AssetExecutionContext,
    queue_database: QueueDatabase,
    settings: Settings,
    *,
    is_of_fleet: bool = False,
) -> Iterator[None]:
    """Profile what a step does in the block, if its run asks for that or the step turns out to be slow.

    Args:
        context: Of the step.
        queue_database: Where profiles are kept.
        settings: Which step is slow.
        is_of_fleet: Whether the step waits for the fleet, whose micro-batches are profiled in its place.
    """
    taken = (_FleetProfile if is_of_fleet else _OwnProfile)(context, queue_database)
    if PROFILE_TAG in context.run.tags:
        taken.begin(_Request(launches.launched_by(context.run)))
    else:
        # A thread that waits; whether the step is slow is looked up no sooner than it may be.
        threading.Thread(target=taken.watch, args=(settings.slow_step_factor,), daemon=True).start()
    try:
        yield
    finally:
        taken.end()


@dataclass(frozen=True)
class _Request:
    """Who asks for a profile.

    Attributes:
        by: Who.
        reason: Why a slow step asks by itself; empty if its run does.
    """

    by: str
    reason: str = ""

    @property
    def not_within(self) -> dt.timedelta | None:
        return ONCE_IN if self.reason else None

    def __str__(self) -> str:
        return self.reason or "its run asks for it"


class _StepProfile(ABC):
    """A profile for a step, begun in the step's thread or in one that watches it."""

    def __init__(self, context: dg.AssetExecutionContext, queue_database: QueueDatabase) -> None:
        self._context = context
        self._queue = queue_database
        self._assets = sorted(context.selected_asset_keys)
        self._days = partitions.days_of(context)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def _day(self) -> dt.date | None:
        return self._days[0] if len(self._days) == 1 else None

    def watch(self, factor: float) -> None:
        """Begin as soon as the step is slow, unless it ends before."""
        if factor == 0 or self._ended.wait(FLOOR_SECONDS):
            return
        try:
            history = read_durations(self._context.instance, self._assets[0])
        except Exception as error:  # noqa: BLE001  no step is to fail for a profile
            self._warn(error)
            return
        limit = slow_after(history, len(self._days), factor)
        if limit is not None and not self._ended.wait(max(self._began + limit - time.monotonic(), 0)):
            reason = f"it takes more than {limit:.0f} s, and more than {factor:g} times what is usual"
            self.begin(_Request(BY_ITSELF, reason))

    def begin(self, asked: _Request) -> None:
        """Begin, unless the step has ended."""
        with self._lock:
            if self._ended.is_set():
                return
            try:
                self._begin(asked)
            except Exception as error:  # noqa: BLE001
                self._warn(error)

    def end(self) -> None:
        """End, and add to the step's metadata what was seen."""
        self._ended.set()
        with self._lock:
            try:
                metadata = self._end()
                for asset in self._assets if metadata else ():
                    self._context.add_asset_metadata(metadata, asset_key=asset)
            except Exception as error:  # noqa: BLE001
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        self._context.log.warning(f"no profile of the step: {explain(error) or name_defect(error)}")

    @abstractmethod
    def _begin(self, asked: _Request) -> None: ...

    @abstractmethod
    def _end(self) -> dict[str, Any]: ...


class _OwnProfile(_StepProfile):
    """A profile of the step in its own process."""

    _taken: tuple[Claim, Recording] | None = None

    def _begin(self, asked: _Request) -> None:
        sampling = OF_SLOW_STEP if asked.reason else ASKED_FOR
        with self._queue.connect() as queue:
            claim = profiles.begin_step(
                queue,
                self._assets[0].to_user_string(),
                sampling,
                run_id=self._context.run.run_id,
                requested_by=asked.by,
                reason=asked.reason,
                day=self._day,
                claimed_by=f"{socket.gethostname()}-{os.getpid()}",
                not_within=asked.not_within,
            )
            if claim is None:
                return
            try:
                self._taken = claim, record_self(sampling, self._context.log.info)
            except ProfilerUnavailable as error:
                profiles.store(queue, claim, Seen(problem=str(error)))
                raise
        self._context.log.info(f"the step is profiled ({asked}): /profiles/{claim.profile_id}")

    def _end(self) -> dict[str, Any]:
        if self._taken is None:
            return {}
        claim, recording = self._taken
        with self._queue.connect() as queue:
            try:
                profile = recording.stop().without_waiting().working_for(_STEPS)
            except ProfilerUnavailable as error:
                profiles.store(queue, claim, Seen(recording.engine, problem=str(error)))
                raise
            profiles.store(queue, claim, Seen(recording.engine, profile.pack(), profile.samples))
        metadata: dict[str, Any] = {
            "profile": dg.MetadataValue.url(f"/profiles/{claim.profile_id}"),
            "hot lines": table(hot_line_rows(profile)),
        }
        if self._day and profile.stacks:  # of a range, it would be kept with the event of each day
            metadata["flame graph"] = image(flame_graph(profile, _BOXES_SHOWN), "flame graph")
        return metadata


class _FleetProfile(_StepProfile):
    """Profiles of the fleet's next micro-batches, for a step that waits for them."""

    _is_asked = False

    def _begin(self, asked: _Request) -> None:
        with self._queue.connect() as queue:
            numbers = profiles.request_batches(
                queue,
                BATCHES,
                OF_SLOW_STEP,
                requested_by=asked.by,
                reason=asked.reason,
                day=self._day,
                run_id=self._context.run.run_id,
                not_within=asked.not_within,
            )
        self._is_asked = bool(numbers)
        if numbers:
            self._context.log.info(f"{len(numbers)} of the fleet's micro-batches are profiled ({asked})")

    def _end(self) -> dict[str, Any]:
        if not self._is_asked:
            return {}
        run_id = self._context.run.run_id
        with self._queue.connect() as queue:
            profiles.withdraw(queue, run_id)
            seen = [
                (row, profiles.read_profile(queue, row.profile_id)[1])
                for row in profiles.read_profiles_of_run(queue, run_id)
                if row.kind == Kind.BATCH
            ]
        shown = [
            {
                "profile": f"/profiles/{row.profile_id}",
                "worker": row.claimed_by or "",
                "seconds": round(row.seconds, 2),
                "hottest line": row.problem or (_hottest(profile) if profile else row.state),
            }
            for row, profile in seen
        ]
        return {"profiles of the fleet": table(shown)} if shown else {}


def hot_line_rows(profile: Profile) -> list[dict[str, Any]]:
    """The hottest lines of a profile, for a table."""
    return [
        {
            "share": f"{each.samples / profile.samples:.1%}",
            "seconds": round(each.samples / profile.rate, 2),
            "line": each.frame.place,
            "function": each.frame.function,
            "mostly in": each.calls,
        }
        for each in profile.hot_lines(HOT_LINES_SHOWN)
    ]


def _hottest(profile: Profile) -> str:
    return next((str(each.frame) for each in profile.hot_lines(1)), "nothing but waiting")
