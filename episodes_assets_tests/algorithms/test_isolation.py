"""Modules of algorithms run in the compute processes of workers, without secrets, and nowhere else."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from episodes_assets.postgres.databases import Purpose
from episodes_assets.settings import WITHHELD
from episodes_assets_tests.support.system import System, day

pytestmark = [pytest.mark.process, pytest.mark.slow]

# Notes in a file each process that runs it, with all that the process can see.
MODULE = """
import json, os, time
import pandas as pd
from pathlib import Path
from episodes_assets.algorithms.base import Algorithm, Metric

parent = Path(f"/proc/{{os.getppid()}}/cmdline").read_text().split("\\0")
seen = {{"parent": parent, "environment": dict(os.environ)}}
Path({folder!r}, f"{name}-{{os.getpid()}}.json").write_text(json.dumps(seen))
{on_import}

class OwnError(Exception):
    pass

def compute(viewings, jobs):
    if (jobs["window_start"] == pd.Timestamp("2018-02-13")).any():
        raise OwnError("poisoned")
    return pd.DataFrame({{"{name}_count": viewings.groupby("job").size().reindex(jobs.index, fill_value=0)}})

ALGORITHM = Algorithm(
    algorithm_id={number},
    name="{name}",
    version="1",
    description="",
    columns={{"{name}_count": Metric.INTEGER}},
    compute=compute,
)
"""
# Every module that any process of ours loads, but what a migration tool or a test harness runs.
LOADS_EVERYTHING = """
import importlib, pkgutil, sys
import episodes_assets
def walk(package):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.startswith(("episodes_assets.postgres.migrations", "episodes_assets.algorithms.")):
            continue
        module = importlib.import_module(found.name)
        if found.ispkg:
            walk(module)
walk(episodes_assets)
import episodes_assets.definitions as definitions
definitions.defs.resolve_all_asset_keys()
from episodes_assets.settings import load_settings
from episodes_assets.planning.drop import prepare_rules
prepare_rules()
load_settings(algorithm_timeout_seconds={"sleeps": 5})
print(sorted(name for name in sys.modules if name.startswith("episodes_assets.algorithms.")))
"""


class Modules:
    """Algorithms in a folder of their own, which every process finds that has `environment`."""

    def __init__(self, folder: Path) -> None:
        self._algorithms, self._seen, path = folder / "algorithms", folder / "seen", folder / "path"
        for each in (self._algorithms, self._seen, path):
            each.mkdir()
        (path / "sitecustomize.py").write_text(
            f"import episodes_assets.algorithms as found\nfound.__path__.append({str(self._algorithms)!r})\n"
        )
        self.environment = {"PYTHONPATH": str(path)}

    def add(self, number: int, name: str, on_import: str = "") -> None:
        text = MODULE.format(folder=str(self._seen), number=number, name=name, on_import=on_import)
        (self._algorithms / f"{name}.py").write_text(text)

    def add_text(self, name: str, text: str) -> None:
        (self._algorithms / f"{name}.py").write_text(text)

    @property
    def seen(self) -> list[Mapping[str, Any]]:
        return [json.loads(file.read_text()) for file in self._seen.iterdir()]


@pytest.fixture
def modules(tmp_path: Path) -> Modules:
    return Modules(tmp_path)


def test_no_command_runs_an_algorithm(
    system: System, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules.add(97, "sleeps", "time.sleep(12)")
    modules.add(98, "exits", "os._exit(7)")
    modules.add_text("half_written", "algorithm_id=99\ndef (\n")
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["dagster"])
    for arguments in (["--help"], ["users", "list"], ["db", "init"], ["db", "status"]):
        ended = system.cli(*arguments, env=modules.environment)
        assert ended.returncode == 0, (arguments, ended.stderr)
        # The one that cannot be read is named where algorithms are asked for, and hurts nothing.
        is_named = "half_written.py, line 2: invalid syntax" in ended.stderr
        assert is_named == (arguments[0] == "db"), (arguments, ended.stderr)
    views = system.query("results", "SELECT viewname FROM pg_views WHERE schemaname = 'published'")
    assert {("sleeps",), ("exits",), ("reach",)} <= set(views)
    assert modules.seen == []


def test_neither_the_code_location_nor_the_web_server_nor_a_worker_imports_an_algorithm(
    modules: Modules, tmp_path: Path
) -> None:
    modules.add(97, "sleeps", "time.sleep(12)")
    loaded = subprocess.run(
        [sys.executable, "-c", LOADS_EVERYTHING],
        env={**os.environ, **modules.environment, "EPISODES_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    own = ["base", "compute", "declaration", "registry"]
    assert loaded.stdout == f"{[f'episodes_assets.algorithms.{name}' for name in own]}\n"
    assert modules.seen == []


def test_an_algorithm_runs_in_a_compute_process_that_holds_no_secret(
    system: System, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules.add(97, "sees")
    monkeypatch.setenv("EPISODES_ADMIN_DSN", system.admin["dagster"])
    monkeypatch.setenv("EPISODES_OPENID_CLIENT_SECRET", "s3cret")
    monkeypatch.setenv("EPISODES_MAX_STARTS", "1")
    for epid, premiere in {1: "2018-02-01", 2: "2018-02-13"}.items():
        system.insert_drop(day(1), [(epid, number, premiere, premiere) for number in (0, 97)])
    system.cli("run", "2018-03-01", "--workers", "1", env=modules.environment)
    states = system.query(
        "queue", "SELECT epid, algorithm_id, state, error FROM ledger.job_states ORDER BY 1, 2"
    )
    assert states == [
        (1, 0, "succeeded", None),
        (1, 97, "succeeded", None),
        (2, 0, "succeeded", None),
        # Its class lives in the module: who unpickled it would import that.
        (2, 97, "held", "OwnError: poisoned"),
    ]
    (seen,) = modules.seen
    assert "worker" in seen["parent"]
    secrets = [*(system.dsn(purpose) for purpose in Purpose), system.admin["dagster"], "s3cret"]
    assert [name for name, value in seen["environment"].items() if value in secrets] == []
    assert seen["environment"]["EPISODES_WORKER_DSN"] == WITHHELD
