"""The compute process: its time limit also holds for a result, and what was raised is not taken for it."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from episodes_assets.worker.compute import ComputationDied, ComputationTooLong, ComputeProcess


class HangsAsAResult:
    """Such as a result that is too large for the memory that is left."""

    def __reduce__(self) -> tuple[Any, ...]:
        time.sleep(600)
        return int, ()


class DiesAsAResult:
    """The kernel kills a process where it needs most memory: that may be here."""

    def __reduce__(self) -> tuple[Any, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        return int, ()


def raise_a_time_out() -> None:
    raise TimeoutError("the lake does not answer")


def in_a_process(use: Callable[[ComputeProcess], Awaitable[None]]) -> None:
    async def with_process() -> None:
        process = ComputeProcess(1024)
        try:
            await asyncio.wait_for(use(process), 60)
        finally:
            process.kill()
            process.close()

    asyncio.run(with_process())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("result", "limit", "error"),
    [(HangsAsAResult, 0.2, ComputationTooLong), (DiesAsAResult, None, ComputationDied)],
)
def test_a_result_that_cannot_be_sent_ends_its_own_process_alone(
    result: Callable[[], object], limit: float | None, error: type[Exception]
) -> None:
    async def use(process: ComputeProcess) -> None:
        first = await process.run(None, os.getpid)
        with pytest.raises(error):
            await process.run(limit, result)
        assert process.incarnation == 1
        assert await process.run(None, os.getpid) != first

    in_a_process(use)


def test_a_time_out_that_the_computation_raises_is_not_the_limit() -> None:
    async def use(process: ComputeProcess) -> None:
        with pytest.raises(TimeoutError, match="the lake does not answer"):
            await process.run(60, raise_a_time_out)
        assert process.incarnation == 0

    in_a_process(use)
