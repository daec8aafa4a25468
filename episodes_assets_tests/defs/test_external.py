"""What others own is shown in the graph and is nothing that any run, backfill or selection works on."""

import dagster as dg
import pytest

from episodes_assets.definitions import defs
from episodes_assets.defs.assets import ASSETS, EXTERNAL
from episodes_assets.defs.resources import build_resources
from episodes_assets.settings import load_settings
from episodes_assets_tests.defs.launchpad import ASSET_JOB, PARTITION, opened_ui
from episodes_assets_tests.support.system import System, day

pytestmark = pytest.mark.process

OURS = {spec.key for asset in ASSETS for spec in asset.specs}
NOT_OURS = {spec.key for spec in EXTERNAL}
NAMES = tuple(sorted(key.to_user_string() for key in OURS))
_NODES = "{ assetNodes { assetKey { path } isMaterializable isPartitioned } }"
_STALE = """
    query ($keys: [AssetKeyInput!], $day: String!) {
        assetNodes(assetKeys: $keys) { staleStatus(partition: $day) }
    }
"""


def selected(job: str | None) -> set[dg.AssetKey]:
    """The assets that a job works on; without a name, the one behind *Materialize*."""
    found = defs.resolve_job_def(job) if job else defs.resolve_implicit_global_asset_job_def()
    return {*found.asset_layer.selected_asset_keys}


@pytest.mark.parametrize("job", [None, "correct_day", "rework_days"])
def test_a_job_over_the_whole_graph_is_over_our_assets(job: str | None) -> None:
    assert selected(job) == OURS


def test_the_other_jobs_are_over_ours() -> None:
    assert selected("plan_day") | selected("publish_day") == OURS


def selected_by(text: str) -> set[dg.AssetKey]:
    job = dg.define_asset_job("job", text)
    defs = dg.Definitions(assets=[*ASSETS, *EXTERNAL], jobs=[job], resources=build_resources(load_settings))
    return {*defs.resolve_job_def("job").asset_layer.selected_asset_keys}


def test_a_selection_of_all_or_of_a_group_leaves_them_out() -> None:
    assert selected_by("*") == OURS
    assert selected_by("group:results") == {dg.AssetKey("published_results")}
    # The commands of Dagster are not as lenient as its UI.
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="resolve asset job") as refused:
        selected_by("published_results+")
    assert "must be a subset of existing executable asset keys" in str(refused.value.__cause__)


@pytest.mark.long
def test_what_was_worked_is_fresh_and_nothing_is_recorded_of_what_others_own(system: System) -> None:
    system.insert_drop(day(1), [(epid, 0, "2018-02-01", "2018-02-01") for epid in range(3)])
    one = str(day(1))
    with opened_ui() as ui, dg.DagsterInstance.get() as instance:
        with system.workers():
            assert ui.launch(ASSET_JOB, {}, {PARTITION: one}, NAMES) == ""
        nodes = {dg.AssetKey(node["assetKey"]["path"]): node for node in ui.ask(_NODES)}
        assert nodes.keys() == OURS | NOT_OURS
        assert {key for key, node in nodes.items() if node["isMaterializable"]} == OURS
        assert {key for key, node in nodes.items() if node["isPartitioned"]} == OURS
        stale = ui.ask(_STALE, keys=[{"path": key.path} for key in OURS], day=one)
        assert [node["staleStatus"] for node in stale] == ["FRESH"] * len(OURS)
        assert {*instance.get_asset_keys()} == OURS


def test_who_asks_for_one_by_name_is_refused(system: System) -> None:
    """As in the UI, whose button is not there for them: nothing is launched, and nothing is recorded."""
    with opened_ui() as ui, pytest.raises(AssertionError, match="InvalidSubsetError"):
        ui.launch(ASSET_JOB, {}, {PARTITION: str(day(1))}, ("input/episodes",))
    with dg.DagsterInstance.get() as instance:
        assert not instance.get_asset_keys()
        assert instance.get_runs_count() == 0
