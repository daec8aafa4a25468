"""`episodes demo` from nothing (cold) and with everything there (warm)."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conftest import Measure
from benchmarks.sizes import Sizes
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets_tests.support.system import throwaway


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return throwaway(tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_demo(measure: Measure, sizes: Sizes, home: Path, state: str) -> None:
    if sizes.quick:
        pytest.skip("the tests run it")

    def timed() -> dict[str, Any]:
        environment = {**os.environ, "EPISODES_HOME": str(home), "DAGSTER_HOME": ""}
        subprocess.run(episodes_argv("demo"), env=environment, check=True, capture_output=True)
        return {}

    measure("demo", f"episodes demo, {state}", timed, rounds=1, warm=False)
