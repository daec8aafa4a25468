"""What a worker does while its chunks go back to the queue through no fault of their jobs.

In an outage of the lake each try costs statements and a row in PgQueuer's log, and a worker whose chunks all
end so would run through the whole backlog again and again. So it pauses, ever longer (backoff), and tries one
chunk at a time. Where just some files are damaged, it goes on with other chunks. Starts that were counted are
taken back, by the next session if this one is lost; and while a batch computes, the session is kept from
looking idle.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import claims

# After an outage, which no job has caused, work continues soon.
LONGEST_PAUSE_SECONDS = 30.0
# A worker whose chunk had nothing that it can start claims none for so long, so that others take such chunks.
# No longer, since chunks that it can do may wait behind them.
REST_SECONDS = 0.5
# Below the time after which a proxy cuts an idle connection, which is seldom less than a minute.
IDLE_SECONDS = 15.0


class Pauses:
    """The pauses of one session between chunks that go back to the queue through no fault of their jobs.

    Args:
        first_seconds: The first one; each is twice the one before, up to `LONGEST_PAUSE_SECONDS`.
        over: Ends a pause at once.
    """

    def __init__(self, first_seconds: float, over: asyncio.Event) -> None:
        self._first_seconds = first_seconds
        self._over = over
        self._in_a_row = 0
        self._until = 0.0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the next chunk may be tried; after an outage, nothing else is tried during the block."""
        if not self._in_a_row:
            yield
            return
        async with self._turn:
            if self._in_a_row:
                await is_set_within(self._over, self._until - time.monotonic())
            yield

    def lengthen(self, longest_seconds: float = LONGEST_PAUSE_SECONDS) -> None:
        """Note that a chunk has gone back so: the next one waits for longer, up to a limit."""
        # Bounded, as a float would overflow.
        doubled = self._first_seconds * 2 ** min(self._in_a_row, 20)
        self._until = time.monotonic() + min(doubled, longest_seconds)
        self._in_a_row += 1

    def end(self) -> None:
        """Note that jobs could be started."""
        self._in_a_row = 0


async def is_lake_away(lake_url: str) -> bool:
    """Whether the lake cannot be read at all, and not just a file of some days."""
    try:
        newest = await asyncio.to_thread(Viewings(lake_url).newest)
    except Exception:  # noqa: BLE001  in whatever way
        return True
    return newest is None  # jobs are planned from what it has


class CountedStart(NamedTuple):
    """Jobs that were started together, and counted."""

    claim: claims.Claim
    jobs: Sequence[claims.ClaimedJob]


class StartsToUncount:
    """Starts that no job is to blame for, in all sessions of a worker."""

    def __init__(self) -> None:
        self._starts: list[CountedStart] = []

    async def add(self, start: CountedStart, ledger: claims.GuardedLedger) -> None:
        """Uncount a start; if the ledger is away, that is left to the next session."""
        self._starts.append(start)
        with suppress(*claims.INFRASTRUCTURE):
            await self.uncount(ledger)

    async def uncount(self, ledger: claims.GuardedLedger) -> None:
        """Uncount what is left: a session begins with that, before it takes a message.

        Raises:
            DatabaseUnreachable: If the ledger is silent.
            psycopg.Error: If it is away. What is left then is for the next session.
        """
        while self._starts:
            start = self._starts[0]
            await ledger.execute(claims.uncount_start(ledger.connection, *start))
            self._starts.remove(start)


@asynccontextmanager
async def connection_in_use(ledger: claims.GuardedLedger) -> AsyncIterator[None]:
    """Ask the ledger something every few seconds of the block: proxies cut connections that are idle."""
    ended = asyncio.Event()
    asking = asyncio.create_task(_ask_until(ended, ledger))
    try:
        yield
    finally:
        ended.set()
        await asking


async def _ask_until(ended: asyncio.Event, ledger: claims.GuardedLedger) -> None:
    while not await is_set_within(ended, IDLE_SECONDS):
        try:
            await ledger.ask()
        except claims.INFRASTRUCTURE:
            return  # writing the outcomes finds that out as well


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for so long at most; whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
