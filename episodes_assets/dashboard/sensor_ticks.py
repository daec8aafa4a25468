"""Whether Dagster's daemon evaluates the sensors that are switched on, not what they decide.

A daemon sends heartbeats, and so counts as healthy, also when it finds no code location whose sensors it
could evaluate. What it did last is told by the ticks alone.
"""

import time
from collections.abc import Iterator

from dagster._core.remote_representation.external import RemoteSensor
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._core.workspace.context import WorkspaceProcessContext

from episodes_assets.errors import EpisodesError

INTERVALS = 6
LEAST_SECONDS = 90.0


class DaemonSilent(EpisodesError):
    """No sensor has been evaluated for too long."""


class SensorTicks:
    """Looks at the newest tick of a workspace's sensors.

    Args:
        workspace: Its sensors count from now on: a daemon that is started together with this process has as
            long for its first tick.
    """

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self._workspace = workspace
        self._since = time.time()

    def require_recent(self) -> None:
        """Look, where a daemon is expected: it has reported to this instance, and sensors are switched on.

        Raises:
            DaemonSilent: If the newest tick is older than six times the shortest interval of these sensors,
                and than 90 seconds.
        """
        instance = self._workspace.instance
        running = list(self._running())
        if not running or not instance.get_daemon_heartbeats():
            return
        ticks = instance.get_batch_ticks([sensor.selector_id for sensor, _ in running], limit=1)
        newest = max(
            self._since,
            *(_switched_on_at(state) for _, state in running),
            *(tick.timestamp for each in ticks.values() for tick in each),
        )
        allowed = max(INTERVALS * min(sensor.min_interval_seconds for sensor, _ in running), LEAST_SECONDS)
        if (silent := time.time() - newest) > allowed:
            raise DaemonSilent(
                f"no sensor was evaluated for {silent:.0f} s",
                "see what dagster-daemon prints, and that it runs just once for this database",
            )

    def _running(self) -> Iterator[tuple[RemoteSensor, InstigatorState]]:
        stored = {state.selector_id: state for state in self._workspace.instance.all_instigator_state()}
        for entry in self._workspace.get_current_workspace().code_location_entries.values():
            if entry.code_location is None:
                continue
            for repository in entry.code_location.get_repositories().values():
                for sensor in repository.get_sensors():
                    state = sensor.get_current_instigator_state(stored.get(sensor.selector_id))
                    if state.is_running:
                        yield sensor, state


def _switched_on_at(state: InstigatorState) -> float:
    data = state.instigator_data
    return (data.last_sensor_start_timestamp or 0.0) if isinstance(data, SensorInstigatorData) else 0.0
