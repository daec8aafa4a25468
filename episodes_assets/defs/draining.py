"""Draining a code location: its runs end, nothing of it begins, and the process can be replaced.

What is drained is kept in Dagster's own key-value storage, which its daemon reads before it launches
anything. So runs that people, schedules and sensors launch meanwhile wait in the queue, and those of
other code locations do not. Dagster cannot be asked to hold its queue, which is why `dagster.yaml` names
`DrainableRunCoordinator`. Sensors and schedules are switched off only when all runs have ended, for as
long as it takes to replace the process: their ticks would fail meanwhile. What is shown while one waits
is `cli/drain.py`.
"""

import datetime as dt
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import dagster as dg
import sqlalchemy
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.stats import StepEventStatus
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator, RunQueueConfig
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickStatus,
)
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from psycopg2.errorcodes import LOCK_NOT_AVAILABLE

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.defs.runs import HAVE_A_PROCESS, days_of_run, silent_since
from episodes_assets.errors import CannotDrain, DrainEnded, UnknownCodeLocation
from episodes_assets.postgres.processes import DRAINS_KEY

# As it is called in the workspace of `episodes up` and of `deploy/`.
OURS = "episodes_assets"
_HELD_KEY = "episodes/held_queue"
# A row that is locked by whoever changes what is drained; its value is of no importance.
_LOCK_KEY = "episodes/changing_drains"
# All is read and written within milliseconds; many sensors are switched within seconds.
_LOCK_SECONDS = 30
_QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"
# The daemon sends a heartbeat every 30 seconds.
DAEMON_ALIVE_FOR = dt.timedelta(seconds=90)
# A tick that has begun longer ago was killed: sensors and schedules answer within seconds.
LONGEST_TICK = dt.timedelta(minutes=10)


@dataclass(frozen=True)
class Drain:
    """A code location that is drained.

    Attributes:
        location: The code location.
        token: Identifies this drain.
        by: Who asked for it.
        since: When, as ISO 8601 has it.
        switched_off: Its schedules and sensors that were switched off, by selector id, with what they were.
    """

    location: str
    token: str
    by: str
    since: str
    switched_off: dict[str, str]


def read_drains(instance: dg.DagsterInstance) -> dict[str, Drain]:
    """The drained code locations, by name."""
    stored = instance.daemon_cursor_storage.get_cursor_values({DRAINS_KEY}).get(DRAINS_KEY) or "{}"
    return {location: Drain(location=location, **each) for location, each in json.loads(stored).items()}


def _write_drains(instance: dg.DagsterInstance, drains: dict[str, Drain]) -> None:
    stored = {location: asdict(each) for location, each in drains.items()}
    for each in stored.values():
        del each["location"]  # it is the key
    instance.daemon_cursor_storage.set_cursor_values({DRAINS_KEY: json.dumps(stored)})


@contextmanager
def _changing_drains(instance: dg.DagsterInstance) -> Iterator[None]:
    """Let nobody else change what is drained, or switch schedules and sensors for it, while the block lasts.

    A row is locked beside what is written, so that each step of the block is kept at once: a process that is
    killed inside leaves what can be resumed.

    Raises:
        CannotDrain: If somebody else does not come to an end with it.
    """
    storage = instance.run_storage
    if not isinstance(storage, SqlRunStorage):  # of a test, in memory
        yield
        return
    with storage.connect() as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            try:
                for statement in (
                    f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'",
                    "SET LOCAL idle_in_transaction_session_timeout = 0",
                    "INSERT INTO kvs (key, value) VALUES (:key, '') ON CONFLICT (key) DO NOTHING",
                    "SELECT id FROM kvs WHERE key = :key FOR UPDATE",
                ):
                    connection.execute(sqlalchemy.text(statement), {"key": _LOCK_KEY})
            except sqlalchemy.exc.OperationalError as error:
                if getattr(error.orig, "pgcode", None) != LOCK_NOT_AVAILABLE:
                    raise
                raise CannotDrain(
                    f"another `episodes drain` has been changing what is drained for {_LOCK_SECONDS} s",
                    "see whether it stands still, end it if so, and run this again",
                ) from error
            yield


class DrainableRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue of runs, which launches none of a code location that is drained."""

    _held: str = ""
    _acknowledged: str = ""

    def get_run_queue_config(self) -> RunQueueConfig:
        """The configuration of the queue now; the daemon asks before it chooses what to launch."""
        config = super().get_run_queue_config()
        drains = read_drains(self._instance)
        self._held = " ".join(sorted(each.token for each in drains.values()))
        limits = [_launch_none(location) for location in drains]
        return config._replace(tag_concurrency_limits=[*config.tag_concurrency_limits, *limits])

    @property
    def dequeue_use_threads(self) -> bool:
        """Whether runs are launched in threads.

        The daemon, and nobody else, reads it in each round when it has chosen what to launch. Then all that
        earlier rounds have chosen is launched, so it says which drains are in force.
        """
        if self._held != self._acknowledged:
            self._instance.daemon_cursor_storage.set_cursor_values({_HELD_KEY: self._held})
            self._acknowledged = self._held
        return super().dequeue_use_threads


def _launch_none(location: str) -> dict[str, Any]:
    """The limit of the queue by which no run of a code location is launched."""
    return {"key": REPOSITORY_LABEL_TAG, "value": f"{SINGLETON_REPOSITORY_NAME}@{location}", "limit": 0}


def require_known(instance: dg.DagsterInstance, location: str) -> None:
    """Check that Dagster has a record of a code location: of a run, a schedule or a sensor.

    Ours is known also before anything has been recorded of any.

    Raises:
        UnknownCodeLocation: If it has none.
    """
    known = {state.repository_selector.location_name for state in instance.all_instigator_state()}
    for _, labels in instance.get_run_tags(tag_keys=[REPOSITORY_LABEL_TAG]):
        known |= {label.partition("@")[2] for label in labels}
    known |= {*read_drains(instance)}
    if location not in (known or {OURS}):
        raise UnknownCodeLocation(
            f"Dagster has no record of a code location {location!r}",
            f"name one of these with --location: {', '.join(sorted(known or {OURS}))}",
        )


def new_token() -> str:
    """Identifies a drain, so that whoever has begun it can end it and no other one."""
    return uuid.uuid4().hex


def begin(instance: dg.DagsterInstance, location: str, now: dt.datetime, token: str | None = None) -> Drain:
    """Have no run of a code location launched any more; one that is drained already stays so.

    Args:
        instance: Dagster's.
        location: The code location.
        now: The time.
        token: Identifies the drain if it is begun here; one that has begun keeps its own. Default: a new one.

    Raises:
        CannotDrain: If Dagster's queue is not one that can be held, or somebody else changes what is drained.
    """
    if not isinstance(instance.run_coordinator, DrainableRunCoordinator):
        raise CannotDrain(
            "Dagster's queue cannot be held: its dagster.yaml is of an older release",
            "copy this release's dagster.yaml to DAGSTER_HOME and start the daemon again",
        )
    token = token or new_token()
    with _changing_drains(instance):
        drains = read_drains(instance)
        if location not in drains:
            since = now.isoformat(timespec="seconds")
            drains[location] = Drain(location, token, operating_system_user(), since, {})
            _write_drains(instance, drains)
    queue = instance.get_concurrency_config().run_queue_config
    if queue is None or _launch_none(location) not in (queue.tag_concurrency_limits or ()):
        resume(instance, location, token)
        raise CannotDrain(
            "Dagster's queue cannot be held: its dagster.yaml sets concurrency.runs.tag_concurrency_limits",
            "set run_coordinator.config.tag_concurrency_limits instead, and start the daemon again",
        )
    return drains[location]


def require_in_force(instance: dg.DagsterInstance, drain: Drain) -> Drain:
    """A drain as it is now.

    Raises:
        DrainEnded: If it has ended, and perhaps another one has begun.
    """
    current = read_drains(instance).get(drain.location)
    if current is None or current.token != drain.token:
        raise DrainEnded(
            f"the drain of {drain.location} since {drain.since} was ended by somebody else",
            "agree with whoever ran `episodes drain --resume`, then run `episodes drain` again",
        )
    return current


def is_held(instance: dg.DagsterInstance, drain: Drain) -> bool:
    """Whether the daemon has said that it launches nothing of a drained code location any more."""
    held = instance.daemon_cursor_storage.get_cursor_values({_HELD_KEY}).get(_HELD_KEY) or ""
    return drain.token in held.split()


def daemon_lives(instance: dg.DagsterInstance, now: dt.datetime) -> bool:
    """Whether a daemon launches runs; it may have ended within the last minute or so."""
    heartbeat = instance.get_daemon_heartbeats().get(_QUEUE_DAEMON)
    return heartbeat is not None and now.timestamp() - heartbeat.timestamp < DAEMON_ALIVE_FOR.total_seconds()


@dataclass(frozen=True)
class RunningRun:
    """A run that has not ended.

    Attributes:
        run_id: Its id.
        job: The job.
        days: The days it works on.
        steps: The steps that are running.
        silent_since: Since when it has reported nothing, if that is longer than usual.
    """

    run_id: str
    job: str
    days: Sequence[dt.date]
    steps: Sequence[str]
    silent_since: dt.datetime | None

    def __str__(self) -> str:
        days = f" of {self.days[0]}" if self.days else ""
        more = f" to {self.days[-1]}" if len(self.days) > 1 else ""
        silent = (
            f" (has said nothing since {self.silent_since:%Y-%m-%d %H:%M} UTC; end it in the UI if its"
            " process was killed)"
            if self.silent_since
            else ""
        )
        steps = ", ".join(self.steps) or "between two steps"
        return f"{self.run_id[:8]} {self.job}{days}{more}: {steps}{silent}"


def running(instance: dg.DagsterInstance, location: str, now: dt.datetime) -> list[RunningRun]:
    """The runs that a code location executes.

    One that is silent is among them: a step that waits for a lock is as silent as one that hangs.
    """
    found = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[*HAVE_A_PROCESS])):
        run = record.dagster_run
        origin = run.remote_job_origin
        if origin is None or origin.location_name != location:
            continue
        steps = [
            each.step_key
            for each in instance.get_run_step_stats(run.run_id)
            if each.status is StepEventStatus.IN_PROGRESS
        ]
        silent = silent_since(instance, record, now)
        found.append(RunningRun(run.run_id, run.job_name, days_of_run(run), steps, silent))
    return found


def queued(instance: dg.DagsterInstance, location: str) -> int:
    """How many runs of a code location wait in the queue."""
    found = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    return sum(
        run.remote_job_origin is not None and run.remote_job_origin.location_name == location for run in found
    )


def _automation(instance: dg.DagsterInstance, location: str) -> list[InstigatorState]:
    states = instance.all_instigator_state()
    return [state for state in states if state.repository_selector.location_name == location]


def switch_off_automation(instance: dg.DagsterInstance, drain: Drain) -> None:
    """Switch the schedules and sensors of a drained code location off, and keep which were on.

    Raises:
        DrainEnded: If it is not drained any more.
    """
    location = drain.location
    with _changing_drains(instance):
        current = require_in_force(instance, drain)
        on = {state.selector_id: state for state in _automation(instance, location) if state.is_running}
        kept = current.switched_off | {name: state.status.value for name, state in on.items()}
        # First it is kept: what is switched off and not kept would stay off.
        _write_drains(instance, {**read_drains(instance), location: replace(current, switched_off=kept)})
        for state in on.values():
            instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))


def ticks_in_progress(instance: dg.DagsterInstance, location: str, now: dt.datetime) -> list[str]:
    """The schedules and sensors of a code location that it evaluates now."""
    return [
        state.instigator_name
        for state in _automation(instance, location)
        for tick in instance.get_ticks(
            state.instigator_origin_id, state.selector_id, limit=1, statuses=[TickStatus.STARTED]
        )
        if now.timestamp() - tick.timestamp < LONGEST_TICK.total_seconds()
    ]


def resume(instance: dg.DagsterInstance, location: str, token: str | None = None) -> Drain | None:
    """Let runs of a code location be launched again, and switch on what was switched off.

    Args:
        instance: Dagster's.
        location: The code location.
        token: Of the drain that is to end, so that one of somebody else goes on. Default: whichever it is.

    Returns:
        The drain that has ended; None if there was none.
    """
    with _changing_drains(instance):
        drains = read_drains(instance)
        drain = drains.pop(location, None)
        if drain is None or token not in (None, drain.token):
            return None
        for state in _automation(instance, location):
            before = drain.switched_off.get(state.selector_id)
            if before is not None and not state.is_running:
                instance.update_instigator_state(_switched_on(state, InstigatorStatus(before)))
        # At last: if this is interrupted, what is still off can be switched on again.
        _write_drains(instance, drains)
    return drain


def _switched_on(state: InstigatorState, status: InstigatorStatus) -> InstigatorState:
    """A schedule or sensor that is switched on now.

    As when it is switched on in the UI, a sensor begins now: else it would count as not evaluated since it
    began the last time. A schedule keeps its beginning, so that what fell due meanwhile is launched.
    """
    data = state.instigator_data
    if isinstance(data, SensorInstigatorData):
        state = state.with_data(data.with_sensor_start_timestamp(time.time()))
    return state.with_status(status)
