"""How long the code location takes to load, beyond Dagster itself."""

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.conftest import Measure

MODULES = ("dagster", "episodes_assets.definitions")


@pytest.mark.parametrize("module", MODULES)
def test_imports(measure: Measure, module: str) -> None:
    code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"

    def timed() -> dict[str, Any]:
        return {"seconds": float(subprocess.check_output([sys.executable, "-c", code], text=True))}

    measure("imports", f"import {module}", timed)
