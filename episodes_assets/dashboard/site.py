"""What the dashboard's parts share while it runs: the accounts, the audit log, counters of requests.

`Site.record` writes to the audit log, and to this process's own log while that database is away. What was
refused has a rate limit there (`Refusals`), so that nobody who changes nothing fills the log. What the entry
of a request says is `auth/audit.py`; the metrics of the system are `metrics`; how the dashboard is configured
is `configuration`.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import HTTPConnection

from episodes_assets.accounts import audit
from episodes_assets.accounts.identity import Identity
from episodes_assets.accounts.pool import AWAY, AccountsAccess
from episodes_assets.dashboard.configuration import Configuration

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one application. No label is ever taken from what a client sent.

    Args:
        system: Collects the metrics of the system.
    """

    def __init__(self, system: Collector) -> None:
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
        self.registry.register(system)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)


_LOG = logging.getLogger(__name__)
# Nothing in the audit log is ever deleted.
RECORDED_REFUSALS = 20
REFUSALS_SECONDS = 60.0


@dataclass
class _Minute:
    """What was refused to one identity within a minute.

    Attributes:
        began: When, by the monotonic clock.
        connection: The last request that was refused.
        who: The identity; None for all who have proven none.
        count: How many requests were refused.
    """

    began: float
    connection: HTTPConnection
    who: Identity | None
    count: int = 0

    @property
    def left_out(self) -> int:
        """How many of them are not on record."""
        return max(0, self.count - RECORDED_REFUSALS)


class Refusals:
    """Rate limit of refusals in the audit log: the first of each identity's minute are recorded one by one.

    Those who have proven no identity share one limit.
    """

    def __init__(self) -> None:
        self._minutes: dict[str, _Minute] = {}
        self._timers: set[asyncio.Task[None]] = set()

    def add(self, who: Identity | None, connection: HTTPConnection) -> int:
        """Count one.

        Returns:
            How many of its minute are not on record by now: 0 if it is to be recorded.
        """
        minute = self._minutes.setdefault(_key(who), _Minute(time.monotonic(), connection, who))
        minute.connection = connection
        minute.count += 1
        return minute.left_out

    def take_ended(self) -> list[_Minute]:
        """Forget the minutes that are over; returns those of which something is not on record."""
        now = time.monotonic()
        ended = [key for key, each in self._minutes.items() if now - each.began >= REFUSALS_SECONDS]
        return [each for each in map(self._minutes.pop, ended) if each.left_out]

    def keep(self, timer: asyncio.Task[None]) -> None:
        """Hold a task until it is done: the event loop does not."""
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    def forget(self) -> None:
        """Begin anew."""
        self._minutes.clear()


def _key(who: Identity | None) -> str:
    return "" if who is None else who.recorded_name


@dataclass(frozen=True)
class Site:
    """The running dashboard.

    Attributes:
        configuration: How it is served.
        accounts: Users, sessions, tokens, the audit log.
        metrics: What is counted.
        queue_dsn: The queue, orchestrator's role.
        refusals: How many of them are in the audit log.
    """

    configuration: Configuration
    accounts: AccountsAccess
    metrics: Metrics
    queue_dsn: str
    refusals: Refusals = field(default_factory=Refusals)

    async def _is_within_limit(self, who: Identity | None, connection: HTTPConnection) -> bool:
        await self._record_left_out()
        left_out = self.refusals.add(who, connection)
        if left_out == 1:
            # By then it may be that nobody is refused anything any more.
            self.refusals.keep(asyncio.get_running_loop().create_task(self._record_left_out_later()))
        return left_out == 0

    async def _record_left_out_later(self) -> None:
        await asyncio.sleep(REFUSALS_SECONDS)
        await self._record_left_out()

    async def _record_left_out(self) -> None:
        for minute in self.refusals.take_ended():
            await self.record(
                minute.connection, "request refused", f"{minute.left_out:,} more refused", who=minute.who
            )

    async def record(
        self,
        connection: HTTPConnection,
        what: str,
        outcome: str,
        *,
        who: Identity | None = None,
        name: str = "",
        detail: Mapping[str, object] | None = None,
        is_refusal: bool = False,
    ) -> None:
        """Write to the audit log; if its database does not answer, to this process's own log.

        Args:
            connection: The request it is about.
            what: What was done or tried.
            outcome: What came of it.
            who: The authenticated identity, if there is one.
            name: The name that was claimed, if it is not proven.
            detail: Whatever helps to understand it.
            is_refusal: Whether it was refused, and so has changed nothing. At most 20 of one identity's are
                recorded within a minute; how many more there were is recorded when the minute is over.
        """
        if is_refusal and not await self._is_within_limit(who, connection):
            return
        try:
            await self.record_or_fail(connection, what, outcome, who=who, name=name, detail=detail)
        except AWAY:
            _LOG.exception("not in the audit log: %s by %s: %s %s", what, who or name, outcome, detail or {})

    async def record_or_fail(
        self,
        connection: HTTPConnection,
        what: str,
        outcome: str,
        *,
        who: Identity | None = None,
        name: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        """Like `record`, for what must not be done unless it is in the audit log.

        Raises:
            psycopg.OperationalError: If the accounts' database does not answer.
            EpisodesError: If it belongs to another environment or release.
        """
        await self.accounts.run(
            audit.record,
            who=who.name if who else audit.unproven(name),
            method=who.method if who else None,
            what=what,
            detail=dict(detail or {}),
            address=address_of(connection),
            outcome=outcome,
        )


def site_of(connection: HTTPConnection) -> Site:
    """The dashboard that serves a request."""
    found = connection.app.state.site
    assert isinstance(found, Site)  # noqa: S101  set when the application is built
    return found


def address_of(connection: HTTPConnection) -> str:
    """The client's address; behind a trusted proxy, the one that the proxy has sent."""
    return connection.client.host if connection.client else ""
