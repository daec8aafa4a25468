"""Hand a day's planned jobs to the fleet: a message for each chunk, in the ledger's transaction.

Level-triggered: it looks at what is missing and adds that, so doing it twice, or after a crash, or
after a message was lost, ends in the same place.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pgqueuer.db import SyncPsycopgDriver
from pgqueuer.queries import SyncQueries

from episodes_assets.fleet.messages import ENTRYPOINT, ChunkMessage
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.ledger import lock_plan


@dataclass(frozen=True)
class FanOut:
    """What handing out a day did."""

    day: dt.date
    plan_id: int
    jobs: int
    messages: int


def fan_out_day(connection: Connection, day: dt.date) -> FanOut:
    """Enqueue a message for each chunk that has open jobs and no live message.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.

    Returns:
        The plan and how many messages were enqueued; none when all were there.

    Raises:
        DayNotPlanned: If the day has no plan.
    """
    with connection.transaction():
        plan = lock_plan(connection, day)
        chunks = _chunks_without_message(connection, plan.plan_id)
        _enqueue(connection, plan.plan_id, chunks)
        connection.execute(
            "UPDATE ledger.plans SET fanned_out_at = now() WHERE plan_id = %s AND fanned_out_at IS NULL",
            [plan.plan_id],
        )
    return FanOut(day=day, plan_id=plan.plan_id, jobs=plan.jobs, messages=len(chunks))


def _chunks_without_message(connection: Connection, plan_id: int) -> list[tuple[int, int]]:
    """Each such chunk with its priority."""
    return connection.execute(
        """
        SELECT chunk, priority FROM ledger.chunks
        LEFT JOIN LATERAL (
            SELECT id FROM pgqueuer WHERE id = message_id AND status IN ('queued', 'picked') OFFSET 0
        ) AS live ON true
        WHERE plan_id = %s AND succeeded < jobs AND succeeded + held < jobs AND id IS NULL
        ORDER BY chunk
        """,
        [plan_id],
    ).fetchall()


def _enqueue(connection: Connection, plan_id: int, chunks: Sequence[tuple[int, int]]) -> None:
    """Enqueue a message for each of a plan's chunks and remember it; call it in a transaction."""
    if not chunks:
        return
    # What was held for its jobs is done with once they are sent anew.
    connection.execute(
        """
        DELETE FROM pgqueuer WHERE id = ANY (ARRAY(
            SELECT message_id FROM ledger.chunks WHERE plan_id = %s AND chunk = ANY (%s::integer[])
        )) AND status NOT IN ('queued', 'picked')
        """,
        [plan_id, [chunk for chunk, _ in chunks]],
    )
    payloads = [ChunkMessage(plan_id, chunk).encode() for chunk, _ in chunks]
    ids = SyncQueries(SyncPsycopgDriver(connection)).enqueue(
        [ENTRYPOINT] * len(chunks), [*payloads], [priority for _, priority in chunks]
    )
    connection.execute(
        """
        UPDATE ledger.chunks SET message_id = sent.message_id
        FROM unnest(%s::integer[], %s::bigint[]) AS sent (chunk, message_id)
        WHERE chunks.plan_id = %s AND chunks.chunk = sent.chunk
        """,
        [[chunk for chunk, _ in chunks], [int(message_id) for message_id in ids], plan_id],
    )
