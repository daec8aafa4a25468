"""A worker finds out in its compute process which algorithms can be imported, and no more than it has to."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from episodes_assets.worker import compute
from episodes_assets.worker.compute import AlgorithmImports, ComputationDied, ComputationTooLong


class Process:
    """Stands in for the compute process: each import ends as it is told, then well."""

    def __init__(self, **ends: list[Exception]) -> None:
        self.incarnation = 0
        self.asked: list[int] = []
        self._ends = ends

    async def run(self, _limit: float, _function: Callable[..., None], algorithm_id: int) -> None:
        self.asked.append(algorithm_id)
        ends = self._ends.get(f"of_{algorithm_id}", [])
        if ends:
            error = ends.pop(0)
            self.incarnation += isinstance(error, ComputationDied | ComputationTooLong)
            raise error


def failures(imports: AlgorithmImports, *algorithm_ids: int) -> dict[int, str]:
    return {each: found.error for each, found in asyncio.run(imports.failures(algorithm_ids)).items()}


def test_a_process_that_was_killed_once_is_no_fault_of_the_module() -> None:
    process: Any = Process(of_1=[ComputationDied()])
    imports = AlgorithmImports(process, 5)
    assert failures(imports, 0, 1) == {}
    # The other one was imported by the process that died.
    assert process.asked == [0, 1, 1, 0]
    assert failures(imports, 0, 1) == {}
    assert process.asked == [0, 1, 1, 0]
    process.incarnation += 1
    assert failures(imports, 1) == {}
    assert process.asked == [0, 1, 1, 0, 1]


def test_a_module_that_ends_the_process_or_hangs_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process: Any = Process(
        of_0=[ComputationDied()] * 2, of_1=[ComputationTooLong("took longer than 5 seconds")]
    )
    imports = AlgorithmImports(process, 5)
    expected = {
        0: "AlgorithmUnavailable: reach does not import (it ends the process)",
        1: "AlgorithmUnavailable: momentum does not import (took longer than 5 seconds)",
    }
    assert failures(imports, 0, 1, 2) == expected
    assert process.asked == [0, 0, 1, 2]
    assert failures(imports, 0, 1) == expected
    assert process.asked == [0, 0, 1, 2]
    monkeypatch.setattr(compute, "REMEMBERED_SECONDS", 0.0)
    assert failures(imports, 0, 1) == {}
