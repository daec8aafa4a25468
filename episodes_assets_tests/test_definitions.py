"""The code location: what it holds, and that loading it needs no database."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import deserialize_value, serialize_value

from episodes_assets.definitions import build_defs
from episodes_assets.defs.assets import ASSETS, EXTERNAL
from episodes_assets.settings import PROJECT_FOLDER

pytestmark = pytest.mark.process

EXPECTED = {
    "input_episodes": ("input", {"input/episodes"}),
    "input_viewings": ("input", {"input/viewings"}),
    "tracked_episodes": ("planning", {"input_episodes", "tracked_episodes"}),
    "episode_jobs": ("planning", {"input_episodes", "input_viewings", "tracked_episodes"}),
    "job_outcomes": ("fleet", {"episode_jobs"}),
    "published_results": ("results", {"job_outcomes"}),
}
# What others own: the graph begins and ends with it.
EXPECTED_EXTERNAL = {
    "input/episodes": ("source", set()),
    "input/viewings": ("source", set()),
    "published/reach": ("consumers", {"published_results"}),
    "published/momentum": ("consumers", {"published_results"}),
    "published/retention": ("consumers", {"published_results"}),
}


def shape(specs: Iterable[dg.AssetSpec]) -> dict[str, tuple[str | None, set[str]]]:
    """The group of each asset and what it depends on."""
    return {
        spec.key.to_user_string(): (spec.group_name, {dep.asset_key.to_user_string() for dep in spec.deps})
        for spec in specs
    }


def test_the_graph() -> None:
    specs = {spec.key.to_user_string(): spec for asset in ASSETS for spec in asset.specs}
    assert shape(specs.values()) == EXPECTED
    for spec in specs.values():
        assert spec.description
        assert spec.owners == ["team:media-analytics"]
        assert spec.code_version
        assert spec.kinds
        assert isinstance(spec.partitions_def, dg.DailyPartitionsDefinition)
        assert spec.partitions_def.get_first_partition_key() == "2018-03-01"
    for asset in ASSETS:
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()
    mappings = {
        (name, dep.asset_key.to_user_string()): dep.partition_mapping
        for name, spec in specs.items()
        for dep in spec.deps
        if dep.partition_mapping
    }
    # One that leads from a day of an asset to the next day of another has backfills ask for a day too many.
    assert mappings == {
        ("tracked_episodes", "tracked_episodes"): dg.TimeWindowPartitionMapping(
            start_offset=-1, end_offset=-1
        )
    }


def test_what_others_own_in_the_graph() -> None:
    assert shape(EXTERNAL) == EXPECTED_EXTERNAL
    for spec in EXTERNAL:
        assert spec.description
        assert spec.owners
        assert "postgres" in spec.kinds
        assert spec.partitions_def is None


BLOCKING_CHECKS = {
    "drop_is_complete",
    "quarantine_is_small",
    "viewings_are_complete",
    "state_only_grows_and_matches_its_manifest",
    "every_due_row_has_one_job",
    "every_job_has_one_outcome",
    "published_rows_are_the_outcomes",
}
WARNING_CHECKS = {
    "drop_size_is_usual",
    "viewings_are_kept",
    "viewings_count_is_usual",
    "late_viewings_are_published",
    "job_count_is_usual",
    "planning_is_as_fast_as_usual",
    "yesterday_is_published",
}


def test_each_check_blocks_or_warns_and_is_documented() -> None:
    specs = {spec.name: spec for asset in ASSETS for spec in asset.check_specs}
    assert {name for name, spec in specs.items() if spec.blocking} == BLOCKING_CHECKS
    assert {name for name, spec in specs.items() if not spec.blocking} == WARNING_CHECKS
    documented = (PROJECT_FOLDER / "docs" / "checks.md").read_text(encoding="utf-8")
    for name, spec in specs.items():
        assert spec.description
        assert f"| `{spec.asset_key.to_user_string()}` | `{name}` |" in documented


def test_what_is_on_by_default() -> None:
    defs = build_defs()
    on = dg.DefaultSensorStatus.RUNNING
    assert {s.name: s.default_status for s in defs.sensors or []} == {
        "fan_out": on,
        "publish_finished_days": on,
        "alert_of_stalls": on,
        "freshness": on,
        "report_progress": on,
        "alert_people": on,
    }
    daily = defs.resolve_schedule_def("daily_plan")
    assert daily.default_status == dg.DefaultScheduleStatus.STOPPED
    nightly = defs.resolve_schedule_def("nightly_pruning")
    assert nightly.default_status == dg.DefaultScheduleStatus.RUNNING


@pytest.mark.long
def test_it_loads_in_a_fresh_interpreter_without_a_database(tmp_path: Path) -> None:
    program = (
        "import episodes_assets.definitions as d; "
        "d.defs.resolve_all_asset_keys(); "
        "import pathlib, sys; assert not pathlib.Path(sys.argv[1]).exists(); "
        # Each takes a tenth of a second or more, for one job or sensor alone, or for none.
        "assert not {'sqlalchemy', 'alembic', 'duckdb', 'httpx2', 'pgqueuer'} & sys.modules.keys()"
    )
    home = tmp_path / "home"
    subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:episodes_assets", "-c", program, str(home)],
        check=True,
        env={"PATH": "/usr/bin", "EPISODES_HOME": str(home)},
    )


def test_the_code_server_can_hand_all_of_it_on() -> None:
    """As JSON, which knows no enum of ours: one is refused only there, not when definitions load."""
    found = RepositorySnap.from_def(build_defs().get_repository_def())
    assert {node.asset_key for node in found.asset_nodes} >= {spec.key for spec in EXTERNAL}
    assert deserialize_value(serialize_value(found), RepositorySnap) == found


def test_a_worker_does_not_load_dagster() -> None:
    program = "import episodes_assets.cli.app, sys; sys.exit('dagster' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_row_is_looked_at_alone() -> None:
    for file in (PROJECT_FOLDER / "episodes_assets").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for word in ("axis=1", "iterrows", "itertuples"):
            assert word not in text, f"{file} has {word}"
