"""What PgQueuer itself says of its messages, by the service that its own dashboard shows."""

from collections import Counter
from dataclasses import dataclass

import psycopg
from pgqueuer.core.insights import InsightsService
from pgqueuer.queries import Queries

from episodes_assets.postgres.connect import CONNECT_TIMEOUT_SECONDS, unreachable
from episodes_assets.postgres.session import READ_ONLY, SessionKind, pin_async


@dataclass(frozen=True)
class MessageFigures:
    """Messages by what PgQueuer does with them.

    Attributes:
        waiting: That no worker has picked.
        picked: That a worker has.
        held: Whose chunks came to an end with held jobs.
        oldest_seconds: How long the oldest of the waiting ones has waited; None when none waits.
    """

    waiting: int
    picked: int
    held: int
    oldest_seconds: float | None


async def read_message_figures(queue_dsn: str) -> MessageFigures:
    """How many messages there are, and how long the oldest has waited.

    Raises:
        DatabaseUnreachable: If the queue cannot be reached.
        SystemFailure: If it cannot answer for another reason.
    """
    try:
        async with await psycopg.AsyncConnection.connect(
            queue_dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS, application_name="episodes"
        ) as connection:
            await pin_async(connection, SessionKind.PGQUEUER, READ_ONLY)
            # Not its `overview`, which folds finished messages into statistics, and so writes.
            insights = InsightsService(Queries.from_psycopg_connection(connection))
            sizes, ages = await insights.queue_size(), await insights.queue_age()
    except psycopg.Error as error:
        raise unreachable(queue_dsn, error) from error
    counts: Counter[str] = Counter()
    for size in sizes:
        counts[size.status] += size.count
    return MessageFigures(
        waiting=counts["queued"],
        picked=counts["picked"],
        held=counts["failed"],
        oldest_seconds=max((age.oldest_age_seconds for age in ages), default=None),
    )
