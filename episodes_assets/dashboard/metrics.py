"""What the dashboard counts, for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from episodes_assets.errors import EpisodesError
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database
from episodes_assets.stores import ledger, workers

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BACKLOG = ("episodes_backlog_jobs", "Jobs waiting or running.")
_WORKERS = ("episodes_workers_alive", "Workers that have lately said that they live.")


class Metrics:
    """The counters of one application. No label is ever taken from what a client sent."""

    def __init__(self, queue_dsn: str) -> None:
        self.registry = CollectorRegistry()
        self.logins = Counter(
            "episodes_logins", "Attempts to sign in.", ["way", "outcome"], registry=self.registry
        )
        self.requests = Counter(
            "episodes_requests", "Requests answered.", ["role", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "episodes_request_seconds",
            "From a request's first byte to its answer's last.",
            ["role"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.operations = Counter(
            "episodes_graphql_operations", "GraphQL let through.", ["role", "kind"], registry=self.registry
        )
        self.refused = Counter(
            "episodes_requests_refused", "Requests refused.", ["reason"], registry=self.registry
        )
        self.registry.register(_Fleet(queue_dsn))

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)


class _Fleet(Collector):
    """What the queue says of the fleet, looked up when asked; absent while the queue is away."""

    def __init__(self, queue_dsn: str) -> None:
        self._dsn = queue_dsn

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """What there may be, so that registering it looks nothing up."""
        yield GaugeMetricFamily(*_BACKLOG)
        yield GaugeMetricFamily(*_WORKERS)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called at each scrape."""
        try:
            with connect_to_read(self._dsn, Database.QUEUE) as connection:
                jobs, alive = ledger.backlog(connection), workers.count_alive(connection)
        except EpisodesError:
            return
        yield GaugeMetricFamily(*_BACKLOG, value=jobs)
        yield GaugeMetricFamily(*_WORKERS, value=alive)
