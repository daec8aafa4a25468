"""What viewings take in the lake: bytes each, and seconds until a day's are committed there."""

import time
from typing import Any

from benchmarks import inputs
from benchmarks.conftest import Measure, forget_viewings
from benchmarks.sizes import Sizes
from episodes_assets_tests.support.system import System


def test_a_day_of_viewings(measure: Measure, full_day: System, sizes: Sizes) -> None:
    def timed() -> dict[str, Any]:
        began = time.perf_counter()
        full_day.take_viewings(inputs.DAY, inputs.DAY)
        seconds = time.perf_counter() - began
        newest = full_day.viewings.newest()
        assert newest is not None
        files = newest.files.values()
        return {
            "seconds": seconds,
            "taken": newest.files[inputs.DAY].rows,
            "days": len(files),
            "viewings": sum(file.rows for file in files),
            "bytes": sum(file.size for file in files),
        }

    measure(
        "the lake",
        "a day's viewings taken",
        timed,
        before=lambda: forget_viewings(full_day, inputs.DAY),
    )
