"""What all parts of the dashboard share while it runs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from episodes_assets.accounts import audit
from episodes_assets.accounts.identity import Identity
from episodes_assets.accounts.pool import AWAY, AccountsAccess
from episodes_assets.dashboard.configuration import Configuration
from episodes_assets.dashboard.metrics import Metrics

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """The running dashboard.

    Attributes:
        configuration: How it is served.
        accounts: Users, sessions, tokens, the audit log.
        metrics: What is counted.
        queue_dsn: The queue, orchestrator's role.
    """

    configuration: Configuration
    accounts: AccountsAccess
    metrics: Metrics
    queue_dsn: str

    async def record(
        self,
        connection: HTTPConnection,
        what: str,
        outcome: str,
        *,
        who: Identity | None = None,
        name: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        """Write to the audit log; where that is away, to this process's own log.

        Args:
            connection: The request it is about.
            what: What was done or tried.
            outcome: What came of it.
            who: Who did, once proven.
            name: Who they said they were, where that is not proven.
            detail: Whatever helps to understand it.
        """
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
            psycopg.OperationalError: If the accounts' database is away.
            EpisodesError: If it is not ours to use.
        """
        await self.accounts.run(
            audit.record,
            who=who.name if who else audit.unproven(name),
            way=who.way if who else None,
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
    """Where a request comes from; behind a trusted proxy, from where that says."""
    return connection.client.host if connection.client else ""


def cut(value: object, longest: int) -> object:
    """A value for the audit log, or the beginning of one whose text is longer than that."""
    text = str(value)
    return value if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
