"""The web server's watch of Dagster's daemon: it alerts people by itself when the daemon is silent.

The sensor `alert_people`, which looks for all other alerts, is evaluated by the daemon and falls silent with
it. So the web server looks every few seconds whether the daemon sends heartbeats and evaluates sensors, and
whether that sensor has looked lately. Nobody here watches the web server: while all is watched, it pings a
dead man's switch once a minute, an external monitor that alerts when pings stop. Of several web servers one
watches, until it ends: what another one cannot tell, or tells otherwise, ends no alert. Delivery is in
`outbox/`.
"""

import datetime as dt
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass

import dagster as dg
import psycopg
from dagster._core.workspace.context import WorkspaceProcessContext

from episodes_assets.alerts.conditions import Observed, assess
from episodes_assets.dashboard.health import DaemonSilent, SensorTicks
from episodes_assets.defs.draining import read_drains
from episodes_assets.defs.observed import heartbeat_ages
from episodes_assets.errors import AlertNotDelivered, EpisodesError
from episodes_assets.outbox.channels import Channel, ping
from episodes_assets.outbox.configuration import channels_of, dead_man_url
from episodes_assets.outbox.delivery import OF_THE_WATCH, Budget, alert_people
from episodes_assets.outbox.records import (
    Evaluator,
    give_watch_up,
    name_session,
    read_evaluations,
    take_watch,
)
from episodes_assets.postgres.connect import Connection, connect_to_write
from episodes_assets.postgres.databases import Database
from episodes_assets.settings import Settings

LOOK_SECONDS = 5.0
# One thread of the daemon may be kept by a slow tick, of which Dagster gives up after a minute.
THREAD_SILENT_SECONDS = 300.0
# The sensor looks every half minute.
NOT_EVALUATED_SECONDS = 600.0
# More than a look takes in which receivers and the dead man's switch are slow, a minute and a half. Who was
# killed is succeeded at the next look of another one, as its session has ended; this is for one that hangs,
# or whose machine went away.
WATCH_LEASE = dt.timedelta(minutes=3)
PING_SECONDS, PING_TIMEOUT = 60.0, 10.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchSettings:
    """How it is watched.

    Attributes:
        queue_dsn: The queue, orchestrator's role, where alerts are on record.
        environment: Of this process; a queue of another one is not written to.
        channels: Where people are told.
        dead_man_url: What is asked while all is watched; None for nothing.
        remind_after: How long after the last message people are told again.
        daemon_silent_seconds: Without a heartbeat of any of its threads for so long, a daemon counts as dead.
        budget: How long a pass over the outbox may take.
        look_seconds: How often it is looked.
    """

    queue_dsn: str
    environment: str
    channels: Sequence[Channel]
    dead_man_url: str | None
    remind_after: dt.timedelta
    daemon_silent_seconds: float
    budget: Budget = OF_THE_WATCH
    look_seconds: float = LOOK_SECONDS

    @classmethod
    def of(cls, settings: Settings, queue_dsn: str) -> "WatchSettings":
        """As the settings say.

        Raises:
            BadSetting: If a channel is not whole, or a URL cannot be used.
        """
        return cls(
            queue_dsn=queue_dsn,
            environment=settings.environment,
            channels=channels_of(settings),
            dead_man_url=dead_man_url(settings),
            remind_after=dt.timedelta(hours=settings.alert_reminder_hours),
            daemon_silent_seconds=settings.daemon_silent_seconds,
        )


class DaemonWatch:
    """Looks at the daemon and tells people.

    Args:
        workspace: Whose daemon and sensors. A daemon that was silent before this process began is given as
            long as one that falls silent now.
        settings: How.
    """

    def __init__(self, workspace: WorkspaceProcessContext, settings: WatchSettings) -> None:
        self._instance = workspace.instance
        self._ticks = SensorTicks(workspace)
        self._settings = settings
        self._began = time.time()
        self._pinged: float | None = None
        self._holder = uuid.uuid4().hex
        self._is_watching = False
        self._presence: Connection | None = None
        self._keeping = ExitStack()
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch in a thread while the block lasts."""
        thread = threading.Thread(target=self._run, name="daemon watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            # It may wait for an answer of a mail server; the process does not.
            thread.join(1.0)

    def _run(self) -> None:
        last = ""
        while not self._stopping.wait(self._settings.look_seconds):
            problem = ""
            try:
                self.look()
            except EpisodesError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001
                # Whatever it is, the watch goes on, and the dead man's switch is not pinged.
                problem = f"{type(error).__name__}: {error}"
                if problem != last:
                    _LOG.exception("the daemon cannot be watched")
            if problem and problem != last:
                _LOG.warning("the daemon cannot be watched: %s", problem)
            last = problem
        with suppress(Exception):  # it ends with the process
            self._give_up()

    def _give_up(self) -> None:
        """Let another web server watch at once."""
        with self._keeping:
            if self._is_watching:
                with self._connect() as queue:
                    give_watch_up(queue, self._holder)
        self._presence = None

    def _show_presence(self) -> None:
        """Have a session open by whose end others see that this process has ended."""
        if self._presence is not None:
            with suppress(psycopg.Error):
                self._presence.execute("SELECT 1")
                return
            with suppress(EpisodesError, psycopg.Error):  # of the session that is lost
                self._keeping.close()
        self._presence = self._keeping.enter_context(self._connect())
        name_session(self._presence, self._holder)

    def _connect(self) -> AbstractContextManager[Connection]:
        return connect_to_write(
            self._settings.queue_dsn, Database.QUEUE, self._settings.environment, autocommit=True
        )

    def look(self) -> None:
        """Look once, record which alerts are open, send what is due, and ping the dead man's switch.

        Nothing of this happens while another web server watches.

        Raises:
            EpisodesError: If the queue, where alerts are on record, cannot be used.
        """
        settings = self._settings
        self._show_presence()
        with self._connect() as queue:
            self._is_watching = take_watch(queue, self._holder, WATCH_LEASE)
            if not self._is_watching:
                return
            daemon_silent, dagster_away = self._look_at_daemon()
            not_evaluated = self._look_at_sensor(queue) if daemon_silent == "" else None
            drained = self._name_drains() if not_evaluated else []
            observed = Observed(
                daemon_silent=daemon_silent,
                dagster_away=dagster_away,
                not_evaluated=not_evaluated,
                drained=drained,
            )
            alert_people(
                queue,
                assess(observed),
                settings.channels,
                remind_after=settings.remind_after,
                evaluator=Evaluator.WEB_SERVER,
                budget=settings.budget,
            )
        # The monitor is told that all is well only if that is known: None is unknown. What is not evaluated
        # because somebody drains a code location is intended.
        if (daemon_silent, dagster_away) == ("", "") and (not_evaluated == "" or drained):
            self._ping()

    def _name_drains(self) -> list[str]:
        """The code locations that are drained."""
        try:
            drains = read_drains(self._instance)
        except Exception:  # noqa: BLE001  Dagster's storage raises errors of several kinds
            return []  # it has just been read, and is again in a few seconds
        return [
            f"the code location {location} is drained since {drain.since}"
            for location, drain in sorted(drains.items())
        ]

    def _look_at_daemon(self) -> tuple[str | None, str]:
        """Why the daemon is taken for dead, and why that cannot be told; empty if neither is so."""
        try:
            return self._why_silent(self._instance), ""
        except DaemonSilent as silent:
            return silent.what, ""
        except Exception as error:  # noqa: BLE001  Dagster's storage raises errors of several kinds
            return None, " ".join(f"{type(error).__name__}: {error}".split())

    def _why_silent(self, instance: dg.DagsterInstance) -> str | None:
        """The same; None while this process is younger than the silence that would tell."""
        ages = heartbeat_ages(instance, dt.datetime.now(dt.UTC))
        if not ages:
            return ""  # no daemon has ever reported to this database: none is expected
        # One that is started together with this process has time for its first heartbeat.
        running = time.time() - self._began
        newest, longest = min(ages.values()), self._settings.daemon_silent_seconds
        if newest > longest:
            return f"it has sent no heartbeat for {newest:.0f} s" if running > longest else None
        hanging = sorted(name for name, age in ages.items() if age > THREAD_SILENT_SECONDS)
        if hanging and running > THREAD_SILENT_SECONDS:
            return (
                f"its threads {', '.join(hanging)} have sent no heartbeat for {THREAD_SILENT_SECONDS:.0f} s"
            )
        is_known = self._ticks.require_recent() and not hanging
        return "" if is_known else None

    def _look_at_sensor(self, queue: Connection) -> str | None:
        """For how long nobody but this process has looked for alerts, while the daemon is not silent."""
        ago = read_evaluations(queue).get(Evaluator.SENSOR)
        if ago is not None and ago <= NOT_EVALUATED_SECONDS:
            return ""
        if ago is None and not self._is_daemon_expected():
            return ""
        running = time.time() - self._began
        if running <= NOT_EVALUATED_SECONDS:
            return None
        return (
            f"for {ago:.0f} s"
            if ago is not None
            else f"not once, and this web server began {running:.0f} s ago"
        )

    def _is_daemon_expected(self) -> bool:
        """Whether one has ever reported to this database; what cannot be told counts as that."""
        try:
            return bool(heartbeat_ages(self._instance, dt.datetime.now(dt.UTC)))
        except Exception:  # noqa: BLE001  Dagster's storage raises errors of several kinds
            return True

    def _ping(self) -> None:
        url, now = self._settings.dead_man_url, time.monotonic()
        if url is None or (self._pinged is not None and now - self._pinged < PING_SECONDS):
            return
        try:
            ping(url, PING_TIMEOUT)
        except AlertNotDelivered as error:
            _LOG.warning("the dead man's switch was not reached: %s", error)
            self._pinged = now - PING_SECONDS / 2  # sooner again, but not at each look
        else:
            self._pinged = now
