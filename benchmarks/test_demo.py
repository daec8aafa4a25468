"""`episodes demo` from nothing (cold) and with everything there (warm); how long other commands take then."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conftest import Measure
from benchmarks.sizes import Sizes
from episodes_assets.cli.supervisor import episodes_argv
from episodes_assets.postgres import embedded
from episodes_assets_tests.support.system import throwaway


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return throwaway(tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_demo(measure: Measure, sizes: Sizes, home: Path, state: str) -> None:
    if sizes.quick:
        pytest.skip("the tests run it")

    measure("demo", f"episodes demo, {state}", lambda: run(home, "demo"), rounds=1, warm=False)


@pytest.mark.parametrize("arguments", [("--help",), ("results", "2018-03-07")], ids=" ".join)
def test_commands(measure: Measure, sizes: Sizes, home: Path, arguments: tuple[str, ...]) -> None:
    if "results" in arguments:
        if sizes.quick:
            pytest.skip("it needs the demo's days")
        embedded.start(home)  # as beside `episodes up`: the command finds it running

    measure("commands", f"episodes {' '.join(arguments)}", lambda: run(home, *arguments))


def run(home: Path, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "EPISODES_HOME": str(home), "DAGSTER_HOME": ""}
    subprocess.run(episodes_argv(*arguments), env=environment, check=True, capture_output=True)
    return {}
