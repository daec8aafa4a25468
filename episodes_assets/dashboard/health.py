"""`/healthz`, for machines: whether the dashboard can serve, and whether Dagster's daemon works.

A daemon sends heartbeats, and so counts as healthy for Dagster, also when it finds no code location whose
sensors it could evaluate. So the ticks of the sensors that are switched on are checked as well. What sensors
decide is not looked at.
"""

import logging
import threading
import time
from collections.abc import Iterator

import anyio
from anyio import to_thread
from dagster._core.remote_representation.external import RemoteSensor
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._core.workspace.context import WorkspaceProcessContext
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from episodes_assets.accounts.pool import AWAY, AccountsAccess
from episodes_assets.dashboard.dagster_ui import DagsterUi
from episodes_assets.errors import EpisodesError

INTERVALS = 6
LEAST_SECONDS = 90.0


class DaemonSilent(EpisodesError):
    """No sensor has been evaluated for too long."""


class SensorTicks:
    """Checks the newest tick of a workspace's sensors.

    Args:
        workspace: Whose sensors. Time without a tick is counted from now at the earliest, so that a daemon
            which is started together with this process has time for its first tick.
    """

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self._workspace = workspace
        self._since = time.time()

    def require_recent(self) -> bool:
        """Check, if a daemon is expected: one has sent heartbeats to this instance, and sensors are on.

        Returns:
            False if it cannot be told yet: the newest tick is that old, and this process is younger.

        Raises:
            DaemonSilent: If the newest tick is older than six times the shortest interval of these sensors,
                and than 90 seconds.
        """
        instance = self._workspace.instance
        running = list(self._running())
        if not running or not instance.get_daemon_heartbeats():
            return True
        ticks = instance.get_batch_ticks([sensor.selector_id for sensor, _ in running], limit=1)
        newest = max(
            0.0,
            *(_switched_on_at(state) for _, state in running),
            *(tick.timestamp for each in ticks.values() for tick in each),
        )
        allowed = max(INTERVALS * min(sensor.min_interval_seconds for sensor, _ in running), LEAST_SECONDS)
        now = time.time()
        if now - newest <= allowed:
            return True
        # A daemon that is started together with this process has time for its first tick.
        silent = now - max(newest, self._since)
        if silent <= allowed:
            return False
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


LONGEST_SECONDS = 5.0
# The route is public, so its result is cached.
CACHE_SECONDS = 1.0
# A check that has timed out keeps its thread until the database or code server answers.
CHECKS_AT_ONCE = 4
_LOG = logging.getLogger(__name__)


def health_routes(accounts: AccountsAccess, ui: DagsterUi) -> list[BaseRoute]:
    """`/healthz`, open to everybody who can reach the port.

    It reveals one word and its status: `ok` (200), or `unavailable` (503) when the database `dagster` or
    the code server does not answer within five seconds, or Dagster's daemon has stopped evaluating sensors.
    Which of them, and why, is in this process's log alone.
    """
    return [Route("/healthz", _Health(accounts, ui).show, methods=["GET"], name="healthz")]


class _Health:
    def __init__(self, accounts: AccountsAccess, ui: DagsterUi) -> None:
        self._accounts = accounts
        self._ui = ui
        self._ticks = SensorTicks(ui.workspace)
        self._lock = anyio.Lock()
        self._checks = threading.Semaphore(CHECKS_AT_ONCE)
        self._checked_at = -CACHE_SECONDS
        self._is_healthy = False

    async def show(self, _request: Request) -> Response:
        async with self._lock:
            if time.monotonic() - self._checked_at > CACHE_SECONDS:
                self._is_healthy = await self._check()
                self._checked_at = time.monotonic()
        if self._is_healthy:
            return PlainTextResponse("ok")
        return PlainTextResponse("unavailable", status_code=503)

    async def _check(self) -> bool:
        try:
            with anyio.fail_after(LONGEST_SECONDS):
                await to_thread.run_sync(self._require_all, abandon_on_cancel=True)
        except TimeoutError:
            _LOG.warning("not well: no answer within %s s", LONGEST_SECONDS)
        except AWAY as error:
            _LOG.warning("not well: %s", error)
        except Exception as error:  # noqa: BLE001  Dagster's client raises errors of several kinds
            _LOG.warning("not well: %s: %s", type(error).__name__, error)
        else:
            return True
        return False

    def _require_all(self) -> None:
        """Run all checks, in a thread whose caller may have timed out."""
        if not self._checks.acquire(blocking=False):
            raise TimeoutError
        try:
            self._accounts.ping()
            self._ui.ping_code()
            self._ticks.require_recent()
        finally:
            self._checks.release()
