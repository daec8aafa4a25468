"""The metrics of the whole system for Prometheus: each source is read at most every few seconds, and apart.

However often it is scraped, a source is asked once in its seconds, by one thread, and no statement takes
longer than `STATEMENT_SECONDS`. A source that is away or slow has no values, and its `episodes_source_up` is
0; the others are shown all the same. No label is of unlimited variety, and none is a person or a secret.
Counting requests is `middleware.py`; the statements are in the packages of their schemas.
"""

import asyncio
import datetime as dt
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from episodes_assets.alerts.conditions import Kind, Severity
from episodes_assets.algorithms.registry import get_registry
from episodes_assets.days import ONE_DAY
from episodes_assets.defs.observed import read_instance_figures, stalled
from episodes_assets.lake.opening import OpenedLake
from episodes_assets.lake.tables import LakeTable
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import progress, workers
from episodes_assets.ledger.batches import read_batches_since
from episodes_assets.ledger.messages import read_message_figures
from episodes_assets.outbox.configuration import channels_of
from episodes_assets.outbox.records import read_clock, read_figures
from episodes_assets.postgres.connect import Connection, connect_to_read
from episodes_assets.postgres.databases import Database
from episodes_assets.results import publications, recompute
from episodes_assets.settings import Settings

STATEMENT_SECONDS = 5
# Below the ten seconds that Prometheus waits for a scrape by default.
LONGEST_WAIT_SECONDS = 7.0
DATABASE_SECONDS, LAKE_SECONDS = 5.0, 60.0
# What was written before a batch was read may be committed after it.
BATCH_OVERLAP = dt.timedelta(minutes=5)
LONGEST_LOOK_BACK = dt.timedelta(days=1)
_BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300)
_MOST_RELEASES, _MOST_NAMES, _LONGEST_LABEL = 10, 100, 64
_OTHER = "other"
_LOG = logging.getLogger(__name__)

Labels = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class Sources:
    """Where the metrics come from.

    Attributes:
        queue_dsn: The queue, orchestrator's role.
        results_dsn: The results, a role that reads what is published; None if there is none.
        lake: The lake; None if it is not to be looked at.
        instance: Dagster's.
        settings: Say what a stall is, and over which channels people are told of alerts.
    """

    queue_dsn: str
    results_dsn: str | None
    lake: OpenedLake | None
    instance: dg.DagsterInstance
    settings: Settings


class SystemCollector(Collector):
    """Collects from all sources.

    Args:
        sources: Where from.

    Raises:
        BadSetting: If a channel is not whole, or a URL cannot be used.
    """

    def __init__(self, sources: Sources) -> None:
        queue = _Queue(sources.queue_dsn, sources.settings)
        self._sources = [
            _Source("queue", DATABASE_SECONDS, queue.read),
            _Source("dagster", DATABASE_SECONDS, lambda: _read_instance(sources.instance)),
        ]
        results_dsn, lake = sources.results_dsn, sources.lake
        if results_dsn is not None:
            self._sources.append(_Source("results", DATABASE_SECONDS, lambda: _read_results(results_dsn)))
        if lake is not None:
            # Each keeps what it knows of the log, of which new entries alone are read then.
            tables = (lake.viewings(), *lake.drops().tables)
            self._sources.append(_Source("lake", LAKE_SECONDS, lambda: _read_lake(tables)))
        if results_dsn is not None and lake is not None:
            viewings = lake.viewings()
            self._sources.append(
                _Source("late_viewings", LAKE_SECONDS, lambda: _read_late_viewings(results_dsn, viewings))
            )

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering it reads no source."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        for source in self._sources:
            source.begin()
        found = {source.name: source.take(deadline) for source in self._sources}
        yield _gauge(
            "episodes_source_up",
            "Whether a source of these metrics answered in time; if not, its metrics are missing.",
            ["source"],
            {(name,): float(metrics is not None) for name, metrics in found.items()},
        )
        for metrics in found.values():
            yield from metrics or ()


class _Source:
    """One source with the values that were read last; it is read by one thread at a time."""

    def __init__(self, name: str, seconds: float, read: Callable[[], Sequence[Metric]]) -> None:
        self.name = name
        self._seconds = seconds
        self._read = read
        self._lock = threading.Lock()
        self._done: threading.Event | None = None  # of the reading that is under way or was the last
        self._began = 0.0
        self._metrics: Sequence[Metric] | None = None

    def begin(self) -> None:
        """Begin to read it, unless it is being read or was so lately."""
        with self._lock:
            if self._done is not None and not self._done.is_set():
                return
            if self._done is not None and time.monotonic() - self._began < self._seconds:
                return
            self._began = time.monotonic()
            self._done = done = threading.Event()
        # A daemon: one that hangs keeps the process from nothing.
        threading.Thread(target=self._work, args=[done], name=f"metrics {self.name}", daemon=True).start()

    def take(self, deadline: float) -> Sequence[Metric] | None:
        """The values of the last reading; None if it failed, or takes too long."""
        done = self._done
        if done is None or not done.wait(max(deadline - time.monotonic(), 0.0)):
            _LOG.warning("metrics: %s has not answered within %g s", self.name, LONGEST_WAIT_SECONDS)
            return None
        return self._metrics

    def _work(self, done: threading.Event) -> None:
        found: Sequence[Metric] | None = None
        try:
            found = self._read()
        except Exception as error:  # noqa: BLE001  drivers, Dagster and the lake raise errors of many kinds
            _LOG.warning("metrics: %s cannot be read: %s: %s", self.name, type(error).__name__, error)
        finally:
            self._metrics = found
            done.set()


def _connect(dsn: str, database: Database, use: Callable[[Connection], Sequence[Metric]]) -> Sequence[Metric]:
    with connect_to_read(dsn, database) as connection:
        connection.execute("SELECT set_config('statement_timeout', %s, false)", [f"{STATEMENT_SECONDS}s"])
        return use(connection)


class _Queue:
    """The queue's metrics; of batches it counts each once, from when this process began."""

    def __init__(self, dsn: str, settings: Settings) -> None:
        self._dsn = dsn
        self._settings = settings
        self._channels = [channel.name for channel in channels_of(settings)]
        self._began = time.monotonic()
        self._since: dt.datetime | None = None
        self._counted: set[tuple[int, int]] = set()
        self._seconds = Histogram(
            "episodes_batch_seconds",
            "Computing the jobs of an algorithm in a micro-batch, since this web server began.",
            ["algorithm"],
            buckets=_BATCH_BUCKETS,
            registry=None,
        )

    def read(self) -> Sequence[Metric]:
        """All of them."""
        messages = asyncio.run(read_message_figures(self._dsn))
        return [
            *_connect(self._dsn, Database.QUEUE, self._read),
            _gauge(
                "episodes_messages",
                "Messages by what PgQueuer does with them.",
                ["state"],
                {
                    ("waiting",): messages.waiting,
                    ("picked",): messages.picked,
                    ("held",): messages.held,
                },
            ),
            _gauge(
                "episodes_oldest_message_seconds",
                "How long the oldest message that waits has waited; 0 when none waits.",
                [],
                {(): messages.oldest_seconds or 0.0},
            ),
        ]

    def _read(self, queue: Connection) -> Sequence[Metric]:
        days = progress.read_progress(queue)
        releases = workers.count_by_release(queue)
        figures = read_figures(queue, self._channels)
        now = read_clock(queue)
        self._count_batches(queue, now)
        none: Labels = {(kind.value, Severity.ERROR.value): 0.0 for kind in Kind}
        jobs: Labels = {
            (state,): float(sum(getattr(day, state) for day in days))
            for state in ("waiting", "running", "succeeded", "held", "waived")
        }
        return [
            _gauge("episodes_backlog_jobs", "Jobs waiting or running.", [], {(): progress.backlog(queue)}),
            _gauge("episodes_jobs", "Jobs of the current plans of all days, by state.", ["state"], jobs),
            _gauge(
                "episodes_open_days",
                "Days with a plan whose jobs are not all done.",
                [],
                {(): sum(not day.is_done for day in days)},
            ),
            _gauge(
                "episodes_stalled_days",
                "Open days that make no progress.",
                [],
                {(): len(stalled(queue, self._settings, now))},
            ),
            _gauge(
                "episodes_workers_alive",
                "Workers that have lately said that they live.",
                [],
                {(): sum(releases.values())},
            ),
            _gauge("episodes_workers", "The same by their release.", ["release"], _by_release(releases)),
            _gauge("episodes_alerts_open", "Open alerts.", ["kind", "severity"], {**none, **figures.open}),
            _gauge(
                "episodes_alerts_undelivered",
                "Messages about alerts that a channel has not got yet.",
                ["channel"],
                {(channel,): count for channel, count in figures.undelivered.items()},
            ),
            _gauge(
                "episodes_alerts_undelivered_seconds",
                "How long the oldest of them has waited; 0 when none waits.",
                [],
                {(): figures.oldest_seconds or 0.0},
            ),
            _gauge(
                "episodes_alerts_evaluated_seconds",
                "How long ago each process has looked for alerts.",
                ["by"],
                {(name,): seconds for name, seconds in figures.evaluated_seconds.items()},
            ),
            *self._seconds.collect(),
        ]

    def _count_batches(self, queue: Connection, now: dt.datetime) -> None:
        if self._since is None:
            self._since = now - dt.timedelta(seconds=time.monotonic() - self._began)
            before = read_batches_since(queue, self._since - BATCH_OVERLAP)
            after = read_batches_since(queue, self._since)
            self._counted = {batch[:2] for batch in before} - {batch[:2] for batch in after}
        since = max(self._since - BATCH_OVERLAP, now - LONGEST_LOOK_BACK)
        names = {algorithm_id: each.name for algorithm_id, each in get_registry().by_id.items()}
        batches = read_batches_since(queue, since)
        for batch in batches:
            if batch[:2] not in self._counted:
                for algorithm_id, seconds in batch.seconds.items():
                    self._seconds.labels(names.get(algorithm_id, _OTHER)).observe(seconds)
        self._counted = {batch[:2] for batch in batches}
        self._since = now


def _by_release(releases: Mapping[str, int]) -> Labels:
    """Of many releases those with most workers; any worker may call itself as it likes."""
    counts: Counter[tuple[str, ...]] = Counter()
    for number, (release, count) in enumerate(releases.items()):
        counts[(release[:_LONGEST_LABEL] if number < _MOST_RELEASES else _OTHER,)] += count
    return counts


def _read_results(dsn: str) -> Sequence[Metric]:
    def read(results: Connection) -> Sequence[Metric]:
        newest = publications.newest_day(results)
        if newest is None:
            return []
        ended = dt.datetime.combine(newest + ONE_DAY, dt.time(), dt.UTC)
        return [
            _gauge(
                "episodes_last_published_day_age_seconds",
                "How long ago the newest published day ended.",
                [],
                {(): (dt.datetime.now(dt.UTC) - ended).total_seconds()},
            ),
            _gauge(
                "episodes_last_published_day_timestamp_seconds",
                "When the newest published day ended, in Unix time.",
                [],
                {(): ended.timestamp()},
            ),
        ]

    return _connect(dsn, Database.RESULTS, read)


def _read_instance(instance: dg.DagsterInstance) -> Sequence[Metric]:
    figures = read_instance_figures(instance, dt.datetime.now(dt.UTC))
    return [
        _gauge(
            "episodes_runs_in_progress",
            "Runs that have not ended, by status.",
            ["status"],
            {(status,): count for status, count in figures.in_progress.items()},
        ),
        _gauge(
            "episodes_runs_ended",
            "Runs that ended within the last 24 hours, by status.",
            ["status"],
            {(status,): count for status, count in figures.ended.items()},
        ),
        _gauge(
            "episodes_oldest_queued_run_seconds",
            "How long the run that is queued longest has waited; 0 when none is.",
            [],
            {(): figures.oldest_queued_seconds or 0.0},
        ),
        _gauge(
            "episodes_failed_ticks",
            "Ticks of a sensor or schedule that failed within the last hour.",
            ["name"],
            _named(figures.failed_ticks),
        ),
        _gauge(
            "episodes_daemon_heartbeat_age_seconds",
            "How long ago each of the daemon's threads has sent a heartbeat.",
            ["daemon"],
            _named(figures.heartbeats),
        ),
    ]


def _named(values: Mapping[str, float]) -> Labels:
    return {(name[:_LONGEST_LABEL],): value for name, value in sorted(values.items())[:_MOST_NAMES]}


def _read_lake(tables: Sequence[LakeTable]) -> Sequence[Metric]:
    newest = {table.name: table.newest() for table in tables}
    files = {name: list(version.files.values()) if version else [] for name, version in newest.items()}
    return [
        _gauge(
            "episodes_lake_bytes",
            "Size of a table's newest version.",
            ["table"],
            {(name,): sum(file.size for file in each) for name, each in files.items()},
        ),
        _gauge(
            "episodes_lake_rows",
            "Rows of a table's newest version.",
            ["table"],
            {(name,): sum(file.rows for file in each) for name, each in files.items()},
        ),
        _gauge(
            "episodes_lake_days",
            "Days in a table's newest version.",
            ["table"],
            {(name,): len(each) for name, each in files.items()},
        ),
    ]


def _read_late_viewings(results_dsn: str, viewings: Viewings) -> Sequence[Metric]:
    today = dt.datetime.now(dt.UTC).date()

    def read(results: Connection) -> Sequence[Metric]:
        outdated = recompute.read_outdated(results, viewings, today)
        return [
            _gauge(
                "episodes_late_viewings_days",
                "Published days of whose viewings some came later, and are not in what is published.",
                [],
                {(): len(outdated)},
            )
        ]

    return _connect(results_dsn, Database.RESULTS, read)


def _gauge(name: str, text: str, labels: Iterable[str], values: Labels) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for label_values, value in values.items():
        family.add_metric(list(label_values), float(value))
    return family
