"""Takes profiles that the queue database requests: of the next micro-batches, or of what runs now.

The second is for a micro-batch that hangs. The compute process is profiled, and never the worker itself,
whose event loop would only wait. No failure of a profile touches a job: what goes wrong is stored in its
place, or else logged. The statements are `ledger/profiles.py`, the engines `profiling/engines.py`.
"""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from episodes_assets.errors import EpisodesError
from episodes_assets.failures import name_defect, shorten
from episodes_assets.ledger import profiles
from episodes_assets.ledger.claims import GuardedLedger
from episodes_assets.ledger.profiles import Claim, Kind, Seen
from episodes_assets.profiling.engines import Recording
from episodes_assets.worker.compute import ComputeProcess

log = logging.getLogger(__name__)
# How often the queue is asked before a micro-batch whether a profile of it is wanted.
LOOK_SECONDS = 0.5
_LONGEST_PROBLEM = 500
_REPLACED_SECONDS = 20.0
_POLL_SECONDS = 0.2
_COMPUTING = "episodes_assets/worker/compute.py"
_COMPUTING_THREAD = "concurrent/futures/process.py"


class Profiler:
    """Takes the profiles of one worker.

    Args:
        worker: The worker's name.
        process: Its compute process.
    """

    def __init__(self, worker: str, process: ComputeProcess) -> None:
        self._worker = worker
        self._process = process
        self._look_at = 0.0
        self._attached: tuple[Claim, asyncio.Task[Seen]] | None = None

    @asynccontextmanager
    async def batch(self, ledger: GuardedLedger, day: dt.date) -> AsyncIterator[None]:
        """Profile the micro-batch that the block computes, if that is wanted, and store what was seen."""
        claim = None
        if time.monotonic() >= self._look_at:
            claim = await self._claim(ledger, Kind.BATCH, day)
            if claim is None:
                self._look_at = time.monotonic() + LOOK_SECONDS
        if claim is None:
            yield
            return
        recording = await self._begin(claim)
        try:
            yield
        finally:
            await self._store(ledger, claim, await _end(recording))

    async def look(self, ledger: GuardedLedger) -> None:
        """Begin a profile of whatever is computed, if one is wanted, and store it when it is finished.

        To be called every few seconds, on a connection that does not wait for what is computed.
        """
        if self._attached is not None:
            claim, task = self._attached
            if task.done():
                self._attached = None
                await self._store(ledger, claim, task.result())
        elif (wanted := await self._claim(ledger, Kind.WORKER, None)) is not None:
            self._attached = wanted, asyncio.create_task(self._attach(wanted))

    def close(self) -> None:
        """Give up what is not finished."""
        if self._attached is not None:
            self._attached[1].cancel()

    async def _attach(self, claim: Claim) -> Seen:
        with suppress(TimeoutError):
            async with asyncio.timeout(_REPLACED_SECONDS):
                while self._process.pid is None:  # it is just being replaced
                    await asyncio.sleep(_POLL_SECONDS)
        recording = await self._begin(claim)
        try:
            if not isinstance(recording, Exception):
                await asyncio.sleep(claim.sampling.seconds)
        except asyncio.CancelledError:
            await _end(recording)
            raise
        return await _end(recording, is_all=True)

    async def _begin(self, claim: Claim) -> Recording | Exception:
        try:
            return await asyncio.to_thread(self._process.record, claim.sampling, log.info)
        except Exception as error:  # noqa: BLE001  whatever it is, no job is to fail for it
            return error

    async def _claim(self, ledger: GuardedLedger, kind: Kind, day: dt.date | None) -> Claim | None:
        # What is wrong with the queue is noticed by the next statement of the work.
        with suppress(Exception):
            return await ledger.execute(profiles.claim_profile(ledger.connection, kind, self._worker, day))
        return None

    async def _store(self, ledger: GuardedLedger, claim: Claim, seen: Seen) -> None:
        try:
            await ledger.execute(profiles.store_as_worker(ledger.connection, claim, seen))
        except Exception as error:  # noqa: BLE001
            log.warning("profile %d is not stored (%s)", claim.profile_id, _describe(error))
        else:
            log.info("profile %d: %s", claim.profile_id, seen.problem or f"{seen.samples:,} samples")


async def _end(recording: Recording | Exception, *, is_all: bool = False) -> Seen:
    """What came of a profile.

    Args:
        recording: The profile, or why there is none.
        is_all: Whether it is also told how long the computing thread has waited, and for what.
    """
    if isinstance(recording, Exception):
        return Seen(problem=_describe(recording))
    try:
        profile = await asyncio.to_thread(recording.stop)
        profile = profile.without_waiting(_COMPUTING_THREAD if is_all else None).within(_COMPUTING)
        packed = await asyncio.to_thread(profile.pack)
    except Exception as error:  # noqa: BLE001
        return Seen(recording.engine, problem=_describe(error))
    return Seen(recording.engine, packed, profile.samples)


def _describe(error: Exception) -> str:
    return shorten(str(error) if isinstance(error, EpisodesError) else name_defect(error), _LONGEST_PROBLEM)
