"""Hands a day's planned jobs to the workers: a message for each chunk, in the ledger's transaction.

Level-triggered and idempotent: it looks at what is missing and adds that, so doing it twice, or after a
crash, or after a message was lost, ends in the same place. How PgQueuer treats messages afterwards is
`messages`.
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from episodes_assets.ledger.plans import lock_plan
from episodes_assets.postgres.connect import Connection

ENTRYPOINT = "episode_jobs"


@dataclass(frozen=True)
class ChunkMessage:
    """Names a chunk of jobs in the ledger."""

    plan_id: int
    chunk: int

    def encode(self) -> bytes:
        """As a message's payload."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "ChunkMessage":
        """From a message's payload."""
        return cls(**json.loads(payload))


@dataclass(frozen=True)
class FanOut:
    """The result of dispatching a day."""

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
    """The chunks that have open jobs and no live message, each with its priority."""
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
    from pgqueuer.db import SyncPsycopgDriver
    from pgqueuer.queries import SyncQueries

    if not chunks:
        return
    # Messages that were held for their jobs are replaced by the new ones.
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
