"""Whether the dashboard can serve and the system behind it works, for machines that ask."""

import logging
import threading
import time

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from episodes_assets.accounts.pool import AWAY, AccountsAccess
from episodes_assets.dashboard.dagster_ui import DagsterUi
from episodes_assets.dashboard.sensor_ticks import SensorTicks

LONGEST_SECONDS = 5.0
# Anybody may ask, so asking often must cost nothing.
KEPT_SECONDS = 1.0
# A look that is given up goes on in its thread, for as long as what it asks stays silent.
LOOKS_AT_ONCE = 4

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
        self._looks = threading.Semaphore(LOOKS_AT_ONCE)
        self._looked_at = -KEPT_SECONDS
        self._is_well = False

    async def show(self, _request: Request) -> Response:
        async with self._lock:
            if time.monotonic() - self._looked_at > KEPT_SECONDS:
                self._is_well = await self._look()
                self._looked_at = time.monotonic()
        if self._is_well:
            return PlainTextResponse("ok")
        return PlainTextResponse("unavailable", status_code=503)

    async def _look(self) -> bool:
        try:
            with anyio.fail_after(LONGEST_SECONDS):
                await to_thread.run_sync(self._ask, abandon_on_cancel=True)
        except TimeoutError:
            _LOG.warning("not well: no answer within %s s", LONGEST_SECONDS)
        except AWAY as error:
            _LOG.warning("not well: %s", error)
        except Exception as error:  # noqa: BLE001  Dagster's client raises errors of several kinds
            _LOG.warning("not well: %s: %s", type(error).__name__, error)
        else:
            return True
        return False

    def _ask(self) -> None:
        """Ask all that has to answer, in a thread that nobody may be waiting for any more."""
        if not self._looks.acquire(blocking=False):
            raise TimeoutError
        try:
            self._accounts.ping()
            self._ui.ping_code()
            self._ticks.require_recent()
        finally:
            self._looks.release()
